"""Annotation files as other tools write them: faults cost their own entry only, and are counted and named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests import helpers
from tests.data.test_sources import by_id, lesion
from ultraad.data import sources
from ultraad.errors import DataError

SQUARE = [[10.0, 8.0, 30.0, 8.0, 30.0, 20.0, 10.0, 20.0]]


def content(names=("a.png", "b.png", "c.png"), *, ids=int):
    """COCO of a benign, a malignant and a normal image."""
    return {
        "images": [{"id": ids(n), "file_name": name, "height": 48, "width": 64} for n, name in enumerate(names)],
        "categories": [{"id": ids(1), "name": "benign"}, {"id": ids(2), "name": "malignant"}],
        "annotations": [
            {"id": n, "image_id": ids(n), "category_id": ids(n + 1), "segmentation": SQUARE} for n in range(2)
        ],
    }


def write(root, coco, *, images=("a.png", "b.png", "c.png"), encoding="utf-8"):
    for n, name in enumerate(images):
        helpers.save(root / "images" / name, helpers.picture(n, lesion=n < 2)[0])
    (root / "annotations.json").write_text(json.dumps(coco), encoding=encoding)
    return root


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark(tmp_path, encoding):
    samples = sources.scan(write(tmp_path, content(), encoding=encoding))
    assert [(s.label, len(s.masks)) for s in samples] == [("benign", 1), ("malignant", 1), ("normal", 0)]


def test_ids_as_text_or_fractions_on_one_side_or_both(tmp_path):
    good = sources.scan(write(tmp_path, content()))
    mixed = [{**content(), "images": content(ids=kind)["images"]} for kind in (str, float)]
    for coco in (content(ids=str), content(ids=float), *mixed):
        assert sources.scan(write(tmp_path, coco)) == good


@pytest.mark.parametrize(
    "shown",
    [
        "C:\\Users\\me\\images\\{}.png",
        "images\\{}.png",
        "..\\..\\media\\upload\\3\\ab12cd34-{}.png",
        "/data/upload/1/ab12cd34-{}.png",
        "/data/local-files/?d=images/{}.png",
        "https://host.org/files/{}.png?token=1",
        "s3://bucket/set/{}.png",
        "{}_png.rf.00112233445566778899aabbccddeeff.jpg",
    ],
)
def test_paths_of_other_machines_and_uploads(tmp_path, shown):
    samples = sources.scan(write(tmp_path, content([shown.format(n) for n in "abc"])))
    assert [(s.id, s.label) for s in samples] == [
        ("images/a.png", "benign"),
        ("images/b.png", "malignant"),
        ("images/c.png", "normal"),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [["x", 1, 2, 3, 4, 5]], [[float("nan")] * 6], [[1e30] * 6], [[900.0] * 8],
        "text", 7, {"counts": [1]}, {"counts": "6~", "size": [48, 64]}, {"counts": [-1, 3073], "size": [48, 64]},
        {"counts": None, "size": [48, 64]}, [[]], [None], [{}], [[0.2, 0.2, 0.7, 0.2, 0.7, 0.6]],
    ],
    ids=str,
)  # fmt: skip
def test_a_broken_outline_costs_the_mask_of_its_image_only(tmp_path, broken, caplog):
    coco = content()
    coco["annotations"][0]["segmentation"] = broken
    samples = sources.scan(write(tmp_path, coco))
    assert [(s.label, len(s.masks)) for s in samples] == [("benign", 0), ("malignant", 1), ("normal", 0)]
    assert "1 entry(s) not used: annotation 0: " in caplog.text


def test_a_point_beside_a_polygon_changes_nothing(tmp_path, caplog):
    coco = content()
    coco["annotations"][0]["segmentation"] = [*SQUARE, [1, 2]]
    assert sources.scan(write(tmp_path, coco)) == sources.scan(write(tmp_path, content()))
    assert not caplog.messages


def test_an_image_with_an_unknown_category_is_not_called_normal(tmp_path, caplog):
    coco = content()
    coco["annotations"][0]["category_id"] = 9
    first, *_ = sources.scan(write(tmp_path, coco))
    assert (first.label, first.anomalous, len(first.masks)) == (None, True, 1)
    assert "annotation 0: category_id is 9" in caplog.text


def test_entries_that_are_no_objects(tmp_path, caplog):
    coco = content()
    for part in coco.values():
        part += [None, 3, [], {}]
    assert sources.scan(write(tmp_path, coco)) == sources.scan(write(tmp_path, content()))
    assert "12 entry(s) not used" in caplog.text


def test_nothing_usable_is_one_error_that_names_the_first(tmp_path):
    coco = content()
    coco["images"] = [{"id": 1}]
    with pytest.raises(DataError, match="image number 0 has no 'file_name'"):
        sources.scan(write(tmp_path, coco))


def test_sizes_missing_from_the_file_are_those_of_the_image(tmp_path):
    coco = content()
    for image in coco["images"]:
        del image["height"], image["width"]
    assert sources.scan(write(tmp_path, coco)) == sources.scan(write(tmp_path, content()))


def named(*names):
    coco = content(["a.png"])
    coco["categories"] = [{"id": n, "name": name} for n, name in enumerate(names)]
    coco["annotations"] = [
        {"id": n, "image_id": 0, "category_id": n, "segmentation": SQUARE} for n in range(len(names))
    ]
    return coco


@pytest.mark.parametrize(
    ("names", "label", "message"),
    [
        (("malignant", "benign"), "malignant", "count as the worst: a.png (benign, malignant)"),
        (("BI-RADS 4a", "BI-RADS 2", "BI-RADS 4c"), "BI-RADS 4c", "count as the worst"),
        (("cyst", "fibroid"), None, "which one is it? a.png (cyst, fibroid)"),
        (("benign", "caliper"), None, "which one is it? a.png (benign, caliper)"),
        (("benign", "Benign "), "benign", "differ only in case or spaces"),
        (("benign", "normal"), "benign", ""),
    ],
)
def test_two_categories_in_one_image_are_no_silent_choice(tmp_path, names, label, message, caplog):
    (sample,) = sources.scan(write(tmp_path, named(*names), images=["a.png"]))
    assert (sample.label, sample.anomalous) == (label, True)
    assert message in caplog.text


def test_copies_by_roboflow_of_one_original_stay_together(tmp_path, caplog):
    names = [f"{stem}_png.rf.{n:032x}.jpg" for n, stem in enumerate(("p1", "p1", "p2"))]
    samples = sources.scan(write(tmp_path, content(names), images=names))
    assert [s.group for s in samples] == ["p1.png", "p1.png", "p2.png"]
    assert "1 original image(s) have several augmented copies (Roboflow)" in caplog.text


def test_an_image_listed_twice_has_the_annotations_of_both(tmp_path, caplog):
    coco = content(["a.png", "a.png", "c.png"])
    coco["annotations"][1]["category_id"] = 1
    coco["annotations"][1]["segmentation"] = [[40.0, 30.0, 50.0, 30.0, 50.0, 40.0]]
    first = by_id(write(tmp_path, coco))["images/a.png"]
    assert lesion(first)[14, 20]
    assert lesion(first)[31, 48]
    assert "1 image(s) are listed more than once" in caplog.text


def test_one_id_for_two_images_is_a_fault(tmp_path, caplog):
    coco = content()
    coco["images"][1]["id"] = 0
    assert [s.image.name for s in sources.scan(write(tmp_path, coco))] == ["a.png", "c.png"]
    assert "image 'b.png': id is 0, as that of 'a.png'" in caplog.text


def test_outlines_partly_outside_are_cut_at_the_border(tmp_path):
    coco = content()
    coco["annotations"][0]["segmentation"] = [[-10, -10, 8, -10, 8, 8, -10, 8]]
    mask = lesion(by_id(write(tmp_path, coco))["images/a.png"])
    expected = np.zeros(helpers.SIZE, dtype=bool)
    expected[:8, :8] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "null", '{"images": 3}'])
def test_files_that_are_no_annotations_are_one_short_error(tmp_path, text):
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(DataError, match=r"annotations\.json"):
        sources.scan(tmp_path)
