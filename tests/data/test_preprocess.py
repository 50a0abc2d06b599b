"""Preprocess against open_clip's transform, torch's nearest-exact, and hand cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.data.preprocess import Preprocess
from ultraad.types import PreprocessConfig

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def config(**changes) -> PreprocessConfig:
    return PreprocessConfig(**{"size": 32, "mean": MEAN, "std": STD, **changes})


def noise(h: int, w: int) -> np.ndarray:
    return np.random.default_rng(h * 1000 + w).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("side", [20, 32, 33, 97, 250])
def test_square_images_equal_torchvision(side, interpolation):
    ensure_torchvision()
    from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

    transform = Compose([Resize(32, InterpolationMode(interpolation)), ToTensor(), Normalize(MEAN, STD)])
    x, _ = Preprocess(config(interpolation=interpolation)).image(noise(side, side))
    assert torch.equal(x, transform(Image.fromarray(noise(side, side))))


def test_square_images_equal_open_clip():
    ensure_torchvision()
    from open_clip.transform import image_transform

    transform = image_transform(32, is_train=False, mean=MEAN, std=STD)
    x, _ = Preprocess(config()).image(noise(75, 75))
    assert torch.equal(x, transform(Image.fromarray(noise(75, 75))))


@pytest.mark.parametrize("hw", [(60, 33), (33, 60), (16, 100)])
def test_squash_equals_a_free_resize(hw):
    ensure_torchvision()
    from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

    transform = Compose([Resize((32, 32), InterpolationMode.BICUBIC), ToTensor(), Normalize(MEAN, STD)])
    x, geometry = Preprocess(config()).image(noise(*hw))
    assert torch.equal(x, transform(Image.fromarray(noise(*hw))))
    assert geometry.scale == (32 / hw[0], 32 / hw[1])
    assert (geometry.pad, geometry.content_hw) == ((0, 0), (32, 32))


@pytest.mark.parametrize(
    ("hw", "content", "pad"),
    [
        ((50, 100), (16, 32), (8, 0)),
        ((100, 50), (32, 16), (0, 8)),
        ((8, 2000), (1, 32), (15, 0)),
        ((9, 9), (32, 32), (0, 0)),
    ],
)
def test_pad_keeps_the_aspect_and_surrounds_with_black(hw, content, pad):
    x, geometry = Preprocess(config(mode="pad")).image(np.full((*hw, 3), 255, np.uint8))
    assert (geometry.content_hw, geometry.pad) == (content, pad)
    white = x[0] > 0
    (top, left), (h, w) = pad, content
    assert white[top : top + h, left : left + w].all()
    assert int(white.sum()) == h * w
    assert x[0].min() == pytest.approx(-MEAN[0] / STD[0]) or content == (32, 32)


@pytest.mark.parametrize("hw", [(32, 32), (33, 60), (61, 31), (200, 90), (9, 13)])
def test_mask_is_nearest_exact(hw):
    mask = np.random.default_rng(1).random(hw) > 0.5
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None].float(), size=(32, 32), mode="nearest-exact"
    )
    got = Preprocess(config()).mask(mask)
    assert got.dtype == torch.bool
    assert torch.equal(got, wanted[0, 0].bool())


@pytest.mark.parametrize("mode", ["squash", "pad"])
@pytest.mark.parametrize("hw", [(40, 61), (61, 40), (32, 32)])
def test_mask_and_image_share_one_geometry(hw, mode):
    mask = np.zeros(hw, dtype=bool)
    mask[10:25, 20:35] = True
    preprocess = Preprocess(config(mode=mode, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear"))
    x, _ = preprocess.image(np.where(mask[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=-1))
    disagree = (x[0] > 0.5) != preprocess.mask(mask)
    assert int(disagree.sum()) <= 0.15 * int(preprocess.mask(mask).sum())  # half-covered edge pixels only
    assert not (disagree & ((x[0] < 0.1) | (x[0] > 0.9))).any()


def test_source_arrays_are_not_changed():
    image = noise(40, 40)
    image.setflags(write=False)
    x, _ = Preprocess(config()).image(image)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
