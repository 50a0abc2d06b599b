"""What the support images promised about the thresholds, beside what a data set gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ultraad.model.operating_point import at
from ultraad.model.predictor import Predictor
from ultraad.results.row import Thresholds

Gap = dict[str, dict[str, float | None]]


def transfer_gap(
    model: Predictor, thresholds: Thresholds, metrics: Mapping[str, Mapping[str, Any]]
) -> tuple[Gap, tuple[str, ...]]:
    """How far the rates at the thresholds are from those of the held-out support images.

    Those of a threshold that was moved to another scanner are the rates at the threshold before.

    Args:
        model: Any model.
        thresholds: Of the evaluation.
        metrics: Of the evaluation, as in ``metrics.json``.

    Returns:
        ``{"sensitivity": {"held_out", "measured"}, "specificity": ..., "dice": {"stored", "oracle"}}`` as far as both
        numbers are known, and a sentence about the rates.
    """
    assert thresholds.image is not None  # known to every run that predicts
    calibration, value = model.calibration, thresholds.image
    if calibration.transfer is not None and value == calibration.image_threshold:  # promised before it was moved
        value, calibration = calibration.transfer.before, calibration.model_copy(update={"transfer": None})
    point = at(calibration, value, rule="")
    gap: Gap = {}
    told = list[str]()
    for name, promised in (("sensitivity", point.sensitivity), ("specificity", point.specificity)):
        measured = metrics[f"image_{name}"]["value"]
        if promised is not None and measured is not None:
            gap[name] = {"held_out": promised.value, "measured": measured}
            told.append(
                f"{name} is {measured:.3f} here and {promised.value:.3f} on {promised.n} held-out support images"
            )
    stored, oracle = (metrics[key]["value"] for key in ("dice", "dice_oracle"))
    if stored is not None and oracle is not None:
        gap["dice"] = {"stored": stored, "oracle": oracle}
    return gap, (f"at the image threshold, {'; '.join(told)}",) if told else ()
