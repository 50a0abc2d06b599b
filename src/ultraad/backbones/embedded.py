"""The architecture of the small ultrasound CLIP that ships with the package.

An open_clip ``CLIP`` whose patch embedding is an EfficientNet-Lite0 trunk (timm) down to stride 16, so that the tower
is a plain open_clip ViT to everyone who uses it: class token, patch tokens, ``ln_post``, ``proj``, open_clip's text
tower and CLIP's own tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ultraad.backbones import weights
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.backbones.base import Backbone, DType
from ultraad.errors import ConfigError, WeightsError
from ultraad.types import PreprocessConfig

if TYPE_CHECKING:
    import open_clip

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 224, "layers": 6, "width": 192, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}
"""open_clip model config of the tower (ours; pretraining/README.md)."""

SIDE = 160  # of the input in pixels: ours, measured on BUS-UCLM (pretraining/README.md)
MEAN = (0.5, 0.5, 0.5)  # timm efficientnet_lite0
STD = (0.5, 0.5, 0.5)


class TrunkPatchEmbed(nn.Module):
    """EfficientNet-Lite0 to strides 8 and 16, both brought to the tower's width and added.

    Args:
        width: Channels of the tower.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        ensure_torchvision()
        import timm

        self.trunk = timm.create_model("efficientnet_lite0", pretrained=False, features_only=True, out_indices=(2, 3))
        self.trunk.blocks = cast("Any", self.trunk).blocks[:5]  # the stages below stride 16 are never read
        c8, c16 = cast("Any", self.trunk).feature_info.channels()
        self.from8 = nn.Conv2d(c8, width, kernel_size=2, stride=2)
        self.from16 = nn.Conv2d(c16, width, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (b 3 s s) to tokens (b w s/16 s/16)."""
        x8, x16 = self.trunk(images)
        return cast("torch.Tensor", self.from8(x8) + self.from16(x16))


def build(*, size: int | None = None) -> open_clip.CLIP:
    """A freshly initialised tower; weights are loaded by the caller.

    Args:
        size: Input side in pixels, a multiple of 16; the architecture's 224 if None.
    """
    ensure_torchvision()
    from open_clip import CLIP

    vision = {**ARCHITECTURE["vision_cfg"], "image_size": size or ARCHITECTURE["vision_cfg"]["image_size"]}
    model = CLIP(**{**ARCHITECTURE, "vision_cfg": vision})
    model.visual.conv1 = TrunkPatchEmbed(ARCHITECTURE["vision_cfg"]["width"])
    return model


def load(variant: str, *, name: str, device: str, dtype: DType, size: int | None) -> Backbone:
    """The tower that ships with the package.

    Raises:
        ConfigError: If ``size`` is not a multiple of 16, or something follows ``embedded:``.
        WeightsError: If the weights file is missing from the installation or does not fit.
    """
    ensure_torchvision()
    from open_clip import get_tokenizer
    from open_clip.model import resize_pos_embed
    from safetensors.torch import load_file

    path = weights.embedded_path()
    if variant:
        msg = f"unknown backbone {name!r}; wanted 'embedded'"
        raise ConfigError(msg)
    if not path.is_file():
        msg = f"the embedded weights are missing from this installation ({path}); reinstall ultraad"
        raise WeightsError(msg)
    patch = ARCHITECTURE["vision_cfg"]["patch_size"]
    side = size or SIDE
    if side % patch:
        msg = f"size {side} is not a multiple of the patch size {patch} of {name}; use {side // patch * patch}"
        raise ConfigError(msg)
    model = build(size=side)
    state = {key: value.float() for key, value in load_file(path).items()}
    resize_pos_embed(state, model)
    try:
        model.load_state_dict(state)
    except RuntimeError as e:
        msg = f"{path} does not hold the weights of {name}: {e}"
        raise WeightsError(msg) from e
    return Backbone(
        model,
        get_tokenizer("ViT-B-32"),
        name=name,
        preprocess=PreprocessConfig(size=side, mean=MEAN, std=STD),
        device=device,
        dtype=dtype,
    )


BACKBONE = load
