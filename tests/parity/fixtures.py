"""Reference outputs, and the tiny CLIP they were made with."""

from __future__ import annotations

import json
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.parity.trim import EMBEDDING, HERE
from ultraad.backbones._door import Backbone
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.types import PreprocessConfig

MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP's
STD = (0.26862954, 0.26130258, 0.27577711)
Positions = Literal["bicubic_antialias", "bicubic", "bilinear"]


def golden(name: str) -> dict[str, torch.Tensor]:
    """The reference tensors of one fixture; a missing file is a failure, not a skip.

    ``inputs`` has its pictures as bytes; the normalised ``image_clip`` and ``image_clip_154`` are made from them.
    """
    tensors = load_file(HERE / f"{name}.safetensors")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    for key in [key for key in tensors if key.startswith("image_u8")]:
        unit = tensors[key].permute(0, 3, 1, 2).float() / 255
        tensors[key.replace("u8", "clip")] = (unit - mean) / std
    return tensors


def clip_mini(*, gelu: bool = False, size: int = 112, positions: Positions = "bicubic_antialias") -> torch.nn.Module:
    """The reference CLIP as an open_clip model, rows of words that no test uses set to zero.

    Args:
        gelu: Exact GELU instead of QuickGELU, as in several references.
        size: Input side in pixels; the weights' own is 112.
        positions: How the position embedding is resized for another input side.
    """
    ensure_torchvision()
    import open_clip

    config = json.loads((HERE / "clip-mini.json").read_text())
    config["quick_gelu"] = not gelu
    config["vision_cfg"]["image_size"] = size
    model = open_clip.CLIP(**config)
    state = {key: value.float() for key, value in load_file(HERE / "clip-mini.safetensors").items()}
    rows = state.pop("token_rows").long()
    full = torch.zeros_like(model.token_embedding.weight)
    full[rows] = state[EMBEDDING]
    place = state["visual.positional_embedding"]
    side, new = round((len(place) - 1) ** 0.5), size // 14
    if new != side:
        mode, antialias = ("bicubic", True) if positions == "bicubic_antialias" else (positions, False)
        square = place[1:].T.reshape(1, -1, side, side)
        grid = F.interpolate(square, (new, new), mode=mode, antialias=antialias, align_corners=False)
        state["visual.positional_embedding"] = torch.cat([place[:1], grid.reshape(place.shape[1], -1).T])
    model.load_state_dict({**state, EMBEDDING: full})
    return model


def mini(*, gelu: bool = False, size: int = 112, positions: Positions = "bicubic_antialias") -> Backbone:
    """The same behind the door; see :func:`clip_mini`."""
    model = clip_mini(gelu=gelu, size=size, positions=positions)
    import open_clip

    return Backbone(
        model,
        open_clip.tokenize,
        name="clip-mini",
        preprocess=PreprocessConfig(size=size, mean=MEAN, std=STD),
    )
