"""PatchCore against its equations in plain numpy, and its options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.errors import ConfigError, DataError
from ultraad.methods import get
from ultraad.methods.patch_core import PatchCore, PatchCoreConfig, greedy_coreset
from ultraad.nn.prompts import unit


def fitted(backbone, batch=None, seed=0, **options):
    method = PatchCore(backbone, PatchCoreConfig(**options), classes=CLASSES, normal_class="normal")
    method.fit(make_batch(backbone) if batch is None else batch, seed=seed)
    return method


def numpy_patches(backbone, images, layers, radius):
    """{layer: (b n w)} neighbourhood means, one patch at a time, in float64."""
    features = backbone.encode_image(images, layers=layers)
    gh, gw = features.grid
    out = {}
    for layer in layers:
        x = features.patches[layer].double().numpy().reshape(len(images), gh, gw, -1)
        y = np.zeros_like(x)
        for i in range(gh):
            for j in range(gw):
                near = x[:, max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1]
                y[:, i, j] = near.mean((1, 2))
        out[layer] = y.reshape(len(images), gh * gw, -1)
    return out


def numpy_distances(a, b):
    """Mean over the layers of 1 - cosine, every row of a (m w) with every row of b."""

    def cosine(x, y):
        return x @ y.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)[None]

    return np.mean([1 - cosine(a[layer], b[layer]) for layer in a], axis=0)


def oracle(backbone, references, images, layers, radius, neighbours):
    """Patch distances (b n) and image scores (b,) by Eqs. 6 and 7."""
    memory = {k: x.reshape(-1, x.shape[-1]) for k, x in numpy_patches(backbone, references, layers, radius).items()}
    patches = numpy_patches(backbone, images, layers, radius)
    nearest, scores = [], []
    for i in range(len(images)):
        distances = numpy_distances({k: x[i] for k, x in patches.items()}, memory)  # (n m)
        best = distances.min(1)
        at = int(best.argmax())
        star = int(distances[at].argmin())
        between = numpy_distances({k: x[star : star + 1] for k, x in memory.items()}, memory)[0]
        around = np.argsort(between)[:neighbours]
        weight = 1 - np.exp(best[at]) / np.exp(distances[at, around]).sum() if neighbours > 1 else 1.0
        nearest.append(best)
        scores.append(weight * best[at])
    return np.stack(nearest), np.array(scores)


@pytest.mark.parametrize(("radius", "neighbours"), [(1, 9), (0, 3), (2, 0)])
def test_equations(backbone, radius, neighbours):
    support, images = make_batch(backbone, 2), make_batch(backbone, 1, seed=7).images
    method = fitted(backbone, support, radius=radius, neighbours=neighbours)
    scores = method.score(images)
    nearest, expected = oracle(backbone, support.images[:2], images, backbone.default_layers, radius, neighbours)
    assert nearest.max() > 1e-3
    np.testing.assert_allclose(scores.score.numpy(), expected / 2, atol=1e-6)
    grid = torch.from_numpy(nearest / 2).view(-1, 1, *backbone.grid)
    up = F.interpolate(grid, size=(backbone.size, backbone.size), mode="bilinear")[:, 0].numpy()
    smoothed = [gaussian_filter(x, 4 * backbone.size / 224) for x in up]
    np.testing.assert_allclose(scores.map.numpy(), smoothed, atol=1e-5)
    plain = fitted(backbone, support, radius=radius, sigma=0).score(images)
    np.testing.assert_allclose(plain.map.numpy(), up, atol=1e-6)


def test_it_finds_a_new_disc(backbone):
    support = make_batch(backbone, 3)
    method = fitted(backbone, support, layers=(1,))  # of a random tower only the first layer is local
    mask = support.masks[3]
    changed = support.images[:3].clone()
    changed[:, :, mask] += 3
    scores = method.score(changed)
    assert scores.score.min() > 0.1
    assert scores.map[:, mask].mean() > 1.5 * scores.map[:, ~mask].mean()


def test_stored_images_have_distance_zero(backbone):
    support = make_batch(backbone)
    scores = fitted(backbone, support).score(support.images[:2])
    assert scores.score.max() < 1e-5
    assert scores.map.max() < 1e-5
    assert scores.map.min() >= 0


def test_only_normal_images_are_kept(tiny):
    support = make_batch(tiny, 2)
    assert torch.equal(fitted(tiny, support).memory, fitted(tiny, support.select([0, 1])).memory)


def brute_force_coreset(rows, count, first):
    chosen = [first]
    while len(chosen) < count:
        far = [-1 if i in chosen else min(1 - rows[i] @ rows[j] for j in chosen) for i in range(len(rows))]
        chosen.append(int(np.argmax(far)))
    return chosen


def test_coreset_takes_the_farthest_each_time():
    rows = unit(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)))
    chosen = greedy_coreset(rows, 12, seed=1).tolist()
    assert chosen == brute_force_coreset(rows.double().numpy(), 12, chosen[0])
    assert chosen == greedy_coreset(rows, 30, seed=1).tolist()[:12]
    assert len({greedy_coreset(rows, 1, seed=s).item() for s in range(10)}) > 1


def test_coreset_of_equal_rows_repeats_none():
    rows = unit(torch.ones(6, 4))
    assert sorted(greedy_coreset(rows, 6, seed=0).tolist()) == list(range(6))


def test_coreset_thins_the_memory(backbone):
    support = make_batch(backbone, 3)
    full = fitted(backbone, support)
    thin = fitted(backbone, support, coreset=0.1)
    gh, gw = backbone.grid
    assert len(full.memory) == 3 * gh * gw
    assert len(thin.memory) == round(0.1 * len(full.memory))
    assert torch.equal(thin.memory, fitted(backbone, support, coreset=0.1).memory)
    assert not torch.equal(thin.memory, fitted(backbone, support, seed=1, coreset=0.1).memory)
    images = make_batch(backbone, 1, seed=7).images
    assert (thin.score(images).map >= full.score(images).map - 1e-6).all()  # fewer rows, never nearer
    reloaded = PatchCore(backbone, classes=CLASSES, normal_class="normal")
    reloaded.load_state_dict(thin.state_dict())
    assert torch.equal(reloaded.score(images).score, thin.score(images).score)


def test_a_memory_of_one_row_is_not_re_weighted(tiny):
    images = make_batch(tiny, 1, seed=7).images
    one = fitted(tiny, coreset=1e-6)
    assert len(one.memory) == 1
    assert torch.equal(one.score(images).score, fitted(tiny, coreset=1e-6, neighbours=0).score(images).score)
    assert one.score(images).score.min() > 0


def test_layers(backbone):
    method = fitted(backbone, layers=(0,))
    assert method.memory.shape[1] == backbone.width, "the patch embedding is a layer, too"
    method = fitted(backbone, layers=(2,))
    assert method.memory.shape[1] == backbone.width
    with pytest.raises(ConfigError, match=r"layers 0\.\."):
        fitted(backbone, layers=(backbone.layers + 1,))


def test_needs_normal_images(tiny):
    with pytest.raises(DataError, match="needs normal images"):
        fitted(tiny, make_batch(tiny).select([2, 3]))
    for auxiliary in (None, [make_batch(tiny)]):
        method = PatchCore(tiny, classes=CLASSES, normal_class="normal")
        with pytest.raises(DataError, match="got none"):
            method.fit(empty_batch(tiny), auxiliary=auxiliary, seed=0)


def test_report_and_name(tiny):
    assert get("patch_core") is PatchCore
    method = PatchCore(tiny, classes=CLASSES, normal_class="normal")
    report = method.fit(make_batch(tiny), seed=0)
    assert (report.selection, dict(report.learned)) == ("nothing is learned", {})
    assert set(method.state_dict()) == {"memory"}
