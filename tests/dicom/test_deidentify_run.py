"""The way of a folder: looked at by the real text search, reviewed, confirmed, written, resumed."""

from __future__ import annotations

import csv
import json
import shutil
import stat
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.dicom.made import region, speckle, write_us
from ultraad.cli import main
from ultraad.dicom.deidentify.run import deidentify
from ultraad.dicom.deidentify.text import Text, find_in
from ultraad.errors import ConfigError, DataError
from ultraad.io.find import is_output
from ultraad.io.image import read_image
from ultraad.model.adapt import zero_shot

SIZE = (200, 300)
VIEW = (40, 40, 220, 140)
NAME, INSIDE = "OKONKWO ADAEZE", "ID 77120934"


def screen(*, inside: str = "", banner: str = NAME) -> np.ndarray:
    """The screen of a scanner, uint8 (h w 3): a banner, and text over the tissue."""
    out = np.zeros((*SIZE, 3), np.uint8)
    x, y, w, h = VIEW
    out[y : y + h, x : x + w] = speckle(3, 1, size=(h, w))[0, ..., None] // 3
    for text, at in ((banner, (60, 24)), (inside, (90, 110))):
        cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return out


def write_screen(path: Path, pictures: list[np.ndarray], *, views: bool = True, **tags: object) -> Path:
    """A DICOM file of these pictures."""
    frames = len(pictures) if len(pictures) > 1 else 0
    regions = [region(VIEW, (0.1, 0.1))] if views else []
    write_us(path, frames=frames, photometric="RGB", regions=regions, size=SIZE, **tags)
    ds = pydicom.dcmread(path)
    ds.PixelData = np.stack(pictures).tobytes()
    ds.save_as(path)
    return path


class Scans:
    """A folder of a scanner, looked at once; tests copy what they change."""

    def __init__(self, root: Path) -> None:
        self.root, self.source, self.review = root, root / "Okonkwo", root / "clean-review"
        tags = {"PatientName": "Okonkwo^Adaeze", "PatientID": "77120934"}
        write_screen(self.source / "okonkwo.dcm", [screen(inside=INSIDE)], BurnedInAnnotation="YES", **tags)
        write_screen(self.source / "plain.dcm", [screen()], BurnedInAnnotation="NO", views=False, **tags)
        cine = [screen(), screen(inside=INSIDE), screen(), screen()]
        write_screen(self.source / "sub" / "cine.dcm", cine, **tags)
        exif = Image.Exif()
        exif[0x010E] = exif[0x013B] = "Okonkwo Adaeze"
        Image.fromarray(screen(inside=INSIDE)).save(
            self.source / "export.jpg", quality=95, exif=exif, comment=b"Okonkwo"
        )
        (self.source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nOkonkwo")
        write_us(self.source / "report.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
        (self.source / "notes.txt").write_text("Okonkwo")
        self.first = deidentify(self.source, root / "clean", frames=1)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    return Scans(tmp_path_factory.mktemp("scans"))


@pytest.fixture
def scans(looked: Scans, tmp_path: Path) -> Scans:
    """A review of one's own, over the same scans."""
    shutil.copytree(looked.review, tmp_path / "review")
    own = object.__new__(Scans)
    own.root, own.source, own.review, own.first = tmp_path, looked.source, tmp_path / "review", looked.first
    return own


def confirmed(scans: Scans, **options: object):
    options.setdefault("key", scans.root / "my.key")
    return deidentify(scans.source, scans.root / "clean", review=scans.review, confirm=True, **options)


def lines_of(scans: Scans) -> list[dict[str, str]]:
    with (scans.review / "boxes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def edit(scans: Scans, lines: list[dict[str, str]]) -> None:
    with (scans.review / "boxes.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(lines)


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "deidentified.jsonl").read_text().splitlines()]


def test_the_first_run_writes_a_review_and_nothing_else(looked: Scans) -> None:
    first = looked.first
    assert first.waiting
    assert (first.looked, first.written) == (4, 0)
    assert not (looked.root / "clean").exists()
    assert set(first.failed) == {"broken.png", "report.dcm"}
    assert "DICOM report" in first.failed["report.dcm"]
    assert set(first.without_regions) == {"plain.dcm", "export.jpg"}
    if sys.platform != "win32":
        assert stat.S_IMODE(looked.review.stat().st_mode) == 0o700
    listed = [json.loads(line)["file"] for line in (looked.review / "errors.jsonl").read_text().splitlines()]
    assert set(listed) == set(first.failed)
    assert is_output(looked.review), "no run looks for images in it"
    page = (looked.review / "review.html").read_text()
    assert all(name in page for name in ("okonkwo.dcm", "sub/cine.dcm", "export.jpg", "no regions"))


def test_text_is_found_where_pixels_stay_and_also_in_one_frame_of_a_cine(looked: Scans) -> None:
    found = {}
    for line in lines_of(looked):
        found.setdefault(line["file"], []).append(line)
    inside = [line for line in found["okonkwo.dcm"] if "7712" in line["text"]]
    assert len(inside) == 1
    x0, y0, x1, y1 = (int(inside[0][name]) for name in ("x0", "y0", "x1", "y1"))
    assert x0 <= 92 and x1 >= 180 and y0 <= 99 and y1 >= 110  # noqa: PT018
    assert not any("OKO" in line["text"].upper() for line in found["okonkwo.dcm"]), "the banner is gone already"
    assert any("OKO" in line["text"].upper() for line in found["plain.dcm"])
    assert any("7712" in line["text"] for line in found["sub/cine.dcm"]), "seen in the brightest of all frames"
    assert {line["action"] for lines in found.values() for line in lines} <= {"blank", "none"}


def test_what_is_confirmed_is_written_and_only_that_is_declared(scans: Scans) -> None:
    done = confirmed(scans)
    assert (done.written, done.declared, done.dropped) == (4, 2, 0)
    assert set(done.failed) == {"broken.png", "report.dcm"}
    out = scans.root / "clean"
    files = [path for path in out.rglob("*") if path.is_file()]
    for path in files:
        assert "okonkwo" not in str(path.relative_to(out)).lower()
        content = path.read_bytes()
        assert not any(word in content for word in (b"Okonkwo", b"OKONKWO", b"77120934", b"19700102")), path
    assert not any(path.suffix in (".key", ".csv", ".html") for path in files)
    images = {ds.SOPClassUID + str(ds.get("BurnedInAnnotation")): ds for ds in map(pydicom.dcmread, out.rglob("*.dcm"))}
    assert sorted(images) == [
        "1.2.840.10008.5.1.4.1.1.3.1NO",
        "1.2.840.10008.5.1.4.1.1.6.1NO",
        "1.2.840.10008.5.1.4.1.1.6.1None",
    ]
    assert len({ds.PatientID for ds in images.values()}) == 1
    cine = images["1.2.840.10008.5.1.4.1.1.3.1NO"].pixel_array
    assert cine.shape == (4, *SIZE, 3)
    assert not cine[:, :36].any(), "the banner of every frame"
    assert not cine[:, 100:110, 95:180].any(), "the text of one frame is blanked in all"
    assert cine[:, 60:90, 60:200].any()
    assert {row["rectangles"] for row in rows_of(out)} == {0, 1}


def test_a_person_can_add_leave_and_drop(scans: Scans) -> None:
    lines = lines_of(scans)
    for line in lines:
        if line["file"] == "okonkwo.dcm":
            line["action"] = "leave"
        if line["file"] == "plain.dcm":
            line["action"] = "Drop "
    more = dict.fromkeys(lines[0], "") | {"file": "okonkwo.dcm", "x0": "50", "y0": "50", "x1": "60", "y1": "70"}
    edit(scans, [*lines, more | {"action": "blank"}])
    done = confirmed(scans, keep_names=True)
    assert (done.written, done.dropped) == (3, 1)
    out = scans.root / "clean"
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*") if p.suffix in (".dcm", ".png")) == [
        *("export.png", "okonkwo.dcm", "sub/cine.dcm"),
    ]
    before, after = read_image(scans.source / "okonkwo.dcm"), read_image(out / "okonkwo.dcm")
    assert not after[50:70, 50:60].any()
    np.testing.assert_array_equal(before[98:112, 90:200], after[98:112, 90:200])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": "erase"}, "one of blank, leave"),
        ({"x1": "1", "action": "blank"}, "x0,y0"),
        ({"file": "no.dcm"}, "looked"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(scans: Scans, change: dict[str, str], message: str) -> None:
    lines = lines_of(scans)
    edit(scans, [lines[0] | change, *lines[1:]])
    with pytest.raises(DataError, match=message):
        confirmed(scans)


def test_a_run_is_resumed_and_the_same_key_gives_the_same_ids(scans: Scans) -> None:
    confirmed(scans)
    out = scans.root / "clean"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.suffix in (".dcm", ".png")}
    lost = next(iter(before))
    lost.unlink()
    done = confirmed(scans)
    assert (done.written, done.skipped) == (1, 3)
    assert {path for path in out.rglob("*.*") if path.suffix in (".dcm", ".png")} == set(before)
    lines = [line | {"action": "none" if line["file"] == "okonkwo.dcm" else line["action"]} for line in lines_of(scans)]
    edit(scans, lines)
    done = confirmed(scans)
    assert (done.written, done.skipped) == (1, 3), "another decision, another file"
    names = {path.name for path in before}
    shutil.rmtree(out)
    confirmed(scans)
    assert {path.name for path in out.rglob("*.*") if path.suffix in (".dcm", ".png")} == names
    with pytest.raises(DataError, match="another key or with other options"):
        confirmed(scans, key=scans.root / "other.key")
    with pytest.raises(DataError, match="another key or with other options"):
        confirmed(scans, retain=["dates"])


def test_without_a_key_nothing_can_be_continued(scans: Scans) -> None:
    confirmed(scans, key=None)
    assert json.loads((scans.root / "clean" / "deidentified.json").read_text())["key"] is None
    with pytest.raises(DataError, match="key that was forgotten"):
        confirmed(scans, key=None)


def test_a_file_that_changed_or_came_since_the_review_is_named(scans: Scans, tmp_path: Path) -> None:
    source = tmp_path / "copy"
    shutil.copytree(scans.source, source)
    write_screen(source / "okonkwo.dcm", [screen(inside="OTHER")])
    write_screen(source / "new.dcm", [screen()])
    done = deidentify(source, tmp_path / "clean", review=scans.review, confirm=True)
    assert "changed since the review" in done.failed["okonkwo.dcm"]
    assert "it is new" in done.failed["new.dcm"]
    assert done.written == 3
    assert "one" not in done.failed


def test_the_second_of_two_files_of_one_instance_is_named(scans: Scans, tmp_path: Path) -> None:
    source, review = tmp_path / "twice", tmp_path / "twice-review"
    shutil.copytree(scans.source, source)
    shutil.copytree(scans.review, review)
    shutil.copy(source / "okonkwo.dcm", source / "zz.dcm")
    found = (review / "found.jsonl").read_text().splitlines()
    row = next(json.loads(line) for line in found if '"okonkwo.dcm"' in line)
    with (review / "found.jsonl").open("a") as file:
        file.write(json.dumps(row | {"file": "zz.dcm"}) + "\n")
    lines = lines_of(scans)
    scans.review = review
    edit(scans, [*lines, *(line | {"file": "zz.dcm"} for line in lines if line["file"] == "okonkwo.dcm")])
    done = deidentify(source, tmp_path / "clean", review=review, confirm=True)
    assert "the same DICOM instance" in done.failed["zz.dcm"]
    assert done.written == 4


def test_a_picture_is_written_without_what_stood_beside_it(scans: Scans) -> None:
    confirmed(scans, keep_names=True)
    with Image.open(scans.root / "clean" / "export.png") as picture:
        assert not picture.info
        assert not picture.getexif()
        after = np.asarray(picture)
    before = read_image(scans.source / "export.jpg")
    np.testing.assert_array_equal(before[130:], after[130:])
    assert not after[100:110, 95:180].any()


def test_predictions_of_what_stays_are_the_same(scans: Scans) -> None:
    lines = [line | {"action": "leave"} if line["action"] == "blank" else line for line in lines_of(scans)]
    edit(scans, lines)
    confirmed(scans, keep_names=True)
    model = zero_shot(backbone="tiny")
    for name in ("okonkwo.dcm", "plain.dcm"):
        before, after = (model.predict(folder / name) for folder in (scans.source, scans.root / "clean"))
        assert before.score == after.score
        np.testing.assert_array_equal(before.map, after.map)


def test_folders_must_not_lie_in_each_other(scans: Scans, tmp_path: Path) -> None:
    source = scans.source
    for out, options, message in (
        (source / "out", {}, "lie in each other"),
        (source.parent, {}, "lie in each other"),
        (tmp_path / "o", {"review": tmp_path / "o" / "r"}, "patient data"),
        (tmp_path / "o", {"review": source / "r"}, "lie in each other"),
        (tmp_path / "o", {"key": tmp_path / "o" / "k"}, "given away"),
    ):
        with pytest.raises(DataError, match=message):
            deidentify(source, out, **options)
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="did not write"):
        confirmed(scans)
    assert not (tmp_path / "o").exists()


def test_options_that_exclude_each_other_are_refused(scans: Scans, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give one of"):
        confirmed(scans, yes=True)
    with pytest.raises(ConfigError, match="another --keep"):
        confirmed(scans, keep=(0, 0, 5, 5))
    with pytest.raises(ConfigError, match="no option"):
        confirmed(scans, retain=["everything"])
    with pytest.raises(DataError, match="no review"):
        deidentify(scans.source, tmp_path / "clean", confirm=True)
    with pytest.raises(DataError, match="with other options"):
        deidentify(scans.source, tmp_path / "clean", review=scans.review, frames=3)


def test_a_script_accepts_unseen_and_declares_nothing_until_a_person_has_looked(tmp_path: Path) -> None:
    path, key = tmp_path / "scan.png", tmp_path / "my.key"
    Image.fromarray(screen(inside=INSIDE)).save(path)
    done = deidentify(path, tmp_path / "clean", yes=True, keep=VIEW, keep_names=True, key=key)
    assert (done.written, done.declared, done.failed) == (1, 0, {})
    assert [row["declared"] for row in rows_of(tmp_path / "clean")] == [False]
    done = deidentify(path, tmp_path / "clean", confirm=True, keep_names=True, key=key)
    assert (done.written, done.declared, done.failed) == (1, 1, {})  # the rectangle stays, and somebody has looked
    after = read_image(tmp_path / "clean" / "scan.png")
    assert not after[:40].any()
    assert not after[100:110, 95:180].any()
    assert after[150:170, 60:200].any()


class Finder:
    """Answers with given boxes: the rule is about boxes, whoever finds them."""

    def __init__(self, *answers: list[Text]) -> None:
        self.answers = list(answers)

    def find(self, picture: np.ndarray) -> list[Text]:
        return self.answers.pop(0)


def test_boxes_of_one_place_are_one() -> None:
    first, wider = Text(box=(10, 10, 20, 8), text="AB", score=0.4), Text(box=(12, 9, 30, 9), text="ABC", score=0.9)
    apart = Text(box=(100, 10, 20, 8), text="Z", score=0.6)
    blank = np.zeros((8, 8, 3), np.uint8)
    found = find_in([blank, blank], Finder([first, apart], [wider]))
    assert found == [Text(box=(10, 9, 32, 9), text="ABC", score=0.9), apart]


def test_a_picture_that_looks_like_text_as_a_whole_swallows_no_box_in_it() -> None:
    whole, inside = Text(box=(0, 0, 300, 200), text="F", score=0.2), Text(box=(90, 90, 60, 20), text="AB", score=0.9)
    blank = np.zeros((200, 300, 3), np.uint8)
    assert find_in([blank, blank], Finder([whole], [inside])) == [whole, inside]


def test_looking_again_keeps_what_was_edited_and_looks_at_new_files_only(scans: Scans, tmp_path: Path) -> None:
    lines = [line | {"action": "drop"} if line["file"] == "plain.dcm" else line for line in lines_of(scans)]
    edit(scans, lines)
    found = (scans.review / "found.jsonl").read_bytes()
    again = deidentify(scans.source, tmp_path / "clean", review=scans.review, frames=1)
    assert again.waiting
    assert again.looked == 4
    assert set(again.failed) == set(scans.first.failed)
    assert (scans.review / "found.jsonl").read_bytes() == found
    assert lines_of(scans) == lines


def code_of(words: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


def test_exit_codes_and_what_the_command_says(scans: Scans, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, key = str(tmp_path / "clean"), str(tmp_path / "my.key")
    words = ["deidentify", str(scans.source), clean, "--key", key, "--confirm", str(scans.review)]
    assert code_of(words) == 3
    said = capsys.readouterr()
    assert "4 written, 2 failed" in said.out
    assert "2 declared free of identity" in said.out
    assert "report.dcm: DICOM report" in said.err
    assert "2 file(s) have no usable ultrasound regions" in said.err
    assert code_of([*words, "--review", clean]) == 1
    assert code_of([*words[:3], "--keep", "1,2"]) == 1
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert code_of(["deidentify", str(tmp_path / "bad"), str(tmp_path / "out")]) == 1
    assert code_of(["deidentify", str(tmp_path / "bad"), str(tmp_path / "out"), "--retain", "everything"]) == 1
