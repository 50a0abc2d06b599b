"""What a CLIP must have to go through the door."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from ultraad.errors import ConfigError, WeightsError


def require_vit(name: str, visual: Any, text: Any) -> None:  # noqa: ANN401
    """Check that the towers are of the supported kind."""
    if not all(hasattr(visual, a) for a in ("_embeds", "_pool", "class_embedding", "positional_embedding")):
        msg = f"{name}: the image tower is {type(visual).__name__}; ultraad needs an open_clip ViT with patch tokens"
        raise ConfigError(msg)
    if visual.attn_pool is not None:
        msg = f"{name}: the image tower pools with attention (CoCa); ultraad needs a class token"
        raise ConfigError(msg)
    if not all(hasattr(text, a) for a in ("token_embedding", "positional_embedding", "ln_final")):
        msg = f"{name}: the text tower is {type(text).__name__}; ultraad needs open_clip's own, to learn prompts in it"
        raise ConfigError(msg)
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", "argmax")
    causal = getattr(text, "attn_mask", None) is not None
    if pool != "argmax" or not causal or getattr(text, "cls_emb", None) is not None:
        msg = (
            f"{name}: the text tower reads out at {pool!r} (causal: {causal}); "
            "ultraad needs a causal tower that is read out at the end token"
        )
        raise ConfigError(msg)


def fingerprint_of(model: nn.Module, name: str = "the model") -> str:
    """sha256 over all weights in float32; damaged weights are a WeightsError."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        plain = value.detach().float().cpu().contiguous()
        if not bool(torch.isfinite(plain).all()):
            msg = (
                f"{name}: {key} holds values that are no numbers, so the weights are damaged; copy or fetch them again"
            )
            raise WeightsError(msg)
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(plain.numpy().tobytes())
    return digest.hexdigest()
