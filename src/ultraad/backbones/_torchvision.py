"""Make ``import torchvision`` work beside a torch build its compiled operators were not made for.

A CPU-only torch next to PyPI's (CUDA) torchvision is a common pair on laptops. torchvision then cannot load its
operator library, and its import dies with "operator torchvision::nms does not exist". open_clip and timm need only
torchvision's transforms, so the two operator names that the import registers a fake for are declared here first.
Where the library does load, nothing is done.
"""

from __future__ import annotations

import importlib
import sys

import torch


def ensure_torchvision() -> None:
    """Import torchvision; declare the operators its import trips over if the first try fails."""
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
