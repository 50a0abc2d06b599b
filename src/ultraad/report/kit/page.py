"""The template environment of every page."""

from __future__ import annotations

from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from ultraad.report.kit import words


@cache
def environment(package: str) -> Environment:
    """Jinja for the templates of a package, with those of the kit beside them; compiled once in a process.

    Everything is escaped unless it is marked as safe, and a name that the template does not know is an error.

    Args:
        package: Package that holds the page's templates.
    """
    env = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("ultraad.report.kit", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals |= {"DASH": words.DASH, "count": words.count, "share": words.share}
    env.filters |= {"breakable": words.breakable, "decimals": words.decimals}
    return env
