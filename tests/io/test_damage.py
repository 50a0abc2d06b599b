"""Damage anywhere in a file gives a picture or a DataError, never another exception."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from ultraad.errors import DataError
from ultraad.io import count_frames, image_size, read_image, read_mask

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"


def raster(format_: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 37, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format_)
    return buffer.getvalue()


SOURCES = {
    **{f"a.{format_.lower()}": raster(format_) for format_ in ("PNG", "JPEG", "BMP", "TIFF", "WEBP")},
    **{name: (SHIPPED / name).read_bytes() for name in ("SC_rgb_rle.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small.dcm")},
}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_damage(tmp_path, name):
    rng = np.random.default_rng(1)
    whole, path = SOURCES[name], tmp_path / name
    survived, messages = 0, []
    for _ in range(40):
        damaged = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 1500), rng.integers(1, 6)):
            damaged[at] = rng.integers(0, 256)
        if rng.random() < 0.3:
            del damaged[rng.integers(1, len(whole)) :]
        path.write_bytes(damaged)
        for function in (read_image, image_size, count_frames, lambda p: read_mask([p], shape=(24, 37))):
            try:
                function(path)
                survived += 1
            except DataError as e:
                messages.append(str(e))
    assert survived
    assert messages
    assert all(str(path) in message for message in messages)
