"""A tower that looks at each picture twice: as it is, and as in a mirror."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from ultraad.backbones._decoder import Detailed
from ultraad.backbones._door import Around
from ultraad.types import Features


class Mirrored(Detailed):
    """A backbone whose image features are the mean over a picture and its mirror image, at twice the time.

    Ultrasound has no left or right that would matter for a lesion, so what the two disagree about is noise of the tower
    (test-time augmentation; measured in docs/backbone.md). The patches of the mirror image are put back in their
    places. With ``around`` or with tokens of its own, a method sees the picture as it is.

    Attributes:
        fingerprint: Unlike that of the same weights without the mirror, so that a model of one is refused on the other.
    """

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **options)
        self.fingerprint = hashlib.sha256(f"{self.fingerprint} mirrored".encode()).hexdigest()
        self._own_caches()

    def _run_tower(self, images: torch.Tensor, *, layers: Sequence[int], around: Around | None = None) -> Features:
        f = super()._run_tower(images, layers=layers, around=around)
        if around is not None:
            return f
        other = super()._run_tower(images.flip(-1), layers=layers)
        return Features(
            image=(f.image + other.image) / 2,
            patches={layer: (x + self._turned(other.patches[layer])) / 2 for layer, x in f.patches.items()},
            cls={layer: (x + other.cls[layer]) / 2 for layer, x in f.cls.items()},
            grid=f.grid,
            detail=None if f.detail is None or other.detail is None else (f.detail + other.detail.flip(-1)) / 2,
        )

    def _turned(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches (b n w) of a mirror image, in the order of the picture."""
        return patches.reshape(len(patches), *self.grid, -1).flip(2).reshape(patches.shape)
