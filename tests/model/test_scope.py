"""Whether an image is one that a model can judge: the numbers against oracles, the shipped statistics, the files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy.spatial.distance import mahalanobis
from sklearn.datasets import load_sample_image

import ultraad
from tests.adapted import adapted
from ultraad.backbones import load_backbone
from ultraad.backbones._towers import TOWERS
from ultraad.io import read_image
from ultraad.io.files import write_image
from ultraad.model import bundle
from ultraad.model.model import Model, scope_of
from ultraad.model.record import facts_of
from ultraad.model.scope import LEVEL, NO_RECORD, SHRINKAGE, Scope, reference_arrays, shipped
from ultraad.simulate import simulate


@pytest.fixture(scope="module")
def model() -> Model:
    return ultraad.zero_shot()


def chart() -> np.ndarray:
    image = Image.new("RGB", (320, 240), "white")
    draw = ImageDraw.Draw(image)
    for i in range(6):
        draw.rectangle((40 + 40 * i, 200 - 25 * i, 70 + 40 * i, 210), fill=(31, 119, 180))
    draw.line((30, 20, 30, 210, 300, 210), fill="black", width=2)
    draw.text((120, 6), "images per second", fill="black")
    return np.asarray(image)


def drawn(rng: np.random.Generator, n: int, *, off: float = 0.0) -> np.ndarray:
    """Correlated normal vectors (n 12)."""
    mixing = np.random.default_rng(1).normal(size=(12, 12))
    return rng.normal(size=(n, 12)) @ mixing + off


def test_distance_and_p_value_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    x, fresh, null = drawn(rng, 400), drawn(rng, 5, off=1.0), rng.uniform(0, 60, 10_000)
    weights = rng.uniform(0.5, 1.5, 400)
    scope = Scope(reference_arrays(x, weights, null))
    centre = np.average(x, axis=0, weights=weights)
    covariance = np.cov(x.T, aweights=weights, ddof=0)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / 12 * np.eye(12)
    wanted = [mahalanobis(v, centre, np.linalg.inv(covariance)) ** 2 for v in fresh]
    found = scope.distances(fresh)
    assert found == pytest.approx(wanted, rel=0.02)  # the factor is stored in half precision
    assert scope.reference(fresh) == pytest.approx([(null >= d).mean() for d in found], abs=0.004)


def test_a_fiftieth_of_new_images_of_the_support_is_unlike_it_and_another_scanner_is():
    rng, rates, others = np.random.default_rng(0), [], []
    reference = reference_arrays(drawn(rng, 500), np.ones(500), np.ones(1))
    for _ in range(60):
        scope = Scope.of(reference, drawn(rng, 16).astype(np.float32))
        rates.append(np.mean(scope.support(drawn(rng, 200)) < LEVEL))
        others.append(np.mean(scope.support(drawn(rng, 200, off=12.0)) < LEVEL))
    assert 0.005 < np.mean(rates) < 0.04
    assert np.mean(others) > 0.9


def test_images_of_another_organ_are_judged_by_the_support_alone():
    rng = np.random.default_rng(0)
    x = drawn(rng, 500)
    plain = Scope(reference_arrays(x, np.ones(500)))
    reference = reference_arrays(x, np.ones(500), plain.distances(drawn(rng, 500)))
    there = Scope.of(reference, drawn(rng, 16, off=40.0).astype(np.float32))
    assert there.elsewhere
    assert not Scope.of(reference, drawn(rng, 16).astype(np.float32)).elsewhere
    assert [r.ok for r in there.judge(drawn(rng, 4, off=40.0))] == [True] * 4
    assert [r.ok for r in there.judge(drawn(rng, 4))] == [False] * 4


def test_few_or_equal_support_images():
    x = np.ones((3, 12), np.float32)
    assert Scope.of({}, x).judge(x)[0].words == NO_RECORD
    record = Scope.of({}, np.ones((8, 12), np.float32)).judge(x)[0]
    assert record.ok is None
    assert record.support is not None
    assert "no record of other ultrasound" in record.words


@pytest.mark.parametrize(
    "picture",
    [
        load_sample_image("china.jpg"),
        load_sample_image("flower.jpg"),
        np.repeat(load_sample_image("china.jpg").mean(-1, keepdims=True), 3, -1).astype(np.uint8),
        chart(),
        np.zeros((200, 300, 3), np.uint8),
        np.full((200, 300, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (200, 260, 3)).astype(np.uint8),
    ],
    ids=["temple", "flower", "temple in grey", "chart", "black", "white", "noise"],
)
def test_what_is_no_ultrasound_is_out_of_scope(model, picture):
    record = model.predict(picture).in_scope
    assert record.ok is False
    assert record.words.startswith("out of scope")


def test_ultrasound_is_in_scope(model):
    records = [model.predict(simulate(seed).image).in_scope for seed in range(6_000_000, 6_000_012)]
    assert sum(r.ok for r in records) >= 11
    shipped_images = sorted((Path(ultraad.__file__).parent / "data" / "bus_bra" / "Images").glob("*.png"))[:6]
    assert all(model.predict(read_image(path)).in_scope.ok for path in shipped_images)


def test_no_image_is_encoded_twice_and_batches_change_nothing(model, monkeypatch):
    images = [simulate(seed, size=160).image for seed in range(3)]
    alone = [model.predict(image).in_scope for image in images]
    calls: list[int] = []
    look = model.backbone._look
    monkeypatch.setattr(model.backbone, "_look", lambda x: calls.append(len(x)) or look(x))
    together = model._predict([model._prepare(image, None, None) for image in images], ["a", "b", "c"])
    assert calls == [3]
    for one, other in zip(alone, together, strict=True):
        assert other.in_scope.reference == pytest.approx(one.reference, abs=0.01)


def test_the_mirrored_tower_has_the_record_of_the_plain_one(model):
    mirrored = ultraad.zero_shot(backbone="embedded:mirror")
    image = simulate(1).image
    assert mirrored.predict(image).in_scope == model.predict(image).in_scope


def test_the_statistics_belong_to_weights_and_side(model):
    path, b = TOWERS["embedded"].scope, model.backbone
    assert path.stat().st_size < 200_000
    found = shipped(path, weights=b.weights, side=b.size)
    assert found, "the weights are new: make their statistics with 'python -m pretraining.scope DATA/BUS-BRA embedded'"
    assert shipped(path, weights="0" * 64, side=b.size) == {}
    assert shipped(path, weights=b.weights, side=96) == {}
    other = ultraad.zero_shot(size=96).predict(simulate(1).image).in_scope
    assert (other.ok, other.words) == (None, NO_RECORD)


def test_features_from_a_shared_cache_have_the_record_and_run_no_tower(tmp_path):
    b = load_backbone("tiny")
    model = ultraad.zero_shot(backbone=b)
    model.scope = scope_of(b, torch.randn(6, 3, b.size, b.size, generator=torch.Generator().manual_seed(0)))
    image = simulate(0, size=64).image
    record = model.predict(image).in_scope
    assert record.support is not None
    for count in (1, 0):  # encoded, and then read from the disk by another process
        cache = b.new_cache(tmp_path)
        with b.caching(cache):
            assert model.predict(image).in_scope == record
            assert model.predict(image).in_scope == record
        assert cache.usage.encoded == count


def test_a_saved_model_keeps_its_record_and_an_old_one_says_that_it_has_none(folder_dir, tmp_path):
    model = adapted(folder_dir)
    image = simulate(0, size=96).image
    record = model.predict(image).in_scope
    assert record.support is not None
    assert ultraad.load(model.save(tmp_path / "new")).predict(image).in_scope == record
    old = Model(model.method, calibration=model.calibration, origin=model.origin, support=model.support)
    facts = facts_of(old.describe().model_dump(mode="json"))
    assert old.digest == bundle.digest_of(facts, old.method.state_dict())  # as earlier versions made it
    prediction = ultraad.load(old.save(tmp_path / "old")).predict(image)
    assert prediction.in_scope.words == NO_RECORD
    assert prediction.score == model.predict(image).score


def test_a_run_flags_what_is_out_of_scope_and_leaves_it_out_of_the_page(model, tmp_path):
    (tmp_path / "in").mkdir()
    for name, picture in (
        ("a", simulate(0).image),
        ("b", simulate(2).image),
        ("temple", load_sample_image("china.jpg")),
    ):
        write_image(tmp_path / "in" / f"{name}.png", picture)
    for keep in (False, True):
        out = tmp_path / f"out{keep}"
        done = ultraad.predict(model, tmp_path / "in", out, keep_out_of_scope=keep)
        assert (done.predicted, done.out_of_scope) == (3, 1)
        rows = {r["id"]: r for r in map(json.loads, (out / "predictions.jsonl").read_text().splitlines())}
        assert {Path(i).stem: r["in_scope"]["ok"] for i, r in rows.items()} == {"a": True, "b": True, "temple": False}
        table = {Path(r["id"]).stem: r for r in csv.DictReader((out / "predictions.csv").read_text().splitlines())}
        assert [table[n]["in_scope"] for n in ("a", "b", "temple")] == ["True", "True", "False"]
        assert float(table["temple"]["like_reference"]) < LEVEL
        page = (out / "report.html").read_text()
        assert ("1 image out of scope" in page, 'id="outside"' in page) == (not keep, not keep)
        assert 'class="example grey"' in page
        assert "It was run on 3 images" in page


def test_metrics_count_images_out_of_scope_and_say_so(model, tmp_path):
    for label in ("normal", "benign"):
        (tmp_path / label).mkdir()
        for i in range(2):
            phantom = simulate(10 + i, label=label)
            write_image(tmp_path / label / f"{i}.png", phantom.image)
    write_image(tmp_path / "normal" / "temple.png", load_sample_image("china.jpg"))
    found = ultraad.evaluate(model, tmp_path, layout="folder", bootstrap=0)
    assert found["n"]["images"] == 5
    assert found["metrics"]["image_auroc"]["n"] == 5
    assert found["subsets"]["without_out_of_scope"]["image_auroc"]["n"] == 4
    assert any(note.startswith("1 image(s) are out of scope") for note in found["notes"])
