"""AA-CLIP against its equations, written again in numpy, slowly; and its options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError
from ultraad.methods.aa_clip import AACLIP, AACLIPConfig, mixed
from ultraad.nn.labelled import labelled


def build(backbone, **options):
    config = AACLIPConfig.model_validate({"text_epochs": 1, "epochs": 1, "sigma": 0.0, **options})
    return AACLIP(backbone, config, classes=CLASSES, normal_class="normal")


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def mix(weight, x, share):
    a = leaky(x @ weight.detach().double().numpy().T)
    return share * a / np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(x, axis=-1, keepdims=True) + (
        (1 - share) * x
    )


@torch.no_grad()
def test_an_adapter_keeps_the_length_of_what_it_adds():
    adapter, x = torch.nn.Linear(6, 6, bias=False), torch.randn(2, 3, 6)
    got = mixed(adapter, x, 0.3)
    np.testing.assert_allclose(got, mix(adapter.weight, x.double().numpy(), 0.3), atol=1e-6)
    added = (got - 0.7 * x) / 0.3
    torch.testing.assert_close(added.norm(dim=-1), x.norm(dim=-1))


@torch.no_grad()
def test_the_adapted_image_tower_is_the_equations(backbone):
    method, x = build(backbone, layers=(1, 3), image_blocks=2), make_batch(backbone, per_class=1).images
    tokens, want = backbone.embed_image(x), []
    for layer, block in enumerate(backbone.model.visual.transformer.resblocks[:3], start=1):
        tokens = block(tokens)
        if layer <= 2:
            weight = method.image_adapters[layer - 1].weight
            tokens = torch.tensor(mix(weight, tokens.double().numpy(), 0.1), dtype=torch.float32)
        if layer in (1, 3):
            normed = backbone.post_norm(tokens[:, 1:]).double().numpy()
            want.append(unit(normed @ method.seg_heads[str(layer)].weight.double().numpy().T))
    patches, image = method.encode(x)
    np.testing.assert_allclose(patches, np.stack(want), atol=1e-5)
    np.testing.assert_allclose(image, unit(normed @ method.det_head.weight.double().numpy().T).mean(1), atol=1e-5)
    cached, _ = method.encode(x, frozen=True)
    torch.testing.assert_close(cached, patches, atol=1e-5, rtol=0)


@torch.no_grad()
def test_anchors_are_the_mean_of_adapted_sentences(backbone):
    method = build(backbone, states="industrial", text_blocks=1)
    name, sides = "breast ultrasound", []
    for states in (("{}", "a {}", "the {}"), ("a damaged {}", "a broken {}", "a {} with flaw", "a {} with defect",
                   "a {} with damage")):  # fmt: skip
        texts = []
        for state in states:
            for template in ("{}.", "a photo of {}."):
                tokens = backbone.tokenize([template.format(state.format(name))])

                def around(layer, x, block):
                    x = block(x)
                    if layer > 1:
                        return x
                    weight = method.text_adapters[0].weight
                    return torch.tensor(mix(weight, x.double().numpy(), 0.1), dtype=torch.float32)

                eot = backbone.end_of_text(tokens)
                end = backbone.encode_prompts(backbone.embed_text(tokens), eot, around=around, project=False)
                texts.append(unit(leaky(end[0].double().numpy() @ method.text_head.weight.double().numpy().T)))
        sides.append(unit(np.mean(texts, 0)))
    np.testing.assert_allclose(method.encode_text(), np.stack(sides), atol=1e-5)


@torch.no_grad()
def test_map_and_scores_are_the_equations(backbone):
    method, x = build(backbone), make_batch(backbone, per_class=1).images
    method._encode()
    patches, image = (t.double().numpy() for t in method.encode(x))
    t_n, t_a = method.text.double().numpy()
    scores = method.score(x)
    margins = np.mean([p @ (t_a - t_n) for p in patches], 0).reshape(3, *backbone.grid)
    corners = scores.map.numpy()[:, :: backbone.size - 1, :: backbone.size - 1]
    want = 0.5 + margins[:, :: backbone.grid[0] - 1, :: backbone.grid[1] - 1] / (2 * np.linalg.norm(t_a - t_n))
    np.testing.assert_allclose(corners, want, atol=1e-5)
    both = AACLIP(backbone, AACLIPConfig(sigma=0.0, image_score="both"), classes=CLASSES, normal_class="normal")
    both.load_state_dict(method.state_dict())
    want = (scores.map.amax((1, 2)).numpy() + (1 + image @ t_a) / 2) / 2
    np.testing.assert_allclose(both.score(x).score, want, atol=1e-5)


def test_both_stages_lower_their_losses_and_lesions_are_found(tiny):
    batch, steps = make_batch(tiny), []
    method = build(tiny, text_epochs=5, epochs=15, text_lr=3e-3, lr=5e-3)
    method.progress = lambda done, total: steps.append((done, total))
    report = method.fit(batch, seed=0)
    assert steps == [(i, 20) for i in range(1, 21)]
    assert report.loss[4] < report.loss[0]
    assert report.loss[-1] < 0.8 * report.loss[5]
    with torch.no_grad():
        maps = method.score(batch.images).map
    assert maps[batch.masks].mean() > maps[~batch.masks].mean() + 0.05


def test_stage_1_sees_value_attention_beside_the_class_token(backbone):
    method, batch = build(backbone), make_batch(backbone, per_class=1)
    own = method.see(batch.images)
    late = build(backbone, value_from=backbone.layers).see(batch.images)
    last = method.layers[-1]
    assert set(own.patches) == {last}
    assert not torch.allclose(own.patches[last], late.patches[last], atol=1e-3)
    assert torch.equal(own.image, late.image), "the class token is that of the plain tower"
    assert method.image_loss(labelled(batch, normal_index=0)).item() > 0


def test_an_auxiliary_set_replaces_the_support(tiny):
    auxiliary, states = [make_batch(tiny, seed=3, classes=("good", "bad"))], []
    for support in (empty_batch(tiny), make_batch(tiny)):
        method = build(tiny)
        method.fit(support, auxiliary=auxiliary, seed=0)
        states.append(method.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_refusals():
    tiny = load_backbone("tiny")
    with pytest.raises(ConfigError, match=r"layers 0\.\.4, but \[5\]"):
        build(tiny, image_blocks=5)
    with pytest.raises(ConfigError, match=r"layers 1\.\.4, but \[9\]"):
        build(tiny, value_from=9)
