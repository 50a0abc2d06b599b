"""The contract of every method, checked for all methods of the package on two towers of different shape."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tests.methods.conftest import CLASSES, empty_batch, make_batch, model_around, quick
from ultraad import methods
from ultraad.backbones import load_backbone
from ultraad.backbones._door import Backbone
from ultraad.backbones._vit import fingerprint_of
from ultraad.config import options
from ultraad.errors import DataError
from ultraad.methods._base import Holding, Method, Needs
from ultraad.model.model import load
from ultraad.types import Batch, FitReport, Scores

NAMES = methods.available()
TOWERS = ("tiny", "tiny:uneven")
BOTH = pytest.mark.parametrize(("name", "tower"), [(n, t) for n in NAMES for t in TOWERS])
EACH = pytest.mark.parametrize("name", NAMES)

tower_of = cache(load_backbone)


@dataclass
class Fitted:
    """A method after ``fit``, its state before, and the parameters that an optimiser stepped or moved."""

    method: Method
    report: FitReport
    before: dict[str, torch.Tensor]
    stepped: set[str] = field(default_factory=set)
    moving: set[str] = field(default_factory=set)


def build(name: str, tower: str) -> Method:
    kind = methods.get(name)
    return kind(tower_of(tower), quick(kind.Config), classes=CLASSES, normal_class="normal")


def fit(name: str, tower: str, *, seed: int = 0, batch: Batch | None = None, **more: Any) -> Fitted:
    """Fit, and record for every optimiser step its parameters and those with a gradient other than zero."""
    method = build(name, tower)
    tower_of(tower).cache.clear()  # entries from other batches differ in rounding
    batch = make_batch(tower_of(tower)) if batch is None else batch
    before = {key: value.clone() for key, value in method.state_dict().items()}
    stepped: set[int] = set()
    moving: set[int] = set()

    def look(optimiser: torch.optim.Optimizer, *_: object) -> None:
        for p in (p for group in optimiser.param_groups for p in group["params"]):
            stepped.add(id(p))
            if p.grad is not None and bool(p.grad.any()):
                moving.add(id(p))

    handle = register_optimizer_step_pre_hook(look)
    try:
        report = method.fit(batch, seed=seed, **more)
    finally:
        handle.remove()
    names = {id(p): key for key, p in method.named_parameters()}
    assert stepped <= names.keys(), "an optimiser changes something that is not a parameter of the method"
    return Fitted(method, report, before, {names[i] for i in stepped}, {names[i] for i in moving})


@cache
def fitted(name: str, tower: str) -> Fitted:
    return fit(name, tower)


def scores(method: Method, images: torch.Tensor) -> Scores:
    with torch.no_grad():
        return method.score(images)


def images_of(tower: str) -> torch.Tensor:
    return make_batch(tower_of(tower), per_class=1, seed=9).images


def tensors(s: Scores) -> dict[str, torch.Tensor]:
    return {key: t for key in ("score", "map", "logits") if (t := getattr(s, key)) is not None}


def assert_equal(a: Scores, b: Scores, *, exact: bool = True) -> None:
    assert tensors(a).keys() == tensors(b).keys()
    for key, x in tensors(a).items():
        if exact:
            assert torch.equal(x, tensors(b)[key]), key
        else:
            torch.testing.assert_close(x, tensors(b)[key], atol=1e-4, rtol=1e-4)


def unequal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    assert a.keys() == b.keys()
    return {key for key in a if a[key].shape != b[key].shape or not torch.equal(a[key], b[key])}


@EACH
def test_it_says_who_it_is(name: str) -> None:
    kind = methods.get(name)
    info = kind.info
    assert info.name == name
    for text in (info.title, info.paper, info.url, info.reference, info.licence, info.idea, info.learned):
        assert text.strip()
    assert re.search(r"\b(19|20)\d\d\b", info.paper), "the year"
    assert info.url.startswith("https://")
    assert info.outputs <= {"score", "map", "classes"}
    assert "score" in info.outputs
    assert not info.needs.auxiliary or info.auxiliary
    assert all(d.strip() and d == d.strip() for d in info.deviations)


@EACH
def test_every_option_says_what_it_does_and_where_its_default_comes_from(name: str) -> None:
    for o in options(methods.get(name).Config):
        assert o.description.strip(), o.key
        if name != "ultraad":  # its sources are in docs/ultraad.md, which test_docs.py compares with the code
            assert re.search(r"[(:]", o.description), f"{o.key}: no source in {o.description!r}"


@EACH
def test_options_named_in_the_deviations_exist(name: str) -> None:
    known = {o.key for o in options(methods.get(name).Config)}
    for deviation in methods.get(name).info.deviations:
        for key in re.findall(r"\b([a-z_]+(?:\.[a-z_]+)*)=", deviation):
            assert key in known, f"{key} in {deviation!r}"


@EACH
def test_options_survive_json(name: str) -> None:
    kind = methods.get(name)
    for config in (kind.Config(), quick(kind.Config)):
        assert kind.Config.model_validate(json.loads(config.model_dump_json())) == config


@BOTH
def test_scores_are_what_it_promised(name: str, tower: str) -> None:
    method = fitted(name, tower).method
    x = images_of(tower)
    s = scores(method, x)
    promised = method.info.outputs
    assert (s.map is not None, s.logits is not None) == ("map" in promised, "classes" in promised)
    assert s.score.shape == (len(x),)
    for values in (s.score, s.map):
        if values is not None:
            assert values.dtype == torch.float32
            assert bool(torch.isfinite(values).all())
            assert 0 <= float(values.min()) <= float(values.max()) <= 1
    if s.map is not None:
        assert s.map.shape[0] == len(x)
        assert s.map.shape[1] == s.map.shape[2], "the aspect of the model input"
        assert len(torch.unique(s.map)) > 1, "a map that is the same everywhere"
    if s.logits is not None:
        assert s.logits.shape == (len(x), len(CLASSES))
        assert bool(torch.isfinite(s.logits).all())
    if s.map is None and s.logits is not None:
        torch.testing.assert_close(s.score, 1 - s.logits.softmax(-1)[:, 0], atol=1e-5, rtol=0)


@BOTH
def test_an_image_is_scored_by_itself(name: str, tower: str) -> None:
    method = fitted(name, tower).method
    x = images_of(tower)
    together = scores(method, x)
    alone = [scores(method, x[i : i + 1]) for i in range(len(x))]
    joined = {key: torch.cat([tensors(a)[key] for a in alone]) for key in tensors(together)}
    assert_equal(together, Scores(**joined), exact=False)
    backwards = scores(method, x.flip(0))
    assert_equal(together, Scores(**{k: t.flip(0) for k, t in tensors(backwards).items()}), exact=False)


@BOTH
def test_the_same_seed_gives_the_same_bits(name: str, tower: str) -> None:
    one, again, other = fitted(name, tower), fit(name, tower), fit(name, tower, seed=1)
    assert not unequal(one.method.state_dict(), again.method.state_dict())
    assert_equal(scores(one.method, images_of(tower)), scores(again.method, images_of(tower)))
    changed = unequal(one.method.state_dict(), other.method.state_dict())
    assert bool(changed) != one.method.seedless, changed


@EACH
def test_batches_side_by_side_are_scored_as_one_after_the_other(name: str) -> None:
    method = fitted(name, "tiny").method
    batches = [make_batch(tower_of("tiny"), per_class=1, seed=seed).images for seed in range(8)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns as often as they can
    try:
        with ThreadPoolExecutor(4) as pool:
            found = [*pool.map(lambda images: scores(method, images), batches)]
    finally:
        sys.setswitchinterval(before)
    for images, got in zip(batches, found, strict=True):
        assert_equal(got, scores(method, images), exact=False)


@BOTH
def test_exactly_what_it_declares_is_learned(name: str, tower: str) -> None:
    f = fitted(name, tower)
    state, learned = f.method.state_dict(), {key for key, n in f.report.learned.items() if n}
    assert learned <= state.keys()
    assert {key: state[key].numel() for key in learned} == {key: f.report.learned[key] for key in learned}
    assert f.moving == f.stepped, "every parameter in the optimiser has a gradient"
    assert f.stepped <= learned, "the others are computed by a rule or a solver"
    assert f.stepped or not f.report.loss
    assert set(f.method.learned_buffers) <= learned
    parameters = {key for key, p in f.method.named_parameters() if p.numel()}
    moved = unequal(f.before, state)
    assert learned <= moved
    assert moved & parameters <= learned, "moved, but not declared"
    assert all(p.requires_grad == (key in learned) for key, p in f.method.named_parameters() if p.numel())
    assert f.report.selection.strip()
    assert not f.method.training


def random_states() -> tuple[bytes, bytes, object]:
    """The global generators of torch, numpy and Python."""
    numbers = np.random.get_state()[1]  # noqa: NPY002  the global state is what must not change
    return torch.get_rng_state().numpy().tobytes(), numbers.tobytes(), random.getstate()


@EACH
def test_nothing_else_is_touched(name: str) -> None:
    backbone, method = tower_of("tiny"), build(name, "tiny")
    backbone.cache.clear()  # the tower runs, too
    batch = make_batch(backbone)
    kept = [t.clone() for t in (batch.images, batch.labels, batch.masks, batch.mask_known)]
    before = random_states()
    method.fit(batch, seed=0)
    scores(method, batch.images)
    assert random_states() == before
    for a, b in zip(kept, (batch.images, batch.labels, batch.masks, batch.mask_known), strict=True):
        assert torch.equal(a, b), "the support was changed"
    assert fingerprint_of(backbone.model) == backbone.fingerprint
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())
    for module in backbone.model.modules():
        assert not module.training
        assert not {**module._forward_hooks, **module._forward_pre_hooks, **module._backward_hooks}
    assert not any(key.startswith("backbone") for key in method.state_dict())


@BOTH
def test_a_state_brings_everything_back(name: str, tower: str) -> None:
    method = fitted(name, tower).method
    fresh = build(name, tower)
    fresh.load_state_dict(method.state_dict())
    assert_equal(scores(fresh.eval(), images_of(tower)), scores(method, images_of(tower)))


@EACH
def test_a_bundle_brings_everything_back(name: str, tmp_path: Path) -> None:
    f = fitted(name, "tiny")
    model = model_around(f.method, learned=f.report.learned)
    found = load(model.save(tmp_path / "model"), backbone=tower_of("tiny"))
    assert found.digest == model.digest
    batch = make_batch(tower_of("tiny"), per_class=1, seed=9).unlabelled()
    for a, b in zip(model.method.predict(batch), found.method.predict(batch), strict=True):
        assert (a.score, a.probs, a.method) == (b.score, b.probs, name)
        assert (a.map is None) == (b.map is None)
        assert a.map is None or np.array_equal(a.map, b.map)


def lacking(batch: Batch, need: str) -> Batch:
    """The batch without what a method may need."""
    assert batch.labels is not None
    unknown = torch.full_like(batch.labels, -1)
    if need == "normal_images":
        return batch.select((batch.labels != 0).nonzero().flatten().tolist())
    if need == "abnormal_images":
        return batch.select((batch.labels == 0).nonzero().flatten().tolist())
    if need == "class_labels":
        return replace(batch, labels=torch.where(torch.arange(len(batch)) == 1, unknown, batch.labels))
    return replace(batch, masks=torch.zeros_like(batch.masks), mask_known=batch.labels == 0)


def cases() -> Iterator[Any]:
    for name in NAMES:
        needs = methods.get(name).info.needs
        for need in Needs.__slots__:
            if need != "auxiliary" and getattr(needs, need):
                yield pytest.param(name, need, id=f"{name}-{need}")


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A method whose tower must not run once it is built."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the tower ran before the needs were checked")

    def make(name: str) -> Method:
        method = build(name, "tiny")
        tower_of("tiny").cache.clear()
        for call in ("encode_image", "encode_tokens", "embed_image", "encode_prompts", "encode_text"):
            monkeypatch.setattr(Backbone, call, refuse)
        return method

    return make


@pytest.mark.parametrize(("name", "need"), list(cases()))
def test_missing_needs_are_refused_before_any_work(idle: Any, name: str, need: str) -> None:
    method = idle(name)
    state = {key: value.clone() for key, value in method.state_dict().items()}
    with pytest.raises(DataError, match=name):
        method.fit(lacking(make_batch(tower_of("tiny")), need), seed=0)
    assert not method.fitted
    assert not unequal(state, method.state_dict())


NORMALS_ONLY = frozenset(
    {
        "anodode",
        "april_gan",
        "ccd",
        "latent_dissimilarity",
        "medi_clip",
        "mvfa",
        "patch_core",
        "perceptual_ae",
        "sagan",
        "winclip",
    }
)
LESIONS_ONLY = frozenset(
    {"clip_adapter", "cocoop", "coop", "lp_plus_plus", "patch_probe", "tip_adapter", "ultraad", "vcp_clip"}
)
KINDS = {"normal": (NORMALS_ONLY, [0, 1]), "lesions": (LESIONS_ONLY, [2, 3, 4, 5])}
WORDS = {
    "normal": r"needs images with a lesion, and the support set has none \(2 normal\); add images of a class other",
    "lesions": r"needs normal images, and the support set has none \(2 benign, 2 malignant\); add images of the class",
}


@pytest.mark.parametrize("kind", KINDS)
@EACH
def test_a_support_of_one_kind_is_enough_or_is_refused_before_any_work(idle: Any, name: str, kind: str) -> None:
    enough, index = KINDS[kind]
    method, batch = idle(name), make_batch(tower_of("tiny")).select(index)
    held = Holding.of_batch(batch, CLASSES, "normal")
    assert held.only == kind
    assert bool(method.missing(held, method.config, auxiliary=False)) == (name not in enough)
    if name in enough:
        return
    state = {key: value.clone() for key, value in method.state_dict().items()}
    with pytest.raises(DataError, match=f"{name} {WORDS[kind]}"):
        method.fit(batch, seed=0)
    assert not method.fitted
    assert not unequal(state, method.state_dict())


@pytest.mark.parametrize(
    ("name", "tower", "kind"), [(n, t, k) for k in KINDS for n in sorted(KINDS[k][0]) for t in TOWERS]
)
def test_a_support_of_one_kind_gives_a_model(name: str, tower: str, kind: str) -> None:
    batch = make_batch(tower_of(tower)).select(KINDS[kind][1])
    f = fit(name, tower, batch=batch)
    s = scores(f.method, images_of(tower))
    assert all(bool(torch.isfinite(t).all()) for t in tensors(s).values())
    for values in (s.score, s.map):
        assert values is None or 0 <= float(values.min()) <= float(values.max()) <= 1
    assert s.map is None or len(torch.unique(s.map)) > 1
    assert {key for key, n in f.report.learned.items() if n} <= unequal(f.before, f.method.state_dict())
    assert f.stepped <= f.report.learned.keys()
    assert any("no support image is normal" in note for note in f.report.notes) == (kind == "lesions")
    fresh = build(name, tower)
    fresh.load_state_dict(f.method.state_dict())
    assert_equal(scores(fresh.eval(), images_of(tower)), s)


@pytest.mark.parametrize("name", sorted(n for n in LESIONS_ONLY if "classes" in methods.get(n).info.outputs))
def test_with_lesions_alone_detection_is_that_of_the_texts_and_grading_is_adapted(name: str) -> None:
    x, batch = images_of("tiny"), make_batch(tower_of("tiny")).select(KINDS["lesions"][1])
    adapted, zero_shot = fit(name, "tiny", batch=batch), fit(name, "tiny", batch=empty_batch(tower_of("tiny")))
    got, texts = scores(adapted.method, x), scores(zero_shot.method, x)
    assert got.logits is not None
    assert texts.logits is not None
    p, p0 = got.logits.softmax(-1), texts.logits.softmax(-1)
    torch.testing.assert_close(got.score, texts.score, atol=1e-5, rtol=0)
    torch.testing.assert_close(p[:, 0], p0[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(p.sum(1), torch.ones(len(x)))
    among, among0 = (q[:, 1] / (1 - q[:, 0]) for q in (p, p0))
    assert not torch.allclose(among, among0, atol=1e-4)
    both = scores(fitted(name, "tiny").method, x)
    assert not torch.allclose(both.score, texts.score, atol=1e-4), "with normal images, detection is adapted too"


@EACH
def test_unlabelled_and_empty_supports_are_refused(idle: Any, name: str) -> None:
    method = idle(name)
    with pytest.raises(DataError, match="without labels"):
        method.fit(make_batch(tower_of("tiny")).unlabelled(), seed=0)
    if not method.info.zero_shot:
        with pytest.raises(DataError, match="learns from images and got none"):
            method.fit(empty_batch(tower_of("tiny")), seed=0)


@pytest.mark.parametrize(("name", "tower"), [(n, t) for n in NAMES if methods.get(n).info.zero_shot for t in TOWERS])
def test_zero_shot_works_without_any_image(name: str, tower: str) -> None:
    f = fit(name, tower, batch=empty_batch(tower_of(tower)))
    s = scores(f.method, images_of(tower))
    assert all(bool(torch.isfinite(t).all()) for t in tensors(s).values())
    assert len(torch.unique(s.score)) > 1
    assert not f.stepped
    fresh = build(name, tower)
    fresh.load_state_dict(f.method.state_dict())
    assert_equal(scores(fresh.eval(), images_of(tower)), s)


class Batches(list):  # type: ignore[type-arg]
    """A list that counts how often it is read."""

    passes = 0

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        return super().__iter__()


def auxiliary(tower: str) -> Batches:
    """Two batches of another data set: other class names, other label numbers, one lesion without a mask."""
    backbone = tower_of(tower)
    batch = make_batch(backbone, per_class=2, seed=5, classes=("good", "cyst"))
    assert batch.labels is not None
    assert batch.mask_known is not None
    batch = replace(batch, classes=("cyst", "good"), labels=1 - batch.labels)
    unknown = batch.mask_known.clone()
    unknown[-1] = False
    return Batches([batch.select([0, 2]), replace(batch, mask_known=unknown).select([1, 3])])


class Kept:
    """A checkpoint in memory, saved after every epoch."""

    state: dict[str, torch.Tensor] | None = None

    def load(self) -> dict[str, torch.Tensor] | None:
        return self.state

    def due(self) -> bool:
        return True

    def save(self, state: Mapping[str, torch.Tensor]) -> None:
        self.state = {key: value.clone() for key, value in state.items()}


LONG = [n for n in NAMES if methods.get(n).long]


@pytest.mark.parametrize("name", LONG)
def test_a_long_training_says_its_size_and_goes_on_with_the_same_bits(name: str) -> None:
    method, kept, plans = build(name, "tiny"), Kept(), []

    def stop(done: int, epochs: int) -> None:
        assert done < epochs
        raise KeyboardInterrupt

    tower_of("tiny").cache.clear()
    batch = make_batch(tower_of("tiny"))
    method.announce, method.checkpoint, method.progress = plans.append, kept, stop
    with pytest.raises(KeyboardInterrupt):
        method.fit(batch, seed=0)
    (plan,) = plans
    assert plan.images == 2, "the normal ones"
    assert plan.steps >= 2
    assert kept.state is not None
    assert len(kept.state["history"]) == 1
    method.announce, method.progress = None, None
    report = method.fit(batch, seed=0)
    whole = fitted(name, "tiny")
    assert report.loss == whole.report.loss
    assert not unequal(method.state_dict(), whole.method.state_dict())
    assert plan.values == sum(n for key, n in report.learned.items() if key in whole.stepped)


ABLE = [n for n in NAMES if methods.get(n).info.auxiliary]


@pytest.mark.parametrize(("name", "tower"), [(n, t) for n in ABLE for t in TOWERS])
def test_an_auxiliary_set_is_trained_on(name: str, tower: str) -> None:
    batches = auxiliary(tower)
    f = fit(name, tower, batch=empty_batch(tower_of(tower)), auxiliary=batches)
    assert batches.passes > 0
    assert f.report.loss
    assert f.moving == f.stepped == {key for key, n in f.report.learned.items() if n}
    s = scores(f.method, images_of(tower))
    for values in (s.score, s.map):
        assert values is None or (bool(torch.isfinite(values).all()) and 0 <= values.min() <= values.max() <= 1)
    both = fit(name, tower, auxiliary=auxiliary(tower))
    again = fit(name, tower, auxiliary=auxiliary(tower))
    assert not unequal(both.method.state_dict(), again.method.state_dict())
    fresh = build(name, tower)
    fresh.load_state_dict(both.method.state_dict())
    assert_equal(scores(fresh.eval(), images_of(tower)), scores(both.method, images_of(tower)))


def test_some_method_is_in_every_part_of_this_file() -> None:
    infos = [methods.get(n).info for n in NAMES]
    assert any(i.zero_shot for i in infos)
    assert any(not i.zero_shot for i in infos)
    assert any(i.auxiliary for i in infos)
    kinds = [methods.get(n) for n in NAMES]
    assert any(k.seedless for k in kinds)
    assert any(k.learned_buffers for k in kinds)
    assert LONG
