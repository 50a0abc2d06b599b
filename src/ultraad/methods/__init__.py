"""Methods by name: ``methods/foo.py`` ending in ``METHOD = Foo`` is found as ``"foo"``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultraad import registry

if TYPE_CHECKING:
    from ultraad.methods._base import Method


def available() -> list[str]:
    """Names of all methods in this package, sorted; none is imported."""
    return registry.names(__name__)


def get(name: str) -> type[Method]:
    """The method class behind a name.

    Args:
        name: One of :func:`available`, or ``"package.module:Class"`` for one from outside.

    Raises:
        ConfigError: If there is no such method; the message suggests the nearest.
    """
    found: type[Method] = registry.find(__name__, name, "METHOD", kind="method")
    return found
