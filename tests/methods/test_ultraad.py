"""UltraAD: the eleven checks of the specification (numbers in comments), every switch, and what it must never do."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError, DataError
from ultraad.methods import Holding, get
from ultraad.methods.ultraad import UltraAD, UltraADConfig
from ultraad.methods.ultraad.config import PostConfig
from ultraad.methods.ultraad.readout import loss_weights, refine
from ultraad.nn.key_value import cache_logits
from ultraad.nn.prompts import unit
from ultraad.texts.bank import TextBank, breast_texts

FAST = {"train": {"epochs": 2, "views": 2}}


def build(backbone, classes=CLASSES, **options):
    config = UltraADConfig.model_validate({**FAST, **options})
    return UltraAD(backbone, config, classes=classes, normal_class=classes[0])


def fitted(backbone, batch=None, seed=0, **options):
    method = build(backbone, **options)
    method.fit(make_batch(backbone) if batch is None else batch, seed=seed)
    return method


def test_registered_under_its_name():
    assert get("ultraad") is UltraAD


def test_1_shapes(backbone):
    method = fitted(backbone)
    f = backbone.encode_image(make_batch(backbone).images, layers=method.layers)
    gh, gw = backbone.grid
    with torch.no_grad():
        assert method._prompt_pair(f.image).shape == (6, 2, backbone.dim)
        assert method._prototypes(f.image).shape == (6, 2, backbone.dim)
        for logits in method._patch_logits(f).values():
            assert logits.shape == (6, gh * gw, 2)
        scores = method.score_features(f)
    assert scores.score.shape == (6,)
    assert scores.map.shape == (6, backbone.size, backbone.size)
    assert scores.logits.shape == (6, 3)
    assert method.keys.shape == (6, backbone.dim)
    assert (scores.map >= 0).all()
    assert (scores.map <= 1).all()


def test_2_without_mininet_and_memory_it_is_zero_shot_clip(backbone):
    options = {
        "mininet": {"ratio": 0.0},
        "memory": {"keys": "frozen"},
        "cls": {"alpha": 0.0},
        "prior": {"cls": 1.0, "cls_spread": 1.0, "grade": "cls"},
    }
    method = fitted(backbone, **options, post={"refine": "off"})
    f0 = backbone.encode_image(make_batch(backbone, seed=5).images).image
    with torch.no_grad():
        zero_shot = backbone.logit_scale * unit(f0) @ method.text.T
        got = method._mixed_class_logits(f0, torch.rand(len(f0)))
        torch.testing.assert_close(got, zero_shot.log_softmax(-1), atol=1e-5, rtol=0)


def test_2_with_memory_it_is_tip_adapter(backbone):
    options = {"mininet": {"ratio": 0.0}, "memory": {"keys": "frozen"}, "prior": {"cls": 1.0, "grade": "cls"}}
    method = fitted(backbone, **options)
    f0 = backbone.encode_image(make_batch(backbone, seed=5).images).image
    q, text, keys = unit(f0), method.text, method.keys
    with torch.no_grad():
        expected = torch.zeros(len(q), 3)
        for i, c in itertools.product(range(len(q)), range(3)):
            expected[i, c] = backbone.logit_scale * (q[i] @ text[c])
            for k in range(len(keys)):
                if method.values[k, c]:
                    expected[i, c] += 1.0 * torch.exp(-5.5 * (1 - q[i] @ keys[k]))
        torch.testing.assert_close(method._head().logits(q), expected, atol=1e-5, rtol=1e-5)


def test_3_prompt_with_its_own_words_is_plain_text(tiny):
    method = build(tiny)  # phi starts at zero, g at the embeddings of "breast ultrasound"
    expected = unit(
        tiny.encode_text(["A photo of a normal breast ultrasound", "A photo of an abnormal breast ultrasound"])
    )
    with torch.no_grad():
        pair = method._prompt_pair(torch.rand(3, tiny.dim))
    for row in pair:
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(method.zero_shot.pair, expected, atol=1e-5, rtol=0)


def test_a_shared_fusion_gives_each_layer_the_same_result_as_alone(backbone):
    shared = fitted(backbone)
    state = shared.state_dict()
    fusion = {k.removeprefix("fusion.0."): v for k, v in state.items() if k.startswith("fusion.")}
    assert fusion["v.weight"].any()
    alone, last = (build(backbone, pif={"share_layers": share}) for share in ("per_layer", "last_only"))
    copies = {f"fusion.{i}.{k}": v for i in range(len(shared.layers)) for k, v in fusion.items()}
    alone.load_state_dict({**state, **copies})
    last.load_state_dict(state)
    off = build(backbone, pif={"enabled": False})
    off.load_state_dict({k: v for k, v in state.items() if not k.startswith("fusion.")})
    f = backbone.encode_image(make_batch(backbone, seed=5).images, layers=shared.layers)
    with torch.no_grad():
        on, each, only, plain = (m._patch_logits(f) for m in (shared, alone, last, off))
    for layer in shared.layers:
        torch.testing.assert_close(each[layer], on[layer])
        torch.testing.assert_close(only[layer], (on if layer == shared.layers[-1] else plain)[layer])
        assert (on[layer] - plain[layer]).abs().max() > 1e-4


def test_4_zero_value_matrix_leaves_the_prototypes(backbone):
    method, off = build(backbone), build(backbone, pif={"enabled": False})
    f = backbone.encode_image(make_batch(backbone).images, layers=method.layers)
    with torch.no_grad():
        on_logits, off_logits = method._patch_logits(f), off._patch_logits(f)
    for layer in method.layers:
        torch.testing.assert_close(on_logits[layer], off_logits[layer], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("skip_empty", [True, False])
def test_6_loss_is_the_sum_of_its_parts(backbone, skip_empty):
    method = build(backbone, loss={"dice_skip_empty": skip_empty})
    batch = make_batch(backbone)
    f = backbone.encode_image(batch.images, layers=method.layers)
    size = method._loss_size()
    mask = F.interpolate(batch.masks[:, None].float(), size=(size, size), mode="area")[:, 0] >= 0.5
    assert not mask.flatten(1).any(1).all()  # a lesion is missing somewhere
    with torch.no_grad():
        weights = torch.linspace(0.5, 1.5, len(mask))
        got = method._segmentation_loss(f, mask, weights)
        want = 0.0
        for logits in method._patch_logits(f).values():
            up = F.interpolate(logits.mT.unflatten(2, f.grid), size=size, mode="bilinear", align_corners=True)
            p = up.softmax(1)
            q_y = torch.where(mask, p[:, 1], p[:, 0])
            q = (1 - 1e-5) * q_y + 1e-5 * (1 - q_y) + 1e-5
            want += float(((-((1 - q) ** 2) * q.log()).flatten(1).mean(1) * weights).mean())
            for side, target in ((p[:, 1], mask), (p[:, 0], ~mask)):
                for i in range(len(side)):
                    if skip_empty and target is mask and not mask[i].any():
                        continue
                    overlap = 2 * float((side[i] * target[i]).sum()) + 1
                    loss = 1 - overlap / (float(side[i].sum() + target[i].sum()) + 1)
                    want += loss * float(weights[i]) / len(side)
    assert float(got) == pytest.approx(want / len(method.layers), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "without"),
    [
        ({}, set()),
        ({"cls": {"enabled": False}}, {"keys"}),
        ({"memory": {"keys": "frozen"}}, {"keys"}),
        ({"memory": {"keys": "via_mininet"}}, {"keys"}),
        ({"score": {"tau": "learnable"}, "cls": {"learn_ab": True}, "prompt": {"ctx": "learnable"}}, set()),
        ({"mininet": {"shared": False}}, set()),
        ({"prompt": {"fuse": "vcp_conv"}, "pif": {"share_layers": "per_layer", "out_proj": True}}, set()),
    ],
)
def test_7_gradients_reach_exactly_what_learns(backbone, options, without):
    method = build(backbone, **{**options, "mininet": {"zero_init": False, **options.get("mininet", {})}})
    batch = make_batch(backbone, masks=True)
    before = backbone.fingerprint
    method.fit(batch, seed=0)
    method.train()
    if method.fusion is not None:  # W_V = 0 hides W_Q and W_K on the first step only
        for net in method.fusion:
            torch.nn.init.normal_(net.v.weight, std=0.1)
    from ultraad.nn.views import SupportViews

    views = SupportViews(
        method.backbone,
        batch,
        normal_index=0,
        layers=method.layers,
        count=1,
        mask_size=method._loss_size(),
        epochs=1,
        seed=0,
    )
    method.zero_grad()
    with torch.enable_grad():
        method._loss(views, torch.arange(6), 0).backward()
    for name, p in method.named_parameters():
        if backbone.text_width != backbone.dim and "cls" in options and not options["cls"].get("enabled", True):
            without = without | {n for n, _ in method.named_parameters() if n.startswith("mininet")}
        assert p.requires_grad == (name not in without), name
        if not p.requires_grad:
            assert p.grad is None, name
        else:
            assert p.grad is not None, name
            assert p.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in backbone.model.parameters())
    assert not method.text.requires_grad
    assert before == load_backbone(backbone.name).fingerprint


def test_8_refinement_keeps_probabilities_and_follows_the_map():
    logits = torch.randn(50, 3)
    p = logits.softmax(-1)
    low, high = (
        refine(logits, torch.full((50,), v), normal_index=0, post=PostConfig(refine="mix")).exp() for v in (0.2, 0.7)
    )
    torch.testing.assert_close(low.sum(-1), torch.ones(50))
    assert (high[:, 0] < low[:, 0]).all()
    torch.testing.assert_close(low[:, 1] / low[:, 2], p[:, 1] / p[:, 2], rtol=1e-4, atol=0)
    q = ((1 - p[:, 0]) + 0.2) / 2
    torch.testing.assert_close(low[:, 0], 1 - q)


@pytest.mark.parametrize("told", [True, False])
def test_a_map_trained_with_masks_refines_classes_and_score(tiny, told):
    support = make_batch(tiny)
    prior = {"cls": 0.25, "cls_spread": 1.0, "grade": "cls"}
    method = fitted(tiny, replace(support, mask_known=support.mask_known & told), prior=prior)
    f = tiny.encode_image(make_batch(tiny, seed=9).images, layers=method.layers)
    with torch.no_grad():
        out = method.score_features(f)
        a = out.map.flatten(1).amax(1)
        zero, own = method.zero_shot.class_logits(f.image), method._head().logits(method._class_token(f.image))
    weights = torch.stack([1 - a, a, a], 1) if told else torch.ones(1, 3)
    wanted = zero.softmax(-1) ** 0.75 * (own.softmax(-1) * weights) ** 0.25
    wanted = wanted / wanted.sum(1, keepdim=True)
    torch.testing.assert_close(out.logits.exp(), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.score, 1 - wanted[:, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["poe", "logit", "off"])
def test_8_other_refinements(mode):
    logits = torch.randn(20, 3)
    out = refine(logits, torch.full((20,), 0.7), normal_index=0, post=PostConfig(refine=mode)).exp()
    torch.testing.assert_close(out.sum(-1), torch.ones(20))
    p = logits.softmax(-1)
    if mode == "off":
        torch.testing.assert_close(out, p)
    elif mode == "poe":
        weighted = p * torch.tensor([0.3, 0.7, 0.7])
        torch.testing.assert_close(out, weighted / weighted.sum(1, keepdim=True))
    else:
        torch.testing.assert_close(out, (logits + 0.7 * torch.tensor([0.0, 1.0, 1.0])).softmax(-1))


def test_9_excluding_itself_changes_training_only(tiny):
    q = unit(torch.randn(4, 8))
    values = F.one_hot(torch.tensor([0, 1, 2, 1])).float()
    all_ = cache_logits(q, q, values, beta=5.5)
    others = cache_logits(q, q, values, beta=5.5, own=torch.arange(4))
    torch.testing.assert_close(all_ - others, values)  # exp(0) = 1 for its own class
    a, b = (fitted(tiny, memory={"exclude_self": e}, train={"epochs": 0}) for e in (True, False))
    x = make_batch(tiny, seed=3).images
    with torch.no_grad():
        assert torch.equal(a.score(x).logits, b.score(x).logits)


def test_10_same_seed_same_bits_other_seed_other_bits(backbone):
    a, b, c = (fitted(backbone, seed=s) for s in (1, 1, 2))
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name
    assert any(not torch.equal(x, y) for x, y in zip(a.state_dict().values(), c.state_dict().values(), strict=True))


def test_11_overfits_six_images(tiny):
    batch = make_batch(tiny)
    options = {
        "train": {"epochs": 100, "views": 1, "lr_pif": 1e-3},
        "prior": {"map": 1.0, "cls": 1.0, "grade": "cls"},
        "post": {"sigma": 0.0},
    }
    method = fitted(tiny, batch, **options)
    with torch.no_grad():
        scores = method.score(batch.images)
    assert roc_auc_score(batch.masks.flatten(), scores.map.flatten()) > 0.95


def test_no_shots_and_no_epochs_are_the_zero_shot_model(backbone):
    x = make_batch(backbone, seed=9).images
    zero = build(backbone)
    report = zero.fit(empty_batch(backbone), seed=0)
    assert report.selection == "zero-shot"
    untrained = fitted(backbone, train={"epochs": 0}, cls={"alpha": 0.0}, prior={"cls_spread": 1.0})
    paper = build(
        backbone,
        preset="paper",
        pif={"heads": 4},
        cls={"scale": "backbone"},
        score={"tau": "backbone"},
        post={"sigma": 4.0},
    )
    paper.fit(empty_batch(backbone), seed=0)
    with torch.no_grad():
        want = zero.score(x)
        for other in (untrained, paper):
            got = other.score(x)
            torch.testing.assert_close(got.map, want.map, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(got.logits, want.logits, atol=1e-4, rtol=1e-4)


def test_prior_zero_ignores_the_shots(tiny):
    a = fitted(tiny, prior={"map": 0.0, "cls": 0.0, "grade": "cls"})
    b = fitted(tiny, make_batch(tiny, seed=77), prior={"map": 0.0, "cls": 0.0, "grade": "cls"})
    x = make_batch(tiny, seed=9).images
    with torch.no_grad():
        assert torch.equal(a.score(x).map, b.score(x).map)
        assert torch.equal(a.score(x).logits, b.score(x).logits)


def test_classes_of_any_size_vote_with_the_same_weight(tiny):
    whole = make_batch(tiny, per_class=6)
    few = whole.select([*range(6), 6, 12, 13])  # six normal images, one benign, two malignant
    method = fitted(tiny, few)
    worth = 3 / (1 / 6 + 1 / 1 + 1 / 2)
    assert method.values.sum(0).tolist() == pytest.approx([worth] * 3)
    assert [len({*column.tolist()} - {0.0}) for column in method.values.T] == [1, 1, 1]
    x = make_batch(tiny, seed=9).images
    by_hand = fitted(tiny, few, prior={"cls": worth / (worth + 8), "grade": worth / (worth + 128)})
    weights = loss_weights(method.values)
    assert weights.mean() == pytest.approx(1)
    assert [weights[few.labels == c].sum().item() for c in range(3)] == pytest.approx([3.0] * 3)
    literal = fitted(tiny, few, cls={"balance": False})
    assert literal.values.sum(0).tolist() == [6, 1, 2]
    with torch.no_grad():
        torch.testing.assert_close(method.score(x).logits, by_hand.score(x).logits)
        assert not torch.allclose(method.score(x).logits, literal.score(x).logits)
    equal = whole.select([0, 1, 6, 7, 12, 13])
    assert set(fitted(tiny, equal).values.flatten().tolist()) == {0.0, 1.0}  # exactly, as without balance


@pytest.mark.parametrize("masks", [4, 1, 0])
def test_more_shots_get_more_weight(tiny, masks):
    support, x = make_batch(tiny), make_batch(tiny, seed=9).images  # two of each of three classes
    known = support.mask_known & ((support.labels == 0) | (torch.cumsum(support.labels > 0, 0) <= masks))
    support = replace(support, mask_known=known)
    assert UltraADConfig().prior.model_dump() == {
        "map": "shots",
        "map_worth": 10,
        "map_worth_lesions": 40,
        "cls": "shots",
        "cls_spread": 2.3,
        "grade": "shots",
    }
    of_map, of_normal, of_grade = masks / 2 / (masks / 2 + 10), 2 / (2 + 8), 2 / (2 + 128)
    ours, same, other = (
        fitted(tiny, support, prior=prior)
        for prior in (
            {},
            {"map": of_map, "cls": of_normal, "grade": of_grade},
            {"map": of_map / 2, "cls": 2 * of_normal, "grade": of_grade},
        )
    )
    with torch.no_grad():
        got, want, unlike = (method.score(x) for method in (ours, same, other))
    torch.testing.assert_close(got.map, want.map)
    torch.testing.assert_close(got.logits, want.logits)
    assert not torch.allclose(got.logits, unlike.logits, atol=1e-4)
    assert torch.allclose(got.map, unlike.map, atol=1e-5) == (masks == 0)


def test_lesions_alone_get_less_weight_in_the_map(tiny):
    support, x = make_batch(tiny), make_batch(tiny, seed=9).images
    lesions = support.select((support.labels > 0).nonzero().flatten().tolist())
    maps = {}
    with torch.no_grad():
        for name, batch, prior in (
            ("ours", lesions, {}),
            ("by hand", lesions, {"map": 2 / (2 + 40)}),
            ("earlier", lesions, {"map_worth_lesions": None}),
            ("by hand, earlier", lesions, {"map": 2 / (2 + 10)}),
            ("with normal", support, {}),
            ("with normal, by hand", support, {"map": 2 / (2 + 10)}),
        ):
            maps[name] = fitted(tiny, batch, prior=prior).score(x).map
    torch.testing.assert_close(maps["ours"], maps["by hand"])
    torch.testing.assert_close(maps["earlier"], maps["by hand, earlier"])
    torch.testing.assert_close(maps["with normal"], maps["with normal, by hand"])
    assert not torch.allclose(maps["ours"], maps["earlier"], atol=1e-5)


def test_shots_make_p_normal_no_surer(tiny):
    """Log-odds of normal, of two classes, are divided by 1 + (spread - 1) w; grades, maps and zero-shot stay."""
    x = make_batch(tiny, seed=9).images
    two = make_batch(tiny, classes=CLASSES[:2])
    wide, narrow, zero = (
        fitted(tiny, two, classes=CLASSES[:2], prior={"cls": w, "cls_spread": spread})
        for w, spread in ((0.4, 1.0), (0.4, 3.0), (0.0, 3.0))
    )
    with torch.no_grad():
        a, b, c = (m.score(x) for m in (wide, narrow, zero))
        none = zero.zero_shot.class_logits(tiny.encode_image(x, layers=zero.layers).image)
    torch.testing.assert_close(b.logits[:, 0] - b.logits[:, 1], (a.logits[:, 0] - a.logits[:, 1]) / 1.8)
    torch.testing.assert_close(a.map, b.map)
    torch.testing.assert_close(c.logits, none.log_softmax(-1))
    three = [fitted(tiny, prior={"cls": 0.4, "cls_spread": spread}) for spread in (1.0, 3.0)]
    with torch.no_grad():
        a, b = (m.score(x).logits for m in three)
    torch.testing.assert_close(a[:, 1] - a[:, 2], b[:, 1] - b[:, 2])
    assert not torch.allclose(a[:, 0], b[:, 0], atol=1e-4)


SWITCHES = {
    "prompt": {
        "fuse": ["cat", "vcp_conv"],
        "n_global": [1, 4],
        "init": ["normal"],
        "ctx": ["learnable"],
        "share_global": [False],
        "norm_input": [False],
        "instance": ["fh", "none"],
    },
    "mininet": {
        "type": ["clip_adapter", "linear"],
        "residual": ["add_zero_init", "none"],
        "shared": [False],
        "zero_init": [False],
    },
    "memory": {
        "text": ["generic", "generic_image"],
        "text_variants": ["1"],
        "normal_affirmative_only": [True],
        "text_per": ["image"],
        "text_select": ["support"],
        "keys": ["via_mininet", "frozen"],
        "key_feature": ["fh"],
        "exclude_self": [False],
    },
    "cls": {"enabled": [False], "scale": [100.0], "cache_norm": ["mean"], "learn_ab": [True], "alpha": [0.0]},
    "proto": {
        "mode": ["sum", "weighted", "concat_rows", "text_only", "prompt_only"],
        "abn": ["max", "sum"],
    },
    "pif": {
        "enabled": [False],
        "heads": [1, 4],
        "residual": ["none"],
        "out_proj": [True],
        "scale": ["none"],
        "share_layers": ["per_layer", "last_only"],
    },
    "map": {"up": ["probs"], "layer_reduce": ["mean_logit", "sum"], "raw_weight": [0.2]},
    "score": {"tau": [0.01, 0.03, "backbone"]},
    "loss": {
        "seg_on": ["averaged_map"],
        "layer_reduce": ["sum"],
        "seg_weight": [4.0],
        "dice_skip_empty": [False],
        "upsample": [0],
    },
    "post": {"refine": ["mix", "logit", "off"], "sigma": [0.0], "map_stat": ["topk"], "a_space": ["logit"]},
    "bin": {"cls": ["clip_pair", "both"], "fuse": ["mean", "map_only", "product", "max"]},
    "prior": {"map": [0.0, 0.5, "shots"], "map_worth": [2], "cls": [0.0, 0.5, "shots"], "cls_spread": [1.0]},
    "train": {"schedule": ["constant"], "warmup_epochs": [0], "beta1": [0.9], "weight_decay": [0.1]},
}
EQUIVALENT = {("proto", "mode", "weighted")}  # its weight is 1/2
BESIDE = {
    ("memory", "key_feature", "fh"): {"mininet": {"zero_init": False}},  # at zero, fh is f0
    ("bin", "fuse", "max"): {"post": {"refine": "off"}},  # else the classes are always the larger here
}
NEEDS_EQUAL_WIDTHS = {  # text and joint width must agree: fh itself as a word, one network for both
    ("prompt", "instance", "fh"),
    ("mininet", "shared", False),
}


def cases():
    for section, options in SWITCHES.items():
        for key, values in options.items():
            for value in values:
                yield section, key, value


@pytest.fixture(scope="module")
def default_scores():
    backbone = load_backbone("tiny:uneven")
    x = make_batch(backbone, seed=4).images
    return backbone, x, run(backbone, x, {})


def run(backbone, x, options):
    train = {"epochs": 1, "views": 1, "batch_size": 3, **options.get("train", {})}
    method = build(backbone, **{"prior": {"map": 1.0, "cls": 1.0, "grade": "cls"}, **options, "train": train})
    method.fit(make_batch(backbone), seed=0)
    with torch.no_grad():
        return method, method.score(x)


@pytest.mark.parametrize(("section", "key", "value"), list(cases()), ids=str)
def test_every_option_runs_saves_and_changes_the_result(default_scores, section, key, value):
    backbone, x, (_, reference) = default_scores
    beside = BESIDE.get((section, key, value), {})
    if (section, key, value) in NEEDS_EQUAL_WIDTHS:
        backbone = load_backbone("tiny")
        x = make_batch(backbone, seed=4).images
    if beside or backbone.name == "tiny":
        reference = run(backbone, x, beside)[1]
    method, scores = run(backbone, x, {section: {key: value}, **beside})
    assert torch.isfinite(scores.score).all()
    assert torch.isfinite(scores.map).all()
    if (section, key, value) != ("cls", "enabled", False):
        torch.testing.assert_close(scores.logits.exp().sum(-1), torch.ones(len(x)))
        same = all(
            torch.equal(a, b)
            for a, b in zip((scores.map, scores.logits), (reference.map, reference.logits), strict=True)
        )
        same = same and torch.equal(scores.score, reference.score)
        assert same == ((section, key, value) in EQUIVALENT)
    copy = UltraAD(
        backbone, UltraADConfig.model_validate(method.config.model_dump()), classes=CLASSES, normal_class="normal"
    )
    copy.load_state_dict(method.state_dict())
    with torch.no_grad():
        again = copy.eval().score(x)
    assert torch.equal(again.map, scores.map)
    assert torch.equal(again.score, scores.score)


def test_raw_keys_and_values_score_in_vision_space(tiny):
    method, scores = run(tiny, make_batch(tiny, seed=4).images, {"pif": {"kv": "raw", "residual": "none"}})
    assert method.fusion[0].k.in_features == tiny.width
    assert torch.isfinite(scores.map).all()
    with pytest.raises(ValidationError, match="leaves the joint space"):
        UltraADConfig.model_validate({"pif": {"kv": "raw"}})


def test_paper_preset_is_literal_and_single_options_win():
    c = UltraADConfig.model_validate({"preset": "paper", "mininet": {"ratio": 0.5}, "post": {"sigma": 2.0}})
    assert not c.loss.dice_skip_empty
    assert (c.mininet.residual, c.mininet.ratio, c.pif.residual, c.prior.map, c.post.sigma) == (
        "none",
        0.5,
        "none",
        1.0,
        2.0,
    )
    assert UltraADConfig.model_validate(c.model_dump()) == c


def test_supports_without_masks_train_the_classes_only(tiny):
    method = build(tiny)
    report = method.fit(make_batch(tiny, masks=False), seed=0)
    assert any("no support image has a lesion mask" in n for n in report.notes)
    x = make_batch(tiny, seed=4).images
    zero = build(tiny)
    zero.fit(empty_batch(tiny), seed=0)
    with torch.no_grad():
        torch.testing.assert_close(method.score(x).map, zero.score(x).map, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(method.score(x).logits, zero.score(x).logits)


def test_missing_masks_are_noted(tiny):
    batch = make_batch(tiny)
    batch.mask_known[2] = False
    report = build(tiny).fit(batch, seed=0)
    assert any("1 abnormal support image" in n for n in report.notes)


def lesions(tiny, **more):
    return make_batch(tiny, **more).select([2, 3, 4, 5])


def test_normal_images_alone_are_refused_in_words(tiny):
    with pytest.raises(DataError, match=r"ultraad needs images with a lesion, .* none \(2 normal\); add images of a"):
        build(tiny).fit(make_batch(tiny).select([0, 1]), seed=0)


@torch.no_grad()
@pytest.mark.parametrize("prior", [{}, {"prior": {"cls": 1.0, "map": 1.0, "grade": "cls"}}])
def test_with_lesions_alone_the_texts_say_normal_and_the_shots_say_which_lesion(tiny, prior):
    method, zero = build(tiny, **prior), build(tiny)
    method.fit(lesions(tiny), seed=0)
    zero.fit(empty_batch(tiny), seed=0)
    x = make_batch(tiny, seed=4).images
    got, texts = method.score(x), zero.score(x)
    torch.testing.assert_close(got.score, texts.score)
    p, p0 = got.logits.softmax(-1), texts.logits.softmax(-1)
    torch.testing.assert_close(p[:, 0], p0[:, 0])
    f0 = tiny.encode_image(x).image
    own, start = method._head().logits(method._class_token(f0)), zero.zero_shot.class_logits(f0)
    w = 1.0 if prior else 2 / (2 + 128)  # two images of each class that has any
    among = ((1 - w) * start + w * own)[:, 1:].softmax(-1)
    torch.testing.assert_close(p[:, 1:] / p[:, 1:].sum(1, keepdim=True), among)
    assert not torch.allclose(among, start[:, 1:].softmax(-1))
    assert not torch.allclose(got.map, texts.map), "tissue beside the lesions teaches the map"


@torch.no_grad()
def test_with_lesions_alone_a_map_cannot_move_the_score(tiny):
    x = make_batch(tiny, seed=4).images
    with_masks, without = build(tiny), build(tiny)
    with_masks.fit(lesions(tiny), seed=0)
    report = without.fit(lesions(tiny, masks=False), seed=0)
    torch.testing.assert_close(with_masks.score(x).score, without.score(x).score)
    assert report.notes[0].startswith("no support image is normal: grading is adapted; detection")


def test_lesions_of_one_class_teach_the_map_and_need_masks(tiny):
    report = build(tiny).fit(lesions(tiny).select([0, 1]), seed=0)
    assert report.notes[0].startswith("no support image is normal: the map is adapted; detection")
    with pytest.raises(DataError, match=r"nothing to learn from lesions of one class \(2 benign\); add masks or"):
        build(tiny).fit(lesions(tiny, masks=False).select([0, 1]), seed=0)


@pytest.mark.parametrize(
    "options", [{"bin": {"fuse": "mean"}}, {"bin": {"cls": "clip_pair"}}, {"cls": {"enabled": False}}]
)
def test_scores_from_the_map_or_the_learned_prompts_need_normal_images(tiny, options):
    with pytest.raises(DataError, match=r"needs normal images for cls.enabled=false and for bin"):
        build(tiny, **options).fit(lesions(tiny), seed=0)


@pytest.mark.parametrize("classes", [("clear", "lesion"), ("healthy", "cyst", "solid", "calcified")])
def test_any_classes(tiny, classes):
    method = build(tiny, classes=classes)
    report = method.fit(make_batch(tiny, classes=classes), seed=0)
    assert any("no sentences for" in n for n in report.notes)
    probs = method.predict(make_batch(tiny, classes=classes, seed=2).unlabelled())[0].probs
    assert tuple(probs) == classes
    assert sum(probs.values()) == pytest.approx(1, abs=1e-5)


def test_own_text_bank(tiny):
    bank = TextBank(
        organ="thyroid",
        object="thyroid ultrasound",
        classes={"clear": {"sentences": ["A healthy thyroid."]}, "nodule": {"sentences": ["A nodule.", "A mass."]}},
    )
    method = build(tiny, classes=("clear", "nodule"), texts=bank)
    assert method.zero_shot.notes == ()
    want = unit(unit(tiny.encode_text(["A nodule.", "A mass."])).mean(0))
    torch.testing.assert_close(method.text[1], want)


def test_fit_encodes_each_view_once_and_folds_reuse_them(monkeypatch):
    backbone = load_backbone("tiny")
    seen = []
    encode = backbone.encode_image
    monkeypatch.setattr(backbone, "encode_image", lambda x, **o: (seen.append(len(x)), encode(x, **o))[1])
    batch = make_batch(backbone)
    fitted(backbone, batch, train={"epochs": 3, "views": 4})
    assert sum(seen) == 4 * len(batch)
    fitted(backbone, batch.select([0, 2, 4]), train={"epochs": 3, "views": 4})  # a fold of a cross-validation
    assert sum(seen) == 4 * len(batch)
    fitted(backbone, batch, seed=1, train={"epochs": 1, "views": 4})  # other views, the same first one
    assert sum(seen) == (4 + 3) * len(batch)


def test_heads_must_divide(tiny):
    with pytest.raises(ConfigError, match=r"pif.heads=5 does not divide 32"):
        build(tiny, pif={"heads": 5})


def test_shots_and_texts_have_a_share_each_in_detection_and_in_grading(tiny):
    """With all of one share and none of the other, p(normal) and p(class | lesion) come from different models."""
    batch = make_batch(tiny)
    adapted, texts, mixed = (
        fitted(tiny, batch, prior={"map": 0.0, "cls": cls, "grade": grade}).score(batch.images).logits.softmax(-1)
        for cls, grade in ((1.0, 1.0), (0.0, 0.0), (1.0, 0.0))
    )
    torch.testing.assert_close(mixed[:, 0], adapted[:, 0])
    among = [p[:, 1:] / p[:, 1:].sum(1, keepdim=True) for p in (mixed, texts, adapted)]
    torch.testing.assert_close(among[0], among[1])
    assert not torch.allclose(among[0], among[2], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("keep", [0.01, 0.5, 1.0])
def test_sentences_are_chosen_by_the_support(tiny, keep):
    config = UltraADConfig.model_validate({"memory": {"text_select": "support", "text_keep": keep}})
    zero = UltraAD(tiny, config, classes=CLASSES, normal_class="normal").zero_shot
    keys = torch.nn.functional.normalize(torch.randn(5, tiny.dim, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.tensor([0, 1, 1, 0, 1])  # no malignant image
    got = zero.support_text(keys, labels, seed=0)
    for i, name in enumerate(CLASSES[:2]):
        texts = torch.nn.functional.normalize(tiny.encode_text(list(zero.sentences(name))), dim=1)
        worth = []
        for text in texts:
            own = [float(k @ text) for k, y in zip(keys, labels, strict=True) if y == i]
            others = [float(k @ text) for k, y in zip(keys, labels, strict=True) if y != i]
            worth.append(sum(own) / len(own) - sum(others) / len(others))
        best = sorted(range(len(worth)), key=lambda j: -worth[j])[: math.ceil(keep * len(worth))]
        want = torch.nn.functional.normalize(texts[best].mean(0), dim=0)
        torch.testing.assert_close(got[i], want, atol=1e-5, rtol=0)
    torch.testing.assert_close(got[2], zero.text[2], atol=1e-5, rtol=0)
    if keep == 1:
        torch.testing.assert_close(got, zero.text, atol=1e-5, rtol=0)


def test_moments_are_a_second_opinion_on_the_class_and_leave_the_map(tiny):
    batch, queries = make_batch(tiny, 3), make_batch(tiny, 4, seed=5)
    alone, both = fitted(tiny, batch), fitted(tiny, batch, cls={"moments": 2.0})
    with torch.no_grad():
        x, q = (tiny.encode_image(b.images, layers=(0,)).patches[0].double().numpy() for b in (batch, queries))
        a, b = alone.score(queries.images), both.score(queries.images)
    x, q = (np.concatenate([p.mean(1), p.std(1)], 1) for p in (x, q))
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.316, max_iter=1000)).fit(x, batch.labels.numpy())
    want = a.logits.log_softmax(1) + 2 * torch.from_numpy(oracle.predict_log_proba(q)).float()
    torch.testing.assert_close(b.logits.softmax(1), want.softmax(1), atol=2e-3, rtol=0)
    torch.testing.assert_close(b.score, 1 - b.logits.softmax(1)[:, 0])
    assert torch.equal(a.map, b.map)
    assert both.evidence(queries.images) is None
    copy = build(tiny, cls={"moments": 2.0})
    copy.load_state_dict(both.state_dict())
    with torch.no_grad():
        assert torch.equal(copy.score(queries.images).logits, b.logits)


def test_moments_count_by_themselves_for_another_organ_than_the_towers(monkeypatch, tiny):
    breast, liver = breast_texts(), breast_texts().model_copy(update={"organ": "liver"})
    for organ, texts, wanted in ((None, liver, 0), ("breast", liver, 1), ("breast", breast, 0), ("breast", None, 0)):
        monkeypatch.setattr(tiny, "organ", organ)
        method = build(tiny, texts=texts)
        assert method.moments_weight == wanted
        assert (method.moments is None) == (wanted == 0)
    monkeypatch.setattr(tiny, "organ", "breast")
    assert build(tiny, texts=liver, cls={"moments": 0.0}).moments is None
    lesions = make_batch(tiny, 3)
    lesions = lesions.select([i for i, label in enumerate(lesions.labels.tolist()) if label])
    one_sided, alone = (build(tiny, texts=liver, cls=c) for c in ({}, {"moments": 0.0}))
    assert "they need images of every class" in " ".join(one_sided.fit(lesions, seed=0).notes)
    assert "moments" not in " ".join(alone.fit(lesions, seed=0).notes)
    assert "count as a second opinion on the class" in " ".join(
        build(tiny, texts=liver).fit(make_batch(tiny), seed=0).notes
    )
    with torch.no_grad():
        a, b = (method.score(lesions.images).logits for method in (one_sided, alone))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)  # no normal image: nothing to learn a second opinion from


def test_moments_need_images_of_every_class():
    held = Holding({"normal": 0, "benign": 2, "malignant": 2}, "normal")
    config = UltraADConfig(cls={"moments": 1.0})
    assert "needs images of every class for cls.moments and found none of: normal" in UltraAD.missing(
        held, config, auxiliary=False
    )
