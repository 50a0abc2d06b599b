from __future__ import annotations

import numpy as np
import pytest

from ultraad.errors import ConfigError
from ultraad.rng import seeded
from ultraad.simulate import LABELS, simulate
from ultraad.simulate.attributes import Attributes
from ultraad.simulate.fields import Grid
from ultraad.simulate.lesions import SURROUNDINGS_DB, add_lesion
from ultraad.simulate.schematic import draw_tissue

CYST = Attributes("simple cyst", "round", "parallel", "circumscribed", "anechoic", "no posterior features")


def test_everything_follows_from_the_seed():
    first, again, layered = (simulate(5, size=96, tissue=kind) for kind in ("schematic", "schematic", "layered"))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, layered.image)
    assert first.label == layered.label
    assert first.attributes == layered.attributes  # both tissues show the same finding


@pytest.mark.parametrize("label", LABELS)
def test_fields_agree_with_the_label(label):
    for seed in range(12):
        p = simulate(seed, label=label, size=96, tissue="schematic")
        assert (p.image.shape, p.image.dtype, p.mask.shape, p.mask.dtype) == ((96, 96, 3), np.uint8, (96, 96), np.bool_)
        assert p.mask.any() == (label != "normal")
        assert p.device == "any"
        assert p.image.std() > 8


def test_a_named_machine_is_used():
    assert simulate(1, size=64, tissue="schematic", device="harmonic").device == "harmonic"


def test_an_unknown_tissue_is_refused():
    with pytest.raises(ConfigError, match="choose one of: layered, schematic"):
        simulate(1, size=64, tissue="schematik")


def test_the_breast_does_not_depend_on_the_label():
    """Outside the lesion and its shadow, with a machine that adds nothing, the picture is the same."""
    normal, cyst = (
        simulate(3, size=128, tissue="schematic", clutter=False, **x)
        for x in ({"label": "normal"}, {"attributes": CYST})
    )
    far = ~cyst.mask[:, :].any(0)
    far &= np.roll(far, 12) & np.roll(far, -12)  # beams are wide
    a, b = normal.image[:, far].astype(int), cyst.image[:, far].astype(int)
    assert far.sum() > 20
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99


def test_a_lesion_contrasts_with_its_surroundings():
    grid = Grid(128, 50.0, 50.0)
    below = []
    for seed in range(20):
        tissue = draw_tissue(grid, seeded(seed, "tissue"))
        assert tissue.fat_db is None
        before = tissue.echo.copy()
        mask = add_lesion(tissue, CYST, grid, seeded(seed, "lesion"), mhz=6.0)
        around = float(np.clip(before[mask].mean(), *SURROUNDINGS_DB))
        below.append(around - float(np.median(tissue.echo[mask])))
    assert min(below) > 15  # anechoic: 20 dB below and more, whatever the tissue
    assert max(below) < 40
