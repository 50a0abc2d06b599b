"""Methods, layouts and backbones by name: ``<package>/foo.py`` ending in ``ATTRIBUTE = ...`` is found as ``"foo"``.

A file whose name begins with ``_`` is a helper, not an entry. ``"package.module:NAME"`` finds an object elsewhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ultraad.errors import ConfigError


def names(package: str) -> list[str]:
    """Names of all entries of a package, sorted. No entry is imported.

    Args:
        package: Its dotted name, such as ``"ultraad.methods"``.
    """
    return sorted(m.name for m in iter_modules(import_module(package).__path__) if not m.name.startswith("_"))


def find(package: str, name: str, attribute: str, *, kind: str) -> Any:  # noqa: ANN401
    """The object with a name.

    Args:
        package: Dotted name of the package that holds the entries.
        name: One of :func:`names`, or ``"package.module:NAME"`` for an object outside the package.
        attribute: The last name in an entry's file, such as ``"METHOD"``.
        kind: What the object is, for messages: ``"method"``.

    Raises:
        ConfigError: If there is no such object; the message suggests a similar name. Also if a file without
            ``attribute`` is among the entries.
    """
    known = names(package)
    if ":" in name:
        return _outside(name, kind=kind, known=known)
    if name not in known:
        hint = did_you_mean(name, known) or ";"
        msg = f"unknown {kind} {name!r}{hint} available: {', '.join(known)}, or 'package.module:NAME'"
        raise ConfigError(msg)
    module = import_module(f"{package}.{name}")
    if not hasattr(module, attribute):
        msg = (
            f"{module.__file__} is not a {kind}: it has no {attribute}. End the file with {attribute} = ..., "
            f"or, if it is a helper, name it _{name}.py"
        )
        raise ConfigError(msg)
    return getattr(module, attribute)


def _outside(name: str, *, kind: str, known: Iterable[str]) -> Any:  # noqa: ANN401
    module_name, _, attribute = name.partition(":")
    wanted = "Wanted 'package.module:NAME' of something that is installed here"
    try:
        module = import_module(module_name)
    except (ImportError, ValueError) as e:
        absent = (isinstance(e, ModuleNotFoundError) and e.name) or ""
        hint = ""
        if f"{module_name}.".startswith(f"{absent}."):  # the module itself is absent, not one that it imports
            parent, _, last = absent.rpartition(".")
            places = getattr(import_module(parent), "__path__", ()) if parent else None
            siblings = [m.name for m in iter_modules(places)]
            hint = did_you_mean(last, siblings if parent else [*known, *siblings])
        msg = f"cannot import the {kind} {name!r}: {e}{hint}. {wanted}".replace("?.", "?")
        raise ConfigError(msg) from e
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, vars(module)) or "."
        msg = f"cannot import the {kind} {name!r}: {module_name} has no {attribute!r}{hint} {wanted}"
        raise ConfigError(msg)
    return getattr(module, attribute)


def similar(name: str, options: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """The options that are most similar to a name, the best first; case does not matter.

    Args:
        name: As it was written.
        options: What may have been meant.
        count: Most options returned.
        cutoff: Least similarity in [0, 1], the ratio of :mod:`difflib`.
    """
    by_lower = {o.casefold(): o for o in options}
    return [by_lower[o] for o in difflib.get_close_matches(name.casefold(), by_lower, n=count, cutoff=cutoff)]


def did_you_mean(name: str, options: Iterable[str], *, cutoff: float = 0.6) -> str:
    """``"; did you mean 'x'?"``, or ``""`` if no option is similar; see :func:`similar`."""
    return "".join(f"; did you mean {option!r}?" for option in similar(name, options, cutoff=cutoff))
