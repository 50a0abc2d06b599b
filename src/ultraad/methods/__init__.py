"""Methods by name: ``methods/foo.py`` ending in ``METHOD = Foo`` is found as ``"foo"``."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from ultraad.errors import ConfigError

if TYPE_CHECKING:
    from ultraad.methods.base import Method


def available() -> list[str]:
    """Names of all methods in this package, sorted; nothing is imported."""
    return sorted(m.name for m in iter_modules(__path__) if m.name != "base")


def get(name: str) -> type[Method]:
    """The method class behind a name.

    Args:
        name: A module name in this package, or ``"package.module:Class"`` for one from outside.

    Raises:
        ConfigError: If there is no such method; the message lists those there are.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found: type[Method] = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as e:
            msg = f"cannot import method {name!r}: {e}. Wanted 'package.module:Class'"
            raise ConfigError(msg) from e
        return found
    if name not in available():
        msg = f"unknown method {name!r}; available: {', '.join(available())}, or 'package.module:Class'"
        raise ConfigError(msg)
    method: type[Method] = import_module(f"ultraad.methods.{name}").METHOD
    return method
