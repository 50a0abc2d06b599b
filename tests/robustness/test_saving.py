"""Masks, contours and the COCO file say the same as the maps, for pycocotools, for our own reader, and after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from tests.helpers import picture, save, write_dicom
from ultraad.data.sources import scan
from ultraad.errors import ConfigError
from ultraad.io import read_image, read_mask
from ultraad.io.find import is_output
from ultraad.io.maps import read_map
from ultraad.io.overlay import THRESHOLD_COLOUR
from ultraad.model import exported
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results.folder import RunFolder, read_rows
from ultraad.results.row import ImageRow
from ultraad.results.saving import SAVES
from ultraad.runs.job import facts
from ultraad.runs.predict import predict
from ultraad.types import Prediction, Result, Sample

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:pycocotools")
EIGHT = np.ones((3, 3))
PROBS = ({"normal": 0.1, "benign": 0.7, "malignant": 0.2}, {"normal": 0.8, "benign": 0.05, "malignant": 0.15})


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


def made_up(number: int) -> np.ndarray:
    """A map (h w) of some blobs, one with a hole, and a speck."""
    rng = np.random.default_rng(number)
    found = ndimage.gaussian_filter(rng.normal(size=(90, 120)), 5)
    found = 0.45 + 0.2 * found / found.std()
    y, x = np.mgrid[:90, :120]
    ring = np.hypot(y - 40, x - 50 - number)
    found[ring < 22] = 0.3
    found[(ring > 9) & (ring < 18)] = 0.9
    found[80:, 100:] = 0.1
    found[85, 110] = 0.8
    return np.clip(found, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def written(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything saved of four images with made-up maps; the third has none, the fourth is not graded as a lesion."""
    root = tmp_path_factory.mktemp("saving")
    folder = RunFolder(root / "out", facts(model, "predict"), resume=True, save=SAVES)
    for n in range(4):
        image = picture(n, lesion=True, size=(90, 120))[0]
        path = save(root / "images" / f"{n}.png", image)
        scores = made_up(n) if n != 2 else np.full((90, 120), 0.2, np.float32)
        prediction = Prediction(id=f"{n}", score=0.5, map=scores, probs=PROBS[n // 2], method="none")
        folder.add(Result(Sample(id=f"{n}", image=path, spacing_mm=(0.1, 0.2)), image, prediction, mask=None))
    folder.finish("complete")
    return root / "out"


@pytest.fixture(scope="module")
def rows(written: Path) -> list[ImageRow]:
    return list(read_rows(written))


@pytest.fixture(scope="module")
def coco(written: Path) -> COCO:
    return COCO(written / "coco.json")


def test_a_mask_is_255_where_the_map_reaches_the_threshold(written: Path, rows: list[ImageRow]) -> None:
    for n, row in enumerate(rows):
        with Image.open(written / row.mask) as picture_:
            mask = np.asarray(picture_)
            assert picture_.mode == "L"
        scores = made_up(n) if n != 2 else np.zeros((90, 120))
        assert (mask == 255 * (scores >= np.float32(0.5))).all()


def test_contours_change_the_image_only_on_the_edge_of_the_mask(written: Path, rows: list[ImageRow]) -> None:
    for n, row in enumerate(rows):
        drawn, image = read_image(written / row.contours), read_image(row.image)
        changed = (drawn != image).any(-1)
        mask = made_up(n) >= 0.5 if n != 2 else np.zeros((90, 120), bool)
        edge = mask & ~ndimage.binary_erosion(mask)
        assert (changed <= edge).all()
        assert (drawn[edge] == THRESHOLD_COLOUR).all()


def test_pycocotools_reads_the_pixels_boxes_and_areas_of_every_lesion(coco: COCO, rows: list[ImageRow]) -> None:
    assert [i["file_name"] for i in coco.dataset["images"]] == [f"../images/{n}.png" for n in range(4)]
    kinds = set()
    for n, image_id in enumerate(coco.getImgIds()):
        mask = made_up(n) >= np.float32(0.5) if n != 2 else np.zeros((90, 120), bool)
        parts, count = ndimage.label(mask, EIGHT)
        large = [p for p in range(1, count + 1) if (parts == p).sum() >= 6]
        notes = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(notes) == len(large) == len(rows[n].lesions)
        assert rows[n].specks == count - len(large)
        left = set(large)
        for note in notes:
            pixels = coco.annToMask(note).astype(bool)
            (part,) = set(parts[pixels])
            assert (pixels == (parts == part)).all()
            left.remove(part)
            y, x = np.nonzero(pixels)
            assert note["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert note["area"] == pixels.sum()
            assert note["area_mm2"] == pytest.approx(0.02 * pixels.sum())
            assert note["score"] == pytest.approx(made_up(n)[pixels].max(), abs=1e-6)
            assert coco.cats[note["category_id"]]["name"] == ("benign" if n < 2 else "malignant")
            kinds.add(type(note["segmentation"]))
        assert not left
        assert [a["score"] for a in notes] == sorted((a["score"] for a in notes), reverse=True)
    assert kinds == {list, dict}  # polygons, and run lengths of the lesions with a hole
    assert sum(row.specks for row in rows) > 0
    assert [c["name"] for c in coco.dataset["categories"]] == ["benign", "malignant"]


def test_our_own_reader_gives_the_same_masks_and_classes(written: Path, coco: COCO) -> None:
    samples = scan(written / "coco.json", layout="coco")
    assert [s.label for s in samples] == ["benign", "benign", "normal", "malignant"]
    for sample, image_id in zip(samples, coco.getImgIds(), strict=True):
        assert sample.image.is_file()
        union = np.zeros((90, 120), bool)
        for note in coco.loadAnns(coco.getAnnIds(image_id)):
            union |= coco.annToMask(note).astype(bool)
        assert (read_mask(sample.masks, shape=(90, 120)) == union).all()


def test_a_row_has_the_measures_of_its_lesions(rows: list[ImageRow]) -> None:
    ring = next(lesion for lesion in rows[0].lesions if lesion.holes)
    assert ring.long_mm > ring.short_mm > 0
    assert ring.long_px == pytest.approx(np.hypot(*np.subtract(ring.long_axis[:2], ring.long_axis[2:])), abs=1e-2)
    assert ring.box[2] * ring.box[3] > ring.area_px
    assert made_up(0)[ring.peak[1], ring.peak[0]] == pytest.approx(ring.score, abs=1e-6)
    assert (rows[0].height, rows[0].width) == (90, 120)


def test_pictures_that_a_run_saved_are_no_input(written: Path) -> None:
    assert all(is_output(written / name) for name in ("masks", "contours", "overlays", "maps"))


def test_the_frames_of_a_cine_are_read_back_as_frames(model: Model, tmp_path: Path) -> None:
    cine = write_dicom(tmp_path / "cine.dcm", frames=3)
    still = write_dicom(tmp_path / "still.dcm", seed=50)
    predict(model, [cine, still], tmp_path / "out", save=("boxes",), pixel_threshold=0.3)
    images = json.loads((tmp_path / "out" / "coco.json").read_text())["images"]
    assert [(i["file_name"], i.get("frame")) for i in images] == [
        *(("../cine.dcm", n) for n in range(3)),
        ("../still.dcm", None),
    ]
    samples = scan(tmp_path / "out" / "coco.json", layout="coco")
    assert [s.frame for s in samples] == [0, 1, 2, 0]
    assert [s.id.rpartition("/")[2] for s in samples] == ["cine.dcm#0", "cine.dcm#1", "cine.dcm#2", "still.dcm"]
    (lesion, *_) = next(row.lesions for row in read_rows(tmp_path / "out") if row.lesions)
    assert lesion.area_mm2 == pytest.approx(lesion.area_px * 0.1 * 0.2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for i in range(24):
        save(root / f"{i:02d}.png", picture(i, lesion=bool(i % 2))[0])
    return root


KILLED = """
import sys, time
from ultraad.model.exported import load
from ultraad.runs.predict import predict
predict(load(sys.argv[1], threads=1), [sys.argv[2]], sys.argv[3], save=("masks", "boxes"), pixel_threshold=0.3,
        batch_size=1, progress=lambda *_: time.sleep(0.05))
"""


def test_a_killed_and_resumed_run_gives_the_same_coco_file(onnx_dir: Path, pictures: Path, tmp_path: Path) -> None:
    model = exported.load(onnx_dir, threads=1)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(onnx_dir), str(pictures), str(tmp_path / "killed")])
    try:
        deadline = time.monotonic() + 120
        lines = tmp_path / "killed" / "predictions.jsonl"
        while not (lines.is_file() and lines.read_bytes().count(b"\n") >= 3):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    options = {"save": ("masks", "boxes"), "pixel_threshold": 0.3, "batch_size": 1}  # a batch may change the last bits
    assert 0 < predict(model, [pictures], tmp_path / "killed", **options).predicted < 24
    predict(model, [pictures], tmp_path / "whole", **options)
    whole = (tmp_path / "whole" / "coco.json").read_bytes()
    assert (tmp_path / "killed" / "coco.json").read_bytes() == whole
    assert json.loads(whole)["annotations"]
    assert sorted(p.name for p in (tmp_path / "killed").iterdir() if p.is_dir()) == ["masks"]


def test_what_was_not_saved_is_predicted_again_and_what_was_stays(
    model: Model, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert predict(model, [pictures], tmp_path, save=("maps",)).predicted == 24
    again = predict(model, [pictures], tmp_path, save=("maps", "boxes"))
    assert (again.predicted, again.skipped) == (24, 0)
    assert "24 image(s) were predicted without all that is to be saved now and are predicted again" in caplog.text
    coco = (tmp_path / "coco.json").read_bytes()
    assert predict(model, [pictures], tmp_path, save=()).skipped == 24
    assert (tmp_path / "coco.json").read_bytes() == coco
    first = next(read_rows(tmp_path))
    assert read_map(tmp_path / first.map).shape == (first.height, first.width)


def test_images_without_saved_lesions_are_left_out_with_a_warning(
    model: Model, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predict(model, [pictures / "00.png"], tmp_path, save=())
    predict(model, [pictures / "01.png"], tmp_path, save=("boxes",))
    assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 1
    assert "1 image(s) were predicted without --save boxes and are not in" in caplog.text


def test_a_new_run_removes_what_the_last_one_saved(model: Model, pictures: Path, tmp_path: Path) -> None:
    predict(model, [pictures / "00.png"], tmp_path, save=set(SAVES) - {"dicom"})
    predict(model, [pictures / "00.png"], tmp_path, save=(), resume=False)
    assert not {"coco.json", "masks", "contours", "overlays", "maps"} & {p.name for p in tmp_path.iterdir()}


def test_what_cannot_be_saved_is_said_before_any_work(model: Model, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'mask' cannot be saved; did you mean 'masks'\?; choose from overlays"):
        predict(model, [pictures], tmp_path / "out", save=("mask",))
    mapless = zero_shot(backbone="tiny")
    mapless.calibration = mapless.calibration.model_copy(update={"pixel_threshold": None})
    with pytest.raises(ConfigError, match="ultraad draws no maps, so it has no boxes, masks, overlays to save"):
        predict(mapless, [pictures], tmp_path / "out", save=("boxes", "masks", "overlays"))
    assert not (tmp_path / "out").exists()
