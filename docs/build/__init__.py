"""The generated pages: ``python -m docs.build`` writes all of them.

A module of this folder writes one page: ``PAGE`` is its path, ``text()`` its content.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

ROOT = Path(__file__).parents[2]


def pages() -> Iterator[tuple[Path, str]]:
    """(page, what it should contain) for every generated page."""
    for module in iter_modules(__path__):
        if not module.name.startswith("_"):
            builder = import_module(f"{__name__}.{module.name}")
            yield builder.PAGE, builder.text()
