from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraad.backbones import load_backbone
from ultraad.data.loader import load_batch
from ultraad.data.preprocess import Preprocess
from ultraad.data.support import draw_support
from ultraad.methods._base import Method, MethodConfig, MethodInfo, Needs
from ultraad.model.adapt import adapt, with_thresholds
from ultraad.model.calibration import FIXED, CalibrationConfig, cross_validate, fixed, folds
from ultraad.types import Batch, FitReport, Scores


class Brightness(Method):
    """Scores by what it was fitted on: abnormal is darker than the mean of the images seen in fit."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="brightness",
        title="",
        paper="",
        url="",
        reference="",
        licence="",
        outputs=frozenset({"score", "map"}),
        needs=Needs(),
    )
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    seen: ClassVar[list[tuple[str, ...]]] = []
    asked: ClassVar[list[tuple[str, ...]]] = []

    def learn(self, support: Batch, *, auxiliary: Any, seed: int) -> FitReport:
        Brightness.seen.append(support.ids)
        self.level = support.images.mean()
        return FitReport("none")

    def score(self, images: torch.Tensor) -> Scores:
        dark = (self.level - images.mean(1)).sigmoid()  # (b s s)
        return Scores(score=dark.mean((1, 2)), map=dark)


@pytest.fixture
def cross(folder_dir: Path):
    backbone = load_backbone("tiny")
    support = draw_support(folder_dir, shots=4)
    batch = load_batch(
        support.samples, Preprocess(backbone.preprocess), classes=support.classes, normal_class=support.normal_class
    )
    Brightness.seen.clear()

    def run(**options: Any):
        make = lambda: Brightness(backbone, classes=support.classes, normal_class=support.normal_class)  # noqa: E731
        return cross_validate(make, batch, support.samples, config=CalibrationConfig(**options), seed=0), batch

    return run


def test_every_image_is_scored_by_a_method_that_has_not_seen_it(cross) -> None:
    found, batch = cross(folds=4)
    assert found.images == len(batch) == 12
    assert found.folds == len(Brightness.seen) == 4
    held_out = [set(batch.ids) - set(seen) for seen in Brightness.seen]
    assert sorted(i for part in held_out for i in part) == sorted(batch.ids), "each image is held out exactly once"


def test_thresholds_are_the_best_on_out_of_fold_scores(cross) -> None:
    found, batch = cross(folds=4)
    assert 0 < found.image_threshold < 1
    scores: dict[str, float] = {}
    maps: dict[str, np.ndarray] = {}
    for seen in list(Brightness.seen):  # by hand, fold by fold
        rest = [i for i, id_ in enumerate(batch.ids) if id_ in seen]
        held = [i for i, id_ in enumerate(batch.ids) if id_ not in seen]
        level = batch.images[rest].mean()
        for i in held:
            dark = (level - batch.images[i].mean(0)).sigmoid()
            scores[batch.ids[i]] = float(dark.mean())
            maps[batch.ids[i]] = batch.geometry[i].invert(dark.numpy())
    s = np.array([scores[i] for i in batch.ids])
    abnormal = batch.labels.numpy() != 0

    def youden(t: float) -> float:
        return float((s[abnormal] >= t).mean() - (s[~abnormal] >= t).mean())

    assert [h.id for h in found.held_out] == list(batch.ids)
    assert [h.score for h in found.held_out] == pytest.approx(s, abs=1e-6)
    assert [h.anomalous for h in found.held_out] == abnormal.tolist()
    assert [h.group for h in found.held_out] == list(batch.groups)
    assert youden(found.image_threshold) == pytest.approx(max(youden(t) for t in s))
    assert found.pixel_threshold is not None
    auroc = np.mean([(a > b) + 0.5 * (a == b) for a in s[abnormal] for b in s[~abnormal]])
    assert found.estimates["image_auroc"].value == pytest.approx(auroc)
    assert "pixel_auroc" in found.estimates
    assert "class_auroc_macro" not in found.estimates, "the method does not grade, and nothing is never 0"


def test_rules_and_leave_one_out(cross) -> None:
    assert cross(rule="f1")[0].rule.startswith("f1")
    found, _ = cross(folds=99)
    assert found.folds == 4, "never more folds than images of the smallest class"


def only(batch: Batch, samples: Any, *, normal: bool) -> tuple[Batch, list[Any]]:
    """The normal images of a support set, or its lesions."""
    index = [i for i, label in enumerate(batch.labels.tolist()) if (label == 0) == normal]
    return batch.select(index), [samples[i] for i in index]


@pytest.fixture
def part(folder_dir: Path):
    """Cross-validation on a part of a support set; returns it with the batch and what is scored out of fold."""
    backbone = load_backbone("tiny")
    support = draw_support(folder_dir, shots=4)
    whole = load_batch(support.samples, Preprocess(backbone.preprocess), classes=support.classes, normal_class="normal")
    Brightness.seen.clear()

    def run(*, normal: bool, groups: tuple[str | None, ...] | None = None, masks: bool = True, **options: Any):
        batch, samples = only(whole, support.samples, normal=normal)
        batch = replace(batch, groups=groups) if groups else batch
        batch = batch if masks else replace(batch, mask_known=torch.zeros(len(batch), dtype=torch.bool))
        make = lambda: Brightness(backbone, classes=support.classes, normal_class="normal")  # noqa: E731
        found = cross_validate(make, batch, samples, config=CalibrationConfig(**options), seed=0)
        held: dict[str, np.ndarray] = {}
        for seen in Brightness.seen:
            rest = [i for i, id_ in enumerate(batch.ids) if id_ in seen]
            for i in set(range(len(batch))) - set(rest):
                dark = (batch.images[rest].mean() - batch.images[i].mean(0)).sigmoid()
                held[batch.ids[i]] = dark.numpy()
        return found, batch, held

    return run


def test_with_normal_images_alone_the_thresholds_are_quantiles_of_held_out_scores(part) -> None:
    found, batch, held = part(normal=True)
    assert set(held) == set(batch.ids)
    scores = np.array([m.mean() for m in held.values()])
    assert found.image_threshold == pytest.approx(scores.max(), abs=1e-6), "95 % of four are four"
    lower, _, _ = part(normal=True, quantile=0.5, pixel_quantile=0.5)
    assert (scores >= lower.image_threshold).sum() == 2
    assert lower.pixel_threshold < found.pixel_threshold
    maps = [batch.geometry[batch.ids.index(id_)].invert(m) for id_, m in held.items()]
    pixels = np.concatenate([m.ravel() for m in maps])
    assert found.pixel_threshold == pytest.approx(np.quantile(pixels, 0.99), abs=1e-3)
    assert found.rule == "0.95 quantile of the scores of 4 held-out normal images, 0.99 quantile of their pixels"
    assert "no sensitivity is known" in found.notes[0]
    assert any("only 4 normal images" in note for note in found.notes)
    assert "image_auroc" not in found.estimates


def test_normal_images_need_no_mask_that_fits(part) -> None:
    (found, _, _), (bare, _, _) = part(normal=True), part(normal=True, masks=False)
    assert bare.pixel_threshold == found.pixel_threshold
    assert part(normal=False, masks=False)[0].pixel_threshold == 0.5, "lesions do"


def test_normal_images_of_one_patient_are_held_out_together(part) -> None:
    found, batch, _ = part(normal=True, groups=("a", "a", "b", "b"))
    assert (found.folds, found.grouped) == (2, True)
    assert sorted(map(len, Brightness.seen)) == [2, 2]
    assert {frozenset(seen) for seen in Brightness.seen} == {frozenset(batch.ids[:2]), frozenset(batch.ids[2:])}
    alone, _, _ = part(normal=True, groups=("a", "a", "a", "a"))
    assert (alone.folds, alone.image_threshold) == (0, FIXED)
    assert "too few images or patients" in alone.notes[0]


def test_with_lesions_alone_only_the_pixel_threshold_is_fitted(part) -> None:
    found, batch, held = part(normal=False)
    assert len(held) == len(batch) == 8
    assert found.image_threshold == FIXED
    assert found.pixel_threshold != FIXED
    assert "no support image is normal" in found.rule
    assert "no support image is normal" in found.notes[0]


def test_too_little_support_gives_fixed_thresholds_and_says_so(folder_dir: Path) -> None:
    backbone = load_backbone("tiny")
    support = draw_support(folder_dir, shots=1)
    batch = load_batch(
        support.samples, Preprocess(backbone.preprocess), classes=support.classes, normal_class=support.normal_class
    )
    make = lambda: Brightness(backbone, classes=support.classes, normal_class=support.normal_class)  # noqa: E731
    found = cross_validate(make, batch, support.samples, config=CalibrationConfig(), seed=0)
    assert (found.image_threshold, found.pixel_threshold, found.folds) == (FIXED, FIXED, 0)
    assert "too few images" in found.notes[0]
    assert found.estimates == {}
    assert found.held_out == ()


def test_fixed_without_maps_has_no_pixel_threshold() -> None:
    assert fixed(has_map=False, note="x").pixel_threshold is None
    assert fixed(has_map=True, note="x").notes == ("x",)


LABELLED = st.lists(
    st.tuples(st.integers(-1, 2), st.one_of(st.none(), st.sampled_from("abcdefg"))), min_size=1, max_size=40
)


@settings(max_examples=200, deadline=None)
@given(images=LABELLED, count=st.integers(2, 6), seed=st.integers(0, 3))
def test_folds_divide_patients_and_keep_every_class_in_the_rest(images, count: int, seed: int) -> None:
    labels, groups = [a for a, _ in images], [b for _, b in images]
    parts = folds(labels, groups, count=count, seed=seed)
    assert parts == folds(labels, groups, count=count, seed=seed)
    if not parts:
        return
    assert 2 <= len(parts) <= count
    flat = [i for part in parts for i in part]
    assert sorted(flat) == [i for i, label in enumerate(labels) if label >= 0]
    where: dict[str, set[int]] = {}
    for p, part in enumerate(parts):
        assert part
        rest = {labels[i] for i in flat} - {labels[i] for i in set(flat) - set(part)}
        assert not rest, "a class would be missing from the fit"
        for i in part:
            if groups[i] is not None:
                where.setdefault(groups[i], set()).add(p)
    assert all(len(p) == 1 for p in where.values()), "a patient stands on both sides of a fold"


def test_folds_are_stratified() -> None:
    labels = [0] * 8 + [1] * 8 + [2] * 8
    for part in folds(labels, [], count=4, seed=0):
        assert Counter(labels[i] for i in part) == {0: 2, 1: 2, 2: 2}


def test_no_folds_when_one_patient_owns_a_class() -> None:
    assert folds([0, 0, 1, 1], ["a", "b", "c", "c"], count=2, seed=0) == []
    assert folds([0, 1], [None, None], count=2, seed=0) == []
    assert folds([], (), count=2, seed=0) == []


def test_thresholds_found_later_are_those_of_an_adaptation_that_waits_for_them(folder_dir: Path) -> None:
    support = draw_support(folder_dir, shots=2)
    options = {"train.epochs": 1, "train.views": 1, "calibration.folds": 2}
    whole = adapt(support, backbone="tiny", options=options)
    bare = adapt(support, backbone="tiny", options=options, calibrate=False)
    assert (bare.calibration.image_threshold, bare.calibration.folds) == (FIXED, 0)
    steps: list[tuple[int, int]] = []
    loaded = load_batch(support.samples, bare.preprocess, classes=support.classes, normal_class=support.normal_class)
    again = adapt(support, backbone="tiny", options=options, calibrate=False, loaded=loaded)
    assert again.digest == bare.digest
    later = with_thresholds(bare, support, options=options, loaded=loaded, progress=lambda *s: steps.append(s))
    near = {"abs": 1e-5}  # images are encoded in other batches
    assert later.calibration.image_threshold == pytest.approx(whole.calibration.image_threshold, **near)
    assert later.calibration.pixel_threshold == pytest.approx(whole.calibration.pixel_threshold, **near)
    scores = [[h.score for h in m.calibration.held_out] for m in (later, whole)]
    assert scores[0] == pytest.approx(scores[1], **near)
    assert [h.id for h in later.calibration.held_out] == [h.id for h in whole.calibration.held_out]
    for name, value in whole.method.state_dict().items():
        assert torch.equal(later.method.state_dict()[name], value)
    assert steps[-1] == (2, 2)
