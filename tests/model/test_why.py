"""Why: parts that sum to the decision, keys that are left out, marks, small changes, and the way through the files."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch

import ultraad
from tests.adapted import adapted
from tests.helpers import picture, save, write_folder
from tests.methods.conftest import CLASSES, empty_batch, make_batch, quick
from ultraad import methods
from ultraad.backbones import load_backbone
from ultraad.cli import main
from ultraad.config import resolve
from ultraad.errors import ConfigError
from ultraad.io import read_image
from ultraad.io.marks import are_marks, coloured, overlays, paint_out, paint_overlays
from ultraad.model.reasons import Changed, Marks, Stability, Why, parts, rests
from ultraad.nn.evidence import Sentences
from ultraad.nn.prompts import encode_ensemble, unit
from ultraad.runs.predict import predict

FIXED = {"prior": {"map": 0.5, "cls": 0.4, "grade": 0.7}}  # weights that do not depend on the number of keys


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny")


def fitted(name, backbone, *, classes=CLASSES, normal=True, batch=None, **options):
    kind = methods.get(name)
    given = quick(kind.Config).model_dump()
    for key, value in options.items():
        given[key] = {**given[key], **value} if isinstance(value, dict) else value
    method = kind(backbone, resolve(kind.Config, given), classes=classes, normal_class="normal")
    if batch is None:
        batch = make_batch(backbone, classes=classes)
        batch = batch if normal else batch.select([i for i, y in enumerate(batch.labels.tolist()) if y])
    method.fit(batch, seed=0)
    return method


KINDS = [
    ("tip_adapter", {}),
    ("tip_adapter", {"finetune": False, "alpha": 3.0}),
    ("ultraad", FIXED),
    ("ultraad", {**FIXED, "cls": {"cache_norm": "mean", "alpha": 2.0}}),
    ("ultraad", {**FIXED, "post": {"refine": "mix"}}),
    ("ultraad", {**FIXED, "memory": {"keys": "via_mininet"}}),
]


@pytest.mark.parametrize(
    ("name", "options", "normal"), [*((*kind, True) for kind in KINDS), (*KINDS[2], False), (*KINDS[4], False)]
)
def test_parts_sum_to_the_log_odds_of_lesion_against_normal(tiny, name, options, normal):
    classes = ("normal", "lesion")
    method = fitted(name, tiny, classes=classes, normal=normal, **options)
    images = make_batch(tiny, seed=3, classes=classes).images
    with torch.no_grad():
        e, scores = method.evidence(images), method.score(images)
    torch.testing.assert_close(e.logits.softmax(-1), scores.logits.softmax(-1), atol=1e-5, rtol=1e-4)
    whole = e.sentences.sum(1) + e.support.sum(1) + e.map
    logit = scores.logits[:, 1] - scores.logits[:, 0]
    torch.testing.assert_close(whole[:, 1] - whole[:, 0], logit, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_with_three_classes_only_the_entropy_of_the_others_is_left(tiny, name, options):
    method = fitted(name, tiny, **options)
    images = make_batch(tiny, seed=3).images
    with torch.no_grad():
        e = method.evidence(images)
    if name != "tip_adapter":  # of two lesion classes at most ln 2, once for each of two sums
        whole = (e.sentences.sum(1) + e.support.sum(1) + e.map).double()
        left = (e.logits - whole)[:, 1:] - (e.logits - whole)[:, :1]
        assert (left.abs() <= 2 * math.log(2) + 1e-3).all()
        return
    p = e.logits.double().softmax(-1)
    for row, q in zip(range(len(p)), p, strict=True):
        others = q[1:] / q[1:].sum()
        weights = torch.cat([torch.ones(1), -others]).double()
        whole = ((e.sentences.sum(1) + e.support.sum(1))[row].double() * weights).sum()
        entropy = -(others * others.log()).sum()
        assert float(whole - entropy) == pytest.approx(float((q[0] / (1 - q[0])).log()), abs=1e-3)


@pytest.mark.parametrize("normal", [True, False], ids=["", "lesions only"])
@pytest.mark.parametrize(("name", "options"), [KINDS[0], KINDS[1], KINDS[2], KINDS[5]])
def test_without_a_key_is_the_method_that_lacks_it(tiny, name, options, normal):
    method = fitted(name, tiny, normal=normal, **options)
    images = make_batch(tiny, seed=4).images[:2]
    with torch.no_grad():
        e = method.evidence(images)
        state = method.state_dict()
        for m in range(len(method.keys)):
            less = type(method)(tiny, method.config, classes=CLASSES, normal_class="normal")
            kept = [i for i in range(len(method.keys)) if i != m]
            less.load_state_dict({k: v[kept] if k in ("keys", "values") else v for k, v in state.items()})
            expected = less.score(images).logits.softmax(-1)
            torch.testing.assert_close(e.without[:, m].softmax(-1), expected, atol=1e-5, rtol=1e-4)


def test_zero_shot_is_sentences_alone(tiny):
    for name in ("ultraad", "tip_adapter"):
        method = fitted(name, tiny, batch=empty_batch(tiny))
        images = make_batch(tiny, seed=3).images
        with torch.no_grad():
            e, scores = method.evidence(images), method.score(images)
        torch.testing.assert_close(e.logits.softmax(-1), scores.logits.softmax(-1), atol=1e-5, rtol=1e-4)
        assert e.support.shape[1] == e.without.shape[1] == 0
        assert e.sentences.shape[1] == len(e.names) > 3


def test_sentences_are_parts_of_their_prompt_ensemble(tiny):
    bank = [["a round mass", "an oval mass", "a dark mass"], ["no mass"]]
    sentences = Sentences(tiny, ("lesion", "normal"), bank)
    query = unit(torch.randn(5, tiny.dim, generator=torch.Generator().manual_seed(0)))
    texts = torch.stack([encode_ensemble(tiny, some) for some in bank])
    logits = 7 * query @ texts.T
    found = sentences.parts(query, 7.0)
    torch.testing.assert_close(found.sum(1), logits - logits.mean(1, keepdim=True), atol=1e-4, rtol=1e-4)
    assert (found[:, 3, 0] == 0).all()
    assert sentences.names[2] == ("lesion", "a dark mass")


def test_shares_are_of_the_sum_of_all_absolute_parts():
    found, rest = parts({"a": [3.0, -1.0], "b": [0.5]}, 2.0)
    assert rest.log_odds == pytest.approx(-0.5)
    assert sum(abs(p.share) for some in found.values() for p in some) + abs(rest.share) == pytest.approx(1)
    assert [p.share for p in found["a"]] == pytest.approx([0.6, -0.2])


def stability(*scores):
    return Stability(changes=tuple(Changed(change="x", score=s) for s in scores), low=min(scores), high=max(scores))


@pytest.mark.parametrize(
    ("change", "scores", "expected"),
    [(0.5, (0.8, 0.9), True), (-0.5, (0.8, 0.9), True), (0.09, (0.9,), False), (0.3, (0.5, 0.9), False)],
)
def test_a_score_rests_on_marks_if_small_changes_do_less(change, scores, expected):
    assert rests(change, stability(*scores), 0.9) is expected


def test_the_words_say_whether_a_score_rests_on_marks():
    held = stability(0.8, 0.9)
    for rest, words in ((True, "this score rests on marks"), (False, "does not rest on them")):
        why = Why(marks=Marks(area=0.01, score=0.4, change=0.45, rests=rest), stability=held)
        assert any("0.40 in place of 0.85" in line and words in line for line in why.sentences_in_words())
    told = Why(marks=Marks(area=0.5), stability=held).sentences_in_words()
    assert any("50 % of the pixels are coloured or look like letters: Doppler" in line for line in told)


def test_doppler_is_no_mark():
    image, _ = picture(1, lesion=False)
    assert not are_marks(coloured(image))
    image[:10, :10] = (0, 200, 60)
    assert are_marks(coloured(image))
    assert not coloured(paint_overlays(image)).any()
    image[:] = (0, 200, 60)
    assert not are_marks(coloured(image))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("why") / "data")


@pytest.fixture(scope="module")
def model(data):
    return adapted(data)


def test_marks_and_changes_are_predictions_of_changed_images(model, data, tmp_path):
    image = read_image(next(iter(sorted(data.rglob("*.png"))))).copy()
    image[5:8, 5:20] = (255, 230, 0)
    why = model.why(image)
    assert why.marks.score == pytest.approx(model.predict(paint_out(image, overlays(image))).score)
    assert why.marks.change == pytest.approx(model.predict(image).score - why.marks.score)
    by_name = {one.change: one.score for one in why.stability.changes}
    assert by_name["gain x 0.8"] == pytest.approx(
        model.predict(np.rint(image * np.float32(0.8)).astype(np.uint8)).score
    )
    h, w = image.shape[:2]
    dy, dx = round(0.05 * h), round(0.05 * w)
    assert by_name["crop 5 %"] == pytest.approx(model.predict(image[dy : h - dy, dx : w - dx].copy()).score, abs=1e-5)
    assert why.log_odds == pytest.approx(
        sum(p.log_odds for p in (why.support_total, why.sentences_total, why.map, why.rest) if p)
    )
    assert sum(abs(one.part.share) for one in why.support) <= 1


def test_support_images_are_shown_only_where_they_are_unchanged(data, tmp_path):
    here = tmp_path / "here"
    shutil.copytree(data, here)
    model = adapted(here)
    saved = model.save(tmp_path / "model")
    image = read_image(next(iter(sorted(here.rglob("*.png")))))
    shown = [one.image for one in model.why(image).support]
    assert all(shown)
    save(here / model.why(image).support[0].id, np.zeros((48, 64, 3), np.uint8))
    changed = ultraad.load(saved).why(image)
    assert changed.support[0].image is None
    assert any("1 of the named support images cannot be shown" in line for line in changed.sentences_in_words())
    here.rename(tmp_path / "moved")
    assert not any(one.image for one in ultraad.load(saved).why(image).support)


def test_a_copy_at_another_prevalence_explains_its_own_probabilities(model, data):
    image = ultraad.scan(data)[0].image
    before = model.why(image)  # and what it computed stays with it
    moved = model.at_prevalence(0.01)
    assert moved.why(image).support[0].probs["normal"] > before.support[0].probs["normal"]
    assert model.why(image) == before


def test_a_method_without_a_memory_names_what_is_similar_and_says_so(data):
    model = ultraad.adapt(ultraad.draw_support(data, shots=2), method="linear_probe", backbone="tiny", calibrate=False)
    own = model.support[0][0]
    why = model.why(data / own.id)
    assert why.support[0].id == own.id  # the image itself is the most similar
    assert why.support[0].similarity == pytest.approx(1, abs=1e-4)
    assert why.log_odds is why.without is why.support[0].part is None
    assert any("no share of the decision" in note for note in why.notes)
    assert any("leave-one-support-out is not offered for linear_probe: it takes 6 fits" in n for n in why.notes)


def test_a_run_writes_reasons_and_the_page_shows_them(model, data, tmp_path, capsys):
    saved, out = model.save(tmp_path / "model"), tmp_path / "out"
    words = ["predict", str(saved), str(data), "-o", str(out), "--device", "cpu"]
    for more, there in (([], False), (["--why"], True)):  # a run without reasons is completed by one with
        with pytest.raises(SystemExit) as end:
            main([*words, *more])
        assert not end.value.code
        rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        assert all(("why" in row) == there for row in rows)
        assert ('<h2 id="why">Why</h2>' in (out / "report.html").read_text()) == there
    why = Why.model_validate(rows[0]["why"])
    again = model.why(rows[0]["image"])
    assert why.support[0].id == again.support[0].id
    assert why.log_odds == pytest.approx(again.log_odds, abs=1e-4)
    assert why.sentences[0].text in (out / "report.html").read_text()
    with pytest.raises(SystemExit) as end:
        main([*words, "--why", "--engine", "local"])
    assert end.value.code == 2


def test_reasons_that_nobody_can_give_are_refused(model, tmp_path):
    (tmp_path / "a.avi").write_bytes(b"")
    with pytest.raises(ConfigError, match="reasons are for images"):
        predict(model, tmp_path / "a.avi", tmp_path / "out", why=True)
