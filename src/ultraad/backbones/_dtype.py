"""``dtype="auto"``: the faster number type, found by measurement when the backbone is loaded.

bfloat16 halves the memory and, on a processor that supports it, up to doubles the speed of a large tower. A small tower
that spends its time in convolutions may gain nothing. A processor without support emulates it and is slower.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ultraad.backbones._door import Backbone

log = logging.getLogger(__name__)

GAIN = 1.1  # a smaller gain is not worth the loss of precision
_PASSES, _SECONDS = 3, 1.0  # most passes of each type, and the time after which no other pass begins


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device supports bfloat16. If PyTorch is too old to tell, the answer is False."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86, Arm


def fastest(backbone: Backbone) -> Backbone:
    """The backbone itself, or a bfloat16 copy if that is at least a tenth faster.

    A GPU with bfloat16 uses it without a measurement. On a CPU both types encode a few images: about a second for a
    small tower, one pass each for a large one. Meanwhile the weights are in memory twice.

    Args:
        backbone: In float32.
    """
    if not has_bfloat16(backbone.device):
        log.info("%s runs in float32: %s does not support bfloat16", backbone.name, backbone.device.type)
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
    """Wall time of the image tower on ``count`` images: the best of up to three passes, fewer if they are slow."""
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
