"""Metrics from predictions: numpy arrays in, plain records out, no torch.

``summary.Evaluation`` collects a whole evaluation, ``catalogue`` describes every metric.
"""

from __future__ import annotations

from ultraad.metrics.metric import Metric
from ultraad.metrics.summary import Evaluation

__all__ = ["Evaluation", "Metric"]
