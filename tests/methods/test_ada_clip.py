from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError
from ultraad.methods import ada_clip
from ultraad.methods.ada_clip import METHOD, AdaCLIPConfig, cluster
from ultraad.nn.deep_prompts import text_layers
from ultraad.nn.labelled import labelled


def make(backbone, **options):
    return METHOD(backbone, AdaCLIPConfig(**options), classes=CLASSES, normal_class="normal")


def test_it_learns_lesions(tiny):
    method = make(tiny, epochs=6, lr=0.01)
    report = method.fit(make_batch(tiny), seed=0)
    assert report.loss[-1] < 0.7 * report.loss[0]
    unseen = make_batch(tiny, seed=7)
    with torch.no_grad():
        maps = method.score(unseen.images).map
    lesion, rest = (
        torch.stack([m[y].mean() for m, y in zip(maps[2:], part[2:], strict=True)])
        for part in (unseen.masks, ~unseen.masks)
    )
    assert bool((lesion > rest).all())
    assert (lesion - rest).mean() > 0.15


def test_prompts_are_cut_to_each_tower(backbone):
    method = make(backbone, depth=99)
    assert len(method.image_static) == backbone.layers
    assert len(method.text_static) == text_layers(backbone) - 1
    assert method.image_dynamic.weight.shape == (5 * backbone.width, backbone.dim)
    assert method.text_dynamic.weight.shape == (5 * backbone.text_width, backbone.dim)


def test_prompts_must_leave_the_end_of_a_sentence(tiny):
    shortest = int(make(tiny)._eot.min()) - 1
    make(tiny, length=shortest)
    with pytest.raises(ConfigError, match=f"set {shortest} or less"):
        make(tiny, length=shortest + 1)


def test_each_image_has_its_own_sentences_however_many_come_at_once(tiny, monkeypatch):
    method = make(tiny)
    images = make_batch(tiny, per_class=1).images
    frozen = tiny.encode_image(images).image
    whole = method.encode_text(method.text_dynamic(frozen))
    assert whole.shape == (3, 2, tiny.dim)
    assert (whole[0] - whole[1]).abs().max() > 1e-4
    monkeypatch.setattr(ada_clip, "ROWS", 1)
    torch.testing.assert_close(method.encode_text(method.text_dynamic(frozen)), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("clusters", [1, 20, 1000])
def test_clusters_are_cut_to_the_grid(tiny, clusters):
    score = make(tiny, clusters=clusters).score(make_batch(tiny, per_class=1).images).score
    assert bool(((score >= 0) & (score <= 1)).all())


def test_only_the_most_abnormal_patches_are_clustered(tiny, monkeypatch):
    method, seen = make(tiny, clusters=2), []
    monkeypatch.setattr(ada_clip, "cluster", lambda members, k: seen.append(members) or cluster(members, k))
    look = method.look(images := make_batch(tiny, per_class=1).images, tiny.encode_image(images).image)
    method.image_probability(look)
    margin = look.logits.diff(dim=-1)[..., 0].mean(1)  # (b n)
    for members, patches, m in zip(seen, look.patches, margin, strict=True):
        best = m.argsort(descending=True)[:10].sort().values
        assert torch.equal(members, patches[:, best])


def test_clusters_are_those_of_all_layers_together():
    one = torch.tensor([0.0, 0.0, 9.0, 9.0])
    other = torch.tensor([0.0, 9.0, 0.0, 9.0])
    labels = cluster(torch.stack([one, other])[..., None], 4)  # (l=2 m=4 d=1)
    assert labels.unique().numel() == 4
    assert torch.equal(labels, cluster(torch.stack([one, other])[..., None], 4))


def test_without_fusion_nothing_is_clustered(tiny, monkeypatch):
    monkeypatch.setattr(ada_clip, "cluster", lambda members, k: pytest.fail("clustered"))
    make(tiny, fusion=0.0).score(make_batch(tiny, per_class=1).images)


def test_an_unknown_mask_leaves_the_pixels_out_and_keeps_the_image(tiny):
    method = make(tiny)
    known = labelled(make_batch(tiny, per_class=1), normal_index=0)
    unknown = replace(known, known=torch.tensor([False, False, False]))
    method.loss(unknown).backward()
    assert all(p.grad.any() for p in method.token_head.parameters())
    wrong = replace(known, masks=~known.masks, known=torch.tensor([True, True, False]))
    right = replace(wrong, masks=torch.cat([wrong.masks[:2], known.masks[2:]]))
    assert torch.equal(method.loss(wrong), method.loss(right))


def test_the_loss_of_a_batch_is_the_mean_of_its_images(tiny):
    method = make(tiny)
    batch = labelled(make_batch(tiny), normal_index=0)
    with torch.no_grad():
        alone = torch.stack([method.loss(batch.select(torch.tensor([i]))) for i in range(len(batch))])
        torch.testing.assert_close(method.loss(batch), alone.mean(), atol=1e-4, rtol=1e-4)


def test_the_auxiliary_set_replaces_the_support(tiny):
    auxiliary = [make_batch(tiny, seed=3)]
    alone, beside = make(tiny, epochs=1), make(tiny, epochs=1)
    report = alone.fit(empty_batch(tiny), auxiliary=auxiliary, seed=0)
    beside.fit(make_batch(tiny, masks=False), auxiliary=auxiliary, seed=0)  # no mask is needed here
    assert report.notes
    for a, b in zip(alone.parameters(), beside.parameters(), strict=True):
        assert torch.equal(a, b)


def test_epochs_depend_on_what_is_trained_on(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr("ultraad.nn.labelled.minimise", lambda *_, epochs, **__: seen.append(epochs) or ())
    support = make_batch(tiny, per_class=1)
    make(tiny).fit(support, seed=0)
    make(tiny).fit(empty_batch(tiny), auxiliary=[support], seed=0)
    make(tiny, epochs=0).fit(support, seed=0)
    assert seen == [20, 5, 0]


def test_support_images_are_embedded_once(monkeypatch):
    tiny, seen = load_backbone("tiny"), []
    look = tiny._look
    monkeypatch.setattr(tiny, "_look", lambda x: seen.append(len(x)) or look(x))
    support = make_batch(tiny, per_class=1)
    make(tiny, epochs=3).fit(support, seed=0)
    assert sum(seen) == len(support)
    seen.clear()
    make(tiny, epochs=3).fit(empty_batch(tiny), auxiliary=[make_batch(tiny, per_class=1, seed=5)], seed=0)
    assert sum(seen) == (1 + 3) * 3  # too many to be kept: once for the class tokens, then in every epoch


def test_kept_tokens_change_no_loss(tiny):
    method, batch = make(tiny), labelled(make_batch(tiny), normal_index=0)
    torch.testing.assert_close(method.loss(batch, keep=True), method.loss(batch), atol=1e-5, rtol=0)


def test_an_image_is_embedded_once_for_both_passes(tiny, monkeypatch):
    method, seen, look = make(tiny), [], tiny._look
    monkeypatch.setattr(tiny, "_look", lambda x: seen.append(len(x)) or look(x))
    method.score(make_batch(tiny, per_class=1).images)
    assert seen == [3]
