"""Masks as other programs save them give the lesion that was drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.robustness.test_finding import PICTURE, save, words
from ultraad import draw_support, load_support, scan
from ultraad.data.audit import audit
from ultraad.data.loader import decode
from ultraad.data.support import save_support
from ultraad.io import MaskSizeError, read_mask
from ultraad.types import Region

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
def test_the_drawn_lesion(kind, tmp_path, caplog):
    picture, overlap = KINDS[kind]
    picture.save(tmp_path / "m.png")
    found = read_mask([tmp_path / "m.png"], shape=DRAWN.shape)
    assert (found & DRAWN).sum() / (found | DRAWN).sum() >= overlap
    assert "as in a picture" not in caplog.text


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_mask_that_is_a_picture_is_named(suffix, tmp_path, caplog):
    save(tmp_path / "m.png", np.resize(PICTURE, DRAWN.shape))
    Image.open(tmp_path / "m.png").convert("L").save(tmp_path / f"m.{suffix}")
    read_mask([tmp_path / f"m.{suffix}"], shape=DRAWN.shape)
    assert f"m.{suffix}: many of its values lie between those of background and lesion, as in a picture" in caplog.text


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


def scaled(factor):
    h, w = (round(side * factor) for side in DRAWN.shape)
    return FULL.resize((w, h), Image.Resampling.NEAREST)


def with_mask(root, mask, picture=None, exif=None, name="b.png"):
    """A set whose benign image has this mask, beside a normal image."""
    big = Image.fromarray(np.resize(PICTURE, DRAWN.shape)) if picture is None else picture
    for folder in ("normal", "benign"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    big.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(root / "normal" / "a.png")
    big.save(root / "benign" / name, **({} if exif is None else {"exif": exif, "quality": 95}))
    mask.save(root / "benign" / "b_mask.png")
    return root


def benign(root, **options):
    return next(s for s in scan(root, **options) if s.label == "benign")


def overlap(sample, wanted):
    found = decode(sample, normal_class="normal").mask
    return (found & wanted).sum() / (found | wanted).sum()


@pytest.mark.parametrize("factor", [0.5, 0.37, 2, 1 / 3])
def test_a_mask_of_another_size_is_resized_only_if_asked(tmp_path, factor, caplog):
    root = with_mask(tmp_path, scaled(factor))
    assert not benign(root).mask_aligned
    assert decode(benign(root), normal_class="normal").mask is None
    with pytest.raises(MaskSizeError, match="The aspect is the same: resize it with --resize-masks"):
        read_mask([root / "benign" / "b_mask.png"], shape=DRAWN.shape)
    sample = benign(root, resize_masks=True)
    assert sample.mask_aligned
    assert overlap(sample, DRAWN) > (0.9 if factor < 1 else 0.97)
    (fault,) = [f for f in audit(root).findings if f.kind == "misaligned_mask"]
    assert "1 of them have the aspect of their image: --resize-masks uses these" in fault.message
    assert "misaligned_mask" not in {f.kind for f in audit(root, resize_masks=True).findings}


def test_a_mask_of_another_aspect_is_never_resized(tmp_path):
    root = with_mask(tmp_path, FULL.resize((64, 60)))
    assert not benign(root, resize_masks=True).mask_aligned
    (fault,) = [f for f in audit(root, resize_masks=True).findings if f.kind == "misaligned_mask"]
    assert "resize" not in fault.message


def test_the_support_file_remembers_that_masks_are_resized(tmp_path):
    root = with_mask(tmp_path / "set", scaled(0.5))
    support = draw_support(root, shots=1, resize_masks=True)
    save_support(support, tmp_path / "support.json")
    again = load_support(tmp_path / "support.json")
    assert again == support
    assert overlap(again.samples[1], DRAWN) > 0.9


def test_an_outline_of_another_size_is_resized(tmp_path):
    half = Region(size=(48, 64), polygons=((20.0, 10.0, 40.0, 10.0, 40.0, 30.0, 20.0, 30.0),))
    found = read_mask([half], shape=DRAWN.shape, resize=True)
    assert np.array_equal(found, (Y >= 20) & (Y < 60) & (X >= 40) & (X < 80))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_turn_of_the_image_alone(tmp_path, orientation, caplog):
    """The mask lies in the stored picture; Pillow's own turn of the mask is the oracle."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.resize(PICTURE, DRAWN.shape))
    root = with_mask(tmp_path, FULL, picture=stored, exif=exif, name="b.jpg")
    sample = benign(root)
    assert sample.mask_aligned
    if orientation >= 5:
        steps = {
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90,
        }
        assert overlap(sample, np.asarray(FULL.transpose(steps[orientation])) > 0) == 1
        assert "its mask lies in the picture before that turn, and is turned with it" in words(caplog)
    else:
        assert overlap(sample, DRAWN) == 1
        assert ("turn or mirror it, but not its mask" in words(caplog)) == (orientation > 1)


def test_a_mask_drawn_on_the_turned_image_is_left_as_it_is(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = FULL.transpose(Image.Transpose.ROTATE_270)
    root = with_mask(tmp_path, upright, exif=exif, name="b.jpg")
    assert overlap(benign(root), np.asarray(upright) > 0) == 1
    assert "EXIF" not in words(caplog)
