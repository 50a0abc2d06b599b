"""A data set in the look of another: the layout stays, an interrupted call goes on, refusals say what to do."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import ultraad
from tests import helpers
from ultraad.cli import app
from ultraad.errors import ConfigError, DataError
from ultraad.io import read_image
from ultraad.translate import Style, restyle, translate


@pytest.fixture
def sets(tmp_path):
    """BUSI to translate, and a brighter folder whose look is wanted."""
    here = helpers.write_busi(tmp_path / "here", per_class=2)
    there = helpers.write_folder(tmp_path / "there", per_class=2, masks="none")
    for path in there.rglob("*.png"):
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)) // 2 + 100, (90, 100)))
    return here, there, tmp_path / "out"


def test_the_layout_stays_and_only_pictures_change(sets):
    here, there, out = sets
    seen = []
    done = translate(here, there, out, way="moments", progress=lambda *about: seen.append(about))
    before, after = ultraad.scan(here), ultraad.scan(out)
    assert [(s.id, s.label, len(s.masks)) for s in before] == [(s.id, s.label, len(s.masks)) for s in after]
    pictures = {s.image for s in before}
    files = {p.relative_to(here) for p in here.rglob("*") if p.is_file()}
    assert {p.relative_to(out) for p in out.rglob("*") if p.is_file()} == files | {
        (out / "translate.json").relative_to(out)
    }
    assert (done.pictures, done.kept, done.copied) == (len(pictures), 0, len(files) - len(pictures))
    style = Style.of(read_image(s.image) for s in ultraad.scan(there))
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(read_image(b.image), restyle(read_image(a.image), style, "moments"))
        assert [m.read_bytes() for m in a.masks] == [m.read_bytes() for m in b.masks]
    assert seen[-1] == ("translate", len(pictures), len(pictures))


def test_a_second_call_goes_on_and_another_call_is_refused(sets):
    here, there, out = sets

    def stop(what, done, total):
        if (what, done) == ("translate", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translate(here, there, out, progress=stop)
    kept = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    assert len(kept) == 2
    done = translate(here, there, out)
    assert done.kept == 2
    assert done.pictures > 0
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items())
    again = translate(here, there, out)
    assert again.pictures == 0
    with pytest.raises(ConfigError, match=r"another 'way' \(histogram, now moments\); give another folder"):
        translate(here, there, out, way="moments")
    with pytest.raises(ConfigError, match="is inside"):
        translate(here, there, here / "new")
    (out.parent / "full").mkdir()
    (out.parent / "full" / "x").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        translate(here, there, out.parent / "full")


@pytest.mark.parametrize("way", ["histogram", "cycle"])
def test_a_call_that_fails_before_its_first_picture_leaves_the_folder_free(sets, tmp_path, way):
    here, there, out = sets
    wrong = helpers.write_folder(tmp_path / "wrong", per_class=1, masks="none")
    for path in wrong.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError):
        translate(here, wrong, out, way=way)
    assert not out.exists()
    out.mkdir()
    (out / "translate.json").write_text('{"to": "what an earlier version left"}')
    assert translate(here, there, out).pictures == 6


def test_a_damaged_picture_is_named_and_the_others_are_translated(sets):
    here, there, out = sets
    damaged = ultraad.scan(here)[0].image
    damaged.write_bytes(damaged.read_bytes()[:40])
    result = CliRunner().invoke(app, ["translate", str(here), str(there), "-o", str(out), "--by", "fourier"])
    assert result.exit_code == 3
    assert damaged.name in result.output
    assert "other files copied" in result.output


def test_the_command_names_the_ways(sets):
    here, there, out = sets
    result = CliRunner().invoke(app, ["translate", str(here), str(there), "-o", str(out), "--by", "histgram"])
    assert isinstance(result.exception, ConfigError)
    assert "did you mean 'histogram'" in str(result.exception)


def test_dicom_is_refused(sets, tmp_path):
    _, there, out = sets
    dicom = tmp_path / "dicom"
    for sample in ultraad.scan(there)[:1]:
        (dicom / "normal").mkdir(parents=True)
        shutil.copy(sample.image, dicom / "normal" / "a.dcm")
    with pytest.raises(DataError, match=r"is not a PNG, JPEG, BMP or TIFF picture"):
        translate(dicom, there, out)
