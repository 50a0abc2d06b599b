"""Exports of annotation tools in their less common forms: brush masks, tables, tracks of videos, folders of masks."""

from __future__ import annotations

import base64
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests import helpers
from tests.data.test_sources import by_id, lesion
from tests.data.test_sources_tools import change, square, write
from tests.robustness.test_finding import save, words
from ultraad.data import sources
from ultraad.data.sources import _annotations
from ultraad.data.sources._brush import from_packed_bits
from ultraad.errors import DataError

H, W = helpers.SIZE
Y, X = np.mgrid[:H, :W]
BLOB = ((Y - 20) / 9) ** 2 + ((X - 30) / 15) ** 2 < 1


def packed(mask, rng=None):
    """An RGBA picture in thi.ng's run-length code, written from its description: runs, and some literal stretches."""
    values = np.repeat(np.where(mask, 255, 0).astype(int).ravel(), 4)
    sizes = (3, 4, 8, 16)
    bits = [f"{len(values):032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in sizes)]
    at = 0
    while at < len(values):
        run = 1
        while at + run < len(values) and values[at + run] == values[at] and run < 2**16:
            run += 1
        kind = next(k for k, size in enumerate(sizes) if run <= 2**size)
        length = f"{kind:02b}{run - 1:0{sizes[kind]}b}"
        if run <= 12 and (rng is None or rng.random() < 0.7):
            bits += ["0", length, *(f"{v:08b}" for v in values[at : at + run])]
        else:
            bits += ["1", length, f"{values[at]:08b}"]
        at += run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]


def in_label_studio(root, code):
    helpers.write_label_studio(root)

    def draw(tasks):
        value = {"format": "rle", "rle": code, "brushlabels": ["benign"]}
        tasks[1]["annotations"][0]["result"][0] |= {"type": "brushlabels", "value": value}

    change(next(root.glob("*.json")), draw)
    return by_id(root)["images/1.png"]


@pytest.mark.parametrize("mask", [BLOB, ~BLOB, BLOB & (X % 2 == 0), np.zeros_like(BLOB), np.ones_like(BLOB)])
def test_a_brush_mask_of_label_studio(tmp_path, mask):
    sample = in_label_studio(tmp_path, packed(mask, np.random.default_rng(0)))
    np.testing.assert_array_equal(lesion(sample), mask)
    assert sample.label == "benign"


@pytest.mark.parametrize(
    "code", [[], [1, 2], packed(BLOB)[:-20], packed(BLOB[:-1]), [300] * 99, ["x"], [255] * 2000, "text", None, 7]
)
def test_a_damaged_brush_mask_costs_itself_only(tmp_path, code, caplog):
    sample = in_label_studio(tmp_path, code)
    assert (sample.label, sample.masks) == ("benign", ())
    assert "1.png, result 0: a shape is damaged" in caplog.text


def test_mutated_brush_masks_are_read_or_refused():
    rng = np.random.default_rng(3)
    code = np.array(packed(BLOB, rng))
    read = refused = 0
    for _ in range(300):
        damaged = code.copy()
        damaged[rng.integers(0, len(code), 3)] = rng.integers(0, 256, 3)
        try:
            read += from_packed_bits(damaged.tolist(), size=(H, W)).shape == (H, W)
        except ValueError:
            refused += 1
    assert read
    assert refused


def in_labelme(root, drawn, corner=(15, 11), **more):
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    shape = {"label": "benign", "shape_type": "mask", "points": [list(corner), [44, 28]], "mask": text, **more}
    helpers.write_labelme(root)
    change(root / "1.json", lambda c: c.update(shapes=[shape]))
    return by_id(root)["1.png"]


@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_a_brush_mask_of_labelme(tmp_path, kind):
    window = BLOB[11:30, 15:46]
    mask = np.zeros((H, W), dtype=bool)
    mask[11:30, 15:46] = window
    np.testing.assert_array_equal(lesion(in_labelme(tmp_path, window.astype(kind))), mask)


@pytest.mark.parametrize("more", [{"mask": "?"}, {"mask": None}, {"mask": "aGVsbG8="}, {"points": [[60, 40], [9, 9]]}])
def test_a_damaged_mask_of_labelme_costs_itself_only(tmp_path, more, caplog):
    sample = in_labelme(tmp_path, BLOB[11:30, 15:46], **more)
    assert (sample.label, sample.masks) == ("benign", ())
    assert "1.json, shape 0: a mask drawn with the brush is damaged" in caplog.text


def test_the_csv_export_of_via_is_its_json_export(tmp_path):
    good = sources.scan(helpers.write_via(tmp_path / "json"))
    content = json.loads((tmp_path / "json" / "via_region_data.json").read_text())
    for version, first in enumerate(("filename", "#filename")):
        root = tmp_path / str(version)
        helpers.write_via(root)
        (root / "via_region_data.json").unlink()
        with (root / "via_export_csv.csv").open("w", newline="") as file:
            table = csv.writer(file)
            columns = "file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
            table.writerow([first, *columns.split(",")])
            for entry in content.values():
                regions = entry["regions"]
                for n, region in enumerate(regions or [{"shape_attributes": {}, "region_attributes": {}}]):
                    cells = (json.dumps(region[k]) for k in ("shape_attributes", "region_attributes"))
                    table.writerow([entry["filename"], 123, "{}", len(regions), n, *cells])
        for where in (root, root / "via_export_csv.csv"):
            assert sources.detect(where) == "via"
            found = sources.scan(where)
            assert [(s.id, s.label, s.masks) for s in found] == [(s.id, s.label, s.masks) for s in good]


def test_a_bad_cell_in_the_csv_export_of_via_costs_its_image_the_mask(tmp_path, caplog):
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    helpers.write_table(tmp_path / "via.csv", header, ["a.png,1,{},1,0,{broken,{}", "b.png,1,{},0,0,{},{}"])
    first, second = sources.scan(tmp_path)
    assert (first.label, first.masks, second.label) == (None, (), "normal")
    assert "row 2: a cell is no JSON" in words(caplog)


def via3_project(content):
    """The entries of version 2 as a project of version 3; the class is an option, chosen by its number."""
    names = sorted({r["region_attributes"]["class"] for e in content.values() for r in e["regions"]})
    options = {str(n): name for n, name in enumerate(names)}
    project = {"project": {"pid": "x", "data_format_version": "3.1.1", "vid_list": []}, "config": {}, "metadata": {}}
    project["attribute"] = {
        "1": {"aname": "Class", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": options, "default_option_id": ""},
        "2": {"aname": "patient", "anchor_id": "FILE1_Z0_XY0", "type": 1, "options": {}, "default_option_id": ""},
    }
    project |= {"file": {}, "view": {}}
    for n, entry in enumerate(content.values(), start=1):
        project["project"]["vid_list"].append(str(n))
        project["file"][str(n)] = {"fid": n, "fname": entry["filename"], "type": 2, "loc": 1, "src": ""}
        project["view"][str(n)] = {"fid_list": [n]}
        for k, region in enumerate(entry["regions"]):
            shape = region["shape_attributes"]
            xy = [7, *(v for pair in zip(shape["all_points_x"], shape["all_points_y"], strict=True) for v in pair)]
            chosen = names.index(region["region_attributes"]["class"])
            project["metadata"][f"{n}_{k}"] = {"vid": str(n), "flg": 0, "z": [], "xy": xy, "av": {"1": str(chosen)}}
    return project


def via3_table(project):
    lines = [
        "# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)",
        "# Notes:",
        f"# ATTRIBUTE = {json.dumps(project['attribute'])}",
        "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata",
    ]
    for key, one in project["metadata"].items():
        shown = [project["file"][str(f)]["fname"] for f in project["view"][one["vid"]]["fid_list"]]
        cells = [json.dumps(cell).replace('"', '""') for cell in (shown, one["z"], one["xy"], one["av"])]
        lines.append(f'"{key}","{cells[0]}",{one["flg"]},' + ",".join(f'"{cell}"' for cell in cells[1:]))
    return "\n".join(lines)


def via3(root, *, table=False, change=lambda project: None):
    """The data set of ``write_via``, annotated with version 3."""
    helpers.write_via(root)
    project = via3_project(json.loads((root / "via_region_data.json").read_text()))
    (root / "via_region_data.json").unlink()
    change(project)
    name, text = ("export.csv", via3_table(project)) if table else ("via_project.json", json.dumps(project))
    (root / name).write_text(text, encoding="utf-8")
    return root


def facts(samples):
    return [(s.id, s.label, s.anomalous, s.masks, s.group) for s in samples]


def test_projects_and_tables_of_via_3_are_those_of_via_2(tmp_path):
    good = sources.scan(helpers.write_via(tmp_path / "two"))
    assert sources.detect(via3(tmp_path / "three")) == "via"
    assert facts(sources.scan(tmp_path / "three")) == facts(good)
    root = via3(tmp_path / "table", table=True)
    drawn = [s for s in good if s.masks]
    for where in (root, root / "export.csv"):
        assert sources.detect(where) == "via"
        assert facts(sources.scan(where)) == facts(drawn), "the table has no rows of images without regions"


def test_shapes_options_and_patients_of_via_3(tmp_path):
    def changed(project):
        first, second, *_ = project["metadata"].values()
        first |= {"xy": [4, 30, 20, 9.5, 6.25], "av": {"1": "0"}}
        second |= {"xy": [3, 30, 20, 8], "av": {"1": "0,1"}}
        project["metadata"]["p"] = {"vid": first["vid"], "flg": 0, "z": [], "xy": [], "av": {"2": "p7"}}

    found = {s.masks[0].polygons: s for s in sources.scan(via3(tmp_path, change=changed)) if s.masks}
    ellipse_, circle = _annotations.ellipse(30, 20, 9.5, 6.25), _annotations.ellipse(30, 20, 8, 8)
    assert found[(ellipse_,)].group == "p7"
    assert found[(ellipse_,)].label == "benign"
    assert found[(circle,)].label == "lesion", "two options are ticked, so none is the class"


def test_faults_of_via_3_cost_their_view_or_region_only(tmp_path, caplog):
    def changed(project):
        first, second, *_ = project["metadata"].values()
        first["xy"] = [7, 1, 2, 3]
        second["xy"] = "x"
        project["metadata"]["bad"] = []
        project["file"]["99"] = {"fid": 99, "fname": "clip.mp4", "type": 4}
        project["view"] |= {"98": {"fid_list": [1, 2]}, "99": {"fid_list": [99]}}
        project["project"]["vid_list"] += ["98", "99"]

    assert len(sources.scan(via3(tmp_path, change=changed))) == len(sources.scan(via3(tmp_path / "whole")))
    told = words(caplog)
    for said in ("metadata 'bad' is no object", "view '98' does not", "view '99' does not"):
        assert said in told
    assert "polygon is damaged" in told
    assert "no 'shape_attributes'" in told


def test_bad_rows_of_the_table_of_via_3_cost_themselves_only(tmp_path, caplog):
    root = via3(tmp_path, table=True)
    rows = (root / "export.csv").read_text().splitlines()
    good = len(sources.scan(root))
    bad = ['"x","[""a.png""]",0,"[1.5]","[2,1,1,5,5]","{}"', '"y","[broken",0,"[]","[]","{}"', '"z"']
    (root / "export.csv").write_text("\n".join([*rows, *bad]))
    assert len(sources.scan(root)) == good
    assert "is about a video or several files" in words(caplog)
    assert "a cell is no JSON" in words(caplog)


def video(root, tracks, *, frames=6, name="frame_{:06d}.PNG", meta=""):
    for n in range(frames):
        helpers.save(root / "images" / name.format(n), helpers.picture(n, lesion=False)[0])
    (root / "annotations.xml").write_text(f"<annotations><version>1.1</version>{meta}{tracks}</annotations>")
    return sources.scan(root)


def shown(frame, *, outside=0):
    points = ";".join(f"{x},{y}" for x, y in helpers.SQUARE)
    return f'<polygon frame="{frame}" keyframe="1" outside="{outside}" occluded="0" points="{points}" z_order="0"/>'


def test_tracks_of_a_video_are_masks_of_its_frames(tmp_path):
    samples = video(tmp_path, f'<track id="0" label="cyst">{shown(1)}{shown(2)}{shown(3, outside=1)}</track>')
    assert [(s.label, len(s.masks)) for s in samples] == [
        *(("normal", 0), ("cyst", 1), ("cyst", 1), ("normal", 0), ("normal", 0), ("normal", 0))
    ]
    np.testing.assert_array_equal(lesion(samples[1]), square())


def test_frames_that_a_track_does_not_list_are_not_called_normal(tmp_path):
    samples = video(tmp_path, f'<track id="0" label="cyst">{shown(1)}{shown(4)}</track>')
    assert [s.label for s in samples] == ["normal", "cyst", None, None, "cyst", None]


def test_frames_under_other_names_count_in_order(tmp_path):
    meta = "<meta><task><size>6</size><start_frame>0</start_frame></task></meta>"
    track = f'<track id="0" label="cyst">{shown(2)}{shown(3, outside=1)}</track>'
    samples = video(tmp_path, track, name="us{}.png", meta=meta)
    assert [s.label for s in samples] == ["normal", "normal", "cyst", "normal", "normal", "normal"]


def test_tracks_without_frames_say_how_to_export_them(tmp_path):
    with pytest.raises(DataError, match=r"1 track.* of a video whose frames are not here; .* with 'Save images'"):
        video(tmp_path, f'<track id="0" label="cyst">{shown(1)}</track>', name="us{}.png")
    with pytest.raises(DataError, match="export each task by itself"):
        video(tmp_path, "".join(f'<track id="0" label="cyst" task_id="{n}">{shown(1)}</track>' for n in (1, 2)))


def test_a_folder_of_masks_for_each_class(tmp_path):
    samples = sources.scan(helpers.write_masks(tmp_path))
    assert [(s.label, s.anomalous, len(s.masks)) for s in samples] == [
        *(("normal", False, 2), ("benign", True, 2), ("malignant", True, 2))
    ]


@pytest.mark.parametrize("places", [("images", "masks/0"), ("images", "masks"), ("train/images", "train/labels/0")])
def test_images_and_one_folder_of_masks(tmp_path, places):
    images, masks = (tmp_path / place for place in places)
    for n, mask in enumerate((np.zeros_like(BLOB), BLOB)):
        save(images / f"{n}.png", helpers.picture(n, lesion=False)[0])
        save(masks / f"{n}.png", np.where(mask, 255, 0).astype(np.uint8))
    save(images / "new.png")
    samples = sources.scan(tmp_path)
    assert [(s.label, s.anomalous, len(s.masks)) for s in samples] == [
        *(("normal", False, 1), ("lesion", True, 1), (None, None, 0))
    ]
    np.testing.assert_array_equal(lesion(samples[1]), BLOB)


def test_a_mask_that_cannot_be_read_is_not_called_normal(tmp_path, caplog):
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "masks" / "a.png")
    write(tmp_path / "masks" / "a.png", "no picture")
    (sample,) = sources.scan(tmp_path)
    assert (sample.label, sample.anomalous) == ("lesion", True)
    assert "1 mask(s) not used" in words(caplog)


def test_class_folders_that_differ_in_case_or_space_are_one_class(tmp_path, caplog):
    for folder in ("train/Benign", "train/normal", "test/benign ", "test/normal"):
        save(tmp_path / folder / "a.png")
    assert [s.label for s in sources.scan(tmp_path)] == ["benign", "normal", "benign", "normal"]
    assert "differ only in case or spaces" in words(caplog)


@pytest.mark.parametrize("name", sources.available())
def test_files_that_a_layout_reads_are_not_called_unused(name, layouts, tmp_path, caplog):
    sources.scan(layouts[name](tmp_path))
    assert "not used" not in words(caplog)


def test_annotations_in_folders_below_are_used(tmp_path, caplog):
    helpers.write_labelme(tmp_path / "patient1")
    assert len(sources.scan(tmp_path)) == 3
    assert "not used" not in words(caplog)
