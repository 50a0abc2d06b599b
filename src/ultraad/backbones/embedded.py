"""The architecture of the small ultrasound CLIP that ships with the package.

An open_clip ``CLIP`` whose patch embedding is an EfficientNet-Lite0 trunk (timm) down to stride 16, so that the tower is a
plain open_clip ViT to everyone who uses it: class token, patch tokens, ``ln_post``, ``proj``, open_clip's text tower and
CLIP's own tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from torch import nn

if TYPE_CHECKING:
    import open_clip

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 224, "layers": 6, "width": 192, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}
"""open_clip model config of the tower (ours; docs/backbone.md)."""

MEAN = (0.5, 0.5, 0.5)  # timm efficientnet_lite0
STD = (0.5, 0.5, 0.5)


class TrunkPatchEmbed(nn.Module):
    """EfficientNet-Lite0 to strides 8 and 16, both brought to the tower's width and added.

    Args:
        width: Channels of the tower.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = timm.create_model("efficientnet_lite0", pretrained=False, features_only=True, out_indices=(2, 3))
        c8, c16 = self.trunk.feature_info.channels()
        self.from8 = nn.Conv2d(c8, width, kernel_size=2, stride=2)
        self.from16 = nn.Conv2d(c16, width, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (b 3 s s) to tokens (b w s/16 s/16)."""
        x8, x16 = self.trunk(images)
        return cast("torch.Tensor", self.from8(x8) + self.from16(x16))


def build() -> open_clip.CLIP:
    """A freshly initialised tower; weights are loaded by the caller."""
    from open_clip import CLIP

    model = CLIP(**ARCHITECTURE)
    model.visual.conv1 = TrunkPatchEmbed(ARCHITECTURE["vision_cfg"]["width"])
    return model
