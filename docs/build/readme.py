"""README.md: its tables of methods and backbones, the names of layouts, and the number of methods, between markers."""

from __future__ import annotations

from importlib import import_module

from docs.build import ROOT
from docs.build._markdown import filled, plain, table

from ultraad import backbones, methods
from ultraad.backbones._towers import ABOUT
from ultraad.data import sources
from ultraad.methods import _guide as guide

PAGE = ROOT / "README.md"


def text() -> str:
    """The page with its marked regions filled."""
    regions = {"count": str(len(methods.available())), "methods": _methods(), "layouts": _layouts()}
    return filled(PAGE.read_text(encoding="utf-8"), {**regions, "backbones": _backbones()})


def _methods() -> str:
    found = [method.info for members in guide.grouped().values() for method in members]
    rows = [(f"[`{i.name}`](docs/methods.md#{i.name})", plain(i.title), guide.needs(i), guide.gives(i)) for i in found]
    return table(("name", "method", "needs", "gives"), rows)


def _layouts() -> str:
    return ", ".join(f"`{name}`" for name in sources.available()) + ".\n"


def _backbones() -> str:
    """A tower says what it is; of any other backbone, the first line of its module's docstring does."""

    def about(name: str) -> str:
        if name in ABOUT:
            return ABOUT[name]
        return (import_module(f"ultraad.backbones.{name}").__doc__ or "").partition("\n")[0].replace("``", "`")

    return table(("name", "backbone"), [(f"`{name}`", about(name)) for name in backbones.available()])
