"""From the look of one scanner to that of another, without pairs of images: the cheap ways that need no training."""

from __future__ import annotations

from ultraad.translate.folder import Translated, translate
from ultraad.translate.style import WAYS, Style, Way, restyle

__all__ = ["WAYS", "Style", "Translated", "Way", "restyle", "translate"]
