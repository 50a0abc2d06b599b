"""Methods by name: ``methods/foo.py`` ending in ``METHOD = Foo`` is found as ``"foo"``.

A method's own file imports ``Method``, ``MethodConfig``, ``MethodInfo`` and ``Needs`` from here, and ``Holding`` if its
options decide what it needs. They are resolved on first use, so listing the methods does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultraad import registry

if TYPE_CHECKING:
    from ultraad.methods._base import Method, MethodConfig, MethodInfo
    from ultraad.methods._needs import Holding, Needs

__all__ = ["Holding", "Method", "MethodConfig", "MethodInfo", "Needs", "available", "get"]


def available() -> list[str]:
    """Names of all methods in this package, sorted; none is imported."""
    return registry.names(__name__)


def get(name: str) -> type[Method]:
    """The method class of this name.

    Args:
        name: One of :func:`available`, or ``"package.module:Class"`` for a method outside this package.

    Raises:
        ConfigError: If there is no such method; the message suggests the nearest.
    """
    found: type[Method] = registry.find(__name__, name, "METHOD", kind="method")
    return found


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name in __all__:
        from ultraad.methods import _base

        return getattr(_base, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
