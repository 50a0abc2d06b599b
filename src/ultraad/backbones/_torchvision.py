"""Make ``import torchvision`` work with a torch build that does not fit its compiled operators.

A CPU-only torch with PyPI's (CUDA) torchvision is common on laptops. torchvision then cannot load its operator library,
and the import fails with "operator torchvision::nms does not exist". open_clip and timm need only torchvision's
transforms, so this module declares the two missing operators. If the library loads, it does nothing.
"""

from __future__ import annotations

import importlib
import sys

import torch


def ensure_torchvision() -> None:
    """Import torchvision; if that fails, declare the missing operators and import it again."""
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
