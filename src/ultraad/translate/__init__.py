"""From the look of one scanner to that of another, without pairs of images: cheap ways, and one that is trained."""

from __future__ import annotations

from ultraad.translate.folder import WAYS, Translated, Way, translate
from ultraad.translate.style import STYLES, Style, StyleWay, restyle

__all__ = ["STYLES", "WAYS", "Style", "StyleWay", "Translated", "Way", "restyle", "translate"]
