from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import helpers
from ultraad.data import sources
from ultraad.data.sources import _base as base
from ultraad.data.sources.bus_bra import is_held_out
from ultraad.errors import ConfigError, DataError, MissingExtraError
from ultraad.io import read_image, read_mask
from ultraad.types import Sample


def by_id(root: Path, **options: str) -> dict[str, Sample]:
    return {s.id: s for s in sources.scan(root, **options)}


def lesion(sample: Sample) -> np.ndarray:
    return read_mask(sample.masks, shape=read_image(sample.image).shape[:2])


def test_every_layout_has_a_writer_so_that_these_tests_cover_it(layouts):
    assert sorted(layouts) == sources.available()


def test_no_two_writers_share_a_picture(layouts, tmp_path):
    samples = [s for name, write in layouts.items() for s in sources.scan(write(tmp_path / name))]
    assert len({s.image.read_bytes() for s in samples}) == len(samples)


@pytest.mark.parametrize("name", sources.available())
def test_layout_is_detected_and_scanned_in_one_order(name, layouts, tmp_path):
    root = layouts[name](tmp_path / "set")
    samples = sources.scan(root)
    assert sources.detect(root) == name
    assert samples == sources.scan(str(root), layout=name)
    assert [s.id for s in samples] == sorted({s.id for s in samples}, key=base.natural_key)
    for s in samples:
        assert s.image.is_file()
        assert all(m.is_file() for m in s.masks if isinstance(m, Path))
        assert s.label is not None
        assert (root / s.id) == s.image
        assert s.frame == 0


@pytest.mark.parametrize("name", sources.available())
def test_every_layout_describes_itself(name):
    source = sources.get(name)
    assert source.name == name
    assert source.title
    assert source.licence
    assert source.group_rule.endswith(".")
    assert source.layout.lstrip().startswith("root/")
    assert source.citation or (not source.published and name not in {"bmad", "coco", "mvtec"})


@pytest.mark.parametrize("name", sources.available())
def test_an_empty_or_foreign_folder_matches_nothing(name, tmp_path):
    (tmp_path / "empty").mkdir()
    helpers.save(tmp_path / "flat" / "a.png", helpers.picture(0, lesion=False)[0])
    for folder in ("empty", "flat"):
        assert not sources.get(name).matches(tmp_path / folder)
        with pytest.raises(DataError):
            sources.scan(tmp_path / folder, layout=name)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("bmad", ("good", "Ungood")),
        ("bus_bra", ("benign", "malignant")),
        ("mvtec", ("good", "cyst")),
        ("busi", ("normal", "benign", "malignant")),
        ("coco", ("normal", "benign", "malignant")),
    ],
)
def test_class_order(name, classes, layouts, tmp_path):
    found, normal = sources.class_order(sources.scan(layouts[name](tmp_path)))
    assert found == classes
    assert normal == (classes[0] if classes[0] in {"good", "normal"} else None)


def test_an_unknown_folder_is_answered_with_all_layouts(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError) as e:
        sources.detect(tmp_path)
    assert "notes.txt" in str(e.value)
    for name in sources.available():
        assert base.indent(sources.get(name).layout) in str(e.value)


def test_the_content_of_an_unknown_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="Found: an empty folder"):
        sources.detect(tmp_path)
    for n in range(12):
        (tmp_path / f"f{n}").mkdir()
    with pytest.raises(DataError, match=r"Found: f0/, f1/, f2/, .*, f7/ and 4 more\."):
        sources.detect(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"Found: the file a\.txt"):
        sources.detect(tmp_path / "a.txt")


def test_no_image_at_all(tmp_path):
    (tmp_path / "annotations.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match="no images found in"):
        sources.scan(tmp_path)


def test_a_missing_folder_is_reported_as_missing(tmp_path):
    for call in (sources.detect, sources.scan, lambda p: sources.scan(p, layout="csv")):
        with pytest.raises(DataError, match="does not exist"):
            call(tmp_path / "nowhere")


def test_a_folder_of_two_layouts_needs_a_name(tmp_path):
    helpers.write_csv(tmp_path)
    helpers.write_coco(tmp_path)
    with pytest.raises(DataError, match="coco, csv; choose one with layout="):
        sources.detect(tmp_path)
    assert len(sources.scan(tmp_path, layout="csv")) == 4


def test_folder_of_data_sets_is_refused(tmp_path):
    helpers.write_busi(tmp_path / "BUSI")
    helpers.write_folder(tmp_path / "more")
    with pytest.raises(DataError, match="contains several data sets: BUSI; give one"):
        sources.detect(tmp_path)


def test_unknown_layout_names_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'bus_uclm'.*available: bmad"):
        sources.get("bus_ulcm")


def test_layout_from_outside(folder_dir):
    samples = sources.scan(folder_dir, layout="ultraad.data.sources.folder:SOURCE")
    assert samples == sources.scan(folder_dir)
    for wrong in ("nowhere.at.all:SOURCE", "ultraad.data.sources.folder:NOTHING"):
        with pytest.raises(ConfigError, match="cannot import the layout"):
            sources.get(wrong)


@given(st.lists(st.text(alphabet="ab0129²٣ _", max_size=6)))
def test_natural_order_is_total_and_does_not_depend_on_the_start(names):
    backwards = names[::-1]
    assert sorted(names, key=base.natural_key) == sorted(backwards, key=base.natural_key)


def test_natural_order_counts():
    assert sorted(["a10", "a2", "A1", "b"], key=base.natural_key) == ["A1", "a2", "a10", "b"]


@pytest.mark.parametrize(
    ("label", "labels", "expected"),
    [
        ("Normal", ("Normal", "x"), False),
        ("no finding", ("no finding",), False),
        ("x", ("Normal", "x"), True),
        ("benign", ("benign", "malignant"), True),
        ("x", ("x", "y"), None),
        (None, ("normal",), None),
    ],
)
def test_lesions_are_inferred_from_class_names(label, labels, expected):
    assert sources.is_anomalous(label, labels) is expected


def test_two_normal_classes_leave_the_choice_to_the_user(tmp_path):
    samples = [Sample(id=c, image=tmp_path / c, label=c, anomalous=False) for c in ("good", "normal")]
    assert sources.class_order(samples) == (("good", "normal"), None)


@pytest.mark.parametrize("name", ["busi", "folder", "bus_bra", "mvtec", "csv", "coco"])
def test_mask_of_another_size_is_noticed_in_any_layout(name, layouts, tmp_path):
    root = layouts[name](tmp_path)
    before = sources.scan(root)
    assert all(s.mask_aligned for s in before)
    victim = next(s for s in before if s.masks)
    helpers.save(victim.image, helpers.picture(9, lesion=True, size=(helpers.SIZE[0] + 1, helpers.SIZE[1]))[0])
    after = sources.scan(root)
    assert after == [replace(s, mask_aligned=s.id != victim.id) for s in before]


def test_unreadable_image_is_left_to_the_data_check(tmp_path):
    root = helpers.write_busi(tmp_path)
    before = sources.scan(root)
    (root / "benign" / "benign (1).png").write_bytes(b"")
    (root / "benign" / "benign (2)_mask.png").write_text("no picture")
    assert sources.scan(root) == before


def test_hidden_files_are_not_images(tmp_path):
    root = helpers.write_folder(tmp_path)
    before = sources.scan(root)
    (root / "benign" / "._0.png").write_bytes(b"\0\5\x16\7")
    (root / ".git" / "x").mkdir(parents=True)
    assert sources.scan(root) == before


def test_bus_uclm(bus_uclm_dir):
    samples = by_id(bus_uclm_dir)
    assert len(samples) == 24
    a = samples["images/ALWI_001.png"]
    assert (a.label, a.anomalous, a.group, a.split, a.tags) == ("benign", True, "ALWI", "train", {"marks"})
    assert samples["images/COPE_000.png"].split == "test"
    assert samples["images/MENE_001.png"].tags == {"doppler"}  # the dirty cell
    assert {s.group for s in samples.values() if not s.mask_aligned} == {"HESN"}
    assert lesion(a).any()
    assert not lesion(samples["images/ALWI_000.png"]).any()


def test_bus_uclm_reports_its_table(tmp_path):
    root = helpers.write_bus_uclm(tmp_path, patients=("MENE",))
    helpers.save(root / "images" / "STRAY_000.png", helpers.picture(0, lesion=False)[0])
    cell, stray = sources.get("bus_uclm").quirks(root)
    assert "MENE_001.png, column Doppler: 'Y'" in cell
    assert "STRAY_000.png is not listed" in stray


def test_bus_uclm_table_without_a_column(tmp_path):
    root = helpers.write_bus_uclm(tmp_path)
    table = root / "INFO.csv"
    table.write_text(table.read_text(encoding="utf-8-sig").replace("Doppler", "Dopler"))
    with pytest.raises(DataError, match=r"no column 'Doppler'; did you mean 'Dopler'\? Found: Image"):
        sources.scan(root)


def test_real_bus_uclm(real_data):
    samples = sources.scan(real_data / "BUS-UCLM")
    assert len(samples) == 683
    assert [sum(s.label == c for s in samples) for c in ("normal", "benign", "malignant")] == [419, 174, 90]
    assert len({s.group for s in samples}) == 38
    assert [sum(t in s.tags for s in samples) for t in ("combined", "marks")] == [6, 154]
    assert [s.group for s in samples if not s.mask_aligned] == ["HESN"] * 13


def test_real_busi(real_data):
    samples = sources.scan(real_data / "Dataset_BUSI_with_GT")
    assert [sum(s.label == c for s in samples) for c in ("normal", "benign", "malignant")] == [44, 145, 70]
    assert all(s.masks and s.mask_aligned for s in samples)


def test_busi_joins_several_masks(busi_dir):
    samples = by_id(busi_dir)
    assert len(samples) == 12
    two = samples["benign/benign (1).png"]
    assert [m.name for m in two.masks] == ["benign (1)_mask.png", "benign (1)_mask_1.png"]
    np.testing.assert_array_equal(lesion(two), helpers.picture(helpers.FIRST_SEED["busi"] + 101, lesion=True)[1])
    assert {s.group for s in samples.values()} == {None}


def test_bus_bra(tmp_path):
    samples = by_id(helpers.write_bus_bra(tmp_path))
    a, b = samples["Images/bus_0001-l.png"], samples["Images/bus_0001-r.png"]
    assert a.group == b.group == "1"
    assert (a.label, a.anomalous, a.device, a.tags) == ("benign", True, "LOGIQ 5", {"birads_3", "pretraining"})
    np.testing.assert_array_equal(lesion(b), helpers.picture(helpers.FIRST_SEED["bus_bra"] + 11, lesion=True)[1])


@pytest.mark.parametrize(("case", "left_out"), [("5", True), ("0500", True), ("6", False), ("", False), (None, False)])
def test_every_fifth_case_of_bus_bra_is_in_no_pretraining(case, left_out):
    assert is_held_out(case) is left_out


@pytest.mark.parametrize("labels", ["xlsx", "csv", "folders"])
def test_udiat_labels_from_sheet_table_or_folders(labels, tmp_path):
    samples = sources.scan(helpers.write_udiat(tmp_path, labels=labels))
    expected = {f"{n:06d}": "malignant" if n % 2 == 0 else "benign" for n in range(1, 5)}
    assert {s.image.stem: s.label for s in samples} == expected
    assert all(s.anomalous and lesion(s).any() for s in samples)


def test_udiat_without_classes(tmp_path):
    root = helpers.write_udiat(tmp_path, labels="none")
    with pytest.raises(DataError, match="no classes: wanted DatasetB"):
        sources.scan(root)
    (root / "DatasetB.csv").write_text("Image,Type\n77,benign\n1,unsure\n")
    with pytest.raises(DataError, match="no row with the name of an image"):
        sources.scan(root)


def test_udiat_names_the_extra(tmp_path, monkeypatch):
    root = helpers.write_udiat(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r'pip install "ultraad\[xlsx\]"'):
        sources.scan(root)


@pytest.mark.parametrize("masks", ["beside", "inside", "sibling", "apart"])
def test_folder_finds_masks_in_all_usual_places(masks, tmp_path):
    samples = by_id(helpers.write_folder(tmp_path, masks=masks))
    assert len(samples) == 12
    np.testing.assert_array_equal(
        lesion(samples["malignant/2.png"]), helpers.picture(helpers.FIRST_SEED["folder"] + 202, lesion=True)[1]
    )
    assert samples["normal/2.png"].masks == ()
    assert samples["normal/2.png"].anomalous is False


@pytest.mark.parametrize("masks", ["beside", "inside", "sibling", "apart"])
def test_folder_with_splits(masks, tmp_path):
    for split in ("Train", "test"):
        helpers.write_folder(tmp_path / split, masks=masks)
    samples = by_id(tmp_path)
    assert len(samples) == 24
    assert {s.split for s in samples.values()} == {"train", "test"}
    assert samples["Train/benign/0.png"].split == "train"
    assert all(bool(s.masks) is s.anomalous for s in samples.values())


def test_folder_with_masks_above_the_splits(tmp_path):
    image, mask = helpers.picture(0, lesion=True)
    helpers.save(tmp_path / "train" / "images" / "cyst" / "a.png", image)
    helpers.save(tmp_path / "test" / "cyst" / "a.png", image)
    helpers.save(tmp_path / "masks" / "train" / "cyst" / "a.png", mask)
    helpers.save(tmp_path / "masks" / "test" / "cyst" / "a.png", ~mask)
    train, test = sources.scan(tmp_path)[::-1]
    np.testing.assert_array_equal(lesion(train), mask)
    np.testing.assert_array_equal(lesion(test), ~mask)


def test_folder_with_images_beside_masks_in_each_class(tmp_path):
    image, mask = helpers.picture(0, lesion=True)
    helpers.save(tmp_path / "cyst" / "images" / "a.png", image)
    helpers.save(tmp_path / "cyst" / "masks" / "a.png", mask)
    (sample,) = sources.scan(tmp_path)
    assert (sample.id, sample.label, sample.group) == ("cyst/images/a.png", "cyst", None)
    np.testing.assert_array_equal(lesion(sample), mask)


def test_folder_inside_a_class_is_a_patient(tmp_path):
    for patient in ("anna", "bert"):
        image, mask = helpers.picture(len(patient), lesion=True)
        helpers.save(tmp_path / "kind" / patient / "a.png", image)
        helpers.save(tmp_path / "masks" / "kind" / patient / "a.png", mask)
    samples = by_id(tmp_path)
    assert {i: s.group for i, s in samples.items()} == {"kind/anna/a.png": "anna", "kind/bert/a.png": "bert"}
    assert [m.parent.name for s in samples.values() for m in s.masks] == ["anna", "bert"]
    assert samples["kind/anna/a.png"].anomalous is None  # one class, and its name says nothing


def test_dicom_frames_are_samples(dicom_dir):
    samples = by_id(dicom_dir)
    assert list(samples) == ["lesion/c.dcm", "normal/a.dcm", *(f"normal/b.dcm#{f}" for f in range(3))]
    a, b, c = samples["normal/a.dcm"], samples["normal/b.dcm#2"], samples["lesion/c.dcm"]
    assert b.frame == 2
    assert a.group == c.group != b.group
    assert a.group.startswith("dicom:")
    assert "Doe" not in a.group
    assert (a.spacing_mm, a.device) == ((0.1, 0.2), "Maker One")
    np.testing.assert_array_equal(
        read_image(b.image, frame=2), helpers.picture(helpers.FIRST_SEED["dicom"] + 12, lesion=False)[0]
    )


def test_dicom_without_suffix_and_masks_of_frames(tmp_path):
    file = helpers.write_dicom(tmp_path / "cyst" / "IM0001", frames=2)
    helpers.write_dicom(tmp_path / "normal" / "n.dcm")
    (tmp_path / "cyst" / "README").write_text("x")
    (tmp_path / "cyst" / "EMPTY").write_bytes(b"")
    mask = helpers.save(tmp_path / "cyst" / "masks" / "IM0001_frame1.png", helpers.picture(0, lesion=True)[1])
    samples = by_id(tmp_path)
    assert [s.masks for s in samples.values() if s.image == file] == [(), (mask,)]
    assert len(samples) == 3


def test_mvtec(tmp_path):
    samples = by_id(helpers.write_mvtec(tmp_path))
    assert len(samples) == 12
    assert samples["train/good/000.png"].split == "train"
    s = samples["test/cyst/001.png"]
    assert (s.label, s.anomalous, s.split) == ("cyst", True, "test")
    np.testing.assert_array_equal(lesion(s), helpers.picture(helpers.FIRST_SEED["mvtec"] + 21, lesion=True)[1])


@pytest.mark.parametrize("inner", [True, False])
def test_bmad(inner, tmp_path):
    (tmp_path / "notes").mkdir()  # no split, left alone
    samples = sources.scan(helpers.write_bmad(tmp_path, inner=inner))
    assert len(samples) == 15
    assert {(s.split, s.label) for s in samples} == {
        ("train", "good"),
        *((split, label) for split in ("valid", "test") for label in ("good", "Ungood")),
    }
    assert [bool(s.masks) for s in samples] == [bool(inner and s.anomalous) for s in samples]


def test_synthetic(synthetic_dir):
    samples = by_id(synthetic_dir)
    s = samples["malignant/p0001_0002.png"]
    assert (s.group, s.anomalous, len(samples)) == ("p0001", True, 9)
    assert not lesion(samples["normal/p0001_0000.png"]).any()


@pytest.mark.parametrize("marker", ['{"generator": "other"}', "[]", "not json"])
def test_synthetic_needs_its_marker(marker, tmp_path):
    root = helpers.write_synthetic(tmp_path)
    (root / "simulated.json").write_text(marker)
    assert sources.detect(root) == "folder"
