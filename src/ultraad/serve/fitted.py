"""What the worker says about a model that it fitted or loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ultraad.errors import ConfigError
from ultraad.serve.decode import SAMPLES
from ultraad.serve.outcomes import ModelFacts
from ultraad.serve.project import now
from ultraad.types import SupportSet

if TYPE_CHECKING:
    from ultraad.model.model import Model

LEVEL = "0.9"
"""Of prediction sets, as ``--sets`` has it."""
_FAN = "only the fan of the probe counts as tissue: of a picture on black, the rest is black for the model"


def with_sets(model: Model) -> tuple[Model, str]:
    """The model with prediction sets at :data:`LEVEL`, and what they promise; without them, and why there are none."""
    try:
        armed = model.with_sets(LEVEL)
    except ConfigError as e:
        if not model.calibration.held_out:
            return model, "no prediction sets: no marked image was held out to promise anything"
        return model, f"no {str(e).replace(f'sets {LEVEL}', f'prediction sets at {100 * float(LEVEL):g} %', 1)}"
    assert armed.sets is not None
    return armed, armed.sets.note


def support_of(found: Mapping[str, Any]) -> SupportSet:
    """A support set from its JSON: samples, classes, normal class and source."""
    from ultraad.data.support import content_hash, digest

    samples = tuple(SAMPLES.validate_python(found["samples"]))
    return SupportSet(
        samples=samples,
        classes=tuple(found["classes"]),
        normal_class=found["normal_class"],
        shots=min(Counter(s.label for s in samples).values()),
        seed=0,
        source=found["source"],
        digest=digest((s.id for s in samples), map(content_hash, samples)),
    )


def facts_of(
    model: Model, order: Mapping[str, Any], *, support: SupportSet | None, seconds: float, digest: str | None = None
) -> ModelFacts:
    """What is stored about a model.

    Args:
        model: Fitted.
        order: What the worker was told to do.
        support: What it was adapted to; None without images.
        seconds: Wall time of the fit.
        digest: None takes that of the model.
    """
    calibration = model.calibration
    return ModelFacts(
        number=order["number"],
        made=now(),
        method=model.method.info.name,
        backbone=model.backbone.name,
        options=order.get("options") or {},
        classes=model.classes,
        normal_class=model.normal_class,
        seconds=round(seconds, 2),
        support=dict(Counter(s.label or "" for s in support.samples)) if support else {},
        places=tuple(map(tuple, order.get("places", ()))),
        digest=model.digest if digest is None else digest,
        image_threshold=calibration.image_threshold,
        pixel_threshold=calibration.pixel_threshold,
        threshold_from="cross-validation" if calibration.folds else "fixed",
        notes=(*model.origin.notes, *calibration.notes, *((_FAN,) if model.fan == "auto" else ())),
        fan=model.fan,
        sets=with_sets(model)[1],
        used_held_out=bool(order.get("use_held_out")),
        estimates={k: (e.value, e.low, e.high, e.n) for k, e in calibration.estimates.items()},
    )
