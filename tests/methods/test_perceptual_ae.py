"""The deep perceptual autoencoder against its equations in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from tests.methods.conftest import CLASSES, make_batch
from ultraad.backbones._gist import listening
from ultraad.methods.perceptual_ae import METHOD, Autoencoder, PerceptualAEConfig, relative_l1, stage_of
from ultraad.nn.augment import from_intensity
from ultraad.nn.autoencoder import shrink, small


def fitted(backbone, **options):
    config = PerceptualAEConfig(**{"side": 32, "steps": 3, **options})
    method = METHOD(backbone, config, classes=CLASSES, normal_class="normal")
    method.fit(make_batch(backbone), seed=0)
    return method


def test_relative_l1_by_loops():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2, 3, 4))
    images, patches = relative_l1(torch.tensor(x), torch.tensor(y))
    for i in range(2):
        size = np.mean([abs(v) for row in x[i] for v in row])
        rows = [np.mean([abs(a - b) for a, b in zip(x[i, j], y[i, j], strict=True)]) / size for j in range(3)]
        np.testing.assert_allclose(patches[i], rows)
        np.testing.assert_allclose(images[i], np.abs(x[i] - y[i]).sum() / np.abs(x[i]).sum())


@pytest.mark.parametrize("layers", [(0,), (0, 2)])
def test_score_and_map(backbone, layers):
    method, support = fitted(backbone, layers=layers), make_batch(backbone)
    images = make_batch(backbone, 1, seed=7).images

    def features(pictures):
        size = (backbone.size, backbone.size)
        large = F.interpolate(pictures, size=size, mode="bilinear", align_corners=False)
        taken = backbone.encode_image(from_intensity(large.expand(-1, 3, -1, -1), backbone.preprocess), layers=layers)
        return [taken.patches[k].double().numpy() for k in layers]

    with torch.no_grad():
        known = features(small(support.images[:2], backbone.preprocess, 32))
        x = small(images, backbone.preprocess, 32)
        wanted, redrawn = features(x), features(method.autoencoder(x))
        scores = method.score(images)
    patches, total = 0, 0
    for k, a, b in zip(known, wanted, redrawn, strict=True):
        rows = k.reshape(-1, k.shape[-1])
        mu, sigma = rows.mean(0), rows.std(0, ddof=1)
        a, b = (a - mu) / sigma, (b - mu) / sigma
        size = np.abs(a).mean((1, 2))
        patches += np.abs(a - b).mean(2) / size[:, None] / len(layers)
        total += np.abs(a - b).sum((1, 2)) / np.abs(a).sum((1, 2)) / len(layers)
    np.testing.assert_allclose(scores.score.numpy(), total / (total + float(method.usual_score)), rtol=1e-4)
    grid = torch.from_numpy(patches).view(-1, 1, *backbone.grid)
    up = F.interpolate(grid, size=(backbone.size, backbone.size), mode="bilinear")[:, 0].numpy()
    maps = np.stack([gaussian_filter(m, 4 * backbone.size / 224) for m in up])
    np.testing.assert_allclose(scores.map.numpy(), maps / (maps + float(method.usual_map)), atol=0.02)
    inner = slice(8, -8)  # the filter is cut at 4 sigma of another length at the borders
    np.testing.assert_allclose(
        scores.map[:, inner, inner].numpy(), (maps / (maps + float(method.usual_map)))[:, inner, inner], atol=2e-3
    )


def test_stages_double_the_side_and_fade_in():
    found = [stage_of(e, epochs=12, stages=3) for e in range(12)]
    assert [level for level, _ in found] == [2] * 4 + [1] * 4 + [0] * 4
    assert [fade for _, fade in found] == [1, 1, 1, 1, 0.5, 1, 1, 1, 0.5, 1, 1, 1]
    assert [level for level, _ in (stage_of(e, epochs=2, stages=3) for e in range(2))] == [1, 0]
    assert stage_of(0, epochs=1, stages=3) == (0, 1)
    assert all(stage_of(e, epochs=5, stages=1) == (0, 1) for e in range(5))


def test_a_new_stage_begins_as_the_one_before_it():
    torch.manual_seed(0)
    net = Autoencoder(side=32, width=8, codes=2, stages=3).eval()
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        old = F.interpolate(net(shrink(x, 16), level=1), scale_factor=2)
        new, faded, grown = (net(x, fade=f) for f in (0.0, 0.5, 1.0))
    torch.testing.assert_close(new, old)
    assert not torch.allclose(faded, old, atol=1e-3)
    assert not torch.allclose(grown, faded, atol=1e-3)


def test_what_it_redraws_is_not_taken_for_the_image_when_its_kind_is_judged(tiny):
    method, images = fitted(tiny), make_batch(tiny, 1, seed=7).images
    with listening(tiny) as gists:
        method.score(images)
    assert gists == []
