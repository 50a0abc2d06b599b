"""Finer patches: a small network that doubles their grid, for lesions that are smaller than a patch."""

from __future__ import annotations

from collections.abc import Mapping
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

    def forward(self, fine: torch.Tensor, patches: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Four times as many patches.

        Args:
            fine: The trunk's map (b c 2gh 2gw).
            patches: {block, 1-based; 0: before the first: its patches (b gh*gw w)}.

        Returns:
            {block: (b 2gh*2gw w)}, f32, row by row.
        """
        b, c, fine_h, fine_w = fine.shape
        grid = (fine_h // 2, fine_w // 2)
        trunk = F.conv2d(fine.float() / 4, self.first.weight[:, :c], self.first.bias, padding=1)  # once for all blocks
        found = {}
        for layer, x in patches.items():
            rows = _enlarged_rows(x.float(), grid)
            if layer >= FIRST:
                unit = F.layer_norm(x.float(), x.shape[-1:]).mT.reshape(b, -1, *grid)
                seen = F.conv2d(_enlarged(self.narrow(unit)), self.first.weight[:, c:], padding=1)
                added = self.widen(F.gelu(self.second(F.gelu(trunk + seen))))
                # before the reshape below: else ONNX Runtime fuses the sum with the layer norm that comes next, which
                # takes four times as long
                rows = rows + added.permute(0, 2, 3, 1).flatten(2)
            found[layer] = rows.reshape(b, fine_h * fine_w, -1)
        return found


class Detailed(Backbone):
    """A backbone of an embedded tower that, with a decoder, also knows finer patches.

    Attributes:
        decoder: None if the tower has none.
    """

    decoder: Decoder | None = None

    def with_decoder(self, decoder: Decoder) -> Self:
        """The same backbone, from now on with a decoder."""
        self.decoder = decoder.requires_grad_(requires_grad=False).to(self.device)
        self.detail = decoder.first.in_channels - CHANNELS
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
        gh, gw = features.grid
        return replace(features, patches=decoder(detail, features.patches), grid=(2 * gh, 2 * gw), detail=None)


def _enlarged(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _enlarged_rows(patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The same of patches (b gh*gw w), as (b 2gh 2gw*w): two small products, four times as fast in ONNX Runtime."""
    along_h, along_w = (_enlarged(torch.eye(side, device=patches.device)[None, :, None])[0, :, 0].mT for side in grid)
    x = along_w @ patches.reshape(patches.shape[0], *grid, -1)  # (b gh 2gw w)
    return torch.matmul(along_h, x.flatten(2))


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
