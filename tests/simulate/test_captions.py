from __future__ import annotations

import numpy as np
import pytest

from ultraad.errors import ConfigError
from ultraad.simulate import LEXICON
from ultraad.simulate.attributes import FAMILIES, Attributes, draw_attributes
from ultraad.simulate.captions import FAMILY_WORDINGS, WORDINGS, caption


def test_every_value_has_wordings():
    for name in ("shape", "orientation", "margin", "echo", "posterior"):
        for value in LEXICON[name]:
            assert WORDINGS[name, value]
    assert set(FAMILY_WORDINGS) == set(FAMILIES)


def test_wordings_are_unambiguous():
    said = [w for words in WORDINGS.values() for w in words]
    assert len(said) == len(set(said))


def test_captions_mention_only_what_is_in_the_image():
    rng = np.random.default_rng(0)
    for _ in range(400):
        label = str(rng.choice(["benign", "malignant"]))
        attributes = draw_attributes(rng, label)
        text = caption(label, attributes, rng)
        other = {"benign": "malignant", "malignant": "benign"}[label]
        assert other not in text
        assert "normal" not in text.replace("abnormal", "")
        named = 0
        for (name, value), words in WORDINGS.items():
            if any(text.endswith((w, w + ".")) or f"{w}," in text or f"{w} and " in text for w in words):
                named += str(getattr(attributes, name)) == value
        assert named >= 1, text


def test_wordings_vary():
    a = Attributes("fibroadenoma", "oval", "parallel", "circumscribed", "hypoechoic", "enhancement")
    texts = {caption("benign", a, np.random.default_rng(i)) for i in range(50)}
    assert len(texts) > 40
    normal = {caption("normal", None, np.random.default_rng(i)) for i in range(50)}
    assert len(normal) > 15
    assert caption("benign", a, np.random.default_rng(3)) == caption("benign", a, np.random.default_rng(3))


def test_contradictions_are_refused():
    a = Attributes("fibroadenoma", "oval", "parallel", "circumscribed", "hypoechoic", "enhancement")
    for label, attributes in (("normal", a), ("malignant", a), ("benign", None)):
        with pytest.raises(ConfigError, match=f"the label '{label}' with"):
            caption(label, attributes, np.random.default_rng(0))
