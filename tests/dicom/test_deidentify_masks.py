"""De-identification of a labelled data set: lesion masks stay what they are, and the masks of their images."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.dicom.made import speckle, write_us
from tests.serve.conftest import Client
from ultraad.data.sources import scan
from ultraad.dicom.deidentify import run
from ultraad.dicom.deidentify.decision import Looked
from ultraad.dicom.deidentify.review import Review
from ultraad.dicom.deidentify.run import deidentify
from ultraad.dicom.deidentify.text import Text
from ultraad.io.image import read_image
from ultraad.io.mask import read_mask
from ultraad.serve.review import decide_on_page

SIZE = (120, 160)
LESION = np.zeros(SIZE, np.bool_)
LESION[40:70, 50:90] = True


class Finder:
    """Takes the middle of every picture for text, as the real search takes some lesions."""

    def find(self, picture: np.ndarray) -> list[Text]:
        return [Text(box=(45, 35, 60, 40), text="O", score=0.3)]


@pytest.fixture(autouse=True)
def finder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_finder", Finder)


def tissue(seed: int) -> np.ndarray:
    return speckle(seed, 1, size=SIZE)[0]


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def grey(value: int = 255) -> np.ndarray:
    return LESION.astype(np.uint8) * value


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A folder for each class, with masks in several places and values."""
    root = tmp_path / "in"
    save(root / "benign" / "a.png", tissue(1))
    save(root / "benign" / "a_mask.png", grey())
    save(root / "benign" / "a_mask_1.png", grey(1)[::-1])
    save(root / "malignant" / "a.png", tissue(2))
    save(root / "masks" / "malignant" / "a.png", grey(2))
    save(root / "normal" / "n.png", tissue(3))
    save(root / "normal" / "n_mask.png", grey(0))
    return root


def masks_by_digest(root: Path) -> dict[bytes, np.ndarray]:
    """{pixels of the upper rows of an image, which no box covers: its lesion}."""
    found = {}
    for sample in scan(root, layout="folder"):
        pixels = read_image(sample.image)
        found[pixels[:30].tobytes()] = read_mask(sample.masks, shape=pixels.shape[:2])
    return found


@pytest.mark.parametrize("keep_names", [True, False])
def test_masks_are_written_pixel_by_pixel_and_stay_with_their_images(
    keep_names: bool, labelled: Path, tmp_path: Path
) -> None:
    out, key = tmp_path / "out", tmp_path / "my.key"
    done = deidentify(labelled, out, yes=True, keep_names=keep_names, key=key)
    assert (done.written, done.masks, done.failed) == (7, 4, {})
    assert len(done.without_regions) == 3, "masks have no regions to miss"
    before, after = masks_by_digest(labelled), masks_by_digest(out)
    assert set(before) == set(after)
    for name, lesion in before.items():
        np.testing.assert_array_equal(after[name], lesion)
    assert sum(lesion.any() for lesion in after.values()) == 2
    rows = [json.loads(line) for line in (out / "deidentified.jsonl").read_text().splitlines()]
    assert sorted((row["mask"], row["boxes"]) for row in rows) == [(False, 1)] * 3 + [(True, 0)] * 4
    if keep_names:
        names = {p.relative_to(labelled).as_posix() for p in labelled.rglob("*.png")}
        assert {p.relative_to(out).as_posix() for p in out.rglob("*.png")} == names
        assert np.unique(Image.open(out / "masks" / "malignant" / "a.png")).tolist() == [0, 2], "labels stay"
    again = deidentify(labelled, out, yes=True, keep_names=keep_names, key=key)
    assert (again.written, again.skipped, again.masks) == (0, 7, 4)


def test_class_folders_keep_their_word_and_no_other_folder_does(labelled: Path, tmp_path: Path) -> None:
    (labelled / "normal").rename(labelled / "Normal")
    save(labelled / "benign" / "Mass" / "b.png", tissue(4))  # a surname
    write_us(labelled / "malignant" / "Good" / "cine.dcm", frames=1, size=SIZE)
    done = deidentify(labelled, tmp_path / "out", yes=True)
    assert (done.written, done.failed) == (9, {})
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.casefold() in {"mass", "good", "masks"}]
    before, after = (Counter((s.label, s.anomalous) for s in scan(root)) for root in (labelled, tmp_path / "out"))
    assert after == Counter({(str(label).lower(), lesion): n for (label, lesion), n in before.items()})
    assert after == {("normal", False): 1, ("benign", True): 2, ("malignant", True): 2}


def test_masks_of_frames_stay_masks_of_these_frames(tmp_path: Path) -> None:
    root = tmp_path / "in" / "benign"
    write_us(root / "cine.dcm", frames=3, size=SIZE)
    save(root / "cine_frame2_mask.png", grey())
    pages = [Image.fromarray(tissue(n)) for n in range(3)]
    save(root / "pages.tif", pages[0], save_all=True, append_images=pages[1:])
    save(root / "pages_frame1_mask.png", grey())
    for keep_names in (True, False):
        out = tmp_path / f"out{keep_names}"
        done = deidentify(tmp_path / "in", out, yes=True, keep_names=keep_names)
        assert (done.failed, done.masks) == ({}, 2)
        found = {(s.image.suffix, s.frame, s.image.stem[-5:]) for s in scan(out, layout="folder") if s.masks}
        assert len(found) == 2
        assert (".dcm", 2) in {one[:2] for one in found}
        assert (".png", 0, "-0001") in found


def test_a_mask_is_turned_with_its_image_and_loses_what_stood_beside_its_pixels(tmp_path: Path) -> None:
    root, exif = tmp_path / "in", Image.Exif()
    exif[0x0112] = 6
    save(root / "a.jpg", tissue(1), exif=exif, quality=95)
    save(root / "a_mask.jpg", grey(), quality=80, comment=b"Okonkwo")
    before = read_mask([root / "a_mask.jpg"], shape=SIZE[::-1], turn=6)
    deidentify(root, tmp_path / "out", yes=True, keep_names=True)
    after = tmp_path / "out" / "a_mask.png"
    assert b"Okonkwo" not in after.read_bytes()
    with Image.open(after) as picture:
        assert picture.size == SIZE
        assert not picture.info
    np.testing.assert_array_equal(read_mask([after], shape=SIZE[::-1]), before)
    assert before.sum() == LESION.sum()


def test_what_is_only_named_like_a_mask_is_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("a", "x/b", "y/b", "c", "d"):
        save(root / f"{name}.png", tissue(1))
    save(root / "a_label.png", tissue(2))  # a picture, perhaps with a name in it
    save(root / "masks" / "b.png", grey())
    save(root / "lone_mask.png", grey())
    save(root / "c_mask.tif", Image.fromarray(grey()), save_all=True, append_images=[Image.fromarray(grey())])
    save(root / "d_mask.png", grey()[:50])
    done = deidentify(root, tmp_path / "out", yes=True, keep_names=True)
    assert (done.written, done.masks) == (5, 0)
    for name, why in {
        "a_label.png": "has the grey values of a picture",
        "masks/b.png": "named like the mask of x/b.png and y/b.png",
        "lone_mask.png": "its image is not there",
        "c_mask.tif": "2 pages",
        "d_mask.png": "its image is 160 x 120",
    }.items():
        assert why in done.failed.pop(name)
    assert not done.failed


def test_a_person_sees_masks_and_a_mask_goes_with_its_image(labelled: Path, tmp_path: Path) -> None:
    review, decided = tmp_path / "out-review", []
    waiting = deidentify(labelled, tmp_path / "out")
    assert (waiting.looked, waiting.boxes, waiting.masks) == (7, 3, 4)
    page = (review / "review.html").read_text()
    assert "4 of the files are lesion masks" in page
    assert "a mask of malignant/a.png, written as it is" in page
    shutil.copytree(review, tmp_path / "by-hand")
    lines = (review / "boxes.csv").read_text().splitlines()
    edited = [line.replace(",blank,", ",drop,") if line.startswith("benign/a.png") else line for line in lines]
    (tmp_path / "by-hand" / "boxes.csv").write_text("\n".join(edited) + "\n")
    done = deidentify(labelled, tmp_path / "out", review=tmp_path / "by-hand", confirm=True, keep_names=True)
    assert (done.written, done.dropped, done.masks) == (4, 3, 2)
    assert not (tmp_path / "out" / "benign").exists()

    def decide(found: Review) -> bool:
        for name, row in found.looked.items():
            if row.mask_of is None:
                decided.append(name)
                state = "dropped" if name == "malignant/a.png" else "confirmed"
                found.decide(name, found.current()[name].boxes, state)
        return True

    done = deidentify(labelled, tmp_path / "page", review=review, decide=decide)
    assert (done.written, done.dropped, done.masks, done.failed) == (5, 2, 3, {})
    assert len(decided) == 3


def test_the_page_asks_about_images_only(labelled: Path, tmp_path: Path) -> None:
    shown: list[dict[str, Any]] = []

    def click(address: str) -> None:
        client = Client(address).enter()
        shown.extend(client.ask("GET", "/api/review").json["files"])
        for number, one in enumerate(shown):
            decided = {"boxes": one["boxes"], "state": "confirmed"}
            assert client.ask("POST", f"/api/review/{number}", decided).status == 200
        assert client.ask("POST", "/api/confirm").status == 204

    def decide(review: Review) -> bool:
        with ThreadPoolExecutor() as pool:
            clicked: list[Future[None]] = []
            done = decide_on_page(review, ready=lambda address: clicked.append(pool.submit(click, address)))
            clicked[0].result()
        return done

    done = deidentify(labelled, tmp_path / "out", decide=decide)
    assert (done.written, done.masks, done.failed) == (7, 4, {})
    assert {one["file"]: one["where"].partition("; ")[2] for one in shown} == {
        "benign/a.png": "2 mask(s) of it are written as they are",
        "malignant/a.png": "1 mask(s) of it are written as they are",
        "normal/n.png": "1 mask(s) of it are written as they are",
    }


def test_a_mask_of_what_was_not_written_is_not_written(labelled: Path, tmp_path: Path) -> None:
    (labelled / "benign" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = deidentify(labelled, tmp_path / "out", yes=True, keep_names=True)
    assert set(done.failed) == {"benign/a.png", "benign/a_mask.png", "benign/a_mask_1.png"}
    assert "a mask of benign/a.png, which cannot be used" in done.failed["benign/a_mask.png"]


def test_a_review_of_an_earlier_version_is_looked_at_again(labelled: Path, tmp_path: Path) -> None:
    deidentify(labelled, tmp_path / "out")
    found = tmp_path / "out-review" / "found.jsonl"
    rows = [Looked.model_validate_json(line) for line in found.read_text().splitlines()]
    found.write_text("".join(row.model_copy(update={"mask_of": None}).model_dump_json() + "\n" for row in rows))
    done = deidentify(labelled, tmp_path / "out", confirm=True)
    assert (done.written, len(done.failed)) == (3, 4)
    assert "was an image in the review, and is not any more" in done.failed["benign/a_mask.png"]
    assert deidentify(labelled, tmp_path / "out").masks == 4
