"""What parity and the contract leave open: options, synthetic views, who is used and who is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.methods.conftest import CLASSES, make_batch
from ultraad.config import resolve
from ultraad.errors import ConfigError
from ultraad.methods.medi_clip import METHOD, _SyntheticViews, _without_colour

SMALL = {"context": 2, "normal_words": ["normal"], "abnormal_words": ["lesion", "mass"]}


def build(backbone, **options):
    config = resolve(METHOD.Config, {**SMALL, **options})
    return METHOD(backbone, config, classes=CLASSES, normal_class="normal")


def only(family):
    return {f"mix.{name}": float(name == family) for name in METHOD.Config().mix.model_dump()}


def test_it_learns(backbone):
    batch = make_batch(backbone, per_class=4)
    method = build(backbone, views=2, epochs=25, lr=1e-2, **only("gauss_intensity"))
    report = method.fit(batch, seed=0)
    assert report.loss[-1] < 0.9 * report.loss[0]
    assert report.selection == "last epoch"
    assert set(report.learned) == {name for name, _ in method.named_parameters()}
    views = _SyntheticViews(
        backbone, batch.select([0, 1]), layers=method.layers, config=method.config, seed=1
    )  # anomalies it has not seen
    with torch.no_grad():
        patches, masks = views.draw(torch.tensor([0, 1]), 0)
        maps = method.anomaly_map(patches, method.text)
    assert maps[masks].mean() > maps[~masks].mean() + 0.02


def test_only_normal_images_are_used(tiny):
    batch = make_batch(tiny)
    normal = batch.select([0, 1])
    with_all, alone = build(tiny, views=1, epochs=2), build(tiny, views=1, epochs=2)
    report = with_all.fit(batch, seed=0)
    assert report.notes == ("4 abnormal support images were not used: medi_clip learns from normal ones",)
    assert alone.fit(replace(normal, masks=None, mask_known=None), seed=0).notes == ()
    for a, b in zip(with_all.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_one_normal_image_is_enough(tiny):
    method = build(tiny, views=2, epochs=2, **only("cutpaste"))
    method.fit(make_batch(tiny, per_class=1).select([0]), seed=0)
    assert torch.isfinite(method.text).all()


@pytest.fixture
def calls(tiny, monkeypatch):
    """Images given to the tower, by the shape of each call."""
    found, run = [], tiny.encode_image
    tiny.cache.clear()
    monkeypatch.setattr(tiny, "encode_image", lambda images, **k: found.append(len(images)) or run(images, **k))
    return found


def test_views_drawn_once_are_encoded_once(tiny, calls):
    build(tiny, views=3, epochs=7, **only("sink")).fit(make_batch(tiny), seed=0)
    assert sum(calls) == 3 * 2


def test_new_views_are_encoded_in_every_epoch(tiny, calls):
    build(tiny, views=0, epochs=7, **only("sink")).fit(make_batch(tiny), seed=0)
    assert sum(calls) == 7 * 2


def views_of(backbone, batch, seed=0, **options):
    method = build(backbone, **options)
    return _SyntheticViews(backbone, batch, layers=method.layers, config=method.config, seed=seed)


def test_views_differ_and_depend_on_the_image_and_the_seed_only(tiny):
    batch = make_batch(tiny, per_class=3).select([0, 1, 2])
    views = views_of(tiny, batch, views=0, **only("smooth_intensity"))
    image, mask = views._paint([1], 4)
    assert torch.equal(views._paint([0, 1], 4)[0][1], image[0])
    moved = views_of(tiny, batch.select([1, 0]), views=0, **only("smooth_intensity"))
    assert torch.equal(moved._paint([0], 4)[0], image)
    others = [views._paint([1], 5), views._paint([2], 4)]
    others.append(views_of(tiny, batch, seed=1, views=0, **only("smooth_intensity"))._paint([1], 4))
    assert all(not torch.equal(m, mask) for _, m in others)


def test_families_are_drawn_as_often_as_the_mix_says(tiny):
    batch = make_batch(tiny, per_class=1).select([0])
    views = views_of(tiny, batch, views=0, **{**only("source"), "mix.identity": 3.0})
    empty = [not views._paint([0], v)[1].any() for v in range(80)]
    assert 0.6 < sum(empty) / 80 < 0.9
    assert not any(views_of(tiny, batch, views=0, **only("identity"))._paint([0], v)[1].any() for v in range(9))


def test_training_images_are_grey_and_normalised_for_the_tower(tiny):
    batch = make_batch(tiny, per_class=1).select([0])
    painted, _ = views_of(tiny, batch, views=0, **only("identity"))._paint([0], 0)
    assert painted.shape == batch.images.shape
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (tiny.preprocess.mean, tiny.preprocess.std))
    grey = painted[0] * std + mean
    torch.testing.assert_close(grey[0], grey[2])
    colour = (batch.images[0] * std + mean).clamp(0, 1)
    assert 0 <= grey.min() <= grey.max() <= 1 + 1e-6
    assert torch.corrcoef(torch.stack([grey[0].flatten(), colour.mean(0).flatten()]))[0, 1] > 0.8


def test_colour_counts_only_if_asked_for(tiny):
    batch = make_batch(tiny)
    images = batch.images
    for grey in (True, False):
        method = build(tiny, views=1, epochs=1, grey=grey)
        method.fit(batch, seed=0)
        pulled = images.clone()
        pulled[:, 0] += 0.114 / tiny.preprocess.std[0] * 0.1  # red up, blue down: the luminance stays
        pulled[:, 2] -= 0.299 / tiny.preprocess.std[2] * 0.1
        with torch.no_grad():
            change = (method.score(pulled).map - method.score(images).map).abs().max()
        assert (change < 1e-5) == grey


def test_grey_images_are_unchanged(tiny):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (tiny.preprocess.mean, tiny.preprocess.std))
    grey = (torch.rand(1, 1, tiny.size, tiny.size, generator=torch.Generator().manual_seed(0)) - mean) / std
    mixed = torch.cat([grey, make_batch(tiny).images[:1]])
    out = _without_colour(mixed, tiny)
    assert torch.equal(out[0], mixed[0])
    assert not torch.equal(out[1], mixed[1])


def test_scale_widens_the_probabilities(tiny):
    batch = make_batch(tiny)
    spread = []
    for scale in (1.0, 10.0):
        method = build(tiny, views=1, epochs=1, scale=scale)
        method.fit(batch, seed=0)
        with torch.no_grad():
            spread.append(float((method.score(batch.images).map - 0.5).abs().max()))
    assert spread[0] <= 0.881 - 0.5
    assert spread[1] > 3 * spread[0]


def test_wrong_options(tiny):
    with pytest.raises(ConfigError, match="all weights of the mix are 0"):
        build(tiny, **only(None))
    with pytest.raises(ConfigError, match="layers 1"):
        build(tiny, layers=[1, 99])
    with pytest.raises(ConfigError, match="longer than the"):
        build(tiny, normal_words=["very " * 80])
    assert build(tiny, layers=[2]).adapters.keys() == {"2"}
