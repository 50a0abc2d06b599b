"""MediCLIP against its reference: the network number by number, the synthesis by its statistics over 200 draws.

The reference forgets the causal mask of the text tower. ``uncausal`` puts that back, for the numbers that depend on it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from scipy.stats import ks_2samp

from tests.parity import fixtures
from ultraad.methods.medi_clip import METHOD
from ultraad.nn.losses import dice, focal
from ultraad.nn.maps import largest
from ultraad.nn.synthesis import FAMILIES, apply, draw
from ultraad.rng import seeded

DRAWS = 200
CRITICAL = 0.163  # two-sample Kolmogorov-Smirnov distance, 200 against 200 draws, 1 %


@pytest.fixture(scope="module")
def golden():
    return fixtures.golden("mediclip")


@pytest.fixture(scope="module")
def method(golden):
    m = METHOD(fixtures.mini(), METHOD.Config(grey=False), classes=("normal", "abnormal"), normal_class="normal")
    names = {
        "normal_context": "prompt.ctx.normal_end",
        "abnormal_context": "prompt.ctx.abnormal_end",
        **{
            f"adapters.{layer}.{kind}": f"adapter.{i}_adapter.0.{kind}"
            for i, layer in enumerate((12, 18, 24))
            for kind in ("weight", "bias")
        },
    }
    parameters = dict(m.named_parameters())
    assert parameters.keys() == names.keys()
    with torch.no_grad():
        for ours, theirs in names.items():
            parameters[ours].copy_(golden[f"param.{theirs}"].view_as(parameters[ours]))
    m.reference_names = names
    return m


@pytest.fixture(scope="module")
def features(method):
    with torch.no_grad():
        return method.backbone.encode_image(fixtures.golden("inputs")["image_clip"], layers=method.layers)


@pytest.fixture
def uncausal(method, monkeypatch):
    """The text tower as the reference runs it: all 77 positions see each other, padding included."""
    text = method.backbone.model

    def encode_prompts(embeds, eot):
        x = embeds + text.positional_embedding
        for block in text.transformer.resblocks:
            x = block(x)
        return text.ln_final(x[torch.arange(len(x)), eot]) @ text.text_projection

    monkeypatch.setattr(method.backbone, "encode_prompts", encode_prompts)
    return method


def close(ours, theirs, *, atol=1e-4):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def test_defaults_are_the_references(method):
    assert method.layers == (12, 18, 24)
    assert (len(method.normal_context), len(method.abnormal_context)) == (10, 11)


@torch.no_grad()
def test_text_without_causal_mask(uncausal, golden):
    close(uncausal.text_pair(), golden["text_features"].T)


@torch.no_grad()
def test_text_with_causal_mask(method, golden):
    close(method.text_pair(), golden["causal.text_features"].T)
    assert (golden["causal.text_features"] - golden["text_features"]).abs().max() > 0.1


@torch.no_grad()
def test_patch_logits(method, features, golden):
    cosines = method.adapt(features.patches) @ golden["text_features"]  # (l b n 2)
    close(cosines.transpose(0, 1), golden["patch_logits"])


@torch.no_grad()
def test_score(uncausal, golden):
    uncausal.text.copy_(uncausal.text_pair())
    scores = uncausal.score(fixtures.golden("inputs")["image_clip"])
    close(scores.score, golden["image_score"], atol=1e-5)  # the maps vary by 0.006 only
    close(largest(scores.map), scores.score)
    assert scores.map.shape == (3, 112, 112)


def test_losses_and_gradients(uncausal, features, golden):
    mask = fixtures.golden("inputs")["mask"].bool().view(3, 112, 112)
    maps = uncausal.anomaly_map(features.patches, uncausal.text_pair())
    close(focal(maps, mask).mean()[None], golden["train.focal"], atol=1e-5)
    close(dice(maps, mask).mean()[None], golden["train.dice"], atol=1e-5)
    uncausal.zero_grad()
    loss = uncausal._loss(features.patches, mask)
    close(loss.detach()[None], golden["train.total_loss"], atol=1e-5)
    loss.backward()
    for ours, p in uncausal.named_parameters():
        norm = golden[f"gradnorm.{uncausal.reference_names[ours]}"]
        torch.testing.assert_close(p.grad.norm()[None], norm, rtol=1e-3, atol=0)


@pytest.fixture(scope="module")
def pictures(golden):
    grey = torch.cat([golden["synthesis.image_u8"][None], golden["synthesis.source_u8"]])
    return [g.numpy() / np.float32(255) for g in grey]


def statistics(family, pictures):
    """What the reference recorded of each draw, and the histogram of grey-level changes."""
    rng = seeded(0, f"statistics/{family}")
    found, changes = [], []
    for _ in range(DRAWS):
        image, mask = apply(pictures[0], draw(family, rng, shape=(224, 224), sources=3), pictures)
        change = np.rint(image * 255) - np.rint(pictures[0] * 255)
        assert not change[~mask].any()
        change = change[mask]
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        found.append(
            {
                "area": mask.mean(),
                "mean_change": change.mean(),
                "abs_in": np.abs(change).mean(),
                "h": (np.ptp(rows) + 1) / 224,
                "w": (np.ptp(columns) + 1) / 224,
                "ncomp": label(mask)[1],
            }
        )
        changes.append(change)
    histogram = np.histogram(np.concatenate(changes), bins=51, range=(-255, 255))[0]
    return {name: [row[name] for row in found] for name in found[0]}, histogram / histogram.sum()


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "identity"])
def test_synthesis_has_the_references_statistics(family, pictures, golden):
    ours, histogram = statistics(family, pictures)
    for name, values in ours.items():
        theirs = golden[f"synthesis.{family}.{name}_sorted"].numpy()
        distance = ks_2samp(values, theirs, method="asymp").statistic
        assert distance < CRITICAL, f"{name}: {distance:.3f}, means {np.mean(values):.4g} and {theirs.mean():.4g}"
    # Pixels of one draw are alike, so the histogram of all is a coarse check only.
    assert np.abs(histogram - golden[f"synthesis.{family}.change_histogram"].numpy()).sum() / 2 < 0.15


def test_identity_changes_nothing(pictures):
    image, mask = apply(pictures[0], draw("identity", seeded(0, "x"), shape=(224, 224), sources=3), pictures)
    assert np.array_equal(image, pictures[0])
    assert not mask.any()
