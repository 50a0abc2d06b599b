"""docs/translation.md: the options of the trained way between the markers, from their descriptions."""

from __future__ import annotations

from docs.build import ROOT
from docs.build._markdown import filled, plain, table

from ultraad.config import options
from ultraad.translate.cycle import CycleConfig

PAGE = ROOT / "docs" / "translation.md"


def text() -> str:
    """The page with its marked region filled."""
    rows = [(f"`{o.key}`", f"`{o.default}`", plain(o.values), plain(o.description)) for o in options(CycleConfig)]
    return filled(
        PAGE.read_text(encoding="utf-8"), {"options": table(("option", "default", "values", "meaning"), rows)}
    )
