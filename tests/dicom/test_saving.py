"""From a run to objects: what decides about UIDs, what is kept, and what cannot be written."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from tests.dicom.conftest import Ran
from tests.dicom.made import H, W, image_score, made_map, region, run_of, write_us
from tests.helpers import picture, save
from ultraad.cli import app
from ultraad.dicom import saving
from ultraad.dicom.objects import OBJECTS, USUAL
from ultraad.dicom.saving import write_objects
from ultraad.errors import ConfigError, DataError
from ultraad.io.find import find_images
from ultraad.io.maps import read_map
from ultraad.model.adapt import zero_shot
from ultraad.results.folder import read_rows
from ultraad.runs.predict import predict


def uids(folder: Path) -> dict[str, dict[str, str]]:
    """{file: {kind: UID}} of the objects of a run."""
    content = json.loads((folder / "dicom" / "objects.json").read_text())
    found = {}
    for entry in content["images"]:
        objects = {kind: one["uid"] for kind, one in entry["objects"].items()}
        for kind, one in entry["objects"].items():
            ds = pydicom.dcmread(folder / "dicom" / one["file"])
            assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID == objects[kind]
        found[Path(entry["image"]).name] = objects
    return found


# ---- UIDs -----------------------------------------------------------------------------------------------------------


def test_uids_depend_on_image_model_and_thresholds_and_on_nothing_else(tmp_path: Path) -> None:
    image = write_us(tmp_path / "in" / "a.dcm")

    def of_run(name: str, **options) -> dict[str, str]:
        run_of(tmp_path / name, [image], **options)
        assert write_objects(tmp_path / name) == {}
        return uids(tmp_path / name)["a.dcm"]

    first = of_run("one")
    assert of_run("two") == first
    assert len({*first.values()}) == len(USUAL)
    assert not {*of_run("other", threshold=0.4).values()} & {*first.values()}
    with_others = of_run("sets", sets="0.8")  # which are in the report alone
    assert {kind for kind in first if with_others[kind] != first[kind]} == {"sr"}
    ds = pydicom.dcmread(image)
    ds.PixelData = ds.PixelData[::-1]
    ds.save_as(image)  # the same SOP instance UID, other pixels
    assert not {*of_run("changed").values()} & {*first.values()}
    assert all(uid.startswith("2.25.") and len(uid) <= 64 and pydicom.uid.UID(uid).is_valid for uid in first.values())


def test_no_uid_is_used_twice(ran: Ran) -> None:
    seen: list[str] = []
    for path in (ran.folder / "dicom").glob("*.dcm"):
        ds = pydicom.dcmread(path)
        seen += [ds.SOPInstanceUID, ds.SeriesInstanceUID]
    assert len(seen) == len({*seen})


def test_an_object_that_is_there_is_left_as_it_is_and_others_go(tmp_path: Path) -> None:
    image = write_us(tmp_path / "in" / "a.dcm")
    run_of(tmp_path / "out", [image])
    write_objects(tmp_path / "out", ["seg", "sr"])
    folder = tmp_path / "out" / "dicom"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.dcm")}
    (folder / "old-0123abcd-sr.dcm").write_bytes(b"of an image that was predicted again")
    (folder / "mine.dcm").write_bytes(b"not written by ultraad")
    (torn,) = folder.glob("a-*-sr.dcm")
    torn.write_bytes(b"torn")
    write_objects(tmp_path / "out", ["seg", "sr"])
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.dcm")}
    assert {*before, "mine.dcm"} == after.keys()
    assert [name for name in before if before[name] != after[name]] == [torn.name]
    assert pydicom.dcmread(torn).Modality == "SR"
    write_objects(tmp_path / "out", ["ko"])
    assert {*uids(tmp_path / "out")["a.dcm"]} == {"seg", "sr", "ko"}  # those of an earlier choice stay


# ---- a run ----------------------------------------------------------------------------------------------------------


def test_predict_writes_objects_on_the_frames_it_predicted(tmp_path: Path) -> None:
    write_us(tmp_path / "in" / "a.dcm", regions=[region((4, 3, W - 9, H - 8), (0.1, 0.1))])
    write_us(tmp_path / "in" / "b.dcm", frames=3)
    save(tmp_path / "in" / "c.png", picture(1, lesion=True)[0])
    model = zero_shot(backbone="tiny")
    done = predict(
        model, tmp_path / "in", tmp_path / "out", save=["dicom"], objects=["sc", "fractional"], pixel_threshold=0.0
    )
    assert (done.predicted, done.failed, done.without_objects) == (5, {}, {})
    assert {name: {*kinds} for name, kinds in uids(tmp_path / "out").items()} == {
        "a.dcm": {"fractional", "sc"},
        "b.dcm": {"fractional", "sc"},
    }
    one = predict(model, tmp_path / "in" / "b.dcm", tmp_path / "frame", save=["dicom"], frame=1, threshold=0.0)
    assert one.predicted == 1
    selection = pydicom.dcmread(next((tmp_path / "frame" / "dicom").glob("*-ko.dcm")))
    assert selection.ContentSequence[1].ReferencedSOPSequence[0].ReferencedFrameNumber == 2
    capture = pydicom.dcmread(next((tmp_path / "frame" / "dicom").glob("*-sc.dcm")))
    assert capture.SOPClassUID.name == "Secondary Capture Image Storage"


def test_a_run_that_saved_less_is_predicted_again_for_objects(tmp_path: Path) -> None:
    image, model = write_us(tmp_path / "a.dcm"), zero_shot(backbone="tiny")
    predict(model, image, tmp_path / "out", save=["overlays"])
    assert predict(model, image, tmp_path / "out", save=["dicom"]).predicted == 1
    row = next(read_rows(tmp_path / "out"))
    assert row.lesions is not None
    assert read_map(tmp_path / "out" / row.map).shape == (H, W)
    assert predict(model, image, tmp_path / "out", save=["dicom"]).skipped == 1


def test_the_rows_of_a_cine_may_lie_apart(tmp_path: Path) -> None:
    cine, still = write_us(tmp_path / "a.dcm", frames=4), write_us(tmp_path / "b.dcm")
    run_of(tmp_path / "out", [cine, still])
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    order = [2, 4, 0, 3, 1]
    (tmp_path / "out" / "predictions.jsonl").write_text("".join(f"{lines[i]}\n" for i in order))
    assert write_objects(tmp_path / "out", ["labelmap"]) == {}
    found = pydicom.dcmread(next((tmp_path / "out" / "dicom").glob("a-*-labelmap.dcm")))
    groups = found.PerFrameFunctionalGroupsSequence
    assert [g.FrameContentSequence[0].TemporalPositionIndex for g in groups] == [1, 2, 3, 4]


def test_without_a_lesion_there_is_no_segmentation_but_a_report(tmp_path: Path) -> None:
    image = write_us(tmp_path / "a.dcm")
    run_of(tmp_path / "out", [image], maps=lambda shape, frame: np.full(shape, 0.1, np.float32), score=lambda _: 0.2)
    assert write_objects(tmp_path / "out", OBJECTS) == {}
    assert {*uids(tmp_path / "out")["a.dcm"]} == {"fractional", "sr", "sc"}  # nothing to outline, nothing of interest
    report = pydicom.dcmread(next((tmp_path / "out" / "dicom").glob("*-sr.dcm")))
    words = [str(e.value) for e in report.iterall() if e.keyword == "CodeMeaning"]
    assert "Normal" in words
    assert "Abnormal" not in words


def test_many_lesions_need_sixteen_bits_in_a_label_map(tmp_path: Path) -> None:
    def grid(shape: tuple[int, int], frame: int) -> np.ndarray:
        scores = np.zeros(shape, np.float32)
        for n in range(300):
            y, x = divmod(n, 20)
            scores[1 + 12 * y : 11 + 12 * y, 1 + 12 * x : 11 + 12 * x] = 0.6 + 0.001 * n
        return scores

    image = write_us(tmp_path / "a.dcm", size=(190, 250))
    run_of(tmp_path / "out", [image], maps=grid)
    assert write_objects(tmp_path / "out", ["labelmap"]) == {}
    found = pydicom.dcmread(next((tmp_path / "out" / "dicom").glob("*-labelmap.dcm")))
    assert (found.BitsAllocated, len(found.SegmentSequence)) == (16, 301)
    labels = found.pixel_array
    assert labels.max() == 300
    assert labels[1 + 12 * 14 + 5, 1 + 12 * 19 + 5] == 1  # the highest score


def test_sixty_five_frames_with_three_key_frames(tmp_path: Path) -> None:
    cine = write_us(tmp_path / "a.dcm", frames=65)
    run_of(tmp_path / "out", [cine], score=lambda frame: 0.8 - 0.002 * abs(frame - 9))
    assert write_objects(tmp_path / "out", ["ko", "seg"]) == {}
    selection = pydicom.dcmread(next((tmp_path / "out" / "dicom").glob("*-ko.dcm")))
    frames = [item.ReferencedSOPSequence[0].ReferencedFrameNumber for item in selection.ContentSequence[1:]]
    assert frames == [10, 35, 60]  # 25 frames are a second
    found = pydicom.dcmread(next((tmp_path / "out" / "dicom").glob("*-seg.dcm")))
    assert found.NumberOfFrames == 65 + sum(f % 7 < 5 for f in range(20))


def test_objects_larger_than_the_limit_are_named_and_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultraad.dicom.parts.MOST_BYTES", 20_000)
    cine = write_us(tmp_path / "a.dcm", frames=3)
    run_of(tmp_path / "out", [cine])
    failed = write_objects(tmp_path / "out", ["seg", "sc"])
    assert list(failed) == [cine.as_posix()]
    assert "-sc.dcm would have" in failed[cine.as_posix()]
    assert [path.name.rsplit("-", 1)[1] for path in (tmp_path / "out" / "dicom").glob("*.dcm")] == ["seg.dcm"]


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"StudyInstanceUID": None}, "it has no StudyInstanceUID, so no DICOM object can refer to it"),
        ({"SeriesInstanceUID": None}, "it has no SeriesInstanceUID"),
        ({"SeriesInstanceUID": "1.2.03.4"}, "its SeriesInstanceUID '1.2.03.4' is no valid UID"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom's, while the odd file is written
def test_an_image_without_valid_uids_is_predicted_but_has_no_objects(tmp_path: Path, tags: dict, said: str) -> None:
    odd, good = write_us(tmp_path / "in" / "odd.dcm", **tags), write_us(tmp_path / "in" / "good.dcm")
    done = predict(zero_shot(backbone="tiny"), tmp_path / "in", tmp_path / "out", save=["dicom"])
    assert (done.predicted, done.failed) == (2, {})
    assert list(done.without_objects) == [odd.as_posix()]
    assert said in done.without_objects[odd.as_posix()]
    entries = {
        entry["image"]: entry
        for entry in json.loads((tmp_path / "out" / "dicom" / "objects.json").read_text())["images"]
    }
    assert said in entries[odd.as_posix()]["error"]
    assert entries[good.as_posix()]["error"] is None
    assert "sr" in entries[good.as_posix()]["objects"]


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"PatientID": None, "PatientName": ""}, "it has no PatientName and no PatientID"),
        ({"StudyDate": "yesterday"}, "its StudyDate 'yesterday' is not valid, and is empty in DICOM objects"),
        ({"PatientSex": "W"}, "its PatientSex is not valid"),
        ({"PatientBirthDate": "31.12.1970"}, "its PatientBirthDate is not valid"),
        ({"StudyInstanceUID": "999.1.2"}, "its StudyInstanceUID 999.1.2 begins with numbers that nobody gives out"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_what_is_missing_in_an_image_is_said_and_empty(
    tmp_path: Path, tags: dict, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = write_us(tmp_path / "a.dcm", **tags)
    caplog.clear()  # of what pydicom said while the odd file was written
    run_of(tmp_path / "out", [image])
    assert write_objects(tmp_path / "out", ["sr"]) == {}
    assert said in caplog.text
    assert "31.12.1970" not in caplog.text  # patient data stay out of logs
    report = pydicom.dcmread(next((tmp_path / "out" / "dicom").glob("*.dcm")))
    for name in tags:
        assert report[name].value in (None, "", "999.1.2")


def test_a_uid_that_only_the_meta_header_has_is_taken_from_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = write_us(tmp_path / "a.dcm")
    ds = pydicom.dcmread(image)
    uid = ds.SOPInstanceUID
    del ds.SOPInstanceUID
    with image.open("wb") as file:
        pydicom.dcmwrite(file, ds, implicit_vr=False, little_endian=True)
    run_of(tmp_path / "out", [image])
    assert write_objects(tmp_path / "out", ["ko"]) == {}
    assert "SOPInstanceUID is only in the file's meta header" in caplog.text
    selection = pydicom.dcmread(next((tmp_path / "out" / "dicom").glob("*.dcm")))
    assert selection.ContentSequence[1].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == uid


def test_an_image_that_changed_or_went_after_the_run_is_named(tmp_path: Path) -> None:
    gone, other = write_us(tmp_path / "gone.dcm"), write_us(tmp_path / "other.dcm")
    run_of(tmp_path / "out", [gone, other])
    gone.rename(tmp_path / "moved.dcm")
    write_us(other, size=(40, 50))
    failed = write_objects(tmp_path / "out", ["sr"])
    assert "predicted at (60, 83)" in failed[other.as_posix()]
    assert gone.as_posix() not in failed  # it is no DICOM file any more
    assert len(failed) == 1


def test_pictures_alone_have_nothing_to_refer_to(tmp_path: Path) -> None:
    save(tmp_path / "in" / "c.png", picture(1, lesion=True)[0])
    model = zero_shot(backbone="tiny")
    with pytest.raises(DataError, match="needs DICOM images to refer to, but none of the 1 file"):
        predict(model, tmp_path / "in", tmp_path / "out", save=["dicom"])
    assert not (tmp_path / "out").exists()


def test_unknown_objects_are_refused_before_any_work(tmp_path: Path) -> None:
    image, model = write_us(tmp_path / "a.dcm"), zero_shot(backbone="tiny")
    for objects, said in (
        (["segs"], "'segs' is no DICOM object; did you mean 'seg'"),
        ([], "no DICOM object was named"),
    ):
        with pytest.raises(ConfigError, match=said):
            predict(model, image, tmp_path / "out", save=["dicom"], objects=objects)


# ---- the command line -----------------------------------------------------------------------------------------------


def test_the_command_lists_what_has_no_objects_and_exits_with_3(tmp_path: Path) -> None:
    write_us(tmp_path / "in" / "a.dcm")
    write_us(tmp_path / "in" / "odd.dcm", StudyInstanceUID=None)
    words = ["predict", "zero-shot", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--backbone", "tiny"]
    found = CliRunner().invoke(app, [*words, "--save", "dicom", "--objects", "sr"])
    assert found.exit_code == 3
    assert "1 DICOM image(s) were predicted, but have no DICOM objects" in found.output.replace("\n", " ")
    assert "2 predicted" in found.output


def test_image_score_and_map_are_what_the_tests_say() -> None:
    assert image_score(9) == 0.8
    assert made_map((H, W), 0).max() == np.float32(0.9 - 0.045)


def test_own_pictures_are_no_input(tmp_path: Path, ran: Ran, caplog: pytest.LogCaptureFixture) -> None:
    write_us(tmp_path / "in" / "a.dcm")
    for kind in OBJECTS:
        shutil.copy(ran.path("grey_cine", kind), tmp_path / "in" / f"{kind}.dcm")
    assert [path.name for path in find_images(tmp_path / "in")] == ["a.dcm"]
    assert "DICOM that ultraad wrote" in caplog.text


def test_nothing_of_the_patient_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    image = write_us(tmp_path / "a.dcm", PatientID="SECRET-7")
    run_of(tmp_path / "out", [image])
    saving.write_objects(tmp_path / "out")
    assert "SECRET-7" not in caplog.text
    assert "SECRET-7" not in (tmp_path / "out" / "dicom" / "objects.json").read_text()
