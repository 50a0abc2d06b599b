"""docs/file-formats.md: the tables of fields and metrics, from the typed rows and the catalogue."""

from __future__ import annotations

from docs.build import ROOT
from docs.build._fields import fields
from docs.build._markdown import filled, table

from ultraad.metrics import catalogue
from ultraad.metrics.catalogue import Kind
from ultraad.results.row import ImageRow, LesionRow, Run, VideoFacts

PAGE = ROOT / "docs" / "file-formats.md"
_KINDS: dict[Kind, str] = {"image": "detection", "pixel": "localisation", "class": "grading"}


def text() -> str:
    """The page with its tables."""
    metrics = [
        (f"`{key}`", catalogue.METRICS[key].title, words, catalogue.METRICS[key].about)
        for kind, words in _KINDS.items()
        for key in catalogue.of_kind(kind)
    ]
    tables = {
        "predictions.jsonl": fields(ImageRow),
        "lesions": fields(LesionRow),
        "run.json": fields(Run),
        "videos": fields(VideoFacts),
        "metrics": table(("key", "title", "of", "what it says"), metrics),
    }
    return filled(PAGE.read_text(encoding="utf-8"), tables)
