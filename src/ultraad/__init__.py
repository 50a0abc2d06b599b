"""ultraad: few-shot CLIP for ultrasound. Localise lesions, detect abnormal images, grade them.

    support = ultraad.draw_support(ultraad.samples(), shots=4)
    model = ultraad.adapt(support)
    ultraad.predict(model, "scans", "predictions")
    ultraad.evaluate(model, "DATA/BUSI")["metrics"]["image_auroc"]

Importing the package loads nothing heavy: each public name is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOME = {
    "adapt": "ultraad.model.adapt",
    "load": "ultraad.model.model",
    "zero_shot": "ultraad.model.adapt",
    "Model": "ultraad.model.model",
    "predict": "ultraad.runs.predict",
    "evaluate": "ultraad.runs.evaluate",
    "draw_support": "ultraad.data.support",
    "load_support": "ultraad.data.support",
    "scan": "ultraad.data.sources",
    "samples": "ultraad.data.samples",
    "load_backbone": "ultraad.backbones",
    "Sample": "ultraad.types",
    "SupportSet": "ultraad.types",
    "Prediction": "ultraad.types",
    "UltraadError": "ultraad.errors",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from ultraad.backbones import load_backbone as load_backbone
    from ultraad.data.samples import samples as samples
    from ultraad.data.sources import scan as scan
    from ultraad.data.support import draw_support as draw_support
    from ultraad.data.support import load_support as load_support
    from ultraad.errors import UltraadError as UltraadError
    from ultraad.model.adapt import adapt as adapt
    from ultraad.model.adapt import zero_shot as zero_shot
    from ultraad.model.model import Model as Model
    from ultraad.model.model import load as load
    from ultraad.runs.evaluate import evaluate as evaluate
    from ultraad.runs.predict import predict as predict
    from ultraad.types import Prediction as Prediction
    from ultraad.types import Sample as Sample
    from ultraad.types import SupportSet as SupportSet


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOME:
        msg = f"module 'ultraad' has no attribute {name!r}; public names: {', '.join(sorted(_HOME))}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
