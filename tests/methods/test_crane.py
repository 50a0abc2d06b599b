"""Crane against its equations, written again in numpy, slowly; and its options."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.errors import ConfigError
from ultraad.methods.crane import Crane, CraneConfig
from ultraad.nn.labelled import labelled
from ultraad.nn.seen import see


def build(backbone, **options):
    config = CraneConfig.model_validate({"epochs": 2, "sigma": 0.0, **options})
    return Crane(backbone, config, classes=CLASSES, normal_class="normal")


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def e_attn(block, x, correlate):
    """One block's E-Attn of tokens (m w) of one image, head by head."""
    weight, bias = (p.detach().double().numpy() for p in (block.attn.in_proj_weight, block.attn.in_proj_bias))
    z = block.ln_1(torch.as_tensor(x, dtype=torch.float32)).detach().double().numpy()
    w, heads = x.shape[1], block.attn.num_heads
    parts = dict(zip("qkv", np.split(z @ weight.T + bias, 3, axis=1), strict=True))
    size, out = w // heads, np.zeros_like(x)
    for h in range(heads):
        at = slice(h * size, (h + 1) * size)
        for name in correlate:
            e = parts[name][:, at]
            out[:, at] += softmax(e @ e.T / np.sqrt(size)) @ parts["v"][:, at]
    proj = block.attn.out_proj
    return out @ proj.weight.detach().double().numpy().T + proj.bias.detach().double().numpy()


@torch.no_grad()
@pytest.mark.parametrize("correlate", ["qkv", "qk", "v"])
def test_patches_follow_the_refined_attention_beside_the_tower(backbone, correlate):
    method, x = (
        build(backbone, layers=(1, 3), attention_from=2, correlate=correlate),
        make_batch(backbone, per_class=1).images[:2],
    )
    f = method.encode(x)
    tokens, streams = backbone.embed_image(x), [backbone.embed_image(x).double().numpy()] * 2
    for layer, block in enumerate(backbone.model.visual.transformer.resblocks, start=1):
        h = tokens.double().numpy()
        tokens = block(tokens)
        if layer >= 2:
            streams = [(s if layer > 2 else h[i]) + e_attn(block, h[i], correlate) for i, s in enumerate(streams)]
        if layer in method.layers:
            kept = tokens if layer < 2 else torch.tensor(np.stack(streams), dtype=torch.float32)
            want = torch.nn.functional.normalize(backbone.project(kept[:, 1:]), dim=-1)
            torch.testing.assert_close(f.patches[layer], want, atol=1e-4, rtol=0)
    torch.testing.assert_close(f.image, torch.nn.functional.normalize(backbone.encode_image(x).image, dim=-1))


@torch.no_grad()
def test_the_image_is_a_word_after_the_learned_ones(backbone):
    method, x = build(backbone, length=1, depth=2), make_batch(backbone, per_class=1).images
    tokens = method.encode(x).image
    seen = method.encode_text(tokens)
    method.deep.data.copy_(torch.zeros_like(method.deep))
    got = method.encode_text(tokens)
    assert not torch.allclose(seen, got, atol=1e-4)
    context = method.to_text(tokens)
    for side, template in enumerate(method.templates):
        for i, word in enumerate(context):
            row = torch.cat([template.before, method.words[side], word[None], template.after])
            eot = torch.tensor([len(row) - 1])

            def around(layer, y, block):
                return block(torch.cat([y[:, :1], torch.zeros_like(y[:, 1:2]), y[:, 2:]], 1) if layer == 2 else y)

            want = backbone.encode_prompts(row[None], eot, around=around)
            torch.testing.assert_close(got[i, side], torch.nn.functional.normalize(want[0], dim=0), atol=1e-5, rtol=0)
    assert not torch.allclose(got[0], got[1], atol=1e-4), "each image has its own sentences"


@torch.no_grad()
@pytest.mark.parametrize("context", ["training", "always"])
def test_map_score_and_loss_are_the_equations(backbone, context):
    method, batch = build(backbone, context=context, layers=(2, 3)), make_batch(backbone, per_class=1)
    truth = replace(labelled(batch, normal_index=0), known=torch.tensor([True, False, True]))
    method._encode()
    seen = see(method.encode, truth)
    patches = np.stack([seen.features.patches[k].double().numpy() for k in method.layers])  # (l b n d)
    tokens = seen.features.image.double().numpy()
    plain = np.stack([method.text.double().numpy()] * 3)
    conditioned = method.encode_text(seen.features.image).double().numpy()

    def vectors(text):
        logits = np.einsum("lbnd,btd->lbnt", patches, text) / 0.07
        weights = softmax(logits.mean(0))[..., 1]
        pooled = unit(np.einsum("bn,bnd->bd", weights, patches.mean(0)))
        return logits, np.einsum("bd,btd->bt", unit(0.5 * pooled + 0.5 * tokens), text)

    logits, cosine = vectors(conditioned if context == "always" else plain)
    scores = method.score(batch.images)
    np.testing.assert_allclose(scores.score, softmax(cosine / 0.07)[:, 1], atol=1e-4)
    middle = backbone.patch // 2  # bilinear at the middle of a patch of odd or even side: near the patch's own value
    means = softmax(logits)[..., 1].mean(0).reshape(3, *backbone.grid)
    got = scores.map.numpy()[:, middle :: backbone.patch, middle :: backbone.patch]
    assert np.abs(got - means).max() < 0.5 * np.ptp(means) + 1e-6
    np.testing.assert_allclose(scores.map.mean((1, 2)), means.mean((1, 2)), atol=0.02)

    logits, cosine = vectors(conditioned)
    probs = softmax(logits)[..., 1]
    total = -0.2 * np.mean([np.log(softmax(c / 0.01)[y]) for c, y in zip(cosine, [0, 1, 1], strict=True)])
    for layer in probs:
        parts = []
        for i in (0, 2):
            p = np.kron(layer[i].reshape(backbone.grid), np.ones((backbone.patch, backbone.patch)))
            y = truth.masks[i].numpy()
            q = np.where(y, p, 1 - p) * (1 - 1e-5) + 1e-5 * np.where(y, 1 - p, p) + 1e-5
            focal = np.mean(-((1 - q).clip(0) ** 2) * np.log(q))
            parts.append(focal + 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
        total += 8 * np.mean(parts) / 2
    np.testing.assert_allclose(method.loss(seen).item(), total, rtol=2e-3)


def test_training_lowers_the_loss_and_finds_lesions(tiny):
    batch = make_batch(tiny)
    method = build(tiny, epochs=30, lr=0.02)
    report = method.fit(batch, seed=0)
    assert report.loss[-1] < 0.8 * report.loss[0]
    assert report.selection == "last epoch"
    with torch.no_grad():
        maps = method.score(batch.images).map
    assert maps[batch.masks].mean() > maps[~batch.masks].mean() + 0.05


def test_when_the_sentences_contain_the_image(backbone):
    batch, same = make_batch(backbone, per_class=1), backbone.dim == backbone.text_width
    for context in ("training", "always", "never"):
        method = build(backbone, context=context)
        report = method.fit(batch, seed=0)
        assert any("to_text" in name for name in report.learned) == (context != "never" and not same)
        calls = []
        encode = method.encode_text
        method.encode_text = lambda tokens, calls=calls, encode=encode: calls.append(tokens) or encode(tokens)
        with torch.no_grad():
            method.score(batch.images)
        assert len(calls) == (context == "always"), "without a context, the sentences are read once, in fit"


def test_an_auxiliary_set_replaces_the_support(tiny):
    auxiliary = [make_batch(tiny, seed=s, classes=("good", "bad")) for s in (3, 4)]
    states = []
    for support in (empty_batch(tiny), make_batch(tiny)):
        method = build(tiny)
        report = method.fit(support, auxiliary=auxiliary, seed=0)
        assert report.notes == ("trained on the auxiliary set; no support image was used",)
        states.append(method.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_refusals(tiny):
    with pytest.raises(ValidationError, match="length=4 deep tokens do not fit into words=3; set length"):
        CraneConfig(words=3)
    with pytest.raises(ConfigError, match=r"layers 1\.\.4, but \[5\]"):
        build(tiny, attention_from=5)
