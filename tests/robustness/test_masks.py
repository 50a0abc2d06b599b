"""Masks as other programs save them give the lesion that was drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.robustness.test_finding import PICTURE, save
from ultraad.data.audit import audit
from ultraad.io import read_mask

Y, X = np.mgrid[:96, :128]
DRAWN = ((Y - 50) / 18) ** 2 + ((X - 60) / 26) ** 2 < 1
FULL = Image.fromarray((DRAWN * 255).astype(np.uint8))


def _jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(io.BytesIO(file.getvalue())).convert("L")


def _one_colour(value: int) -> Image.Image:
    return Image.merge("RGBA", [Image.new("L", FULL.size, value)] * 3 + [FULL])


KINDS = {
    "0 and 255": (FULL, 1.0),
    "0 and 1": (Image.fromarray(DRAWN.astype(np.uint8)), 1.0),
    "labels 1 and 2": (Image.fromarray((DRAWN + 1).astype(np.uint8)), 1.0),
    "16 bits": (Image.fromarray(DRAWN.astype(np.uint16) * 4095), 1.0),
    "JPEG noise in a PNG": (_jpeg(FULL), 0.98),
    "blurred": (FULL.filter(ImageFilter.GaussianBlur(1)), 0.98),
    "scaled": (FULL.resize((42, 32)).resize(FULL.size, Image.Resampling.BILINEAR), 0.93),
    "white, alpha is the mask": (_one_colour(255), 1.0),
    "black, alpha is the mask": (_one_colour(0), 1.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_drawn_lesion(kind, tmp_path):
    picture, overlap = KINDS[kind]
    picture.save(tmp_path / "m.png")
    found = read_mask([tmp_path / "m.png"], shape=DRAWN.shape)
    assert (found & DRAWN).sum() / (found | DRAWN).sum() >= overlap


def test_grey_labels_are_all_lesion(tmp_path):
    labels = np.where(DRAWN, np.where(X < 60, 1, 2), 0).astype(np.uint8)
    for scale in (1, 127):
        save(tmp_path / "m.png", labels * np.uint8(scale))
        assert np.array_equal(read_mask([tmp_path / "m.png"], shape=DRAWN.shape), DRAWN)


def test_the_data_check_finds_inverted_masks(tmp_path):
    big = np.resize(PICTURE, DRAWN.shape)
    save(tmp_path / "normal" / "a.png", big)
    save(tmp_path / "benign" / "b.png", big[::-1])
    save(tmp_path / "benign" / "b_mask.png", (~DRAWN * 255).astype(np.uint8))
    assert "inverted_mask" in {f.kind for f in audit(tmp_path).findings}
