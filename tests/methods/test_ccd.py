"""CCD against its equations in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.methods.conftest import CLASSES, make_batch
from ultraad.methods.ccd import DIRECTIONS, METHOD, CCDConfig, contrast, neighbours, permute, weak_views
from ultraad.nn.autoencoder import small
from ultraad.nn.prompts import unit


def fitted(backbone, per_class=2, **options):
    config = CCDConfig(**{"side": 32, "width": 4, "steps": 2, "features": 5, "projection": 8, **options})
    method = METHOD(backbone, config, classes=CLASSES, normal_class="normal")
    method.fit(make_batch(backbone, per_class), seed=0)
    return method


def test_permutations_exchange_halves():
    x = torch.arange(16.0).view(1, 1, 4, 4).repeat(4, 1, 1, 1)
    plain, sideways, upside, both = permute(x, torch.arange(4))[:, 0].numpy()
    a = np.arange(16.0).reshape(4, 4)
    np.testing.assert_array_equal(plain, a)
    np.testing.assert_array_equal(sideways, np.hstack([a[:, 2:], a[:, :2]]))
    np.testing.assert_array_equal(upside, np.vstack([a[2:], a[:2]]))
    np.testing.assert_array_equal(both, np.block([[a[2:, 2:], a[2:, :2]], [a[:2, 2:], a[:2, :2]]]))


def test_a_patch_lies_beside_its_neighbour():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    x = (100 * rows + columns).expand(200, 1, 32, 32)
    first, second, kinds = neighbours(x, generator=torch.Generator().manual_seed(0))
    assert first.shape == second.shape == (200, 1, 8, 8)
    assert set(kinds.tolist()) == set(range(8))
    for a, b, kind in zip(first, second, kinds.tolist(), strict=True):
        dy, dx = DIRECTIONS[kind]
        assert float(b[0, 0, 0] - a[0, 0, 0]) == 8 * (100 * dy + dx)
        assert float(b.max() - b.min()) == 707


def test_contrast_by_loops():
    one, other = (unit(torch.randn(3, 4, generator=torch.Generator().manual_seed(s))) for s in (0, 1))
    z = torch.cat([one, other]).double().numpy()
    total = 0.0
    for i in range(6):
        partner = (i + 3) % 6
        weights = [np.exp(z[i] @ z[j] / 0.2) for j in range(6) if j != i]
        total -= np.log(np.exp(z[i] @ z[partner] / 0.2) / sum(weights)) / 6
    assert float(contrast(one, other, temperature=0.2)) == pytest.approx(total, rel=1e-5)


def test_weak_views_stay_in_the_picture_and_in_range():
    rows, columns = torch.meshgrid(torch.linspace(0.3, 0.6, 32), torch.linspace(0, 1, 32), indexing="ij")
    x = rows.expand(64, 1, 32, 32)
    views = weak_views(x, generator=torch.Generator().manual_seed(0))
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1
    assert float(views.std(3).max()) < 1e-5, "rows of equal values stay rows"
    across = weak_views(columns.expand(64, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    mirrored = across[:, 0, 0, 0] > across[:, 0, 0, -1]
    assert 16 < int(mirrored.sum()) < 48
    assert not torch.equal(views[0], views[1])


def test_the_loss_is_the_sum_of_three(tiny):
    method = fitted(tiny)
    one, other = torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    kinds, patches = torch.tensor([0, 3, 1]), (one[:, :, :8, :8], other[:, :, 8:16, :8], torch.tensor([6, 2, 7]))
    with torch.no_grad():
        found = float(method.three_losses(one, other, kinds, patches))
        f, g, p, q = (method.encode(v)[-1].mean((2, 3)) for v in (one, other, *patches[:2]))
        total = float(contrast(unit(method.project(f)), unit(method.project(g)), temperature=0.2))
        for features in (f, g):
            logits = method.classify(features).double().numpy()
            total -= np.mean([x[k] - np.log(np.exp(x).sum()) for x, k in zip(logits, kinds.tolist(), strict=True)]) / 2
        logits = method.locate(torch.cat([p, q], 1)).double().numpy()
        total -= np.mean([x[k] - np.log(np.exp(x).sum()) for x, k in zip(logits, patches[2].tolist(), strict=True)])
    assert found == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("per_class", [1, 4])
def test_distances_are_those_of_the_gaussians(backbone, per_class):
    method, support = fitted(backbone, per_class), make_batch(backbone, per_class)
    images = make_batch(backbone, 1, seed=7).images
    with torch.no_grad():
        known, new = (
            method.places(small(x, backbone.preprocess, 32)).double().numpy()
            for x in (support.images[:per_class], images)
        )
        scores = method.score(images)
    places, d = known.shape[1:]
    assert (places, d) == (64, 5)
    distance = np.zeros((len(images), places))
    for p in range(places):
        off = known[:, p] - known[:, p].mean(0)
        inverse = np.linalg.inv(off.T @ off / max(1, per_class - 1) + 0.01 * np.eye(d))
        for i, x in enumerate(new[:, p] - known[:, p].mean(0)):
            distance[i, p] = np.sqrt(x @ inverse @ x)
    plain = fitted(backbone, per_class, sigma=0)
    up = F.interpolate(torch.from_numpy(distance).view(-1, 1, 8, 8), size=(backbone.size,) * 2, mode="bilinear")[:, 0]
    with torch.no_grad():
        _, maps = plain.errors(small(images, backbone.preprocess, 32))
    np.testing.assert_allclose(maps.numpy(), up.numpy(), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        score, smoothed = method.errors(small(images, backbone.preprocess, 32))
    wanted = smoothed.amax((1, 2)).numpy()
    np.testing.assert_allclose(score.numpy(), wanted)
    np.testing.assert_allclose(scores.score.numpy(), wanted / (wanted + float(method.usual_score)), rtol=1e-5)


class Kept:
    """A checkpoint in memory, saved after every epoch."""

    state = None

    def load(self):
        return self.state

    def due(self):
        return True

    def save(self, state):
        self.state = {key: value.clone() for key, value in state.items()}


IGD = {"side": 32, "width": 4, "steps": 2, "projection": 8, "detector": "igd", "codes": 5, "igd_steps": 3}


def test_igd_judges_with_the_encoder_that_contrast_learned(backbone):
    method = fitted(backbone, **IGD)
    plain = fitted(backbone, **{**IGD, "detector": "padim"})
    assert not any(name.startswith("igd.") for name in plain.state_dict())
    images = make_batch(backbone, 1, seed=7).images
    x = small(images, backbone.preprocess, 32)
    with torch.no_grad():
        features = method.encode(x)[-1].mean((2, 3))
        wanted, _ = method.igd.errors(x, features)
        normal = small(make_batch(backbone, 2).images[:2], backbone.preprocess, 32)
        z = method.igd.code(method.encode(normal)[-1].mean((2, 3)))
        found = method.score(images)
    torch.testing.assert_close(method.igd.centre, z.mean(0))
    torch.testing.assert_close(found.score, wanted / (wanted + method.usual_score))
    assert found.map.shape == images.shape[::2][:1] + (backbone.size,) * 2
    assert 0 <= float(found.map.min()) <= float(found.map.max()) < 1


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_igd_goes_on_with_the_same_bits_in_either_stage(backbone, stop_at):
    config = CCDConfig(**IGD)
    batch, kept, said = make_batch(backbone, 2), Kept(), []

    def stop(done, epochs):
        if done == stop_at:
            raise KeyboardInterrupt

    def build():
        return METHOD(backbone, config, classes=CLASSES, normal_class="normal")

    method = build()
    method.announce, method.checkpoint, method.progress = said.append, kept, stop
    with pytest.raises(KeyboardInterrupt):
        method.fit(batch, seed=0)
    again = build()
    again.announce, again.checkpoint = said.append, kept
    again.fit(batch, seed=0)
    whole = build()
    whole.fit(batch, seed=0)
    assert said[0].epochs == 5
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
