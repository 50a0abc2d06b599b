"""The architecture of the embedded CLIPs, from open_clip's and timm's own parts.

This file needs torch, open_clip, timm and safetensors, but not ultraad: ``ultraad backbones export`` writes it
beside the weights, to use the backbone alone.

    from embedded_tower import load
    model = load("open_clip_model.safetensors")   # an open_clip CLIP; open_clip.get_tokenizer("ViT-B-32") fits
    model.encode_image(images)                    # f32 (b 3 s s), s = side_of(the file), (pixel / 255 - MEAN) / STD
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    import open_clip

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 224, "layers": 6, "width": 192, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}
"""open_clip model configuration of the towers; pretraining/README.md gives the reasons."""

SIDE = 160  # of the input in pixels, of weights that do not record theirs
MEAN = (0.5, 0.5, 0.5)  # timm efficientnet_lite0
STD = (0.5, 0.5, 0.5)


class Shape(NamedTuple):
    """What towers differ in.

    Attributes:
        trunk: timm's name of an EfficientNet-Lite.
        deep: Are its stages at stride 32 used, too?
    """

    trunk: str = "efficientnet_lite0"
    deep: bool = False

    @classmethod
    def of(cls, weights: str | Path) -> Shape:
        """As the weights record it."""
        found = _metadata(weights)
        return cls(found.get("trunk", LITE0.trunk), found.get("deep") == "yes")

    def metadata(self) -> dict[str, str]:
        """For the record."""
        return {"trunk": self.trunk, "deep": "yes" if self.deep else "no"}


LITE0 = Shape()


class TrunkPatchEmbed(nn.Module):
    """A timm trunk to strides 8 and 16, and to stride 32 if asked for, all brought to the tower's width and added.

    Args:
        width: Channels of the tower.
        shape: Of the tower.
    """

    def __init__(self, width: int, shape: Shape = LITE0) -> None:
        super().__init__()
        import timm

        scales = (2, 3, 4) if shape.deep else (2, 3)
        self.trunk = timm.create_model(shape.trunk, pretrained=False, features_only=True, out_indices=scales)
        if not shape.deep:
            self.trunk.blocks = cast("Any", self.trunk).blocks[:5]  # the stages after stride 16 are not used
        c8, c16, *c32 = cast("Any", self.trunk).feature_info.channels()
        self.from8 = nn.Conv2d(c8, width, kernel_size=2, stride=2)
        self.from16 = nn.Conv2d(c16, width, kernel_size=1)
        self.from32 = nn.Conv2d(c32[0], width, kernel_size=1) if shape.deep else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (b 3 s s) to tokens (b w s/16 s/16)."""
        return self.tokens(*self.trunk(images))

    def tokens(self, x8: torch.Tensor, x16: torch.Tensor, x32: torch.Tensor | None = None) -> torch.Tensor:
        """The trunk's maps (b c8 s/8 s/8), (b c16 s/16 s/16) and (b c32 s/32 s/32) to tokens (b w s/16 s/16)."""
        x = self.from8(x8) + self.from16(x16)
        if self.from32 is not None:
            x = x + F.interpolate(self.from32(x32), x16.shape[-2:], mode="bilinear")
        return cast("torch.Tensor", x)


def build(*, size: int | None = None, shape: Shape = LITE0) -> open_clip.CLIP:
    """A freshly initialised CLIP.

    Args:
        size: Input side in pixels, a multiple of 16; the architecture's 224 if None.
        shape: What it differs in from other towers.
    """
    from open_clip import CLIP

    vision = {**ARCHITECTURE["vision_cfg"], "image_size": size or ARCHITECTURE["vision_cfg"]["image_size"]}
    model = CLIP(**{**ARCHITECTURE, "vision_cfg": vision})
    model.visual.conv1 = TrunkPatchEmbed(ARCHITECTURE["vision_cfg"]["width"], shape)
    return model


def side_of(weights: str | Path) -> int:
    """The input side in pixels that the weights were made for, as they record it."""
    return int(_metadata(weights).get("validation_side", SIDE))


def _metadata(weights: str | Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        return cast("dict[str, str]", file.metadata() or {})


def load(weights: str | Path, *, size: int | None = None) -> open_clip.CLIP:
    """The CLIP with its weights, in evaluation mode. Position embeddings are resized to the input.

    Args:
        weights: The safetensors file.
        size: Input side in pixels, a multiple of 16; :func:`side_of` the weights if None.

    Raises:
        RuntimeError: If the weights belong to another architecture.
    """
    from open_clip.model import resize_pos_embed
    from safetensors.torch import load_file

    model = build(size=size or side_of(weights), shape=Shape.of(weights))
    state = {key: value.float() for key, value in load_file(weights).items()}
    resize_pos_embed(state, model)
    model.load_state_dict(state)
    return model.eval()


def quicken(model: open_clip.CLIP) -> None:
    """Make the image tower faster in place, for inference only; the function stays the same up to rounding.

    Batch norms are folded into the convolutions before them, the memory format is channels-last, which is fast on CPUs,
    and attention multiplies a whole batch at once.

    Args:
        model: From :func:`load`; some names in its state dict change.
    """
    visual = cast("Any", model.visual)
    _fold_norms(visual.conv1)
    visual.conv1.to(memory_format=torch.channels_last)
    for block in visual.transformer.resblocks:
        block.attn = _BatchedAttention.of(block.attn)


def _fold_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it; only the activation of timm's norm layer remains."""
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
        _fold_norms(child)
        before = (name, child)


class _BatchedAttention(nn.MultiheadAttention):
    """PyTorch's attention, faster for an odd number of heads and frozen weights.

    In this case PyTorch transposes the batch and multiplies image by image, unless the transposed tokens are
    contiguous. In bfloat16 that is six times slower than all at once. This class makes them contiguous.
    """

    @classmethod
    def of(cls, attention: nn.MultiheadAttention) -> _BatchedAttention:
        """The same attention with copies of its weights."""
        made = cls(attention.embed_dim, attention.num_heads, batch_first=True)
        made.load_state_dict(attention.state_dict())
        return made.train(attention.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *args: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As in torch; tokens (b n w)."""
        if query is key is value:
            query = key = value = query.transpose(0, 1).contiguous().transpose(0, 1)
        return super().forward(query, key, value, *args, **options)
