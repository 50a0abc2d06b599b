"""From pixels to the input of the image tower, with the Geometry that leads back.

Images are resampled with Pillow's antialiased filters on 8-bit pixels, like open_clip's own transform: for a square
image both give the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ultraad.errors import DataError
from ultraad.fan import Fan
from ultraad.types import Box, Geometry, PreprocessConfig

if TYPE_CHECKING:
    import torch


_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Preprocess:
    """The same preprocessing for training and test images; every model stores its configuration.

    Args:
        config: Size, normalisation, interpolation, and the handling of images that are not square.

    Examples:
        >>> from ultraad.types import PreprocessConfig
        >>> preprocess = Preprocess(PreprocessConfig(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), mode="pad"))
        >>> x, geometry = preprocess.image(np.zeros((300, 400, 3), np.uint8))
        >>> x.shape, geometry.content_hw, geometry.pad
        (torch.Size([3, 224, 224]), (168, 224), (28, 0))
    """

    def __init__(self, config: PreprocessConfig) -> None:
        self.config = config

    def geometry(self, original_hw: tuple[int, int], region: Box | None = None, fan: Fan | None = None) -> Geometry:
        """The position of an image of this (height, width), or of a region of it, in the model input.

        ``squash`` scales both sides to s; ``pad`` keeps the aspect ratio and centres the picture.

        Raises:
            DataError: If the region does not lie in the image.
        """
        s = self.config.size
        h, w = original_hw
        if region is not None:
            x, y, width, height = region
            if not (0 <= x < x + width <= w and 0 <= y < y + height <= h):
                msg = (
                    f"the region {region} (x, y, width, height) does not lie in the image of {w} x {h} pixels; "
                    "give another, or none for the whole image"
                )
                raise DataError(msg)
            h, w = height, width
        if self.config.mode == "squash":
            content = (s, s)
        else:
            longer = max(h, w)
            content = (max(1, round(h * s / longer)), max(1, round(w * s / longer)))
        return Geometry(
            original_hw=original_hw,
            size=s,
            scale=(content[0] / h, content[1] / w),
            pad=((s - content[0]) // 2, (s - content[1]) // 2),
            content_hw=content,
            region=region,
            fan=fan,
        )

    def picture(
        self, image: NDArray[np.uint8], region: Box | None = None, fan: Fan | None = None
    ) -> tuple[NDArray[np.uint8], Geometry]:
        """Resize; in mode ``pad`` also letterbox with black, the background of ultrasound. Needs no torch.

        Args:
            image: uint8 (h w 3).
            region: The part to use; None for the whole.
            fan: The pixels to use, the others are black; None for all.

        Returns:
            uint8 (s s 3) and the way back.
        """
        geometry = self.geometry((image.shape[0], image.shape[1]), region, fan)
        if fan is not None and fan.masks:
            image = image * fan.mask(geometry.original_hw)[..., None]
        h, w = geometry.content_hw
        used = _one_channel_if_grey(image[_used(geometry)])
        resized = np.asarray(Image.fromarray(used).resize((w, h), _RESAMPLING[self.config.interpolation]))
        canvas = np.zeros((geometry.size, geometry.size, 3), dtype=np.uint8)
        canvas[_content(geometry)] = resized if resized.ndim == 3 else resized[..., None]
        return canvas, geometry

    def image(
        self, image: NDArray[np.uint8], region: Box | None = None, fan: Fan | None = None
    ) -> tuple[torch.Tensor, Geometry]:
        """Resize as :meth:`picture` does, and normalise.

        Args:
            image: uint8 (h w 3).
            region: The part to use; None for the whole.
            fan: The pixels to use, the others are black; None for all.

        Returns:
            float32 (3 s s) and the way back.
        """
        import torch

        canvas, geometry = self.picture(image, region, fan)
        x = canvas.transpose(2, 0, 1).astype(np.float32, order="C")  # (3 s s); torch would start threads for this
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.config.mean, self.config.std))  # (3 1 1)
        x /= 255
        x -= mean
        x /= std
        return torch.from_numpy(x), geometry

    def mask(self, mask: NDArray[np.bool_], region: Box | None = None) -> torch.Tensor:
        """A mask in the geometry of its image; each model pixel takes the original pixel under its centre.

        Args:
            mask: bool (h w).
            region: That of its image.

        Returns:
            bool (s s), False in the letterbox.
        """
        import torch

        geometry = self.geometry((mask.shape[0], mask.shape[1]), region)
        used = mask[_used(geometry)]
        rows, cols = (
            ((np.arange(n) + 0.5) / scale).astype(np.intp).clip(max=original - 1)
            for n, scale, original in zip(geometry.content_hw, geometry.scale, used.shape, strict=True)
        )
        canvas = np.zeros((geometry.size, geometry.size), dtype=np.bool_)
        canvas[_content(geometry)] = used[rows[:, None], cols]
        return torch.from_numpy(canvas)


def _one_channel_if_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey picture (h w 3) as (h w), which Pillow resizes in half the time to the same numbers; or what it got."""
    red, green, blue = (np.asarray(cv2.extractChannel(image, channel), dtype=np.uint8) for channel in range(3))
    return red if np.array_equal(red, green) and np.array_equal(red, blue) else image


def _used(geometry: Geometry) -> tuple[slice, slice]:
    x, y, w, h = geometry.region or (0, 0, *geometry.original_hw[::-1])
    return slice(y, y + h), slice(x, x + w)


def _content(geometry: Geometry) -> tuple[slice, slice]:
    (top, left), (h, w) = geometry.pad, geometry.content_hw
    return slice(top, top + h), slice(left, left + w)
