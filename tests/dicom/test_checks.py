"""``ultraad dicom validate``: every fault that is put into a file is named, and nothing is raised."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from tests.dicom.conftest import Ran
from tests.dicom.made import write_us
from ultraad.cli import app
from ultraad.dicom import checks
from ultraad.dicom.checks import validate
from ultraad.errors import MissingExtraError
from ultraad.model.adapt import zero_shot
from ultraad.runs.predict import predict


def changed(ran: Ran, kind: str, path: Path, change: Callable[[Dataset], object], name: str = "grey_cine") -> Path:
    ds = ran.read(name, kind)
    change(ds)
    ds.save_as(path)
    return path


def texts(path: Path, *others: Path) -> list[str]:
    return [fault.text for fault in validate([path, *others], outside=False)[0].faults]


def set_frame(ds: Dataset) -> None:
    source = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedFrameNumber = 13


def without_region(ds: Dataset) -> None:
    measurements = ds.ContentSequence[-1]
    group = measurements.ContentSequence[0]
    group.ContentSequence = [item for item in group.ContentSequence if item.ValueType != "SCOORD"]


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("seg", set_frame, "it refers to frame 13, but the image has 12"),
        ("seg", lambda ds: setattr(ds, "NumberOfFrames", 3), "NumberOfFrames is 3, but"),
        ("seg", lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2]), "PixelData has"),
        ("seg", lambda ds: ds.SegmentSequence.pop(), "frames belong to segment(s) [2], which are not described"),
        ("seg", lambda ds: setattr(ds, "Rows", 30), "it has 30 rows and 83 columns, its image (60, 83)"),
        (
            "seg",
            lambda ds: delattr(ds.SharedFunctionalGroupsSequence[0], "PixelMeasuresSequence"),
            "PixelMeasuresSequence is missing",
        ),
        (
            "seg",
            lambda ds: setattr(
                ds.PerFrameFunctionalGroupsSequence[1].FrameContentSequence[0], "DimensionIndexValues", [1, 1]
            ),
            "two frames have the same DimensionIndexValues",
        ),
        ("sr", without_region, "measurement group 1 has no region"),
        ("sr", lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"), "it belongs to another study than its image"),
        ("pr", lambda ds: delattr(ds, "SeriesInstanceUID"), "SeriesInstanceUID is missing"),
        ("ko", lambda ds: delattr(ds, "PatientID"), "PatientID is empty"),
    ],
)
def test_each_fault_of_an_object_is_named(ran: Ran, tmp_path: Path, kind, change, said: str) -> None:
    image = ran.images["grey_cine"]
    assert not any(said in text for text in texts(ran.path("grey_cine", kind), image))
    assert any(said in text for text in texts(changed(ran, kind, tmp_path / "x.dcm", change), image))


def test_an_image_says_what_its_results_will_lack(ran: Ran, tmp_path: Path) -> None:
    assert any("no usable scale" in text for text in texts(ran.images["rgb"]))
    assert not any("scale" in text for text in texts(ran.images["grey"]))
    assert any("its regions have different scales" in text for text in texts(ran.images["two_views"]))
    assert any("several frames but no usable FrameTime" in text for text in texts(ran.images["untimed"]))
    assert any("cropped or resized after the scan" in text for text in texts(ran.images["examples_ybr_color"]))
    assert any("has no PatientID" in text for text in texts(write_us(tmp_path / "a.dcm", PatientID=None)))
    assert any("StudyInstanceUID" in text for text in texts(write_us(tmp_path / "b.dcm", StudyInstanceUID=None)))


def test_what_is_no_dicom_is_a_fault_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"")
    (tmp_path / "b.dcm").write_text("not DICOM at all, but text" * 20)
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    for name in ("a.dcm", "b.dcm", "c.png", "missing.dcm"):
        (one,) = validate([tmp_path / name])
        assert one.errors == 1, name


def test_damaged_objects_are_named_not_raised(ran: Ran, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("seg", "sr", "pr", "ko"):
        content = ran.path("grey", kind).read_bytes()
        for n in range(12):
            broken = bytearray(content)
            for at in rng.integers(132, len(content), 40):
                broken[at] = rng.integers(256)
            path = tmp_path / f"{kind}{n}.dcm"
            path.write_bytes(broken[: rng.integers(200, len(content))] if n % 2 else broken)
            validate([path, ran.images["grey"]], outside=False)


def test_the_errors_of_dciodvfy_are_errors(ran: Ran, tmp_path: Path) -> None:
    path = changed(ran, "seg", tmp_path / "x.dcm", lambda ds: delattr(ds, "SegmentSequence"))
    (one,) = validate([path])
    assert any("SegmentSequence" in fault.text for fault in one.outside if fault.level == "error")


def test_without_dciodvfy_the_command_says_so(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "validator", lambda: None)
    found = CliRunner().invoke(app, ["dicom", "validate", str(ran.path("grey", "sr"))])
    assert found.exit_code == 0
    assert "dciodvfy is not installed" in found.output


def test_the_command_exits_with_1_if_there_is_an_error(ran: Ran, tmp_path: Path) -> None:
    good = [str(ran.path("grey", kind)) for kind in ("seg", "sr", "pr", "sc", "ko")]
    found = CliRunner().invoke(app, ["dicom", "validate", str(ran.images["grey"]), *good])
    assert found.exit_code == 0, found.output
    assert "Segmentation Storage: 0 error(s), dciodvfy 0 error(s)" in found.output.replace("\n", " ")
    bad = changed(ran, "sr", tmp_path / "x.dcm", lambda ds: delattr(ds, "SOPClassUID"), "grey")
    assert CliRunner().invoke(app, ["dicom", "validate", *good, str(bad)]).exit_code == 1


def test_checks_need_no_extra(ran: Ran) -> None:
    code = (
        "import sys\nsys.modules['highdicom'] = None\n"
        "from pathlib import Path\nfrom ultraad.dicom.checks import validate\n"
        f"print(validate([Path({str(ran.path('grey', 'seg'))!r})], outside=False)[0].errors)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_without_the_extra_objects_are_refused_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_us(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingExtraError, match=r"highdicom is not installed; get it with: .*'ultraad\[dicom\]'"):
        predict(zero_shot(backbone="tiny"), image, tmp_path / "out", save=["dicom"])
    assert not (tmp_path / "out").exists()
