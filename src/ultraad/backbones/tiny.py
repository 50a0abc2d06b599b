"""Random weights, for tests only; a few milliseconds per batch.

``tiny`` has equal text and joint widths, like OpenAI's models. In ``tiny:uneven`` every size differs, so that a size
hard-coded in a method fails.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from ultraad.backbones._door import Backbone, DType
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.errors import ConfigError
from ultraad.types import PreprocessConfig

_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 4, "width": 64, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "uneven": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 60, "layers": 6, "width": 96, "head_width": 32, "patch_size": 12},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3},
        "quick_gelu": True,
    },
}


def load(variant: str, *, name: str, device: str, dtype: DType, size: int | None) -> Backbone:
    """The random backbone of this variant, with the same weights every time."""
    ensure_torchvision()
    from open_clip import tokenize

    if variant not in _SHAPES:
        msg = f"unknown backbone {name!r}; wanted {', '.join(sorted(f'tiny:{v}'.rstrip(':') for v in _SHAPES))}"
        raise ConfigError(msg)
    side = size or int(_SHAPES[variant]["vision_cfg"]["image_size"])
    half = (0.5, 0.5, 0.5)
    return Backbone(
        copy.deepcopy(_drawn(variant, side)),
        tokenize,
        name=name,
        preprocess=PreprocessConfig(size=side, mean=half, std=half),
        device=device,
        dtype=dtype,
    )


@cache
def _drawn(variant: str, side: int) -> nn.Module:
    """The random model; drawing its words takes longer than a few predictions, and tests load it hundreds of times."""
    from open_clip import CLIP

    shape = _SHAPES[variant]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = CLIP(**{**shape, "vision_cfg": {**shape["vision_cfg"], "image_size": side}})
    return model


BACKBONE = load
