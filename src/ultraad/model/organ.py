"""The organ in the images and the organ in the sentences should be the same one."""

from __future__ import annotations

import logging
from typing import Any

from ultraad.data import sources
from ultraad.model.predictor import Predictor
from ultraad.texts.bank import breast_texts, load_texts, organs

_log = logging.getLogger(__name__)


def with_sentences(config: Any, source: str) -> Any:  # noqa: ANN401
    """The options of a method with the text bank of the organ in the images, if no bank was chosen.

    Args:
        config: Options of any method; those of a method without sentences are returned unchanged.
        source: ``"<layout>:<root>"`` of the images that the method learns from.

    Returns:
        The options. A warning says if no bank of that organ ships.
    """
    organ = _organ_of(source.partition(":")[0])
    if not organ or "texts" not in type(config).model_fields or config.texts is not None:
        return config
    if organ in organs():
        return config if organ == breast_texts().organ else config.model_copy(update={"texts": load_texts(organ)})
    _warn(images=organ, sentences=breast_texts().organ)
    return config


def check_sentences(model: Predictor, layout: str | None) -> None:
    """Warn if a model's sentences describe another organ than the images of a layout show."""
    options = model.describe().options
    if "texts" not in options:
        return
    organ, described = _organ_of(layout or ""), (options["texts"] or {}).get("organ") or breast_texts().organ
    if organ and organ != described:
        _warn(images=organ, sentences=described)


def _organ_of(layout: str) -> str:
    return sources.get(layout).organ if layout in sources.available() else ""


def _warn(*, images: str, sentences: str) -> None:
    advice = f"--texts {images}" if images in organs() else "your own: --texts FILE"
    _log.warning(
        "the images show the %s, but the sentences of the model describe the %s; give it %s", images, sentences, advice
    )
