"""The exports of annotation tools, and the published sets whose outlines or classes are in files of their own."""

from __future__ import annotations

import json

import numpy as np
import openpyxl
import pytest

from tests import helpers
from tests.data.test_sources import by_id, lesion
from ultraad.data import sources
from ultraad.errors import DataError

TOOLS = ("cvat", "label_studio", "labelme", "via")


def square():
    (x0, y0), _, (x1, y1), _ = helpers.SQUARE
    mask = np.zeros(helpers.SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def circle(cx, cy, r):
    y, x = np.mgrid[: helpers.SIZE[0], : helpers.SIZE[1]] + 0.5
    return (x - cx) ** 2 + (y - cy) ** 2 <= r * r


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    write(path, content)


@pytest.mark.parametrize("name", [*TOOLS, "liver", "ddti"])
def test_outlines_are_those_that_were_drawn(name, layouts, tmp_path):
    samples = sources.scan(layouts[name](tmp_path))
    for s in samples:
        assert bool(s.masks) == (s.label != "normal") == s.anomalous
        assert s.mask_aligned
        if s.masks:
            np.testing.assert_array_equal(lesion(s), square())


@pytest.mark.parametrize("name", ["cvat", "label_studio", "via"])
def test_the_file_alone_is_enough(name, layouts, tmp_path):
    root = layouts[name](tmp_path)
    (file,) = [p for p in root.iterdir() if p.suffix in {".json", ".xml"}]
    assert sources.detect(file) == name
    assert sources.scan(file) == sources.scan(root)


@pytest.mark.parametrize("name", ["cvat", "label_studio", "via"])
def test_a_file_for_the_layout_that_is_damaged_is_one_short_error(name, layouts, tmp_path):
    root = layouts[name](tmp_path)
    for file in root.iterdir():
        if file.suffix in {".json", ".xml"}:
            file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"cannot read"):
        sources.scan(root, layout=name)


def test_a_damaged_file_of_labelme_leaves_its_image_without_a_class(tmp_path, caplog):
    root = helpers.write_labelme(tmp_path)
    (root / "0.json").write_bytes((root / "0.json").read_bytes()[:-10])
    assert [s.label for s in sources.scan(root)] == [None, "benign", "malignant"]
    assert "1 entry(s) not used: cannot read the annotations" in caplog.text


def test_labelme_circle_box_flag_and_an_image_nobody_looked_at(tmp_path):
    root = helpers.write_labelme(tmp_path)
    helpers.save(root / "new.png", helpers.picture(7, lesion=False)[0])
    change(
        root / "1.json",
        lambda c: c["shapes"].__setitem__(
            0, {**c["shapes"][0], "shape_type": "circle", "points": [[30, 20], [38, 20]]}
        ),
    )
    change(root / "2.json", lambda c: c["shapes"][0].update(shape_type="rectangle", points=[[1, 2], [9, 9]]))
    change(root / "0.json", lambda c: c.update(flags={"healthy": True, "blurred": False}))
    normal, round_, box, new = sources.scan(root)
    assert (lesion(round_) ^ circle(30, 20, 8)).sum() <= 6
    assert (box.label, box.masks, box.anomalous) == ("malignant", (), True)
    assert (normal.label, normal.anomalous) == ("healthy", False)
    assert (new.label, new.anomalous) == (None, None)


def test_labelme_faults_cost_their_shape_only(tmp_path, caplog):
    root = helpers.write_labelme(tmp_path)
    change(root / "1.json", lambda c: c["shapes"].append({"label": "benign", "points": "none"}))
    change(
        root / "2.json",
        lambda c: c["shapes"].append({"label": "malignant", "points": [[1, 2]], "shape_type": "mask", "mask": "x"}),
    )
    write(root / "0.json", '{"shapes": 3}')
    normal, benign, malignant = sources.scan(root)
    assert (normal.label, benign.label, benign.masks, malignant.masks) == (None, "benign", (), ())
    assert "3 entry(s) not used: 0.json has no list 'shapes'; 1.json, shape 1: polygon with points" in caplog.text
    assert "2.json, shape 1: a mask drawn with the brush is damaged" in caplog.text


def test_labelme_files_apart_from_their_images(tmp_path):
    root = helpers.write_labelme(tmp_path)
    for n in range(3):
        (root / "images").mkdir(exist_ok=True)
        (root / "json").mkdir(exist_ok=True)
        (root / f"{n}.png").rename(root / "images" / f"{n}.png")
        change(root / f"{n}.json", lambda c: c.update(imagePath="..\\images\\" + c["imagePath"]))
        (root / f"{n}.json").rename(root / "json" / f"{n}.json")
    assert [(s.id, s.label) for s in sources.scan(root)] == [
        (f"images/{n}.png", k) for n, k in enumerate(helpers.KINDS)
    ]


def test_via_project_first_version_checkboxes_and_shapes(tmp_path):
    root = helpers.write_via(tmp_path)
    good = sources.scan(root)
    file = root / "via_region_data.json"
    entries = json.loads(file.read_text())
    write(file, {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {}})
    assert sources.scan(root) == good
    first = {k: {**e, "regions": {str(n): r for n, r in enumerate(e["regions"])}} for k, e in entries.items()}
    write(file, first)
    assert sources.scan(root) == good
    _, benign, malignant = entries.values()
    benign["regions"][0] = {
        "shape_attributes": {"name": "circle", "cx": 30, "cy": 20, "r": 8},
        "region_attributes": {"type": {"benign": True, "malignant": False}},
    }
    malignant["regions"][0]["shape_attributes"] = {"name": "rect", "x": 1, "y": 1, "width": 5, "height": 5}
    malignant["file_attributes"] = {"patient": "p7"}
    write(file, entries)
    _, round_, box = sources.scan(root)
    assert round_.label == "benign"
    assert (lesion(round_) ^ circle(30, 20, 8)).sum() <= 6
    assert (box.label, box.masks, box.group) == ("malignant", (), "p7")


def test_via_faults_cost_their_region_only(tmp_path, caplog):
    root = helpers.write_via(tmp_path)

    def damage(content):
        _, benign, malignant = content.values()
        benign["regions"][0]["shape_attributes"]["all_points_x"].pop()
        malignant["regions"].append(None)
        content["more"] = {"size": 3}

    change(root / "via_region_data.json", damage)
    _, benign, malignant = sources.scan(root)
    assert (benign.label, benign.masks, malignant.label, malignant.masks) == ("benign", (), None, ())
    assert "3 entry(s) not used: entry 'more' has no 'filename'; 1.png, region 0: polygon is damaged" in caplog.text


def test_label_studio_short_form_choices_and_tasks_nobody_looked_at(tmp_path, caplog):
    root = helpers.write_label_studio(tmp_path)
    file = next(root.glob("*.json"))
    good, tasks = sources.scan(root), json.loads(file.read_text())
    short = [
        {
            "image": t["data"]["image"],
            "id": t["id"],
            "label": [
                {**r["value"], "original_width": r["original_width"], "original_height": r["original_height"]}
                for r in t["annotations"][0]["result"]
            ],
            "annotation_id": 1,
            "lead_time": 2.5,
        }
        for t in tasks
    ]
    write(file, short)
    assert sources.scan(root) == good
    tasks[0]["annotations"] = []
    tasks[1]["annotations"] *= 2
    tasks[2]["annotations"][0]["result"] = [{"type": "choices", "value": {"choices": ["malignant"]}}]
    tasks[2]["data"]["patient"] = "p7"
    write(file, tasks)
    new, twice, chosen = sources.scan(root)
    assert (new.label, new.anomalous) == (None, None)
    assert twice == good[1]
    assert (chosen.label, chosen.anomalous, chosen.masks, chosen.group) == ("malignant", True, (), "p7")
    assert "annotation 2 of 2; the first one is used" in caplog.text


def test_label_studio_ellipse_box_and_brush(tmp_path, caplog):
    root = helpers.write_label_studio(tmp_path)
    h, w = helpers.SIZE

    def draw(tasks):
        tasks[1]["annotations"][0]["result"][0]["value"] = {
            **{"x": 100 * 30 / w, "y": 100 * 20 / h, "radiusX": 800 / w, "radiusY": 800 / h},
            "ellipselabels": ["benign"],
        }
        result = tasks[2]["annotations"][0]["result"]
        result[0]["value"] = {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["malignant"]}
        result.append({"value": {"rle": [0, 1], "format": "rle", "brushlabels": ["malignant"]}})

    change(next(root.glob("*.json")), draw)
    _, round_, box = sources.scan(root)
    assert (lesion(round_) ^ circle(30, 20, 8)).sum() <= 6
    assert (box.label, box.masks) == ("malignant", ())
    assert "a shape is damaged (ValueError: its run-length code ends too early)" in caplog.text


def cvat(root, shapes):
    helpers.write_drawn(root / "images", 1)
    head = '<image id="1" name="1.png" width="64" height="48" subset="Validation">'
    (root / "annotations.xml").write_text(f"<annotations>{head}{shapes}</image></annotations>")
    return root


def test_cvat_mask_ellipse_box_and_tag(tmp_path):
    runs = "0,2,3,1"  # a window of 3 x 2: two pixels above, one below
    (s,) = sources.scan(cvat(tmp_path, f'<mask label="cyst" rle="{runs}" left="5" top="7" width="3" height="2"/>'))
    expected = np.zeros(helpers.SIZE, dtype=bool)
    expected[7, 5:7] = expected[8, 7] = True
    np.testing.assert_array_equal(lesion(s), expected)
    assert s.split == "valid"
    (s,) = sources.scan(cvat(tmp_path, '<ellipse label="cyst" cx="30" cy="20" rx="8" ry="8"/>'))
    assert (lesion(s) ^ circle(30, 20, 8)).sum() <= 6
    (s,) = sources.scan(cvat(tmp_path, '<box label="cyst" xtl="1" ytl="1" xbr="9" ybr="9"/>'))
    assert (s.label, s.masks, s.anomalous) == ("cyst", (), True)
    (s,) = sources.scan(cvat(tmp_path, '<tag label="malignant"/>'))
    assert (s.label, s.masks, s.anomalous) == ("malignant", (), True)


@pytest.mark.parametrize("window", ["0,64", "0,1", "0,-1,5", "x", ""])
def test_cvat_faults_cost_their_shape_only(window, tmp_path, caplog):
    mask = f'<mask label="cyst" rle="{window}" left="60" top="7" width="2" height="2"/>'
    (s,) = sources.scan(cvat(tmp_path, mask))
    assert (s.label, s.masks) == ("cyst", ())
    assert "1.png, mask 0: damaged" in caplog.text


def test_xml_with_a_document_type_is_refused(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]>'
    root = helpers.write_cvat(tmp_path)
    text = (root / "annotations.xml").read_text()
    for encoding in ("utf-8", "utf-16"):
        head, _, rest = text.replace("utf-8", encoding).partition("\n")
        (root / "annotations.xml").write_bytes(f"{head}\n{bomb}\n{rest}".encode(encoding))
        with pytest.raises(DataError, match="document type"):
            sources.scan(root)


def test_brest_masks_grades_and_patients(tmp_path):
    samples = by_id(helpers.write_brest(tmp_path))
    normal, benign, _ = samples.values()
    assert [len(s.masks) for s in samples.values()] == [0, 2, 1]
    assert (normal.group, normal.tags, benign.tags) == ("1", {"birads_1"}, {"birads_4a"})
    np.testing.assert_array_equal(lesion(benign), helpers.picture(150_002, lesion=True)[1])
    assert sources.get("brest").quirks(tmp_path) == []


def test_brest_with_the_sheet_behind_another(tmp_path):
    good = sources.scan(helpers.write_brest(tmp_path))
    (table,) = tmp_path.glob("*.csv")
    book = openpyxl.Workbook()
    book.active.append(["About", "these data"])
    sheet = book.create_sheet("BrEaST-Lesions-USG clinical dat")
    for line in table.read_text().splitlines():
        sheet.append([int(c) if c.isdecimal() else c for c in line.split(";")])
    book.save(table.with_suffix(".xlsx"))
    table.unlink()
    assert sources.scan(tmp_path) == good


def test_brest_faults(tmp_path, caplog):
    root = helpers.write_brest(tmp_path)
    (table,) = root.glob("*.csv")
    table.write_text(table.read_text() + "4;case002.png;;;;;benign\n5;case005.png;;;;;unsure\n")
    helpers.save(root / "case009.png", helpers.picture(9, lesion=False)[0])
    assert len(sources.scan(root)) == 3
    assert "2 row(s) not used: row 5: Image_filename is 'case002.png'" in caplog.text
    assert "row 6: Classification is 'unsure'" in caplog.text
    assert sources.get("brest").quirks(root) == ["case009.png is not listed in the sheet and is skipped"]
    table.unlink()
    with pytest.raises(DataError, match="no classes: wanted BrEaST"):
        sources.scan(root)


def test_ddti_classes_patients_and_quirks(tmp_path, caplog):
    root = helpers.write_ddti(tmp_path)
    text = (root / "4.xml").read_text()
    (root / "5.xml").write_text(text.replace("<tirads>5<", "<tirads><"))
    (root / "6.xml").write_text(text.replace("<tirads>5<", "<tirads>9<"))
    for case in (5, 6, 7):
        helpers.save(root / f"{case}_1.jpg", helpers.picture(case, lesion=True)[0])
    samples = sources.scan(root)
    assert [(s.group, s.label) for s in samples] == [
        *(("1", "benign"), ("1", "benign"), ("2", "benign"), ("3", "malignant"), ("4", "malignant")),
        *(("5", None), ("6", None)),
    ]
    assert samples[3].tags == {"tirads_4a"}
    assert [s.anomalous for s in samples] == [True] * 7
    assert "6.xml: tirads is '9'" in caplog.text
    rule, ungraded, stray = sources.get("ddti").quirks(root)
    assert "not from histology" in rule
    assert ungraded == "1 case(s) have no TI-RADS and no class: 5"
    assert stray == "case 7 has images but no XML file and is skipped"


def test_ddti_faults_cost_their_mark_only(tmp_path, caplog):
    root = helpers.write_ddti(tmp_path)
    (root / "1.xml").write_text((root / "1.xml").read_text().replace('"x"', '"z"', 1).replace("<image>2<", "<image>8<"))
    (root / "2.xml").write_text("<case>")
    samples = by_id(root)
    assert (samples["1_1.jpg"].masks, samples["1_2.jpg"].masks) == ((), ())
    assert {s.group for s in samples.values()} == {"1", "3", "4"}
    assert "3 entry(s) not used" in caplog.text


def test_mmotu_classes_splits_and_masks(tmp_path):
    samples = by_id(helpers.write_mmotu(tmp_path))
    assert [(s.label, s.split) for s in samples.values()] == [
        (label, split) for split in ("train", "valid") for label in ("chocolate cyst", "normal", "high grade serous")
    ]
    cyst, normal, _, *_ = samples.values()
    assert (normal.masks, normal.anomalous, cyst.anomalous) == ((), False, True)
    np.testing.assert_array_equal(lesion(cyst), helpers.picture(170_001, lesion=True)[1])
    (tmp_path / "annotations" / "1_binary.PNG").unlink()
    assert [m.name for m in by_id(tmp_path)["images/1.JPG"].masks] == ["1.PNG"]


def test_mmotu_faults(tmp_path, caplog):
    root = helpers.write_mmotu(tmp_path)
    with (root / "val_cls.txt").open("a") as file:
        file.write("\n12.JPG  9\n77.JPG  1\n1.JPG  2\n13.JPG\n")
    helpers.save(root / "images" / "99.JPG", helpers.picture(99, lesion=False)[0])
    assert len(sources.scan(root)) == 6
    assert "4 row(s) not used: row 5: '12.JPG  9'; wanted a name and a class from 0 to 7" in caplog.text
    assert (
        sources.get("mmotu").quirks(root)
        == [
            "images/77.JPG is listed and is not there",
            "images/99.JPG is in none of the lists and is skipped",
        ][1:]
    )


@pytest.mark.parametrize("several", [True, False])
def test_liver_outlines_of_one_or_several_masses(several, tmp_path):
    root = helpers.write_liver(tmp_path)
    other = [[50, 30], [60, 30], [60, 40], [50, 40]]
    file = root / "Benign" / "segmentation" / "mass" / "0.json"
    write(file, [helpers.SQUARE, other] if several else helpers.SQUARE)
    mask = lesion(by_id(root)["Benign/image/0.jpg"])
    assert mask[14, 20]
    assert mask[35, 55] == several


def test_liver_faults_cost_their_outline_only(tmp_path, caplog):
    root = helpers.write_liver(tmp_path)
    folder = root / "Malignant" / "segmentation" / "mass"
    write(folder / "0.json", "[1, 2]")
    (folder / "1.json").rename(folder / "9.json")
    assert [bool(s.masks) for s in sources.scan(root) if s.label == "malignant"] == [False, False]
    assert "1 outline(s) not used: Malignant/0.json: damaged" in caplog.text
    assert sources.get("liver").quirks(root) == [
        "Malignant/image/1 has no outline of a mass",
        "Malignant/segmentation/mass/9.json has no image",
    ]
