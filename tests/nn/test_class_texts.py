"""Sentences with learnable words, and the frozen text classifier, against whole sentences."""

from __future__ import annotations

import pytest
import torch

from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError, DataError
from ultraad.nn.class_texts import (
    ClassPrompts,
    class_phrase,
    class_sentences,
    frozen_texts,
    missing_sentences,
    require_words,
)
from ultraad.nn.prompts import unit, word_embeddings
from ultraad.texts.bank import breast_texts

CLASSES = ("normal", "malignant_tumour")


@pytest.fixture(scope="module", params=["tiny", "tiny:uneven"])
def backbone(request):
    return load_backbone(request.param)


@pytest.mark.parametrize(
    ("position", "pattern"), [("end", "a photo of {}."), ("middle", "a {} photo of."), ("front", "{} a photo of.")]
)
def test_known_words_give_the_written_sentence(backbone, position, pattern):
    phrases = [class_phrase(breast_texts(), name) for name in CLASSES]
    assert phrases[1] == "malignant tumour breast ultrasound"
    prompts = ClassPrompts(backbone, phrases, count=3, position=position)
    context = word_embeddings(backbone, "a photo of").expand(2, 2, -1, -1)  # (b c m w)
    with torch.no_grad():
        want = backbone.encode_text([pattern.format(phrase) for phrase in phrases])
        got = prompts(context)
    assert got.shape == (2, 2, backbone.dim)
    for row in got:
        torch.testing.assert_close(row, want, atol=1e-5, rtol=1e-5)


def test_each_image_and_class_has_its_own_words(backbone):
    prompts = ClassPrompts(backbone, ["normal", "malignant tumour"], count=4)
    context = torch.randn(3, 2, 4, backbone.text_width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = prompts(context)
        for i in range(3):
            torch.testing.assert_close(prompts(context[i : i + 1])[0], together[i], atol=1e-5, rtol=1e-5)
        changed = context.clone()
        changed[1, 0] = context[1, 0].flip(-1)
        moved = (prompts(changed) - together).abs().amax(-1) > 1e-3
    assert moved.tolist() == [[False, False], [True, False], [False, False]]


def test_too_many_words(backbone):
    with pytest.raises(ConfigError, match="use fewer words"):
        ClassPrompts(backbone, ["normal"], count=backbone.context - 3)
    ClassPrompts(backbone, ["normal"], count=backbone.context - 4)  # start, name, full stop, end


def test_frozen_texts(backbone):
    bank = breast_texts()
    assert class_sentences(bank, "benign", source="template") == ("a photo of a benign breast ultrasound.",)
    assert class_sentences(bank, "benign", source="bank") == bank.sentences("benign")
    with torch.no_grad():
        each = unit(backbone.encode_text(list(bank.sentences("benign"))))
    text = frozen_texts(backbone, bank, ("normal", "benign"), source="bank")
    torch.testing.assert_close(text[1], unit(each.mean(0)))
    assert not text.requires_grad


def test_notes_on_unknown_classes():
    bank = breast_texts()
    assert missing_sentences(bank, ("normal", "benign")) == ()
    assert missing_sentences(bank, ("normal", "cyst"), source="template") == ()
    (note,) = missing_sentences(bank, ("normal", "cyst"))
    assert "cyst" in note
    assert "normal" not in note


def test_words_for_a_model_without_images(backbone):
    require_words(backbone, "a photo of a", 4, method="coop")
    for words, random in (("", 4), ("a photo", 2)):
        with pytest.raises(DataError, match=f"coop got no images, and {random} of its 4"):
            require_words(backbone, words, 4, method="coop")
