"""What the parity tests of MVFA cannot see: options, memory, both kinds of training data, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.backbones import load_backbone
from ultraad.errors import DataError
from ultraad.methods import get
from ultraad.methods.mvfa import MVFA, MVFAConfig
from ultraad.nn.fixed_views import VIEWS, with_fixed_views
from ultraad.nn.labelled import Labelled
from ultraad.nn.maps import resize
from ultraad.nn.prompts import unit


def build(backbone, **options):
    config = MVFAConfig.model_validate({"epochs": 1, "augment": False, **options})
    return MVFA(backbone, config, classes=CLASSES, normal_class="normal")


def fitted(backbone, batch=None, *, auxiliary=None, seed=0, **options):
    method = build(backbone, **options)
    report = method.fit(make_batch(backbone) if batch is None else batch, auxiliary=auxiliary, seed=seed)
    return method, report


def scores(method, images):
    with torch.no_grad():
        return method.score(images)


def test_registered_under_its_name():
    assert get("mvfa") is MVFA


def test_ranges_shapes_and_sizes(backbone):
    method, report = fitted(backbone)
    found = scores(method, make_batch(backbone, seed=1).images)
    assert found.map.shape == (6, backbone.size, backbone.size)
    for values in (found.map, found.score):
        assert (values >= 0).all()
        assert (values <= 1).all()
    assert method.memory.shape == (2, 4, 2 * (1 + backbone.grid[0] * backbone.grid[1]), backbone.dim)
    assert sum(report.learned.values()) == 2 * (4 + 3) * backbone.width * backbone.dim  # no W2 at the deepest level
    assert set(report.learned) == {name for name, _ in method.named_parameters()}


def test_training_lowers_the_loss(tiny):
    _, report = fitted(tiny, epochs=20, lr=3e-3)
    assert report.selection == "last epoch"
    assert report.loss[-1] < 0.9 * report.loss[0]


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_reach_exactly_the_adapters(backbone, frozen):
    method = build(backbone)
    batch = make_batch(backbone)
    seg, det = method.tokens(batch.images, frozen=frozen)[:, :, :, 1:]
    (method.segmentation_loss(seg, batch.masks) + method.detection_loss(det, batch.anomalous)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert all(p.grad is None for p in backbone.model.parameters())


def test_blocks_below_the_first_adapter_run_once_per_image(monkeypatch):
    backbone = load_backbone("tiny")
    seen = []
    encode = backbone.encode_image
    monkeypatch.setattr(backbone, "encode_image", lambda x, **o: (seen.append(len(x)), encode(x, **o))[1])
    fitted(backbone, make_batch(backbone, per_class=1), epochs=2, augment=True)
    assert sum(seen) == 3 * VIEWS


def test_what_follows_the_deepest_adapter_does_not_run(tiny, monkeypatch):
    method = build(tiny, layers=(2, 1))
    assert method.layers == (1, 2)
    ran = []
    for i, block in enumerate(tiny._visual.transformer.resblocks, start=1):
        forward = block.forward
        monkeypatch.setattr(block, "forward", lambda *a, i=i, f=forward, **o: (ran.append(i), f(*a, **o))[1])
    scores(method, make_batch(tiny).images)
    assert ran == [1, 2]


def test_auxiliary_set_trains_and_support_is_only_stored(tiny):
    auxiliary = [make_batch(tiny, seed=7), make_batch(tiny, seed=8)]
    alone, report = fitted(tiny, empty_batch(tiny), auxiliary=auxiliary)
    assert report.notes == ("no normal image is stored: map and score are those of the zero-shot branch",)
    both, report = fitted(tiny, make_batch(tiny), auxiliary=auxiliary)
    assert report.notes == ()
    for name, value in alone.named_parameters():
        assert torch.equal(value, both.get_parameter(name)), name
    found = scores(alone, make_batch(tiny).images)
    det = alone.tokens(make_batch(tiny).images)[1, :, :, 1:]
    torch.testing.assert_close(found.score, alone.text_scores(det).mean(0))  # the reference's zero-shot score


def test_default_rates_depend_on_what_is_trained_on(tiny):
    batch = make_batch(tiny, per_class=1)
    start = dict(build(tiny).named_parameters())

    def step(**options):
        method, _ = fitted(tiny, batch, **options)
        return max(float((p - start[name]).detach().abs().max()) for name, p in method.named_parameters())

    assert step() == pytest.approx(1e-3, rel=0.02)  # Adam's first step is the rate itself
    assert step(auxiliary=[batch]) == pytest.approx(1e-4, rel=0.02)
    assert step(lr=5e-4) == pytest.approx(5e-4, rel=0.02)


def test_image_score_options(tiny):
    images = make_batch(tiny, seed=3).images
    default, by_map, by_heads = (
        scores(fitted(tiny, image_score=option)[0], images) for option in ("reference", "map", "detection")
    )
    assert torch.equal(default.score, by_map.score)
    assert torch.equal(default.score, default.map.amax((1, 2)))
    assert torch.equal(by_heads.map, by_map.map)
    assert not torch.allclose(by_heads.score, by_map.score)


def test_memory_options(tiny):
    batch, n = make_batch(tiny), tiny.grid[0] * tiny.grid[1]
    text = scores(fitted(tiny, memory=False)[0], batch.images)
    weighted = scores(fitted(tiny, memory_weight=0.0)[0], batch.images)
    torch.testing.assert_close(weighted.map, text.map)
    half = scores(fitted(tiny)[0], batch.images)
    torch.testing.assert_close(half.map[:2], text.map[:2] / 2)  # they are in the memory: distance 0
    assert fitted(tiny, memory_class_token=False)[0].memory.shape[2] == 2 * n
    assert fitted(tiny, augment=True, epochs=0)[0].memory.shape[2] == 2 * VIEWS * (1 + n)


def test_memory_survives_saving(tiny):
    method, _ = fitted(tiny)
    other = build(tiny)
    other.load_state_dict(method.state_dict())
    images = make_batch(tiny, seed=3).images
    assert torch.equal(scores(method, images).map, scores(other, images).map)


def test_without_masks_only_detection_is_trained_and_there_is_no_map(tiny):
    method, report = fitted(tiny, make_batch(tiny, masks=False), image_score="map")
    assert set(report.learned) == {name for name, _ in method.named_parameters() if name.startswith("det.")}
    assert report.notes == ("no support image has a lesion mask: images are scored, but there is no map",)
    found = scores(method, make_batch(tiny, seed=1).images)
    assert found.map is None
    assert (found.score >= 0).all()
    fresh = dict(build(tiny).named_parameters())
    assert all(torch.equal(p, fresh[name]) for name, p in method.named_parameters() if name.startswith("seg."))
    again = build(tiny)
    again.load_state_dict(method.state_dict())
    assert scores(again, make_batch(tiny).images).map is None


def test_unknown_masks_do_not_enter_the_segmentation_loss(tiny):
    batch = make_batch(tiny)
    method = build(tiny)
    known = torch.tensor([True, True, False, True, True, True])
    seg, det = method.tokens(batch.images)[:, :, :, 1:]
    expected = method.segmentation_loss(seg[:, known], batch.masks[known]) + method.detection_loss(det, batch.anomalous)
    got = method._loss(Labelled(batch.images, batch.anomalous, batch.masks, known), frozen=False)
    torch.testing.assert_close(got, expected)
    nothing = method._loss(Labelled(batch.images, batch.anomalous, batch.masks, known & False), frozen=False)
    torch.testing.assert_close(nothing, method.detection_loss(det, batch.anomalous))


def test_detection_loss_options(tiny):
    batch = make_batch(tiny)
    method, repaired = build(tiny), build(tiny, det_loss="bce")
    det = method.tokens(batch.images)[1, :, :, 1:]
    p, y = method.text_scores(det), batch.anomalous.float().expand(4, -1)
    once = -(y * p.log() + (1 - y) * (1 - p).log())
    twice = -(y * p.sigmoid().log() + (1 - y) * (1 - p.sigmoid()).log())
    torch.testing.assert_close(repaired.detection_loss(det, batch.anomalous), once.mean(1).sum())
    torch.testing.assert_close(method.detection_loss(det, batch.anomalous), twice.mean(1).sum())


def test_input_normalisation_is_an_option(tiny):
    images = make_batch(tiny).images
    plain, raw = build(tiny), build(tiny, normalise=False)
    with torch.no_grad():
        torch.testing.assert_close(raw.tokens(images), plain.tokens(images * 0.5 + 0.5))  # tiny: mean and std are 1/2


def test_residual_share_is_an_option(tiny):
    images = make_batch(tiny).images
    method = build(tiny, residual=0.25)
    with torch.no_grad():
        got = method.tokens(images)
        x = tiny.embed_image(images)
        for i, (layer, block) in enumerate(enumerate(tiny._visual.transformer.resblocks, start=1)):
            h = block(x)
            m = [F.leaky_relu(h @ net[str(layer)].down.weight.T) for net in (method.seg, method.det)]
            torch.testing.assert_close(got[:, i], torch.stack(m), atol=1e-5, rtol=1e-5)
            if layer < 4:
                o = [
                    F.leaky_relu(y @ net[str(layer)].up.weight.T)
                    for y, net in zip(m, (method.seg, method.det), strict=True)
                ]
                x = 0.5 * h + 0.25 * o[0] + 0.25 * o[1]


def test_views_move_image_and_mask_alike(tiny):
    batch = make_batch(tiny)
    bright = replace(batch, images=batch.masks[:, None].expand(-1, 3, -1, -1).float())
    views = with_fixed_views(bright)
    assert views.ids[VIEWS] == batch.ids[1]
    assert views.masks.dtype == torch.bool
    assert torch.equal(views.images[:, 0] > 0.5, views.masks)
    assert torch.equal(views.masks[0::VIEWS], batch.masks)
    assert torch.equal(views.labels, batch.labels.repeat_interleave(VIEWS))


@torch.no_grad()
@pytest.mark.parametrize("augment", [True, False])
def test_with_normal_images_alone_maps_are_distances_on_the_frozen_tower(tiny, augment):
    normal = make_batch(tiny).select([0, 1])
    method, report = fitted(tiny, normal, augment=augment)
    assert report.learned == {}
    assert "the adapters are not used" in report.notes[0]
    x = make_batch(tiny, seed=3).images
    stored = with_fixed_views(normal).images if augment else normal.images
    f, bank = tiny.encode_image(x, layers=method.layers), tiny.encode_image(stored, layers=method.layers)
    near = []
    for layer in method.layers:
        memory = torch.cat([bank.patches[layer], bank.cls[layer][:, None]], 1).flatten(0, 1)  # (m w)
        cosines = unit(f.patches[layer]) @ unit(memory).T
        near.append(resize((1 - cosines.amax(-1)).view(-1, *f.grid), tiny.size, align_corners=True))
    expected = torch.stack(near).mean(0).clamp(0, 1)
    got = method.score(x)
    torch.testing.assert_close(got.map, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.score, expected.flatten(1).amax(1), atol=1e-5, rtol=1e-5)
    again = build(tiny)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.eval().score(x).map, got.map)


def test_supports_that_cannot_train_are_refused(tiny):
    with pytest.raises(DataError, match=r"mvfa has nothing to learn without lesions \(2 normal\); .*memory=true"):
        fitted(tiny, make_batch(tiny).select([0, 1]), memory=False)
    with pytest.raises(DataError, match="needs normal images, and the support set has none"):
        fitted(tiny, make_batch(tiny).select([2, 3, 4, 5]))
    with pytest.raises(DataError, match="learns from images and got none"):
        fitted(tiny, empty_batch(tiny))


@torch.no_grad()
def test_memory_stores_unit_vectors(tiny):
    batch = make_batch(tiny)
    method, _ = fitted(tiny, batch)
    normal = method.tokens(batch.images[:2]).flatten(2, 3)  # (2 l m d), of any length
    torch.testing.assert_close(method.memory, F.normalize(normal, dim=-1), atol=1e-5, rtol=0)
    patches = method.tokens(make_batch(tiny, seed=1).images)[0, :, :, 1:]
    far = 1 - F.cosine_similarity(patches[:, :, :, None], normal[0][:, None, None], dim=-1).amax(-1)  # (l b n)
    want = F.interpolate(far.unflatten(-1, tiny.grid), size=2 * (tiny.size,), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method.memory_maps(patches, 0), want, atol=1e-5, rtol=0)
