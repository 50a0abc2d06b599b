"""Augmented views of the support images: parameters are sampled first, then applied.

The probe is at the top of an ultrasound image, so images are mirrored left-right only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ultraad.rng import seeded
from ultraad.types import Batch, PreprocessConfig

Views = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class ViewParams:
    """One view. Rotation in degrees, shifts as a fraction of the side; gain and gamma act on 0..1 intensities."""

    flip: bool = False
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    gain: float = 1.0
    gamma: float = 1.0


def sample_views(id_: str, count: int, *, seed: int) -> list[ViewParams]:
    """``count`` views of one image; the first is the image itself.

    They depend on seed and id only, so an image has the same views in every support set and cross-validation fold.
    Ranges: rotation +-22.5 degrees and shift +-10 % (of MVFA, dataset/medical_few.py), mirrored with probability 1/2;
    gain +-20 % and gamma exp(N(0, 0.15)), because brightness and contrast differ between scanners.
    """
    rng = seeded(seed, f"augment/{id_}")
    views = [ViewParams()]
    for _ in range(count - 1):
        views.append(
            ViewParams(
                flip=bool(rng.random() < 0.5),
                rotation=float(rng.uniform(-22.5, 22.5)),
                shift=(float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.1, 0.1))),
                gain=float(rng.uniform(0.8, 1.2)),
                gamma=float(np.exp(rng.normal(0, 0.15))),
            )
        )
    return views


def support_views(support: Batch, count: int, *, seed: int, preprocess: PreprocessConfig) -> Iterator[Views]:
    """Images f32 (b 3 s s) and masks bool (b s s) of a batch, view by view; unknown masks are empty.

    Args:
        support: At least one image.
        count: Views per image, see :func:`sample_views`.
        seed: Of the views.
        preprocess: Of the backbone.
    """
    masks = support.masks
    if masks is None:
        masks = torch.zeros(len(support), *support.images.shape[-2:], dtype=torch.bool)
    params = [sample_views(id_, count, seed=seed) for id_ in support.ids]
    for v in range(count):
        moved = [
            apply_view(image, mask, views[v], preprocess=preprocess)
            for image, mask, views in zip(support.images, masks, params, strict=True)
        ]
        yield torch.stack([image for image, _ in moved]), torch.stack([mask for _, mask in moved])


def apply_view(
    image: torch.Tensor, mask: torch.Tensor, view: ViewParams, *, preprocess: PreprocessConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """The image and its mask under one view.

    Args:
        image: Normalised f32 (3 s s).
        mask: bool (s s); moved with nearest neighbour.
        view: From :func:`sample_views`.
        preprocess: Mean and std, to act on intensities in 0..1.
    """
    if view == ViewParams():
        return image, mask
    angle = np.deg2rad(view.rotation)
    sign = -1.0 if view.flip else 1.0
    theta = image.new_tensor(
        [
            [sign * np.cos(angle), -np.sin(angle), 2 * view.shift[1]],
            [sign * np.sin(angle), np.cos(angle), 2 * view.shift[0]],
        ]
    )
    grid = F.affine_grid(theta[None], [1, 1, *image.shape[-2:]], align_corners=False)
    moved = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    moved_mask = F.grid_sample(
        mask[None, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )[0, 0]
    intensity = to_intensity(moved, preprocess).clamp(0, 1) ** view.gamma * view.gain
    return from_intensity(intensity.clamp(0, 1), preprocess), moved_mask > 0.5


def to_intensity(images: torch.Tensor, preprocess: PreprocessConfig) -> torch.Tensor:
    """Normalised images (... 3 s s) back to intensities in 0..1."""
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return images * std + mean


def from_intensity(images: torch.Tensor, preprocess: PreprocessConfig) -> torch.Tensor:
    """Intensities (... 3 s s) in 0..1 to normalised images: the inverse of :func:`to_intensity`."""
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return (images - mean) / std


def grey(images: torch.Tensor, preprocess: PreprocessConfig) -> torch.Tensor:
    """Luminance f32 (b 1 s s) in 0..1 of normalised images (b 3 s s)."""
    weights = images.new_tensor((0.299, 0.587, 0.114)).view(3, 1, 1)  # ITU-R BT.601, as Pillow's "L"
    return (to_intensity(images, preprocess) * weights).sum(1, keepdim=True).clamp(0, 1)
