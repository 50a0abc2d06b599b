"""docs/bench-format.md: the tables of fields, from the typed rows."""

from __future__ import annotations

from docs.build import ROOT
from docs.build._fields import fields
from docs.build._markdown import filled

from ultraad.bench.row import Bench, ImageLine, Row

PAGE = ROOT / "docs" / "bench-format.md"


def text() -> str:
    """The page with its tables."""
    tables = {"results.jsonl": fields(Row), "predictions.jsonl": fields(ImageLine), "bench.json": fields(Bench)}
    return filled(PAGE.read_text(encoding="utf-8"), tables)
