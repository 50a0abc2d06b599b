from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.methods.conftest import CLASSES, make_batch
from ultraad.errors import DataError
from ultraad.methods.patch_probe import METHOD, PatchProbeConfig
from ultraad.nn.augment import apply_view, sample_views


def make(backbone, **options):
    return METHOD(backbone, PatchProbeConfig(**options), classes=CLASSES, normal_class="normal")


def fit(backbone, batch, **options):
    method = make(backbone, **options)
    method.fit(batch, seed=0)
    return method


def rows(backbone, images, masks):
    """Tokens (m l*w) and lesion share (m,) of every patch, one patch after the other."""
    f = backbone.encode_image(images, layers=backbone.default_layers)
    x, share, p = [], [], backbone.patch
    for i in range(len(images)):
        for row in range(backbone.grid[0]):
            for column in range(backbone.grid[1]):
                at = row * backbone.grid[1] + column
                tokens = [backbone.post_norm(f.patches[layer][i, at]) for layer in backbone.default_layers]
                x.append(np.concatenate([(t / t.norm()).numpy() for t in tokens]))
                share.append(masks[i, row * p : (row + 1) * p, column * p : (column + 1) * p].float().mean())
    return np.array(x), np.array(share)


def assert_solves(method, x, y, weight=None, **options):
    oracle = LogisticRegression(tol=1e-8, max_iter=10000, **options).fit(x.astype(float), y, sample_weight=weight)
    ours = 1 / (1 + np.exp(-(x @ method.weight.numpy() + float(method.bias))))
    np.testing.assert_allclose(ours, oracle.predict_proba(x)[:, 1], atol=5e-4)


@pytest.fixture(scope="module")
def case(backbone):
    batch = make_batch(backbone)
    return backbone, batch, *rows(backbone, batch.images, batch.masks)


def test_it_equals_the_solution_of_scikit_learn(case):
    backbone, batch, x, share = case
    method = fit(backbone, batch)
    assert_solves(method, x, share >= 0.5, C=0.316)
    assert_solves(fit(backbone, batch, C=10.0), x, share >= 0.5, C=10.0)
    assert not np.allclose(method.weight, fit(backbone, batch, C=10.0).weight, atol=0.1)


def test_balanced_weights_equal_those_of_scikit_learn(case):
    backbone, batch, x, share = case
    method = fit(backbone, batch, balanced=True)
    assert_solves(method, x, share >= 0.5, C=0.316, class_weight="balanced")
    assert float(method.bias) > float(fit(backbone, batch).bias)


def test_soft_labels_weigh_both_answers_by_their_pixels(case):
    backbone, batch, x, share = case
    assert ((share > 0) & (share < 1)).any()
    y = np.repeat([0, 1], len(x))
    assert_solves(
        fit(backbone, batch, labels="soft"), np.concatenate([x, x]), y, np.concatenate([1 - share, share]), C=0.316
    )


def test_views_are_added(case):
    backbone, batch, *_ = case
    images, masks = list(batch.images), list(batch.masks)
    for i, id_ in enumerate(batch.ids):
        view = sample_views(id_, 2, seed=0)[1]
        moved, mask = apply_view(batch.images[i], batch.masks[i], view, preprocess=backbone.preprocess)
        images.append(moved)
        masks.append(mask)
    x, share = rows(backbone, torch.stack(images), torch.stack(masks))
    assert_solves(fit(backbone, batch, views=2), x, share >= 0.5, C=0.316)


def test_the_map_is_the_probability_of_each_patch(case):
    backbone, batch, x, _ = case
    method = fit(backbone, batch, sigma=0.0)
    scores = method.score(batch.images)
    p = torch.from_numpy(1 / (1 + np.exp(-(x @ method.weight.numpy() + float(method.bias))))).view(-1, *backbone.grid)
    side = backbone.size // backbone.grid[0]
    inner = scores.map.unfold(1, side, side).unfold(2, side, side)[..., side // 2 - 1 : side // 2 + 1, :]
    centre = inner[..., side // 2 - 1 : side // 2 + 1].mean((-1, -2))  # the mean of four pixels around the centre
    torch.testing.assert_close(centre[:, 1:-1, 1:-1], blend(p, side)[:, 1:-1, 1:-1].float(), atol=1e-4, rtol=0)
    assert torch.equal(scores.score, scores.map.flatten(1).amax(1))


def blend(p, side):
    """What bilinear upsampling has half a pixel off a patch's centre, on the mean of the four sides."""
    a = 0.5 / side
    for dim in (1, 2):
        p = (1 - a) * p + a / 2 * (p.roll(1, dim) + p.roll(-1, dim))
    return p


def test_it_finds_bright_discs_in_speckle(tiny):
    classes = CLASSES[:2]
    method = METHOD(tiny, PatchProbeConfig(C=10.0), classes=classes, normal_class="normal")
    method.fit(make_batch(tiny, per_class=4, classes=classes), seed=0)
    unseen = make_batch(tiny, seed=7, classes=classes)
    scores = method.score(unseen.images)
    assert (scores.map[unseen.masks] > 0.5).float().mean() > 0.8
    assert (scores.map[~unseen.masks] > 0.5).float().mean() < 0.05
    assert scores.score[:2].max() < 0.1
    assert scores.score[2:].min() > 0.9


def test_the_score_can_be_a_mean_of_the_largest(tiny):
    method = fit(tiny, make_batch(tiny), topk=0.01)
    scores = method.score(make_batch(tiny, seed=7).images)
    flat = scores.map.flatten(1).sort(descending=True).values
    torch.testing.assert_close(scores.score, flat[:, : round(0.01 * flat.shape[1])].mean(1))


def test_unknown_masks_are_left_out(tiny):
    batch = make_batch(tiny)
    known = batch.mask_known.clone()
    known[3] = False
    partly = replace(batch, mask_known=known)
    with pytest.raises(DataError, match="needs a mask"):
        fit(tiny, partly)
    x, _ = make(tiny)._patches(partly, seed=0)
    kept, _ = make(tiny)._patches(batch.select([0, 1, 2, 4, 5]), seed=0)
    assert torch.equal(x, kept)


def test_lesions_smaller_than_half_a_patch(tiny):
    batch = make_batch(tiny)
    dots = torch.zeros_like(batch.masks)
    dots[2:, 33, 33] = True
    with pytest.raises(DataError, match=r"no patch is lesion.*labels=soft"):
        fit(tiny, replace(batch, masks=dots))
    assert fit(tiny, replace(batch, masks=dots), labels="soft").fitted


def test_lesion_everywhere(tiny):
    batch = make_batch(tiny).select([2, 3, 4, 5])
    with pytest.raises(DataError, match="all patches are lesion"):
        fit(tiny, replace(batch, masks=torch.ones_like(batch.masks)))


def test_normal_images_are_not_needed(tiny):
    assert fit(tiny, make_batch(tiny).select([2, 3, 4, 5])).fitted
