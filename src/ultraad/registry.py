"""Methods, layouts and backbones by name: ``<package>/foo.py`` ending in ``ATTRIBUTE = ...`` is found as ``"foo"``.

A file whose name begins with ``_`` is no entry. ``"package.module:NAME"`` finds an object outside the package.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from ultraad.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable


def names(package: str) -> list[str]:
    """Names of all entries of a package, sorted. Only the package itself is imported.

    Args:
        package: Its dotted name, such as ``"ultraad.methods"``.
    """
    return sorted(m.name for m in iter_modules(import_module(package).__path__) if not m.name.startswith("_"))


def find(package: str, name: str, attribute: str, *, kind: str) -> Any:  # noqa: ANN401
    """The object behind a name.

    Args:
        package: Dotted name of the package that holds the entries.
        name: One of :func:`names`, or ``"package.module:NAME"`` for an object from outside.
        attribute: What an entry's file ends in, such as ``"METHOD"``.
        kind: What it is, for messages: ``"method"``.

    Raises:
        ConfigError: If there is no such entry. The message suggests the nearest names.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as e:
            msg = f"cannot import {kind} {name!r}: {e}. Wanted 'package.module:NAME' of something installed here"
            raise ConfigError(msg) from e
    known = names(package)
    if name not in known:
        hint = did_you_mean(name, known)
        msg = f"unknown {kind} {name!r}{hint or ';'} available: {', '.join(known)}, or 'package.module:NAME'"
        raise ConfigError(msg)
    return getattr(import_module(f"{package}.{name}"), attribute)


def did_you_mean(name: str, options: Iterable[str], *, cutoff: float = 0.6) -> str:
    """``"; did you mean 'x'?"``, or nothing if no option is similar enough.

    Args:
        name: As it was written.
        options: What it may have meant.
        cutoff: Least similarity in [0, 1], the ratio of :mod:`difflib`.
    """
    by_lower = {o.casefold(): o for o in options}
    close = difflib.get_close_matches(name.casefold(), by_lower, n=1, cutoff=cutoff)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
