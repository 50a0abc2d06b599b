"""A model adapted in about a second, for the tests of everything that comes after adapting."""

from __future__ import annotations

from pathlib import Path

from ultraad.data.support import draw_support
from ultraad.model.adapt import adapt
from ultraad.model.model import Model

QUICK = {"train.epochs": 1, "train.views": 1, "calibration.folds": 2}


def adapted(folder: Path, *, shots: int = 2, **options: object) -> Model:
    """UltraAD on random towers, from a data set in any layout."""
    return adapt(draw_support(folder, shots=shots), backbone="tiny", options={**QUICK, **options})
