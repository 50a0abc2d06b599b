"""The page about a trained translation: is its uncertainty calibrated, and what does it do to pictures?"""

from __future__ import annotations

from ultraad.report.translation.page import Panels, TranslationReport, render

__all__ = ["Panels", "TranslationReport", "render"]
