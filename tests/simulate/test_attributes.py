from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ultraad.errors import ConfigError
from ultraad.simulate.attributes import FAMILIES, LEXICON, Attributes, draw_attributes


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    return {label: [draw_attributes(rng, label) for _ in range(2000)] for label in ("benign", "malignant")}


def rate(lesions, name, value):
    return np.mean([getattr(a, name) == value for a in lesions])


def test_tables_are_complete():
    for name, family in FAMILIES.items():
        for attribute in ("shape", "orientation", "margin", "echo", "posterior"):
            weights = getattr(family, attribute)
            assert len(weights) == len(LEXICON[attribute]), (name, attribute)
            assert sum(weights) == pytest.approx(1), (name, attribute)
    for label in ("benign", "malignant"):
        assert sum(f.share for f in FAMILIES.values() if f.label == label) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "value", "published", "tolerance"),
    [  # Stavros 1995, sensitivities
        ("posterior", "shadowing", 0.488, 0.15),
        ("orientation", "not parallel", 0.416, 0.10),
        ("margin", "spiculated", 0.360, 0.15),
        ("calcifications", True, 0.272, 0.06),
        ("echo", "hypoechoic", 0.688, 0.08),
    ],
)
def test_cancers_look_like_the_literature(drawn, name, value, published, tolerance):
    assert abs(rate(drawn["malignant"], name, value) - published) < tolerance


@pytest.mark.parametrize(
    ("name", "value", "published"),
    [  # Hong 2005, share of malignant masses (35 % of all were)
        ("margin", "circumscribed", 0.10),
        ("orientation", "parallel", 0.22),
        ("shape", "oval", 0.16),
        ("margin", "spiculated", 0.86),
        ("shape", "irregular", 0.62),
        ("orientation", "not parallel", 0.69),
    ],
)
def test_predictive_values_follow_the_literature(drawn, name, value, published):
    malignant = 0.35 * rate(drawn["malignant"], name, value)
    benign = 0.65 * rate(drawn["benign"], name, value)
    assert abs(malignant / (malignant + benign) - published) < 0.2


def test_drawn_attributes_are_consistent(drawn):
    for label, lesions in drawn.items():
        for a in lesions:
            assert a.label == label
            assert a.shape != "round" or a.orientation == "parallel"
            assert a.margin != "spiculated" or a.shape == "irregular"


def test_a_family_can_be_chosen():
    assert draw_attributes(np.random.default_rng(0), "benign", family="simple cyst").echo == "anechoic"
    with pytest.raises(ConfigError, match="no malignant family 'simple cyst'"):
        draw_attributes(np.random.default_rng(0), "malignant", family="simple cyst")
    with pytest.raises(ConfigError, match="no normal family None"):
        draw_attributes(np.random.default_rng(0), "normal")


def test_words_outside_the_lexicon_are_refused():
    a = draw_attributes(np.random.default_rng(0), "benign", family="fibroadenoma")
    assert replace(a, posterior="shadowing").posterior == "shadowing"
    with pytest.raises(ConfigError, match="margin 'fuzzy' is not in the lexicon"):
        replace(a, margin="fuzzy")
    with pytest.raises(ConfigError, match="family 'wart'"):
        Attributes("wart", "oval", "parallel", "circumscribed", "hypoechoic", "enhancement")
