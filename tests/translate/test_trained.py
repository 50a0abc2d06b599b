"""``--by cycle`` from end to end: what it writes, what it leaves alone, and that a stopped one goes on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import ultraad
from tests import helpers
from ultraad.cli import app
from ultraad.errors import ConfigError
from ultraad.io import read_image
from ultraad.io.maps import read_map
from ultraad.model import checkpoint
from ultraad.translate import translate
from ultraad.translate.trained import split

OPTIONS = {"side": 64, "patch": 32, "width": 4, "blocks": 1, "steps": 75, "lr": 3e-3, "held_out": 0.4}


@pytest.fixture
def sets(tmp_path):
    """BUSI to translate, and a brighter folder whose look is wanted."""
    here = helpers.write_busi(tmp_path / "here", per_class=8)
    there = helpers.write_folder(tmp_path / "there", per_class=2, masks="none")
    for path in there.rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path)) // 2 + 110)
    return here, there, tmp_path / "out"


def run(sets, **more):
    return translate(*sets, way="cycle", options=OPTIONS, **more)


def test_everything_is_there_and_only_pictures_changed(sets):
    here, _, out = sets
    said = []
    done = run(sets, announce=said.append)
    before, after = ultraad.scan(here), ultraad.scan(out)
    assert [(s.id, s.label, len(s.masks)) for s in before] == [(s.id, s.label, len(s.masks)) for s in after]
    assert done.pictures == len(before)
    assert len(said) == 1
    beside = out.with_name("out-cycle")
    with (beside / "certainty.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(r["image"] for r in rows) == sorted(s.image.relative_to(here).as_posix() for s in before)
    certain = [float(r["certainty"]) for r in rows]
    assert certain == sorted(certain, reverse=True)
    assert all(0 < c < 1 for c in certain)
    moves = []
    for a, b in zip(before, after, strict=True):
        old, new = read_image(a.image), read_image(b.image)
        assert old.shape == new.shape
        assert np.array_equal(old == 0, new == 0), "black stays black"
        assert [m.read_bytes() for m in a.masks] == [m.read_bytes() for m in b.masks]
        name = a.image.relative_to(here).as_posix()
        spread = 255 * read_map(beside / "spread" / f"{name}.png")
        row = next(r for r in rows if r["image"] == name)
        tissue = old[..., 0] > 0
        assert (spread[tissue] > 0).all()
        assert not spread[~tissue].any()
        change = np.abs(new.astype(float) - old)[..., 0][tissue].mean()
        assert float(row["change"]) == pytest.approx(change, abs=0.01)
        assert float(row["expected_error"]) == pytest.approx(spread[tissue].mean(), rel=0.15)
        moves.append(float((new.astype(float) - old).mean()))
    assert np.mean(moves) > 5, "towards the brighter look"
    found = json.loads((beside / "calibration.json").read_text())
    assert found["patients apart"]
    assert found["after"]["calibration_error"] < found["before"]["calibration_error"]
    page = (beside / "report.html").read_text()
    assert "A translation invents" in page
    assert page.count("data:image/jpeg") == 6


def test_a_stopped_training_goes_on_with_the_same_bits(sets, monkeypatch):
    here, there, out = sets
    whole = out.with_name("whole")
    translate(here, there, whole, way="cycle", options=OPTIONS)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)

    def stop(what, done, total):
        if (what, done) == ("train", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(sets, progress=stop)
    beside = out.with_name("out-cycle")
    assert (beside / "fit.safetensors").is_file()
    seen = []
    run(sets, progress=lambda what, done, total: seen.append((what, done)))
    assert [done for what, done in seen if what == "train"] == [2, 3]
    assert not (beside / "fit.safetensors").exists()
    for name in ("certainty.csv", "calibration.json", "report.html"):
        assert (beside / name).read_bytes() == (out.with_name("whole-cycle") / name).read_bytes(), name
    for sample in ultraad.scan(out):
        assert sample.image.read_bytes() == (whole / sample.image.relative_to(out)).read_bytes()
    again = []
    assert run(sets, progress=lambda what, done, total: again.append(what)).pictures == 0
    assert "train" not in again, "the network is kept"


def test_too_few_held_out_pictures_are_told(sets):
    here, there, out = sets
    translate(here, there, out, way="cycle", options=OPTIONS | {"held_out": 0.1, "steps": 1})
    found = json.loads((out.with_name("out-cycle") / "calibration.json").read_text())
    assert found["scale"] == 1.0
    assert "held-out pictures, wanted 8: the spreads are not calibrated" in found["note"]


def test_patients_are_on_one_side_only():
    samples = [
        replace(s, group=f"p{i % 7}" if i < 40 else None) for i, s in enumerate(ultraad.scan(ultraad.samples()) * 2)
    ]
    train, held_out = split(samples, share=0.3, seed=0)
    assert len(train) + len(held_out) == len(samples)
    assert not {s.group for s in train if s.group} & {s.group for s in held_out}
    assert 0.1 < len(held_out) / len(samples) < 0.6


def test_wrong_options_are_named(sets):
    with pytest.raises(ConfigError, match=r"options \(steps\) for 'histogram'"):
        translate(*sets, options={"steps": 3})
    result = CliRunner().invoke(
        app, ["translate", *map(str, sets[:2]), "-o", str(sets[2]), "--by", "cycle", "--set", "step=3"]
    )
    assert isinstance(result.exception, ConfigError)
    assert "steps" in str(result.exception)
    assert not sets[2].exists()


def test_the_command_says_how_far_to_trust_it(sets):
    def call(**more):
        settings = [
            word for key, value in {**OPTIONS, "steps": 1, **more}.items() for word in ("--set", f"{key}={value}")
        ]
        words = ["translate", *map(str, sets[:2]), "-o", str(sets[2]), "--by", "cycle", "--device", "cpu", *settings]
        return CliRunner().invoke(app, words)

    result = call()
    assert result.exit_code == 0, result.output
    assert "values are trained on patches of 32 x 32 pixels" in result.output
    assert result.output.rstrip().endswith("out-cycle/report.html")
    assert isinstance(call(steps=2).exception, ConfigError), "the folder holds another translation"
    sets = (*sets[:2], sets[2].with_name("few"))
    assert "too few held-out pictures" in call(held_out=0.1).output
