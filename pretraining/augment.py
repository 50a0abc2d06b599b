"""Random views of a batch, toward machines that no profile describes. Parameters are drawn per image, then applied."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


class _Draw:
    """Random numbers (b 1 1 1), one per image."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator

    def uniform(self, low: float, high: float) -> torch.Tensor:
        return (torch.rand(self.count, generator=self.generator) * (high - low) + low).view(-1, 1, 1, 1)

    def normal(self, std: float) -> torch.Tensor:
        return (torch.randn(self.count, generator=self.generator) * std).view(-1, 1, 1, 1)

    def chance(self, p: float) -> torch.Tensor:
        return (torch.rand(self.count, generator=self.generator) < p).view(-1, 1, 1, 1)


def augment(
    images: torch.Tensor,
    masks: torch.Tensor,
    *,
    side: int,
    generator: torch.Generator,
    shrunk: float = 0.0,
    shadowed: float = 0.0,
    faded: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crop or shrink, flip, stretch, fade lesions, lose contact; change grey map, gain, sharpness, noise and colour.

    A shrunk picture is continued by its mirror image, or lies in a black frame: lesions become small, as in images of
    other depth settings.

    Args:
        images: (b 3 h w) in 0..1.
        masks: (b h w) in 0..1.
        side: Side of the result.
        generator: Source of randomness.
        shrunk: Share of the images that become smaller than the frame.
        shadowed: Share of the images that get shadows from the skin down.
        faded: Share of the images whose lesion comes near to the grey level around it.

    Returns:
        Images (b 3 side side) and masks (b side side).
    """
    b, draw = len(images), _Draw(len(images), generator)
    size = torch.where(draw.chance(0.35), torch.ones(()), draw.uniform(0.6, 1.05))
    size = torch.where(draw.chance(shrunk), draw.uniform(1.05, 1.9), size)
    stretch, flip = draw.normal(0.1).exp(), torch.where(draw.chance(0.5), -1.0, 1.0)
    room = (1 - size).abs()
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = (size * flip * stretch).flatten()
    theta[:, 1, 1] = (size / stretch.sqrt()).flatten()
    theta[:, 0, 1] = draw.normal(0.04).flatten()
    theta[:, 0, 2] = (draw.uniform(-1, 1) * room).flatten()
    theta[:, 1, 2] = (draw.uniform(-1, 1) * room * 0.7).flatten()
    where = F.affine_grid(theta, [b, 4, side, side], align_corners=False)
    if bool(torch.rand((), generator=generator) < 0.6):  # most batches are grey all through: a third of the work
        images = images[:, 1:2]
    beyond = "reflection" if bool(torch.rand((), generator=generator) < 0.6) else "zeros"
    both = F.grid_sample(
        torch.cat([images, masks[:, None]], 1), where, mode="bilinear", padding_mode=beyond, align_corners=False
    )
    images, masks = both[:, :-1], both[:, -1]
    images = with_faint_lesions(images, masks, share=faded, generator=generator)
    images = lost_contact(images, share=shadowed, generator=generator)
    return other_machine(images, generator=generator), masks


def with_faint_lesions(
    images: torch.Tensor, masks: torch.Tensor, *, share: float, generator: torch.Generator
) -> torch.Tensor:
    """Lesions whose grey level comes near to that of the tissue around them, as those that are missed most.

    Args:
        images: (b c s s) in 0..1.
        masks: (b s s) in 0..1.
        share: Of the images whose lesion fades.
        generator: Source of randomness.

    Returns:
        Images (b c s s) in 0..1.
    """
    draw, lesion = _Draw(len(images), generator), masks[:, None]
    ring = F.max_pool2d(lesion, 17, 1, 8) - lesion

    def mean_over(region: torch.Tensor) -> torch.Tensor:
        return ((images * region).sum((1, 2, 3), keepdim=True) + 0.02) / (
            region.sum((1, 2, 3), keepdim=True) * images.shape[1] + 1
        )

    near = torch.where(draw.chance(share), draw.uniform(0.2, 0.8), torch.zeros(()))
    gain = (mean_over(ring) / mean_over(lesion)).clamp(0.3, 4) ** near
    return images * (1 + (gain - 1) * F.avg_pool2d(lesion, 7, 1, 3))


def lost_contact(images: torch.Tensor, *, share: float, generator: torch.Generator) -> torch.Tensor:
    """Shadows from the skin down, as a nipple or air under the probe throws them: dark, ragged, and no lesion.

    Args:
        images: (b c s s) in 0..1.
        share: Of the images that get shadows, one to three.
        generator: Source of randomness.

    Returns:
        Images (b c s s) in 0..1.
    """
    draw, b, side = _Draw(len(images), generator), len(images), images.shape[-1]
    across, down = torch.linspace(0, 1, side).view(1, 1, 1, -1), torch.linspace(0, 1, side).view(1, 1, -1, 1)
    wanted = share
    for _ in range(3):
        rough = torch.randn(b, 2, 10, 10, generator=generator)
        rough = F.interpolate(rough, size=(side, side), mode="bilinear", align_corners=False)
        centre = draw.uniform(-0.1, 1.1) + draw.uniform(-0.15, 0.15) * down
        width = draw.uniform(0.02, 0.2) * (1 + draw.uniform(-0.5, 1.0) * down)
        inside = width.clamp(min=0.01) - (across - centre).abs() + draw.uniform(0, 0.04) * rough[:, :1]
        column = torch.sigmoid(inside / draw.uniform(0.01, 0.05))
        fading = torch.where(
            draw.chance(0.5), torch.ones(()), 1 - torch.sigmoid((down - draw.uniform(0.15, 0.9)) / 0.1)
        )
        chosen = draw.chance(wanted)
        depth = torch.where(chosen, draw.uniform(0.4, 0.97), torch.zeros(()))
        depth = (depth * (1 + draw.uniform(0, 0.3) * rough[:, 1:])).clamp(0, 1)
        images = images * (1 - depth * column * fading)
        wanted = 0.5 * share
    return images


def other_machine(images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Another grey map, gain, sharpness, noise and colour for each image, as another machine might have.

    Args:
        images: (b 1|3 s s) in 0..1.
        generator: Source of randomness.

    Returns:
        Images (b 3 s s) in 0..1.
    """
    b, side, x = len(images), images.shape[-1], images
    draw = _Draw(b, generator)
    x = x.clamp(1e-4, 1) ** draw.normal(0.28).exp()
    s_shaped = x * x * (3 - 2 * x)
    x = x + torch.where(draw.chance(0.25), draw.uniform(-0.8, 0.8), torch.zeros(())) * (s_shaped - x)
    x = x * draw.uniform(0.6, 1.2) + draw.normal(0.03)
    shade = torch.linspace(-1, 1, side)
    x = x * (1 + torch.where(draw.chance(0.3), draw.normal(0.2), torch.zeros(())) * shade.view(1, 1, 1, -1))
    x = x * (1 + torch.where(draw.chance(0.3), draw.normal(0.2), torch.zeros(())) * shade.view(1, 1, -1, 1))
    soft = F.avg_pool2d(x, 3, 1, 1)
    x = x + torch.where(draw.chance(0.35), draw.uniform(-0.8, 1.0), torch.zeros(())) * (soft - x)  # sharpen .. blur
    coarse = F.interpolate(F.avg_pool2d(x, 2), size=(side, side), mode="bilinear", align_corners=False)
    x = torch.where(draw.chance(0.12), coarse, x)
    grain = torch.randn(b, 1, side, side, generator=generator)
    x = x + torch.where(draw.chance(0.3), draw.uniform(0, 0.05), torch.zeros(())) * grain * (0.3 + x)
    tint = torch.where(draw.chance(0.2), 1 + torch.randn(b, 3, 1, 1, generator=generator) * 0.05, torch.ones(()))
    x = x * tint
    return x.clamp(0, 1)


def with_levels_of(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The image with the distribution of grey levels of another (histogram specification).

    Args:
        image: uint8 (h w 3); all three channels go through the table of the middle one.
        other: uint8 (h w).

    Returns:
        uint8 (h w 3).
    """
    have, want = (np.bincount(x.ravel(), minlength=256).cumsum() / x.size for x in (image[..., 1], other))
    table = np.interp(have, want, np.arange(256)).round().astype(np.uint8)
    return table[image]
