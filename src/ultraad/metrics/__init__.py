"""Numbers from predictions: numpy in, plain records out, no torch.

``summary.Evaluation`` collects a whole evaluation; the other modules hold one kind of metric each.
"""

from __future__ import annotations

from ultraad.metrics.metric import Metric
from ultraad.metrics.summary import Evaluation

__all__ = ["Evaluation", "Metric"]
