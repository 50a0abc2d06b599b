"""AnomalyCLIP: what parity does not cover."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.errors import ConfigError, DataError
from ultraad.methods.anomaly_clip import AnomalyCLIP, AnomalyCLIPConfig
from ultraad.nn.labelled import labelled
from ultraad.nn.losses import segmentation
from ultraad.nn.prompts import word_embeddings
from ultraad.nn.seen import see
from ultraad.texts.bank import TextBank


def build(backbone, **options):
    config = AnomalyCLIPConfig.model_validate({"epochs": 4, **options})
    return AnomalyCLIP(backbone, config, classes=CLASSES, normal_class="normal")


def test_training_lowers_the_loss_and_finds_lesions(tiny):
    batch = make_batch(tiny)
    method = build(tiny, epochs=40, lr=0.02)
    report = method.fit(batch, seed=0)
    assert report.loss[-1] < 0.8 * report.loss[0]
    assert report.selection == "last epoch"
    assert report.learned == {"words": 2 * 12 * 32, "deep": 4 * 32}
    with torch.no_grad():
        maps = method.score(batch.images).map
    assert maps[batch.masks].mean() > maps[~batch.masks].mean() + 0.05


def test_training_on_labels_alone_separates_the_images(tiny):
    batch = make_batch(tiny)
    method = build(tiny, epochs=40, lr=0.02, seg_weight=0.0)
    method.fit(batch, seed=0)
    with torch.no_grad():
        score = method.score(batch.images).score
    assert score[2:].min() > score[:2].max()


def test_sizes_follow_the_towers(backbone):
    method = build(backbone)
    blocks = {"tiny": 2, "tiny:uneven": 3}[backbone.name]
    assert method.deep.shape == (blocks - 1, 4, backbone.text_width)  # depth 9 is cut to the text tower
    assert method.value_from == {"tiny": 1, "tiny:uneven": 2}[backbone.name]  # a quarter into it
    assert build(backbone, depth=2, length=1).deep.shape == (1, 1, backbone.text_width)


@torch.no_grad()
def test_sentences_are_the_learned_words_and_the_objects_own(backbone):
    bank = TextBank(organ="neck", object="neck scan", classes={})
    learned = word_embeddings(backbone, "a photo")
    for options, sentences in (
        ({"states": "industrial"}, ("a photo object.", "a photo damaged object.")),
        ({}, ("a photo normal breast ultrasound.", "a photo abnormal breast ultrasound.")),
        ({"texts": bank}, ("a photo normal neck scan.", "a photo abnormal neck scan.")),
    ):
        method = build(backbone, **options)
        for template, sentence in zip(method.templates, sentences, strict=True):
            embeds, eot = template.fill(learned[None])
            want = backbone.tokenize([sentence])
            assert int(eot) == int(backbone.end_of_text(want))
            assert torch.equal(embeds[0], backbone.embed_text(want)[0, : int(eot) + 1])


@torch.no_grad()
def test_class_token_with_and_without_the_last_norm(tiny):
    x = make_batch(tiny).images
    plain = tiny.encode_image(x, layers=(tiny.layers,))
    raw, normed = build(tiny).encode(x), build(tiny, class_token="ln_post").encode(x)
    assert torch.equal(normed.image, plain.image)
    torch.testing.assert_close(tiny.project(plain.cls[tiny.layers]), plain.image)  # what ln_post does
    assert torch.equal(raw.image, plain.cls[tiny.layers] @ tiny.projection)
    assert not torch.allclose(raw.image, normed.image, atol=1e-2)


@torch.no_grad()
def test_first_block_of_the_value_path_matters(tiny):
    x = make_batch(tiny).images
    early, late = build(tiny, value_from=1).encode(x), build(tiny, value_from=4).encode(x)
    assert not torch.allclose(early.patches[4], late.patches[4], atol=1e-3)
    own = tiny.encode_image(x, layers=(3,)).patches[3]
    torch.testing.assert_close(late.patches[3], F.normalize(tiny.project(own), dim=-1))


def test_each_support_image_is_encoded_once(tiny, monkeypatch):
    passed = []
    look = tiny._look
    monkeypatch.setattr(tiny, "_look", lambda x: passed.append(len(x)) or look(x))
    build(tiny, epochs=5, batch_size=2).fit(make_batch(tiny, per_class=6), seed=0)
    assert passed == [16, 2]


@torch.no_grad()
def test_unknown_masks_stay_out_of_the_pixel_loss(tiny):
    method = build(tiny)
    truth = labelled(make_batch(tiny), normal_index=0)
    half = replace(truth, known=torch.tensor([True, False, True, False, True, True]))
    f, text = method.encode(truth.images), method.encode_text()
    want = F.cross_entropy(method.logits(f.image, text), truth.anomalous.long())
    for probs in method.layer_maps(f, text)[:, half.known]:
        want = want + 4 * segmentation(probs, truth.masks[half.known], both=True)
    torch.testing.assert_close(method.loss(see(method.encode, half)), want)
    none = replace(truth, known=torch.zeros(6, dtype=torch.bool))
    torch.testing.assert_close(
        method.loss(see(method.encode, none)), F.cross_entropy(method.logits(f.image, text), truth.anomalous.long())
    )


def test_an_auxiliary_set_replaces_the_support(tiny):
    auxiliary = [make_batch(tiny, seed=s, classes=("good", "bad")) for s in (3, 4)]
    normals_only = make_batch(tiny).select([0, 1])
    states = []
    for support in (empty_batch(tiny), normals_only, make_batch(tiny)):
        method = build(tiny)
        report = method.fit(support, auxiliary=auxiliary, seed=0)
        assert report.notes == ("trained on the auxiliary set; no support image was used",)
        states.append(method.state_dict())
    for name, value in states[0].items():
        assert all(torch.equal(value, other[name]) for other in states[1:])
    alone = build(tiny)
    alone.fit(make_batch(tiny), seed=0)
    assert not torch.equal(alone.words, states[0]["words"])


def test_epochs_depend_on_what_is_trained_on(tiny, monkeypatch):
    epochs = []
    monkeypatch.setattr("ultraad.methods.anomaly_clip.minimise", lambda *_, **o: epochs.append(o["epochs"]) or ())
    build(tiny, epochs=None).fit(empty_batch(tiny), auxiliary=[make_batch(tiny)], seed=0)
    build(tiny, epochs=None).fit(make_batch(tiny), seed=0)
    assert epochs == [15, 50]


def test_refusals(tiny):
    with pytest.raises(ValidationError, match="length=4 deep tokens do not fit into words=3; set length"):
        AnomalyCLIPConfig(words=3)
    with pytest.raises(ConfigError, match=r"layers 1\.\.4, but \[5\]"):
        build(tiny, value_from=5)
    with pytest.raises(DataError, match="needs a mask for every abnormal"):
        build(tiny).fit(make_batch(tiny, masks=False), seed=0)
    with pytest.raises(DataError, match="got none"):
        build(tiny).fit(empty_batch(tiny), seed=0)


@torch.no_grad()
def test_sentences_are_encoded_once_for_a_learned_state(tiny, monkeypatch):
    images, method, other = make_batch(tiny, seed=1).images, build(tiny, epochs=1), build(tiny)
    method.fit(make_batch(tiny), seed=0)
    assert torch.equal(method.text, method.encode_text())
    assert "text" not in method.state_dict()
    assert not torch.equal(method.text, other.text)
    other.load_state_dict(method.state_dict())
    monkeypatch.setattr(tiny, "encode_prompts", lambda *_, **__: pytest.fail("read again"))
    assert torch.equal(method.score(images).map, other.score(images).map)
