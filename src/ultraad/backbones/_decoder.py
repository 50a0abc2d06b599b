"""Finer patches: a small network that doubles their grid, for lesions that are smaller than a patch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import nn

from ultraad.backbones._door import Backbone
from ultraad.types import Features

CHANNELS = 48
LOCATION = 28  # side of the location prior
FIRST = 2  # the first block that it was trained on; what comes before is enlarged as it is


class Decoder(nn.Module):
    """Two 3x3 convolutions over the trunk's map at stride 8 and the patches of one block; one network for all blocks.

    It adds to the enlarged patches, so that they stay in the space that the tower's ``ln_post``, ``proj`` and sentences
    know. Beside it stands a location prior: where lesions lie in the real images that the tower was trained on.

    Args:
        fine: Channels of the trunk's map.
        width: Channels w of the tower.

    Attributes:
        location: (28 28) log-odds that a pixel there is lesion, 0 where the mean lesion pixel lies.
    """

    location: torch.Tensor

    def __init__(self, fine: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width, CHANNELS, 1)
        self.first = nn.Conv2d(fine + CHANNELS, CHANNELS, 3, padding=1)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.widen = nn.Conv2d(CHANNELS, width, 1)
        self.register_buffer("location", torch.zeros(LOCATION, LOCATION))
        nn.init.zeros_(self.widen.weight)
        nn.init.zeros_(cast("torch.Tensor", self.widen.bias))

    def forward(self, fine: torch.Tensor, patches: torch.Tensor, layer: int) -> torch.Tensor:
        """Four times as many patches.

        Args:
            fine: The trunk's map (b c 2gh 2gw).
            patches: (b gh*gw w) after a block.
            layer: Of the block, 1-based; 0: before the first.

        Returns:
            (b 2gh*2gw w), f32, row by row.
        """
        grid = (fine.shape[-2] // 2, fine.shape[-1] // 2)
        coarse = patches.float().mT.reshape(patches.shape[0], -1, *grid)  # (b w gh gw)
        x = _enlarged(coarse)
        if layer >= FIRST:
            unit = F.layer_norm(patches.float(), patches.shape[-1:]).mT.reshape(coarse.shape)
            seen = torch.cat([fine.float() / 4, _enlarged(self.narrow(unit))], 1)
            x = x + self.widen(F.gelu(self.second(F.gelu(self.first(seen)))))
        return x.flatten(2).mT


class Detailed(Backbone):
    """A backbone of an embedded tower that, with a decoder, also knows finer patches.

    Attributes:
        decoder: None if the tower has none.
    """

    decoder: Decoder | None = None

    def with_decoder(self, decoder: Decoder) -> Self:
        """The same backbone, from now on with a decoder."""
        self.decoder, self.has_detail = decoder.requires_grad_(requires_grad=False).to(self.device), True
        self.location = self.decoder.location
        self._own_caches()
        return self

    def _look(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.decoder is None:
            return super()._look(images)
        v = self._visual  # as open_clip's _embeds, but for the trunk's map
        detail, *others = v.conv1.trunk(images)
        patches = v.conv1.tokens(detail, *others).flatten(2).mT
        token = v.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        x = torch.cat([token, patches], dim=1) + v.positional_embedding.to(patches.dtype)
        return v.ln_pre(x), detail

    def finer(self, features: Features) -> Features:
        """The features with four times as many patches; as they are without a decoder or their detail."""
        decoder, detail = self.decoder, features.detail
        if decoder is None or detail is None:
            return features
        patches = {layer: decoder(detail, x, layer) for layer, x in features.patches.items()}
        gh, gw = features.grid
        return replace(features, patches=patches, grid=(2 * gh, 2 * gw), detail=None)


def _enlarged(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def load_decoder(weights: str | Path) -> Decoder:
    """From its safetensors file, in evaluation mode.

    Raises:
        RuntimeError: If the file does not hold a decoder.
    """
    from safetensors.torch import load_file

    state = {name: value.float() for name, value in load_file(weights).items()}
    width = len(state["widen.bias"])
    decoder = Decoder(state["first.weight"].shape[1] - CHANNELS, width)
    decoder.load_state_dict(state)
    return decoder.eval()
