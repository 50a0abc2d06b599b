"""The fan of a probe, found in pixels: the right one, or none."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fans import SIZE, overlap, rectangle, sector, shown, with_text
from ultraad.fan import Fan
from ultraad.io.fan import HELD, LIT, NO_FAN, WHOLE, find_fan, spread_frames

EDGE = 0.93  # overlap of a found fan with the true one: a pixel and a half around a narrow one are 6 %
FANS = {
    "curved": sector(),
    "wide": sector(lean=50, near=60, far=200, top=25),
    "narrow": sector(lean=15, near=150, far=340),
    "virtual convex": sector(lean=6, near=700, far=880, top=12),
    "phased": sector(near=0, far=215, top=10),
    "off the middle": sector(middle=120, far=170),
    "linear": rectangle(),
    "narrow linear": rectangle((110, 5, 90, 225)),
}


@pytest.mark.parametrize("text", [False, True], ids=["bare", "text"])
@pytest.mark.parametrize("name", FANS)
def test_a_fan_is_found_with_its_kind(name: str, text: bool) -> None:
    fan = FANS[name]
    picture = shown(fan)
    found = find_fan(with_text(picture) if text else picture)
    assert found.kind == fan.kind
    assert overlap(found.mask(SIZE), fan.mask(SIZE)) > EDGE


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_larger_picture_has_a_larger_fan(factor: int) -> None:
    size = (SIZE[0] * factor, SIZE[1] * factor)
    fan = FANS["curved"]
    large = Fan(
        fan.kind,
        (0, 0, *size[::-1]),
        (fan.apex[0] * factor, fan.apex[1] * factor),
        (fan.radii[0] * factor, fan.radii[1] * factor),
        fan.angles,
    )
    found = find_fan(shown(large, size=size))
    assert overlap(found.mask(size), large.mask(size)) > EDGE
    np.testing.assert_allclose(found.apex, large.apex, atol=4 * factor)


def test_a_side_in_the_dark_is_the_mirror_of_the_other() -> None:
    fan = FANS["curved"]
    picture = shown(fan)
    picture[60:, 220:] = 0  # a shadow over the right side, below the first centimetre
    found = find_fan(picture)
    assert found.kind == "curved array"
    assert overlap(found.mask(SIZE), fan.mask(SIZE)) > EDGE


def test_a_fan_that_the_picture_cuts_off_ends_with_it() -> None:
    fan = sector(far=190)
    picture = shown(fan)
    picture[180:] = 0
    found = find_fan(picture).mask(SIZE)
    assert overlap(found, fan.mask(SIZE) & (np.arange(SIZE[0]) < 180)[:, None]) > EDGE
    assert not found[184:].any()


def blob(seed: int) -> np.ndarray:
    """A lit area that is no fan."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    area = ((x - 160) / 110) ** 2 + ((y - 120) / 70) ** 2 < 1
    return (np.repeat((area * rng.integers(30, 200, SIZE))[..., None], 3, -1)).astype(np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((*SIZE, 3), np.uint8),
        blob(0),
        np.maximum(shown(sector(middle=80, far=130, lean=25)), shown(sector(middle=240, far=130, lean=25))),
        shown(sector())[::-1].copy(),
    ],
    ids=["black", "ellipse", "two views", "upside down"],
)
def test_what_is_no_fan_for_certain_is_none(picture: np.ndarray) -> None:
    assert find_fan(picture) == NO_FAN
    assert NO_FAN.mask(SIZE).all()


@pytest.mark.parametrize("dark", [0, 100])
def test_tissue_that_fills_the_picture_has_no_fan_to_find(dark: int) -> None:
    picture = shown(rectangle((0, 0, *SIZE[::-1])))
    if dark:
        picture[-dark:] = 0  # the depth is attenuated
    assert find_fan(picture) == WHOLE
    assert WHOLE.mask(SIZE).all()


@pytest.mark.parametrize("seed", range(24))
def test_a_fan_never_cuts_tissue_off(seed: int) -> None:
    rng = np.random.default_rng(seed)
    near, shadow = rng.uniform(0, 200), rng.integers(0, 320)
    fan = sector(lean=rng.uniform(4, 60), near=near, far=near + rng.uniform(60, 200), middle=rng.uniform(90, 230))
    picture = shown(fan, seed=seed)
    picture[80:, shadow : shadow + 60] = 0
    found = find_fan(picture)
    lit = picture[..., 0] > LIT
    assert (lit & found.mask(SIZE)).sum() >= (HELD - 0.01) * lit.sum()


def test_a_cine_shows_more_of_its_fan_than_a_frame() -> None:
    fan = FANS["curved"]
    frames = [shown(fan, seed=n) for n in range(6)]
    for n, frame in enumerate(frames):
        lit = np.zeros(SIZE, bool)
        lit[:, 50 * n : 50 * n + 90] = True
        frame[~lit] = 0
    assert find_fan(frames[0]) == NO_FAN
    assert overlap(find_fan(frames).mask(SIZE), fan.mask(SIZE)) > EDGE
    assert find_fan([*frames, frames[0][:100]]) == NO_FAN  # not one cine


def test_sixteen_frames_are_spread_over_a_cine() -> None:
    assert spread_frames(3) == [0, 1, 2]
    assert (spread_frames(301)[0], spread_frames(301)[-1], len(spread_frames(301))) == (0, 300, 16)


def test_the_mask_of_a_fan_by_hand() -> None:
    fan = Fan("sector", (0, 0, 10, 10), (5.0, 0.0), (0.0, 5.0), (-45.0, 45.0))
    mask = fan.mask((10, 10))
    assert mask[0].nonzero()[0].tolist() == [4, 5]  # centres half a pixel below the apex, at 45 degrees
    assert mask[2].nonzero()[0].tolist() == [2, 3, 4, 5, 6, 7]
    assert mask[4].nonzero()[0].tolist() == [3, 4, 5, 6]  # within 5 pixels
    assert not mask[5:].any()
