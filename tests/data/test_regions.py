"""The B-mode region of DICOM: what a model sees, where its map comes back, and at which scale lesions are measured."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.helpers import SIZE, picture, write_dicom
from ultraad.data.preprocess import Preprocess
from ultraad.data.samples import samples_of
from ultraad.data.support import draw_support, load_support, save_support
from ultraad.errors import ConfigError, DataError
from ultraad.io import dicom, image_region
from ultraad.metrics.lesions import find_lesions
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results.folder import read_rows
from ultraad.runs.evaluate import evaluate
from ultraad.runs.predict import predict
from ultraad.types import PreprocessConfig, Sample, View

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
H, W = SIZE


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


def region(x0: int, y0: int, x1: int, y1: int, *, mm: float | None = 0.1, kind: int = 1, spatial: int = 1) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial, kind, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = x0, y0
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = x1, y1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    if mm is not None:
        item.PhysicalDeltaX = item.PhysicalDeltaY = mm / 10
    return item


def with_regions(path: Path, *regions: Dataset, frames: int = 1, seed: int = 0) -> Path:
    """A grey file with these regions and no PixelSpacing."""
    write_dicom(path, frames=frames, seed=seed)
    ds = pydicom.dcmread(path)
    del ds.PixelSpacing
    ds.SequenceOfUltrasoundRegions = Sequence(regions)
    ds.save_as(path)
    return path


# ---- what the header says -------------------------------------------------------------------------------------------


def test_the_region_is_the_box_around_the_views_and_ends_belong_to_it(tmp_path: Path) -> None:
    left, right = region(4, 6, 19, H - 3), region(24, 2, W - 2, H - 3, mm=0.3)
    path = with_regions(tmp_path / "a.dcm", left, right, region(0, H - 10, W - 1, H - 1, spatial=3, kind=3))
    facts = dicom.metadata(path)
    assert facts["views"] == (
        View((4, 6, 16, H - 8), pytest.approx((0.1, 0.1))),
        View((24, 2, W - 25, H - 4), pytest.approx((0.3, 0.3))),
    )
    assert facts["region"] == image_region(path) == (4, 2, W - 5, H - 4)
    assert facts["spacing_mm"] is None  # there are two


def test_colour_flow_counts_only_without_tissue(tmp_path: Path) -> None:
    tissue, flow = region(2, 2, 29, 29), region(8, 8, 19, 19, kind=2)
    assert image_region(with_regions(tmp_path / "a.dcm", tissue, flow)) == (2, 2, 28, 28)
    assert image_region(with_regions(tmp_path / "b.dcm", flow)) == (8, 8, 12, 12)


def test_a_last_column_that_is_the_number_of_columns_is_meant_as_the_last(tmp_path: Path) -> None:
    assert image_region(with_regions(tmp_path / "a.dcm", region(5, 0, W, H))) == (5, 0, W - 5, H)
    assert image_region(with_regions(tmp_path / "b.dcm", region(0, 0, W, H))) is None  # the whole picture


@pytest.mark.parametrize(
    "item",
    [region(0, 0, W + 40, H), region(20, 0, 4, 20), region(4, 4, 9, 30)],
    ids=["larger", "reversed", "six columns"],
)
def test_a_region_that_cannot_be_is_no_region(tmp_path: Path, item: Dataset) -> None:
    facts = dicom.metadata(with_regions(tmp_path / "a.dcm", item))
    assert (facts["views"], facts["region"], facts["spacing_mm"]) == ((), None, None)


def test_shipped_files_whose_regions_lie_are_named_and_have_no_mm(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("examples_ybr_color.dcm", "examples_palette.dcm"):
        sample = samples_of([SHIPPED / name])[0]
        assert (sample.views, sample.region, sample.spacing_mm) == ((), None, None)
    assert "examples_ybr_color.dcm: its ultrasound regions reach to 595, 414, but the picture has 320 x 240" in (
        caplog.text
    )


def test_a_region_without_a_scale_is_still_seen_alone(tmp_path: Path) -> None:
    sample = samples_of([with_regions(tmp_path / "a.dcm", region(4, 4, 30, 30, mm=None))])[0]
    assert (sample.region, sample.spacing_mm) == ((4, 4, 27, 27), None)


# ---- lesions are measured at the scale of their own region ----------------------------------------------------------


def test_each_lesion_has_the_spacing_of_the_view_that_holds_it() -> None:
    views = (View((0, 0, 40, 60), (0.1, 0.2)), View((40, 0, 40, 60), (0.3, 0.3)))
    sample = Sample("a", Path("a"), views=views)
    scores = np.zeros((60, 100), np.float32)
    for number, (x, width) in enumerate([(5, 20), (45, 20), (72, 20), (34, 12)]):
        y = 2 + 14 * number
        scores[y : y + 10, x : x + width] = 0.9 - 0.1 * number
    areas = [lesion.area_mm2 for lesion in find_lesions(scores, 0.5, spacing_mm=sample.spacing_at)]
    assert areas[:2] == pytest.approx([200 * 0.02, 200 * 0.09])
    assert areas[2:] == [None, None]  # beyond the views, and across them


def test_views_that_hold_a_lesion_must_agree() -> None:
    same, other = View((0, 0, 50, 50), (0.1, 0.1)), View((10, 10, 30, 30), (0.2, 0.2))
    box = (12, 12, 5, 5)
    assert Sample("a", Path("a"), views=(same, View((5, 5, 40, 40), (0.1, 0.1)))).spacing_at(box) == (0.1, 0.1)
    assert Sample("a", Path("a"), views=(same, other)).spacing_at(box) is None
    assert Sample("a", Path("a"), spacing_mm=(0.4, 0.5)).spacing_at(box) == (0.4, 0.5)


# ---- the way there and back -----------------------------------------------------------------------------------------


@given(
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    corner=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    mode=st.sampled_from(["squash", "pad"]),
)
@settings(deadline=None, max_examples=40)
def test_a_point_of_a_region_comes_back_to_its_place(size, corner, mode) -> None:
    preprocess = Preprocess(PreprocessConfig(size=64, mean=(0, 0, 0), std=(1, 1, 1), mode=mode))
    (h, w), (x, y) = size, corner
    part = (x, y, w - x - 3, h - y - 2)
    geometry = preprocess.geometry(size, part)
    mask = np.zeros(size, bool)
    top, left = y + part[3] // 3, x + part[2] // 4
    mask[top : top + part[3] // 3 + 1, left : left + part[2] // 3 + 1] = True
    back = geometry.invert(preprocess.mask(mask, part).float().numpy()) >= 0.5
    assert not back[:, :x].any()
    assert not back[:y].any()
    for axis in (0, 1):
        there, here = (np.flatnonzero(m.any(1 - axis)) for m in (mask, back))
        slack = max(1, size[axis] / 64) + 1
        assert abs(there[0] - here[0]) <= slack
        assert abs(there[-1] - here[-1]) <= slack


def test_the_model_sees_the_region_only_and_the_map_is_on_the_whole_picture(tmp_path: Path, model: Model) -> None:
    path = with_regions(tmp_path / "a.dcm", region(6, 4, W - 9, H - 6))
    x, y, w, h = 6, 4, W - 14, H - 9
    alone = model.predict(picture(700_000, lesion=False)[0][y : y + h, x : x + w])
    found = model.predict(path)
    if (alone.score, alone.probs) != (found.score, found.probs):  # write_dicom draws from its own first seed
        pixels = pydicom.dcmread(path).pixel_array
        alone = model.predict(pixels[y : y + h, x : x + w])
    assert (alone.score, alone.probs) == (found.score, found.probs)
    np.testing.assert_array_equal(found.map[y : y + h, x : x + w], alone.map)
    outside = found.map.copy()
    outside[y : y + h, x : x + w] = 0
    assert found.map.shape == SIZE
    assert not outside.any()


def test_files_bytes_samples_and_streams_see_the_same_region(tmp_path: Path, model: Model) -> None:
    path = with_regions(tmp_path / "a.dcm", region(6, 4, W - 9, H - 6))
    (result,) = model.predict_many([path])
    whole = model.predict(path, region="off")
    for other in (model.predict(path), model.predict(path.read_bytes()), model.predict(result.sample)):
        assert other.score == result.prediction.score != whole.score
        np.testing.assert_array_equal(other.map, result.prediction.map)
    (uncropped,) = model.predict_many([path], region="off")
    assert uncropped.prediction.score == whole.score == model.predict(pydicom.dcmread(path).pixel_array).score
    assert result.image.shape[:2] == SIZE


def test_an_impossible_region_or_choice_is_one_error(tmp_path: Path, model: Model) -> None:
    path = write_dicom(tmp_path / "a.dcm")
    with pytest.raises(DataError, match=r"region \(0, 0, 900, 9\) .* does not lie in the image"):
        model.predict(Sample("a", path, region=(0, 0, 900, 9)))
    with pytest.raises(ConfigError, match="choose from auto, off"):
        list(model.predict_many([path], region="on"))


# ---- runs and support sets ------------------------------------------------------------------------------------------


def test_a_run_says_which_region_was_seen_and_is_not_continued_with_another(
    tmp_path: Path, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    with_regions(tmp_path / "in" / "a.dcm", region(6, 4, W - 9, H - 6))
    write_dicom(tmp_path / "in" / "b.dcm", seed=3)
    assert predict(model, tmp_path / "in", tmp_path / "out").predicted == 2
    assert [row.region for row in read_rows(tmp_path / "out")] == [(6, 4, W - 14, H - 9), None]
    assert predict(model, tmp_path / "in", tmp_path / "out").skipped == 2
    again = predict(model, tmp_path / "in", tmp_path / "out", region="off")
    assert (again.predicted, again.skipped) == (1, 1)
    assert "1 image(s) were predicted on another region, with another fan, or on the whole picture" in caplog.text
    assert [row.region for row in read_rows(tmp_path / "out")] == [None, None]


def test_a_support_set_keeps_regions_and_masks_follow(tmp_path: Path, model: Model) -> None:
    for kind in ("normal", "lesion"):
        with_regions(tmp_path / "set" / kind / "a.dcm", region(6, 4, W - 9, H - 6, mm=0.2), seed=len(kind))
    support = draw_support(tmp_path / "set", shots=1)
    assert {s.region for s in support.samples} == {(6, 4, W - 14, H - 9)}
    save_support(support, tmp_path / "support.json")
    assert load_support(tmp_path / "support.json") == support
    assert {s.region for s in draw_support(tmp_path / "set", shots=1, region="off").samples} == {None}


def test_evaluation_counts_the_whole_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for kind in ("normal", "benign"):
        with_regions(tmp_path / kind / "a.dcm", region(6, 4, W - 9, H - 6), seed=len(kind))
    model = zero_shot(backbone="tiny")
    scores = {
        choice: evaluate(model, tmp_path, region=choice, bootstrap=0, output=tmp_path / f"out-{choice}")["metrics"]
        for choice in ("auto", "off")
    }
    assert scores["auto"]["image_auroc"]["n"] == scores["off"]["image_auroc"]["n"] == 2
    seen = {choice: [row.region for row in read_rows(tmp_path / f"out-{choice}")] for choice in scores}
    assert seen == {"auto": [(6, 4, W - 14, H - 9)] * 2, "off": [None] * 2}
