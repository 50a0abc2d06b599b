"""UltraAD (Zhou et al., MICCAI 2025, arXiv 2506.19694)."""

from ultraad.methods.ultraad.config import UltraADConfig
from ultraad.methods.ultraad.method import UltraAD

METHOD = UltraAD

__all__ = ["METHOD", "UltraAD", "UltraADConfig"]
