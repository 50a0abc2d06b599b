"""``ultraad methods``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ultraad.cli.console import describe, heading, say

if TYPE_CHECKING:
    from ultraad.config import Option
    from ultraad.methods._base import Method


def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method with all its options.")] = None,
) -> None:
    """List the methods and what each needs, or show one method with its options and their defaults.

    Example: ultraad methods tip_adapter
    """
    from ultraad.methods import _guide as guide
    from ultraad.methods import get

    if name is not None:
        _show(get(name))
        return
    for group, members in guide.grouped().items():
        heading(group)
        say()
        for info in (method.info for method in members):
            facts = (info.idea, f"needs {guide.needs(info)}", f"gives {guide.gives(info)}", info.paper)
            describe([(info.name, "\n".join(filter(None, facts)))], column=18, indent=2)
            say()
    say("'ultraad methods NAME' shows one method with all its options.")


def _show(method: type[Method]) -> None:
    from ultraad.config import options
    from ultraad.methods import _guide as guide
    from ultraad.model.calibration import CalibrationConfig

    info = method.info
    heading(info.title)
    say()
    facts = {
        "idea": info.idea,
        "paper": f"{info.paper}\n{info.url}",
        "reference": f"{info.reference} ({info.licence})",
        "needs": guide.needs(info),
        "enough alone": guide.enough(method),
        "gives": guide.gives(info),
        "learned": info.learned,
        "deviations": "\n".join(f"- {deviation}" for deviation in info.deviations),
    }
    describe([(term, text) for term, text in facts.items() if text], column=12)
    thresholds = [replace(o, key=f"calibration.{o.key}") for o in options(CalibrationConfig)]
    for section, members in {**guide.sections(method), "Thresholds.": thresholds}.items():
        say()
        heading(section or "Options, for --set KEY=VALUE.")
        say()
        describe([_entry(o) for o in members], column=32, indent=2)


def _entry(option: Option) -> tuple[str, str]:
    """Key with its default, and the text; a long default moves to the text."""
    from ultraad.methods import _guide as guide

    default, text = guide.value(option.default), f"{option.values}\n{option.description}"
    if len(default) > 40:
        return option.key, f"{default}\n{text}"
    return f"{option.key} = {default}", text
