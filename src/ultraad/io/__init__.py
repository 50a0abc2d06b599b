"""Read and write picture files: images, masks, DICOM, maps."""

from __future__ import annotations

from ultraad.io.find import find_images
from ultraad.io.image import count_frames, image_region, image_size, image_turn, read_image, set_depth
from ultraad.io.mask import MaskSizeError, read_mask
from ultraad.io.names import IMAGE_SUFFIXES

__all__ = [
    "IMAGE_SUFFIXES",
    "MaskSizeError",
    "count_frames",
    "find_images",
    "image_region",
    "image_size",
    "image_turn",
    "read_image",
    "read_mask",
    "set_depth",
]
