"""Shared pieces against independent references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError
from ultraad.nn.augment import ViewParams, apply_view, sample_views
from ultraad.nn.blocks import MiniNet, PatchFusion
from ultraad.nn.key_value import cache_logits
from ultraad.nn.loop import EnoughEpochs, duration, train
from ultraad.nn.losses import dice, focal
from ultraad.nn.maps import largest, smooth, to_probability
from ultraad.nn.prompts import Template, encode_ensemble, word_embeddings
from ultraad.texts.bank import breast_texts, load_texts
from ultraad.types import PreprocessConfig


def test_fusion_equals_multihead_attention_with_identity_output():
    torch.manual_seed(0)
    d, heads = 32, 4
    ours = PatchFusion(d, d, heads=heads, init="default")
    theirs = nn.MultiheadAttention(d, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, torch.randn(d), ours.v.bias]))  # k's has no effect
        theirs.out_proj.weight.copy_(torch.eye(d))
        theirs.out_proj.bias.zero_()
    text, patches = torch.randn(3, 2, d), torch.randn(3, 49, d)
    expected, _ = theirs(text, patches, patches)
    torch.testing.assert_close(ours(text, patches), expected)


def test_fusion_starts():
    text, patches = torch.randn(1, 2, 16), torch.randn(1, 9, 16)
    assert torch.equal(PatchFusion(16, 16, heads=2)(text, patches), torch.zeros(1, 2, 16))
    near = PatchFusion(16, 16, heads=2, init="identity")
    assert torch.allclose(near.q.weight, torch.eye(16), atol=0.1)
    unscaled = PatchFusion(16, 16, heads=2, scale="none")
    assert unscaled.scale == 1


def test_mininet_sizes():
    cocoop = MiniNet(768, 768)
    assert sum(p.numel() for p in cocoop.parameters()) == 74_544
    assert sum(p.numel() for p in MiniNet(768, 768, kind="clip_adapter").parameters()) == 294_912
    assert torch.equal(MiniNet(8, 4, zero_init=True)(torch.randn(2, 8)), torch.zeros(2, 4))


def test_focal_and_dice_by_hand():
    p = torch.tensor([[[0.9, 0.2], [0.4, 0.1]]])
    y = torch.tensor([[[True, False], [True, False]]])
    s = 1e-5
    want = 0.0
    for prob, target in zip(p.flatten().tolist(), y.flatten().tolist(), strict=True):
        p_y = prob if target else 1 - prob
        q = (1 - s) * p_y + s * (1 - p_y) + s
        want -= (1 - q) ** 2 * np.log(q) / 4
    assert float(focal(p, y)[0]) == pytest.approx(want, rel=1e-5)
    assert float(dice(p, y)[0]) == pytest.approx(1 - (2 * 1.3 + 1) / (1.6 + 2 + 1), rel=1e-5)
    assert torch.isfinite(focal(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[True, False]]]))).all()


def test_dice_is_per_image():
    p, y = torch.rand(3, 5, 5), torch.rand(3, 5, 5) > 0.5
    alone = torch.cat([dice(p[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(dice(p, y), alone)


@pytest.mark.parametrize(("sigma", "side"), [(1.0, 9), (4.0, 40), (4.0, 7)])  # the last: wider than the map
def test_smoothing_equals_scipy(sigma, side):
    maps = torch.rand(2, side, side + 3, generator=torch.Generator().manual_seed(0))
    want = np.stack([gaussian_filter(m, sigma) for m in maps.numpy()])
    np.testing.assert_allclose(smooth(maps, sigma).numpy(), want, atol=1e-6)
    assert smooth(maps, 0) is maps


def test_probability_orders():
    logits = torch.randn(2, 16, 2)
    for up in ("logits", "probs"):
        p = to_probability(logits, (4, 4), size=32, up=up)
        assert p.shape == (2, 32, 32)
    native = to_probability(logits, (4, 4), size=4)
    torch.testing.assert_close(native.flatten(1), logits.softmax(-1)[..., 1])
    corners = to_probability(logits, (4, 4), size=32)[:, 0, 0]
    torch.testing.assert_close(corners, native[:, 0, 0])


def test_image_statistic():
    maps = torch.arange(100.0).view(1, 10, 10)
    assert float(largest(maps)) == 99
    assert float(largest(maps, share=0.04)) == pytest.approx(97.5)


def test_cache_mean_divides_by_class_size():
    q, k = (
        torch.nn.functional.normalize(torch.randn(2, 4), dim=1),
        torch.nn.functional.normalize(torch.randn(5, 4), dim=1),
    )
    v = nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 1])).float()
    total = cache_logits(q, k, v, beta=2.0)
    mean = cache_logits(q, k, v, beta=2.0, norm="mean")
    torch.testing.assert_close(mean, total / torch.tensor([3.0, 2.0]))


def test_views_depend_on_the_image_and_move_its_mask():
    a, b = sample_views("x.png", 4, seed=0), sample_views("x.png", 6, seed=0)
    assert a == b[:4]
    assert a[0] == ViewParams()
    assert a[1:] != sample_views("y.png", 4, seed=0)[1:]
    pre = PreprocessConfig(32, (0.5,) * 3, (0.5,) * 3)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[4:12, 4:14] = True
    image = torch.where(mask, 1.0, -1.0).expand(3, -1, -1)
    for view in [ViewParams(flip=True), ViewParams(rotation=20.0), ViewParams(shift=(0.1, -0.05)), *b[1:]]:
        still = ViewParams(view.flip, view.rotation, view.shift)
        moved, moved_mask = apply_view(image, mask, still, preprocess=pre)
        assert ((moved[0] > 0) == moved_mask).float().mean() > 0.98
    flipped, flipped_mask = apply_view(image, mask, ViewParams(flip=True), preprocess=pre)
    assert torch.equal(flipped_mask, mask.flip(1))
    torch.testing.assert_close(flipped, image.flip(2), atol=1e-4, rtol=0)
    dark, _ = apply_view(torch.zeros(3, 32, 32), mask, ViewParams(gain=0.8), preprocess=pre)
    torch.testing.assert_close(dark, torch.full((3, 32, 32), 0.8 * 0.5 / 0.5 - 1))


def test_loop_minimises_and_reports_epochs():
    w = nn.Parameter(torch.tensor([3.0]))
    seen = []
    history = train(
        lambda index, _epoch: ((w - index.float()) ** 2).mean(),
        [{"params": [w], "lr": 0.1}, {"params": [], "lr": 1.0}],
        count=3, epochs=200, batch_size=3, seed=0, warmup_epochs=1, progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert float(w.detach()) == pytest.approx(1.0, abs=1e-2)
    assert len(history) == 200
    assert history[-1] < history[0]
    assert seen[-1] == (200, 200)
    assert train(lambda *_: w, [{"params": [], "lr": 1.0}], count=3, epochs=5, batch_size=1, seed=0) == ()


def test_stopped_training_equals_the_start_of_the_full_one():
    """After two of five epochs: the state that the whole training passes through, schedule and order included."""
    states = {}

    def run(last):
        w = nn.Parameter(torch.zeros(1))

        def progress(done, _of):
            states[last, done] = w.detach().clone()
            if done == last:
                raise EnoughEpochs

        def loss(index, _epoch):
            return ((w - index.float()) ** 2).mean()

        return train(loss, [{"params": [w], "lr": 0.1}], count=4, epochs=5, batch_size=3, seed=0, progress=progress)

    assert len(run(5)) == 5
    assert len(run(2)) == 2
    assert torch.equal(states[2, 2], states[5, 2])
    assert not torch.equal(states[2, 2], states[5, 5])


def test_every_item_once_per_epoch():
    w = nn.Parameter(torch.zeros(1))
    seen = []

    def loss(index, epoch):
        seen.append((epoch, index.tolist()))
        return (w**2).sum()

    train(loss, [{"params": [w], "lr": 0.1}], count=7, epochs=2, batch_size=3, seed=0)
    for epoch in range(2):
        items = [i for e, batch in seen if e == epoch for i in batch]
        assert sorted(items) == list(range(7))


def test_template_with_context_and_words_after():
    b = load_backbone("tiny")
    words = word_embeddings(b, "breast ultrasound")[None]
    embeds, eot = Template(b, "A photo of a {} with a lesion").fill(words)
    want = b.encode_text(["A photo of a breast ultrasound with a lesion"])
    torch.testing.assert_close(b.encode_prompts(embeds, eot), want, atol=1e-5, rtol=0)
    context = torch.zeros(4, b.text_width)
    changed, _ = Template(b, "A photo of a normal {}").fill(words, context=context)
    assert torch.equal(changed[0, 1:5], context)
    assert changed.shape[1] == 1 + 5 + 2 + 1


def test_text_bank_is_complete_and_short(tmp_path):
    bank = breast_texts()
    assert {c: len(t.sentences) for c, t in bank.classes.items()} == {"normal": 6, "benign": 7, "malignant": 7}
    b = load_backbone("tiny")
    for name in bank.classes:
        tokens = b.tokenize(bank.sentences(name))
        assert int(b.end_of_text(tokens).max()) < 40
        assert encode_ensemble(b, bank.sentences(name)).norm() == pytest.approx(1, abs=1e-5)
    assert bank.sentences("scar") == ("This is a scar breast ultrasound image.",)
    bad = tmp_path / "bank.yaml"
    bad.write_text("organ: liver\nobject: liver\nclasses: {normal: {sentence: [a]}}\n")
    with pytest.raises(ConfigError, match=r"classes\.normal"):
        load_texts(bad)
    with pytest.raises(ConfigError, match="cannot read"):
        load_texts(tmp_path / "none.yaml")
    bad.write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_texts(bad)


class Kept:
    """A checkpoint in memory; it is due after every epoch."""

    state = None

    def load(self):
        return self.state

    def due(self):
        return True

    def save(self, state):
        self.state = {key: value.clone() for key, value in state.items()}


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("after", [1, 4, 5])
def test_an_interrupted_training_goes_on_with_the_same_bits(optimiser, after):
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))

    def run(checkpoint=None, stop=None):
        layer = nn.Linear(3, 1)
        with torch.no_grad():
            layer.weight.fill_(0.5)
            layer.bias.zero_()

        def progress(done, _):
            if done == stop:
                raise Interrupted

        def loss(index, epoch):
            return (layer(x[index]) - epoch).square().mean()

        groups = [{"params": [layer.weight], "lr": 0.1}, {"params": [layer.bias], "lr": 0.01}]
        options = {"count": 7, "batch_size": 3, "seed": 0, "epochs": 5, "optimiser": optimiser, "progress": progress}
        return train(loss, groups, checkpoint=checkpoint, **options), layer.weight.detach(), layer.bias.detach()

    whole, kept = run(), Kept()
    with pytest.raises(Interrupted):
        run(kept, stop=after)
    assert len(kept.state["history"]) == after
    again = run(kept)
    assert again[0] == whole[0]
    assert torch.equal(again[1], whole[1])
    assert torch.equal(again[2], whole[2])


def test_a_plan_counts_what_will_be_trained_and_changes_nothing():
    layer, plans = nn.Linear(3, 1), []
    x = torch.randn(7, 3)
    before = layer.weight.detach().clone()

    def loss(index, _):
        return layer(x[index]).square().mean()

    def look(plan):
        plans.append(plan)
        assert torch.equal(layer.weight, before)
        assert layer.weight.grad is None

    train(loss, [{"params": [*layer.parameters()], "lr": 0.1}], count=7, batch_size=3, seed=0, epochs=4, announce=look)
    (plan,) = plans
    assert (plan.values, plan.images, plan.epochs, plan.steps) == (4, 7, 4, 12)
    assert plan.seconds > 0
    assert plan.memory > 16 * 4 + 4 * 3 * 3  # what the optimiser holds, and the batch
    assert str(replace(plan, seconds=700, memory=2_000_000)) == (
        "4 values are trained on 7 images, 12 steps: about 12 min, and 2 MB beside the backbone and the images"
    )
    assert [duration(s) for s in (0.1, 99, 5990, 7200)] == ["1 s", "99 s", "100 min", "2.0 h"]
