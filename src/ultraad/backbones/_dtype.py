"""``dtype="auto"``: the number type that is faster here, found by measurement when the backbone is loaded.

bfloat16 halves the bytes and, where the processor calculates in it, up to doubles the speed of a large tower; a small
one, whose time goes into convolutions, may gain nothing. A processor without it only imitates it, and is slower.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultraad.backbones._door import Backbone

log = logging.getLogger(__name__)

GAIN = 1.1  # ours: less is not worth the digits
_PASSES, _SECONDS = 3, 1.0  # of each form, and after how long no further one is begun


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device calculates in bfloat16 itself. A PyTorch too old to say counts as no."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86, Arm


def fastest(backbone: Backbone) -> Backbone:
    """The backbone itself, or its bfloat16 form if that is at least a tenth faster here.

    A GPU with bfloat16 takes it unmeasured. On a CPU a few images pass both forms: about a second for a small tower,
    one pass each for a large one. For that moment the weights are held twice.

    Args:
        backbone: In float32.
    """
    if not has_bfloat16(backbone.device):
        log.info("%s runs in float32: %s does not calculate in bfloat16", backbone.name, backbone.device.type)
        return backbone
    half = backbone.in_dtype("bfloat16")
    if backbone.device.type != "cpu":
        log.info("%s runs in bfloat16 on %s", backbone.name, backbone.device)
        return half
    count = 4 if _pass(backbone, 1) < _SECONDS / 10 else 1
    full_s, half_s = seconds(backbone, count), seconds(half, count)
    chosen = half if GAIN * half_s < full_s else backbone
    log.info(
        "%s runs in %s: %d image(s) took %.0f ms in float32 and %.0f ms in bfloat16",
        backbone.name,
        str(chosen.dtype).removeprefix("torch."),
        count,
        1000 * full_s,
        1000 * half_s,
    )
    return chosen


def seconds(backbone: Backbone, count: int) -> float:
    """Wall time of the image tower on ``count`` images: the best of a few passes, of fewer if they are long."""
    taken = [_pass(backbone, count)]
    while len(taken) < _PASSES and sum(taken) < _SECONDS:
        taken.append(_pass(backbone, count))
    return min(taken)


@torch.no_grad()
def _pass(backbone: Backbone, count: int) -> float:
    images = torch.zeros(count, 3, backbone.size, backbone.size)
    started = time.perf_counter()
    backbone.encode_image(images)
    return time.perf_counter() - started
