"""What the parity tests of APRIL-GAN cannot see: options, memory, both kinds of training data, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError, DataError
from ultraad.methods import get
from ultraad.methods.april_gan import AprilGAN, AprilGANConfig


def build(backbone, **options):
    config = AprilGANConfig.model_validate({"epochs": 2, **options})
    return AprilGAN(backbone, config, classes=CLASSES, normal_class="normal")


def fitted(backbone, batch=None, *, auxiliary=None, seed=0, **options):
    method = build(backbone, **options)
    report = method.fit(make_batch(backbone) if batch is None else batch, auxiliary=auxiliary, seed=seed)
    return method, report


def scores(method, images):
    with torch.no_grad():
        return method.score(images)


def test_registered_under_its_name():
    assert get("april_gan") is AprilGAN


def test_ranges_shapes_and_sizes(backbone):
    method, report = fitted(backbone)
    found = scores(method, make_batch(backbone, seed=1).images)
    assert found.map.shape == (6, backbone.size, backbone.size)
    for values in (found.map, found.score):
        assert (values >= 0).all()
        assert (values <= 1).all()
    assert method.memory.shape == (4, 2 * backbone.grid[0] * backbone.grid[1], backbone.width)
    assert sum(report.learned.values()) == 4 * (backbone.width + 1) * backbone.dim
    assert set(report.learned) == {name for name, _ in method.named_parameters()}


def test_training_lowers_the_loss(tiny):
    _, report = fitted(tiny, epochs=60, lr=5e-3)
    assert report.selection == "last epoch"
    assert report.loss[-1] < 0.8 * report.loss[0]


def test_auxiliary_set_trains_and_support_is_only_stored(tiny):
    auxiliary = [make_batch(tiny, seed=7), make_batch(tiny, seed=8)]
    alone, report = fitted(tiny, empty_batch(tiny), auxiliary=auxiliary)
    assert report.notes == ("no normal image is stored: map and score are those of the zero-shot branch",)
    both, report = fitted(tiny, make_batch(tiny), auxiliary=auxiliary)
    assert report.notes == ()
    for name, value in alone.named_parameters():
        assert torch.equal(value, both.get_parameter(name)), name
    f = tiny.encode_image(make_batch(tiny).images, layers=both.layers)
    torch.testing.assert_close(both.memory[0], f.patches[both.layers[0]][:2].flatten(0, 1))


def test_default_epochs_depend_on_what_is_trained_on(tiny):
    few = make_batch(tiny, per_class=1)
    _, report = fitted(tiny, few, epochs=None)
    assert len(report.loss) == 50
    _, report = fitted(tiny, few, auxiliary=[few], epochs=None)
    assert len(report.loss) == 15


def test_few_shot_is_half_text_half_memory(tiny):
    method, _ = fitted(tiny)
    without, _ = fitted(tiny, memory=False)
    batch = make_batch(tiny)
    found, text = scores(method, batch.images), scores(without, batch.images)
    assert without.memory.shape[1] == 0
    torch.testing.assert_close(found.map[:2], text.map[:2] / 2)  # they are in the memory: distance 0
    torch.testing.assert_close(found.score, (text.score + found.map.amax((1, 2))) / 2)


def test_unknown_masks_do_not_enter_the_loss(tiny):
    batch = make_batch(tiny)
    known = batch.mask_known.clone()
    known[2] = False  # its mask is all False then: as a target it would teach that the lesion is normal
    blind = replace(batch, mask_known=known, masks=batch.masks & known[:, None, None])
    cut = batch.select([0, 1, 3, 4, 5])
    _, report = fitted(tiny, blind, epochs=1)
    _, expected = fitted(tiny, cut, epochs=1)
    assert report.loss == pytest.approx(expected.loss, rel=1e-5)


def test_a_batch_of_one_has_the_same_dice_as_two_copies(tiny):
    batch = make_batch(tiny)
    _, one = fitted(tiny, batch.select([0, 2]), epochs=1, batch_size=1, lr=1e-12)
    _, two = fitted(tiny, batch.select([0, 2, 0, 2]), epochs=1, batch_size=4, lr=1e-12)
    assert one.loss == pytest.approx(two.loss, rel=1e-5)


@pytest.mark.parametrize("batch", [lambda b: make_batch(b, masks=False), lambda b: make_batch(b).select([0, 1])])
def test_without_lesion_masks_the_map_is_the_distance_alone(tiny, batch):
    method, report = fitted(tiny, batch(tiny))
    assert (report.learned, report.loss) == ({}, ())
    assert "the linear layers are not used" in report.notes[-1]
    with torch.no_grad():
        f = tiny.encode_image(make_batch(tiny, seed=3).images, layers=method.layers)
        got = method.score(make_batch(tiny, seed=3).images)
        near = method.memory_maps(f).mean(0).clamp(0, 1)
        torch.testing.assert_close(got.map, near)
        torch.testing.assert_close(got.score, (method.class_score(f) + near.flatten(1).amax(1)) / 2)
    with pytest.raises(DataError, match=r"april_gan has nothing to learn without lesion masks .*memory=true"):
        fitted(tiny, batch(tiny), memory=False)


def test_no_normal_image_and_no_image_at_all_are_refused(tiny):
    with pytest.raises(DataError, match="needs normal images, and the support set has none"):
        fitted(tiny, make_batch(tiny).select([2, 3, 4, 5]))
    with pytest.raises(DataError, match="learns from images and got none"):
        fitted(tiny, empty_batch(tiny))


def test_layers_must_exist(tiny):
    with pytest.raises(ConfigError, match=r"layers 1..4, but \[9\]"):
        build(tiny, layers=(2, 9))
    assert build(tiny, layers=(2, 4)).layers == (2, 4)


def test_scale_and_words_are_options(tiny):
    assert build(tiny).scale == tiny.logit_scale
    assert build(tiny, scale=100).scale == 100
    assert not torch.equal(build(tiny).text, build(tiny, states="industrial").text)


def test_support_is_encoded_once(monkeypatch):
    backbone = load_backbone("tiny")
    seen = []
    encode = backbone.encode_image
    monkeypatch.setattr(backbone, "encode_image", lambda x, **o: (seen.append(len(x)), encode(x, **o))[1])
    fitted(backbone, epochs=3)
    assert sum(seen) == 6


def test_memory_survives_saving(tiny):
    method, _ = fitted(tiny)
    other = build(tiny)
    other.load_state_dict(method.state_dict())
    images = make_batch(tiny, seed=3).images
    assert torch.equal(scores(method, images).map, scores(other, images).map)
