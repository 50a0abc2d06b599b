"""THIRD_PARTY.md: the table of methods between its markers, from what each method says about itself."""

from __future__ import annotations

from docs.build import ROOT
from docs.build._markdown import filled, plain, table

from ultraad import methods

PAGE = ROOT / "THIRD_PARTY.md"


def text() -> str:
    """The page with its marked region filled."""
    found = [methods.get(name).info for name in methods.available()]
    rows = [(f"`methods/{i.name}`", f"[{i.paper}]({i.url})", plain(i.reference), plain(i.licence)) for i in found]
    header = ("method", "paper", "reference implementation", "its licence")
    return filled(PAGE.read_text(encoding="utf-8"), {"methods": table(header, rows)})
