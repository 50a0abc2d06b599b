"""Each attribute does what its word says: paired images that differ in that attribute only."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ultraad.simulate import Attributes, simulate
from ultraad.simulate.anatomy import draw_style, draw_tissue
from ultraad.simulate.fields import Grid
from ultraad.simulate.lesions import add_lesion, draw_outline

PLAIN = Attributes("fibroadenoma", "oval", "parallel", "circumscribed", "hypoechoic", "no posterior features")
SEEDS = range(12)


def show(seed, attributes):
    return simulate(seed, attributes=attributes, size=112, device="midrange-linear", clutter=False)


def below(mask):
    """The strip under the lesion's middle half, as deep as the lesion is high."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = len(rows), len(columns)
    left, right = columns[0] + width // 4, columns[-1] - width // 4 + 1
    region = np.zeros_like(mask)
    region[rows[-1] + 2 : rows[-1] + 2 + height, left:right] = True
    return region


def grey(attributes, region):
    values = []
    for seed in SEEDS:
        phantom = show(seed, attributes)
        where = region(phantom.mask)
        if where.sum() > 20:
            values.append(phantom.image[..., 0][where].mean())
    assert len(values) >= len(SEEDS) // 2
    return np.mean(values)


def test_posterior_features_act_below_the_lesion():
    level = {p: grey(replace(PLAIN, posterior=p), below) for p in ("shadowing", "no posterior features", "enhancement")}
    assert level["shadowing"] < 0.75 * level["no posterior features"]
    assert level["enhancement"] > 1.1 * level["no posterior features"]


def test_combined_pattern_has_a_dark_and_a_bright_side():
    contrast = []
    for seed in SEEDS:
        combined, plain = (
            show(seed, replace(PLAIN, posterior=p)) for p in ("combined pattern", "no posterior features")
        )
        change = combined.image[..., 0].astype(float) - plain.image[..., 0]
        region = below(plain.mask)
        middle = int(np.flatnonzero(region.any(0)).mean()) if region.any() else 0
        left, right = change[:, :middle][region[:, :middle]], change[:, middle:][region[:, middle:]]
        if left.size and right.size:
            contrast.append(abs(left.mean() - right.mean()))
    assert np.mean(contrast) > 15


def test_echo_patterns_are_ordered():
    inside = [grey(replace(PLAIN, echo=e), lambda m: m) for e in ("anechoic", "hypoechoic", "isoechoic", "hyperechoic")]
    assert np.all(np.diff(inside) > 8), inside


def test_complex_lesions_have_black_and_grey_parts():
    def spread(echo):
        attributes = replace(PLAIN, echo=echo)
        blurred = [
            cv2.blur(p.image[..., 0], (5, 5))[p.mask].astype(float) for p in (show(seed, attributes) for seed in SEEDS)
        ]
        return np.mean([b.std() for b in blurred])

    assert spread("complex cystic and solid") > 1.3 * spread("hypoechoic")


def solidity(mask):
    """Area over area of the convex hull, of the largest part."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=cv2.contourArea)
    return cv2.contourArea(contour) / cv2.contourArea(cv2.convexHull(contour))


def outlines(attributes, *, size=192):
    grid = Grid(size=size, depth_mm=45, width_mm=45)
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        tissue = draw_tissue(draw_style(rng), grid, rng)
        yield draw_outline(attributes, tissue, grid, np.random.default_rng(seed)), grid


def masks(attributes):
    return [outline.radial(grid) < 1 for outline, grid in outlines(attributes)]


def test_irregular_and_spiculated_borders_are_less_convex():
    oval = np.mean([solidity(m) for m in masks(PLAIN)])
    irregular = replace(replace(PLAIN, shape="irregular"), margin="indistinct")
    ragged = np.mean([solidity(m) for m in masks(irregular)])
    spiky = np.mean([solidity(m) for m in masks(replace(irregular, margin="spiculated"))])
    assert oval > 0.96
    assert ragged < 0.95
    assert spiky < ragged - 0.02


def test_orientation_and_shape_set_the_proportions():
    def proportions(attributes):
        return np.array([o.half_extent[0] / o.half_extent[1] for o, _ in outlines(attributes)])

    assert (proportions(PLAIN) > 1).all()
    assert (proportions(replace(PLAIN, orientation="not parallel")) < 1).all()
    round_ = proportions(replace(PLAIN, shape="round"))
    assert np.abs(np.log(round_)).max() < 0.15


def test_border_keeps_the_area():
    for attributes in (
        PLAIN,
        replace(PLAIN, margin="microlobulated"),
        replace(PLAIN, shape="round"),
    ):
        for outline, grid in outlines(attributes):
            inside = abs(outline.x) + outline.half_extent[0] * 1.3 < grid.width_mm / 2
            inside &= outline.y + outline.half_extent[1] * 1.3 < grid.depth_mm
            inside &= outline.y - outline.half_extent[1] * 1.3 > 0
            if inside:
                area = (outline.radial(grid) < 1).sum() * grid.dx * grid.dy
                assert area == pytest.approx(np.pi * outline.major * outline.minor, rel=0.03)


def test_mask_is_where_the_tissue_changed():
    grid = Grid(size=160, depth_mm=45, width_mm=45)
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        tissue = draw_tissue(draw_style(rng), grid, rng)
        healthy = tissue.echo.copy()
        attributes = replace(replace(PLAIN, echo="anechoic"), margin="indistinct")
        mask = add_lesion(tissue, attributes, grid, rng, mhz=6.0)
        changed = healthy - tissue.echo > 9  # an anechoic inside is at least 20 dB below fat
        overlap = 2 * (changed & mask).sum() / (changed.sum() + mask.sum())
        assert overlap > 0.75, seed


def test_margins_differ_in_sharpness():
    grid = Grid(size=160, depth_mm=45, width_mm=45)

    def steepness(margin):
        slopes = []
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            tissue = draw_tissue(draw_style(rng), grid, rng)
            tissue.echo[:] = 0
            attributes = replace(replace(PLAIN, echo="anechoic"), margin=margin)
            mask = add_lesion(tissue, attributes, grid, rng, mhz=6.0).astype(np.uint8)
            edge = cv2.dilate(mask, np.ones((3, 3))) - cv2.erode(mask, np.ones((3, 3)))
            slope = np.hypot(cv2.Sobel(tissue.echo, cv2.CV_32F, 1, 0), cv2.Sobel(tissue.echo, cv2.CV_32F, 0, 1))
            slopes.append(slope[edge > 0].mean() / np.ptp(tissue.echo))
        return np.mean(slopes)

    assert steepness("circumscribed") > 1.5 * steepness("indistinct")


@pytest.mark.parametrize("name", ["calcifications", "halo"])
def test_extra_findings_brighten(name):
    grid = Grid(size=160, depth_mm=45, width_mm=45)
    changes = []
    for seed in SEEDS:
        echoes = []
        for present in (False, True):
            rng = np.random.default_rng(seed)
            tissue = draw_tissue(draw_style(rng), grid, rng)
            mask = add_lesion(tissue, replace(PLAIN, **{name: present}), grid, rng, mhz=6.0)
            echoes.append(tissue.echo)
        ring = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))) > 0
        region = mask if name == "calcifications" else ring & ~mask
        difference = (echoes[1] - echoes[0])[region]
        changes.append(difference.max() if name == "calcifications" else difference.mean())
        far = ~cv2.dilate(mask.astype(np.uint8), np.ones((41, 41))).astype(bool)
        assert np.abs((echoes[1] - echoes[0])[far]).mean() < 0.05
    assert np.mean(changes) > (12 if name == "calcifications" else 1.5)
