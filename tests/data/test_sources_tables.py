"""The two layouts that are written by hand or by other programs: tables of paths and COCO annotations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import helpers
from tests.data.test_sources import by_id, lesion
from ultraad.data import sources
from ultraad.data.sources import coco
from ultraad.errors import DataError
from ultraad.types import Region, Sample


def test_csv(tmp_path):
    samples = by_id(helpers.write_csv(tmp_path))
    last = samples["scans/3.png"]
    assert (last.label, last.anomalous, last.group, last.site, last.device, last.split, last.tags) == (
        *("malignant", True, "p3", "here", "scanner", "test"),
        {"marks", "doppler"},
    )
    assert len(samples["scans/2.png"].masks) == 2
    assert by_id(tmp_path / "samples.csv") == samples


def test_csv_needs_an_image_only(tmp_path):
    helpers.save(tmp_path / "a.png", helpers.picture(0, lesion=False)[0])
    table = helpers.write_table(tmp_path / "my.csv", "Image,remark,side", ["a.png,ok,left"], bom=True)
    (sample,) = sources.scan(table)
    assert sample == Sample(id="a.png", image=tmp_path / "a.png")


def test_csv_class_is_label(tmp_path):
    helpers.save(tmp_path / "a.png", helpers.picture(0, lesion=False)[0])
    (sample,) = sources.scan(helpers.write_table(tmp_path / "samples.csv", "image,class,split", ["a.png,x,Validation"]))
    assert (sample.label, sample.split) == ("x", "valid")


def test_csv_frames(tmp_path):
    helpers.write_dicom(tmp_path / "a.dcm", frames=3)
    helpers.save(tmp_path / "m.png", helpers.picture(0, lesion=True)[1])
    table = helpers.write_table(tmp_path / "samples.csv", "image,frame,mask", ["a.dcm,1,m.png"])
    assert [(s.id, s.frame) for s in sources.scan(table)] == [("a.dcm#1", 1)]
    helpers.write_table(table, "image", ["a.dcm"])
    assert [s.id for s in sources.scan(table)] == ["a.dcm#0", "a.dcm#1", "a.dcm#2"]
    helpers.write_table(table, "image,mask", ["a.dcm,m.png"])
    with pytest.raises(DataError, match=r"row 2: a\.dcm has 3 frames; give the mask's in a column 'frame'"):
        sources.scan(table)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("picture,label", "a.png,x", "no column 'image'. Found: picture, label"),
        ("imgae,label", "a.png,x", "'imgae'; did you mean 'image'?"),
        ("image,pateint", "a.png,x", "'pateint'; did you mean 'patient'?"),
        ("image,frame", "a.png,-1", "row 2: frame is '-1'"),
        ("image,frame", "a.png,first", "row 2: frame is 'first'"),
        ("image,label", ",x", "row 2: the cell 'image' is empty"),
        ("image,label", "a.png,x,y", "row 2: more cells than the header (2)"),
    ],
)
def test_csv_faults(header, row, message, tmp_path):
    table = helpers.write_table(tmp_path / "samples.csv", header, [row])
    with pytest.raises(DataError) as e:
        sources.scan(tmp_path)
    assert message in str(e.value)
    assert str(table) in str(e.value) or str(tmp_path) in str(e.value)


def test_csv_that_is_not_text(tmp_path):
    (tmp_path / "samples.csv").write_bytes(b"image\n\xff\xfe\x00.png\n")
    with pytest.raises(DataError, match="cannot read the table"):
        sources.scan(tmp_path)
    (tmp_path / "samples.csv").write_bytes(b"")
    with pytest.raises(DataError, match="Found: no rows"):
        sources.scan(tmp_path)


def test_coco(tmp_path):
    samples = by_id(helpers.write_coco(tmp_path))
    polygon, runs, both, box, nothing = (samples[f"images/{n}.png"] for n in range(5))
    column = np.zeros(helpers.SIZE, dtype=bool)
    column[8:20, 10] = True
    np.testing.assert_array_equal(lesion(runs), column)
    inside = lesion(polygon)
    assert inside[14, 20]
    assert not inside[14, 40]
    np.testing.assert_array_equal(lesion(both), column | inside)
    assert both.label == "malignant"  # the worse of the two
    assert (box.label, box.masks) == ("benign", ())
    assert (nothing.label, nothing.anomalous, nothing.group) == ("normal", False, "p4")


@given(st.lists(st.integers(0, 5000), max_size=12))
def test_compressed_run_lengths_round_trip(runs):
    assert coco.decode_rle(helpers.encode_rle(runs)) == tuple(runs)


def test_compressed_run_lengths_by_hand():
    # 6 -> "6"; 1 -> "1"; 40 = 8 + 32 -> "X1"; 4 is stored as 4 - 1 = 3 -> "3"; 2 as 2 - 40 = -38 -> "jN"
    assert coco.decode_rle("61X13jN") == (6, 1, 40, 4, 2)


@pytest.mark.parametrize("text", ["6!", "6~~\x7f", "6X"])
def test_broken_run_lengths(text):
    with pytest.raises(DataError, match="compressed run lengths"):
        coco.decode_rle(text)


def edit(root: Path, change) -> None:
    file = root / "annotations.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_coco_without_a_list(tmp_path):
    edit(helpers.write_coco(tmp_path), lambda c: c.pop("categories"))
    with pytest.raises(DataError, match="is not a COCO file"):
        sources.scan(tmp_path)


@pytest.mark.parametrize(
    ("change", "message", "left"),
    [
        (lambda c: c["annotations"][0].update(image_id=99), "refers to an id that does not exist", 5),
        (lambda c: c["annotations"][0].update(category_id=99), "refers to an id that does not exist", 5),
        (lambda c: c["images"][0].pop("file_name"), "has no 'file_name'", 4),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "annotation 1: wanted polygons", 5),
        (lambda c: c["annotations"][1]["segmentation"].update(counts=[5]), "annotation 2: run lengths sum to 5", 5),
    ],
)
def test_coco_faults_cost_their_entry_only(change, message, left, tmp_path, caplog):
    before = by_id(helpers.write_coco(tmp_path))
    edit(tmp_path, change)
    after = by_id(tmp_path)
    assert len(after) == left
    assert message in caplog.text
    assert sum(after.get(i) != s for i, s in before.items()) == 1


def test_coco_places(tmp_path):
    root = helpers.write_coco(tmp_path / "a")
    expected = [(s.image, s.label, s.masks) for s in sources.scan(root)]
    assert [(s.image, s.label, s.masks) for s in sources.scan(root / "annotations.json")] == expected
    (root / "annotations").mkdir()
    (root / "annotations.json").rename(root / "annotations" / "instances_train.json")
    samples = sources.scan(root)
    assert [(s.image, s.label, s.masks) for s in samples] == expected
    assert {s.split for s in samples} == {"train"}
    for split in ("train", "valid"):
        part = helpers.write_coco(tmp_path / "b" / split)
        (part / "annotations.json").rename(part / "_annotations.coco.json")
    assert {s.split for s in sources.scan(tmp_path / "b")} == {"train", "valid"}


def test_coco_category_called_normal(tmp_path):
    root = helpers.write_coco(tmp_path)
    edit(root, lambda c: c["categories"].append({"id": 3, "name": "Healthy"}))
    edit(root, lambda c: c["annotations"].append({"id": 9, "image_id": 0, "category_id": 3}))
    samples = by_id(root)
    assert samples["images/4.png"].label == "Healthy"
    assert samples["images/0.png"].label == "benign"
    assert isinstance(samples["images/0.png"].masks[0], Region)


def test_coco_that_is_not_json(tmp_path):
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(DataError, match="cannot read the annotations"):
        sources.scan(tmp_path)
