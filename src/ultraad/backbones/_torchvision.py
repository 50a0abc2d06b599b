"""Import torchvision and open_clip: with a torch build that does not fit, and without torch's compiler.

A CPU-only torch with PyPI's (CUDA) torchvision is common on laptops. torchvision then cannot load its operator library,
and the import fails with "operator torchvision::nms does not exist". open_clip and timm need only torchvision's
transforms, so this module declares the two missing operators. If the library loads, it does nothing.

torchvision and timm import torch's compiler for one function and one decorator that ultraad never calls. That takes as
long as everything else together, more than a second at the start of every command, so it waits until they are called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import torch._compile

_COMPILER = "torch._dynamo.utils"


def ensure_torchvision() -> None:
    """Import torchvision and open_clip; if torchvision fails, declare the missing operators and import it again."""
    if "open_clip" in sys.modules:
        return
    with _compiler_later():
        try:
            importlib.import_module("torchvision")
        except RuntimeError as e:
            if "torchvision::nms does not exist" not in str(e):
                raise
            for name in ("nms", "qnms"):
                signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", signature)
            for module in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
                del sys.modules[module]
            importlib.import_module("torchvision")
        importlib.import_module("open_clip")


@contextmanager
def _compiler_later() -> Iterator[None]:
    """Inside, what is imported gets a stand-in for the compiler, which imports it when it is used."""
    lazily: Callable[..., Any] | None = getattr(torch._compile, "_disable_dynamo", None)  # torch's own way
    if lazily is None or "torch._dynamo" in sys.modules:
        yield
        return
    stand_in, at_once = ModuleType(_COMPILER), torch.compiler.disable

    def real(name: str) -> Any:  # noqa: ANN401  # whatever the module holds
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]
        return getattr(importlib.import_module(_COMPILER), name)

    def is_compile_supported(device: str) -> bool:
        return bool(real("is_compile_supported")(device))

    def disable(fn: Callable[..., Any] | None = None, recursive: bool = True, **_: object) -> Any:  # noqa: ANN401, FBT001, FBT002  # as torch's
        return lazily(fn, recursive)

    vars(stand_in).update(__getattr__=real, is_compile_supported=is_compile_supported)
    sys.modules[_COMPILER], torch.compiler.disable = stand_in, disable
    try:
        yield
    finally:
        torch.compiler.disable = at_once
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]
