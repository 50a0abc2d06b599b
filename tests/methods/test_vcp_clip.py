"""VCP-CLIP: what parity does not cover."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.errors import ConfigError, DataError
from ultraad.methods.vcp_clip import SENTENCES, VCPCLIP, VCPCLIPConfig
from ultraad.nn.labelled import labelled
from ultraad.nn.maps import smooth
from ultraad.nn.prompts import unit


def build(backbone, **options):
    config = VCPCLIPConfig.model_validate({"epochs": 4, **options})
    return VCPCLIP(backbone, config, classes=CLASSES, normal_class="normal")


def test_training_lowers_the_loss_and_finds_lesions(tiny):
    batch = make_batch(tiny)
    method = build(tiny, epochs=60, lr=3e-3)
    report = method.fit(batch, seed=0)
    assert report.loss[-1] < 0.8 * report.loss[0]
    assert report.selection == "last epoch"
    assert report.learned == {name: p.numel() for name, p in method.named_parameters()}
    with torch.no_grad():
        scores = method.score(batch.images)
    assert scores.map[batch.masks].mean() > scores.map[~batch.masks].mean() + 0.2
    assert scores.score[2:].mean() > scores.score[:2].mean()


@pytest.mark.parametrize("count", [1, 3])
@torch.no_grad()
def test_deep_tokens_follow_the_start_token_and_have_no_position(backbone, count):
    """Against the whole sequence written out: nothing is cut, the tokens are put in and taken out again."""
    method = build(backbone, deep=count, words=2)
    nn.init.normal_(method.prompt_norm.weight)
    tokens = torch.randn(1, backbone.dim)
    words, tower = method.words(tokens)[0], backbone._text
    place, mask = tower.positional_embedding, tower.attn_mask
    for side, sentence in enumerate(SENTENCES["medical"]):
        ids = backbone.tokenize([sentence.replace("{}", "").strip()])
        end = int(backbone.end_of_text(ids))
        embeds = backbone.embed_text(ids)[0]
        x = torch.cat([embeds[:end], words, embeds[end : len(embeds) - 2]]) + place  # (77 w)
        x = torch.cat([x[:1], x[:count], x[1:-count]])[None]  # room after the start token
        for vectors, block in zip(method.deep, tower.transformer.resblocks, strict=True):
            x[:, 1 : 1 + count] = method.deep_proj(vectors)
            x = block(x, attn_mask=mask)
        x = torch.cat([x[:, :1], x[:, 1 + count :]], dim=1)
        read = tower.ln_final(method.prompt_norm(x))[:, end + 2]
        want = unit(read @ tower.text_projection)
        torch.testing.assert_close(method.encode_text(tokens)[:, side], want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_words_depend_on_the_image_and_a_map_bridges_different_widths(backbone):
    method = build(backbone)
    words = method.words(torch.randn(3, backbone.dim))
    assert words.shape == (3, 2, backbone.text_width)
    assert not torch.allclose(words[0], words[1])
    assert isinstance(method.to_text, nn.Identity) == (backbone.dim == backbone.text_width)


@torch.no_grad()
def test_dropout_is_for_training_only(tiny):
    method, f0 = build(tiny), torch.randn(2, tiny.dim)
    plain = method.encode_text(f0)
    assert torch.equal(method.train().encode_text(f0), plain)  # no noise, no dropout, whatever the mode
    a, b, c = (method.encode_text(f0, noise=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    off = build(tiny, dropout=0.0)
    off.load_state_dict(method.state_dict())
    assert torch.equal(off.encode_text(f0, noise=torch.Generator().manual_seed(0)), plain)


@torch.no_grad()
def test_map_and_score_of_each_branch(tiny):
    x = make_batch(tiny).images
    method = build(tiny)
    f = tiny.encode_image(x, layers=method.layers)
    raw, new = method.branch_maps(f, method.encode_text(f.image)).mean(1)
    for weight, branch in ((0.0, raw), (1.0, new)):
        one = build(tiny, new_weight=weight, sigma=8.0, top=1.0)
        one.load_state_dict(method.state_dict())
        scores = one.score(x)
        torch.testing.assert_close(scores.map, smooth(branch, 8 * 64 / 518))
        torch.testing.assert_close(scores.score, (raw.mean((1, 2)) + new.mean((1, 2))) / 2)


def test_unknown_masks_stay_out_of_the_loss(tiny):
    batch = make_batch(tiny)
    some = torch.tensor([True, True, True, False, True, False])
    auxiliary = [replace(batch, mask_known=some)]
    kept = [batch.select(some.nonzero().flatten().tolist())]
    states = []
    for data in (auxiliary, kept):
        method = build(tiny, dropout=0.0)
        method.fit(empty_batch(tiny), auxiliary=data, seed=0)
        states.append(method.state_dict())
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    nothing = [make_batch(tiny, masks=False)]
    with pytest.raises(DataError, match="learns from lesion masks and got none"):
        build(tiny).fit(empty_batch(tiny), auxiliary=nothing, seed=0)


def test_an_auxiliary_set_replaces_the_support(tiny):
    auxiliary = [make_batch(tiny, seed=s, classes=("good", "bad")) for s in (3, 4)]
    states = []
    for support in (empty_batch(tiny), make_batch(tiny).select([0, 1]), make_batch(tiny)):
        method = build(tiny)
        report = method.fit(support, auxiliary=auxiliary, seed=0)
        assert report.notes == ("trained on the auxiliary set; no support image was used",)
        states.append(method.state_dict())
    assert all(torch.equal(value, other[name]) for name, value in states[0].items() for other in states[1:])


def test_rates_depend_on_what_is_trained_on(tiny):
    auxiliary = [make_batch(tiny, per_class=1)]
    start = build(tiny, epochs=0)
    start.fit(make_batch(tiny, per_class=1), seed=0)

    def moved(**options):
        """How far the first step of Adam, whose length is the rate, moves weights and temperatures."""
        data = options.pop("auxiliary", None)
        method = build(tiny, epochs=1, **options)
        method.fit(make_batch(tiny, per_class=1) if data is None else empty_batch(tiny), auxiliary=data, seed=0)
        both = method.state_dict(), start.state_dict()
        return [float((both[0][k] - both[1][k]).abs().max()) for k in ("adapters.1.weight", "log_scales")]

    assert moved() == pytest.approx([1e-3, 1e-2], rel=0.02)
    assert moved(auxiliary=auxiliary) == pytest.approx([4e-5, 1e-2], rel=0.02)
    assert moved(lr=2e-4, lr_tau=1e-4) == pytest.approx([2e-4, 1e-4], rel=0.02)


def test_epochs_depend_on_what_is_trained_on(tiny, monkeypatch):
    epochs = []
    monkeypatch.setattr("ultraad.nn.labelled.minimise", lambda *_, **o: epochs.append(o["epochs"]) or ())
    build(tiny, epochs=None).fit(empty_batch(tiny), auxiliary=[make_batch(tiny)], seed=0)
    build(tiny, epochs=None).fit(make_batch(tiny), seed=0)
    assert epochs == [10, 50]


def test_gradients_reach_every_parameter(backbone):
    method = build(backbone)
    method.loss(labelled(make_batch(backbone), normal_index=0)).backward()
    for name, p in method.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 1e-6, name  # above the rounding of a gradient that vanishes


def test_refusals(tiny):
    with pytest.raises(ConfigError, match="heads=5 does not divide the width 64 of tiny; try 1"):
        build(tiny, heads=5)
    with pytest.raises(DataError, match="needs a mask for every abnormal"):
        build(tiny).fit(make_batch(tiny, masks=False), seed=0)
    with pytest.raises(DataError, match="got none"):
        build(tiny).fit(empty_batch(tiny), seed=0)


@torch.no_grad()
def test_both_sentences_of_an_image_lose_the_same_deep_tokens(tiny):
    method = build(tiny)
    method.templates = method.templates[:1] * 2
    text = method.encode_text(torch.randn(3, tiny.dim), noise=torch.Generator().manual_seed(0))  # (b 2 d)
    torch.testing.assert_close(text[:, 0], text[:, 1], atol=1e-6, rtol=0)
