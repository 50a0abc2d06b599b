from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests import helpers
from tests.io.test_dicom import make, save
from ultraad.data.audit import AuditReport, Finding, audit, duplicates
from ultraad.data.audit.duplicates import clusters, exact_groups, near_pairs
from ultraad.data.audit.measure import measure
from ultraad.errors import DataError
from ultraad.types import Sample


def found(report: AuditReport) -> dict[str, Finding]:
    return {f.kind: f for f in report.findings}


def big(root, classes=("normal", "benign"), per_class=4):
    """A folder of larger pictures, so that near-duplicates mean something."""
    for c, label in enumerate(classes):
        for n in range(per_class):
            image, mask = helpers.picture(100 * c + n, lesion=c > 0, size=(160, 200))
            helpers.save(root / label / f"{n}.png", image)
            if c:
                helpers.save(root / label / f"{n}_mask.png", mask)
    return root


def table(root, rows):
    """Larger pictures from (name, seed, class, patient, split)."""
    for name, seed, *_ in rows:
        helpers.save(root / name, helpers.picture(seed, lesion=False, size=(160, 200))[0])
    lines = [f"{name},{label},{patient},{split}" for name, _, label, patient, split in rows]
    helpers.write_table(root / "samples.csv", "image,label,patient,split", lines)
    return root


def resave(path, quality=60):
    """The same picture after a JPEG and a little cropping: other bytes, same scene."""
    image = cv2.imread(str(path))[2:-1, 1:-2]
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_a_sound_set_has_no_faults(tmp_path):
    rows = [(f"{n}.png", n, ("normal", "benign")[n % 2], f"p{n}", ("train", "test")[n // 4]) for n in range(8)]
    root = table(tmp_path, rows)
    report = audit(root)
    assert not report.has_errors
    assert set(found(report)) == {"no_mask"}
    assert (report.images, report.patients, report.without_patient) == (8, 8, 0)
    benign = report.classes["benign"]
    assert (benign.images, benign.patients, benign.splits, benign.masks) == (4, 4, {"test": 2, "train": 2}, 0)
    assert list(report.classes) == ["normal", "benign"]
    assert list(benign.splits) == ["train", "test"]


def test_bus_uclm_quirks_are_reported(bus_uclm_dir):
    report = audit(bus_uclm_dir)
    faults = found(report)
    assert report.has_errors
    off = faults["misaligned_mask"]
    assert off.severity == "error"
    assert len(off.items) == 6
    assert "HESN 6" in off.message
    assert off.items[0] == "images/HESN_000.png: image 64 x 40, mask 64 x 48"
    assert faults["table"].items[0].startswith("INFO.csv: MENE_001.png, column Doppler: 'Y'")
    assert report.classes["benign"].masks == 6
    assert "within_patient" not in "".join(faults)


def test_report_is_data_and_text(bus_uclm_dir):
    report = audit(bus_uclm_dir)
    assert AuditReport.model_validate_json(report.model_dump_json()) == report
    assert [f.severity for f in report.findings] == ["error", "warning", "warning"]
    text = "\n".join(report.lines(items=2))
    assert "normal (= no lesion)       8" in text
    assert "ERROR misaligned_mask: 6 mask(s)" in text
    assert "    and 4 more" in text
    assert text.endswith(
        f"{report.count('error')} error, {report.count('warning')} warnings, {report.count('info')} info"
    )


def test_images_without_a_layout_are_checked_without_classes(tmp_path):
    for n in range(3):
        helpers.save(tmp_path / f"{n}.png", helpers.picture(n, lesion=False, size=(160, 200))[0])
    helpers.save(tmp_path / "again.png", resave(tmp_path / "1.png"))
    report = audit(tmp_path)
    assert (report.layout, report.images, list(report.classes)) == ("none", 4, ["(no class)"])
    assert {f.kind for f in report.findings} == {"no_class", "no_patients", "near_duplicate_patient_unknown"}
    assert found(report)["near_duplicate_patient_unknown"].items[0].startswith(("1.png ~ again.png", "again.png ~"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no known layout"):
        audit(tmp_path / "empty")


def test_a_black_dicom_image_with_text_is_no_mask(tmp_path):
    picture = np.zeros((60, 80), dtype=np.uint8)
    picture[10:14, 10:40:2] = 255
    (tmp_path / "benign").mkdir()
    save(tmp_path / "benign" / "a.dcm", make(picture, "MONOCHROME2"))
    helpers.save(tmp_path / "normal" / "b.png", picture)
    assert [item.split(":")[0] for item in found(audit(tmp_path))["mask_as_image"].items] == ["normal/b.png"]


def test_progress_counts_every_image(busi_dir):
    seen: list[tuple[int, int]] = []
    audit(busi_dir, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 12) for n in range(1, 13)]


def test_broken_table_is_an_error_not_a_report(tmp_path):
    helpers.write_table(tmp_path / "samples.csv", "picture", ["a.png"])
    with pytest.raises(DataError, match="no column 'image'"):
        audit(tmp_path)


def test_unreadable_files_are_named(tmp_path):
    root = helpers.write_folder(tmp_path)
    (root / "benign" / "0.png").write_bytes(b"")
    (root / "benign" / "1_mask.png").write_text("no picture")
    faults = found(audit(root))
    assert [i.split(":")[0] for i in faults["unreadable_image"].items] == ["benign/0.png"]
    assert [i.split(":")[0] for i in faults["unreadable_mask"].items] == ["benign/1.png"]
    assert {faults[k].severity for k in ("unreadable_image", "unreadable_mask")} == {"error"}


def test_masks_that_contradict_the_label(tmp_path):
    root = helpers.write_folder(tmp_path)
    blank = np.zeros(helpers.SIZE, dtype=bool)
    speck = blank.copy()
    speck[3, 4] = True
    helpers.save(root / "normal" / "0_mask.png", speck)
    helpers.save(root / "normal" / "1_mask.png", blank)  # says what it should
    helpers.save(root / "benign" / "0_mask.png", blank)
    helpers.save(root / "benign" / "1_mask.png", ~speck)
    (root / "benign" / "2_mask.png").unlink()
    report = audit(root)
    faults = found(report)
    assert faults["lesion_on_normal"].items == ("normal/0.png: 0.0% of the pixels",)
    assert faults["lesion_on_normal"].severity == "error"
    assert faults["empty_mask"].items == ("benign/0.png",)
    assert [i.split(":")[0] for i in faults["full_mask"].items] == ["benign/1.png"]
    assert faults["no_mask"].items == ("benign/2.png",)


def test_flat_images_are_named_and_are_no_near_duplicates(tmp_path):
    root = helpers.write_folder(tmp_path, masks="none")
    for name, level in (("normal/0.png", 40), ("benign/0.png", 41)):
        helpers.save(root / name, np.full((*helpers.SIZE, 3), level, dtype=np.uint8))
    faults = found(audit(root))
    assert set(faults["flat_image"].items) == {"normal/0.png", "benign/0.png"}
    assert not any(k.startswith("near") for k in faults)


def test_unknown_classes_and_patients_are_warnings(tmp_path):
    faults = found(audit(helpers.write_folder(tmp_path / "f", classes=("a", "b"))))
    assert "classes: a, b" in faults["no_normal_class"].message
    assert faults["no_patients"].severity == "warning"
    root = table(tmp_path / "t", [("0.png", 0, "normal", "p0", ""), ("1.png", 1, "", "p1", "")])
    report = audit(root)
    assert found(report)["no_class"].items == ("1.png",)
    assert report.classes["(no class)"].images == 1


@pytest.mark.parametrize(
    ("first", "second", "kind", "severity"),
    [
        (("normal", "p0", ""), ("benign", "p0", ""), "across_classes", "error"),
        (("normal", "p0", "train"), ("normal", "p0", "test"), "across_splits", "error"),
        (("normal", "p0", ""), ("normal", "p1", ""), "across_patients", "error"),
        (("normal", "p0", ""), ("normal", "p0", ""), None, "warning"),
        (("normal", "", ""), ("normal", "p0", ""), None, "warning"),
    ],
)
def test_identical_files_are_classified_by_what_they_connect(first, second, kind, severity, tmp_path):
    root = table(tmp_path, [("a.png", 1, *first), ("b.png", 1, *second), ("c.png", 2, "benign", "p9", "")])
    faults = found(audit(root))
    duplicates = {k: f for k, f in faults.items() if "duplicate" in k}
    fault = duplicates.pop("duplicate" if kind is None else f"duplicate_{kind}")
    assert not duplicates  # neither a second kind nor a near-duplicate
    assert fault.severity == severity
    assert fault.items == ("a.png = b.png",)


@pytest.mark.parametrize(
    ("first", "second", "kind", "severity"),
    [
        (("normal", "p0", ""), ("benign", "p0", ""), "across_classes", "warning"),
        (("normal", "p0", "train"), ("normal", "p0", "test"), "across_splits", "warning"),
        (("normal", "p0", ""), ("normal", "p1", ""), "across_patients", "warning"),
        (("normal", "", ""), ("normal", "p1", ""), "patient_unknown", "warning"),
        (("normal", "p0", ""), ("normal", "p0", ""), "within_patient", "info"),
    ],
)
def test_near_duplicates_are_classified_by_what_they_connect(first, second, kind, severity, tmp_path):
    root = table(tmp_path, [("a.png", 1, *first), ("b.png", 1, *second), ("c.png", 2, "benign", "p9", "")])
    helpers.save(root / "b.png", resave(root / "a.png"))
    duplicates = {k: f for k, f in found(audit(root)).items() if "duplicate" in k}
    fault = duplicates.pop(f"near_duplicate_{kind}")
    assert not duplicates
    assert fault.severity == severity
    assert fault.message.startswith("1 pair(s), 2 images of 1 scene(s)")
    assert fault.items[0].startswith("a.png ~ b.png (similarity 0.8")


def test_a_patient_in_two_splits_is_an_error(tmp_path):
    rows = [
        ("a.png", 1, "normal", "p0", "train"),
        ("b.png", 2, "benign", "p0", "test"),
        ("c.png", 3, "normal", "p1", "test"),
    ]
    fault = found(audit(table(tmp_path, rows)))["patient_in_two_splits"]
    assert (fault.severity, fault.items) == ("error", ("p0: test, train",))


def test_a_single_image_has_no_duplicate(tmp_path):
    report = audit(table(tmp_path, [("a.png", 1, "normal", "p0", "")]))
    assert report.findings == ()


def test_different_scenes_are_not_near_duplicates(tmp_path):
    report = audit(big(tmp_path, per_class=12))
    assert not [f for f in report.findings if "duplicate" in f.kind]


def test_near_pairs_agree_with_brute_force(tmp_path):
    """Independent slow version: one pair at a time, one pixel list at a time, no matrices and no blocks."""
    root = big(tmp_path, per_class=16)
    for n in range(3):
        helpers.save(root / "benign" / f"again{n}.png", resave(root / "benign" / f"{n}.png", quality=20 + 30 * n))
    files = sorted(p for p in root.rglob("*.png") if "mask" not in p.name)
    thumbnails = np.stack([measure(Sample(id=p.name, image=p)).thumbnail for p in files])

    def around(x, where, sigma):
        return cv2.GaussianBlur(x * where, (0, 0), sigma) / (cv2.GaussianBlur(where, (0, 0), sigma) + 1e-6)

    details, contents = [], []
    for thumbnail in thumbnails:
        x = thumbnail.astype(np.float32)
        bright = (cv2.GaussianBlur(x, (0, 0), 2.0) > 8).astype(np.float32)
        padded = np.pad(bright, 1, mode="edge")
        inside = np.min([padded[r : r + 32, c : c + 32] for r in range(3) for c in range(3)], axis=0) > 0
        fine = x - around(x, bright, 2.0)
        details.append(np.clip(fine / np.sqrt(around(fine**2, bright, 3.0) + 4), -3, 3))
        contents.append(inside)
    means = []
    for c in contents:
        same = [k for k, o in enumerate(contents) if (c & o).sum() > 0.8 * (c | o).sum()]
        count = np.sum([contents[k] for k in same], axis=0)
        means.append(np.sum([details[k] * contents[k] for k in same], axis=0) / (count + 10))

    def likeness(i, j):
        both = contents[i] & contents[j]
        if both.sum() < max(0.6 * max(contents[i].sum(), contents[j].sum()), 0.1 * 1024):
            return None
        a, b = (details[i] - means[i])[both], (details[j] - means[j])[both]
        return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))

    pairs = {(i, j): likeness(i, j) for i in range(len(files)) for j in range(len(files))}
    spread = []
    for i in range(len(files)):
        row = [abs(pairs[i, j]) for j in range(len(files)) if pairs[i, j] is not None]
        spread.append(min(0.11, max(0.07, np.quantile(row, 0.95) / 1.96 if len(row) >= 20 else 0.08)))
    expected = {(i, j): r for (i, j), r in pairs.items() if i < j and r and r >= 7 * np.sqrt(spread[i] * spread[j])}
    assert len(expected) == 3
    assert {(i, j): r for i, j, r in near_pairs(thumbnails)} == pytest.approx(expected, abs=1e-4)


def test_near_pairs_cross_the_blocks():
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 255, (700, 32, 32), dtype=np.uint8)
    for i, j in ((3, 699), (255, 256), (300, 301)):
        thumbnails[j] = thumbnails[i]
    assert [(i, j) for i, j, _ in near_pairs(thumbnails)] == [(3, 699), (255, 256), (300, 301)]


def test_more_images_than_references_give_the_same_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 255, (300, 32, 32), dtype=np.uint8)
    thumbnails[7] = thumbnails[200]
    monkeypatch.setattr(duplicates, "_REFERENCES", 40)
    assert [(i, j) for i, j, _ in near_pairs(thumbnails)] == [(7, 200)]


def test_groups_and_clusters_by_hand():
    assert exact_groups(["a", "b", "a", "c", "b", "a"]) == [[0, 2, 5], [1, 4]]
    assert clusters([(0, 1), (2, 3), (1, 2), (7, 8)]) == 2
    assert clusters([]) == 0


def test_tag_auroc_equals_scikit_learn(bus_uclm_dir):
    from ultraad.data.sources import scan

    samples = scan(bus_uclm_dir)
    tags = audit(bus_uclm_dir).tags
    assert {"doppler", "marks"} <= set(tags)
    for name in ("doppler", "marks"):
        expected = roc_auc_score([s.anomalous for s in samples], [name in s.tags for s in samples])
        assert tags[name].auroc == pytest.approx(expected)
    assert (tags["marks"].normal, tags["marks"].abnormal) == (0, 4)


def test_tags_that_predict_the_label_are_a_warning(bus_uclm_dir):
    fault = found(audit(bus_uclm_dir))["shortcut"]
    assert fault.severity == "warning"
    assert [i.split(":")[0] for i in fault.items] == ["marks"]


def test_colour_is_measured(tmp_path):
    root = helpers.write_folder(tmp_path, masks="none")
    for n in range(4):
        image = helpers.picture(100 + n, lesion=True)[0]
        image[5:12, 5:12] = (200, 30, 30)
        helpers.save(root / "benign" / f"{n}.png", image)
    one_pixel = helpers.picture(0, lesion=False)[0]
    one_pixel[0, 0] = (200, 30, 30)
    helpers.save(root / "normal" / "0.png", one_pixel)
    report = audit(root)
    colour = report.tags["colour"]
    assert (colour.normal, colour.abnormal, colour.auroc) == (0, 4, pytest.approx(0.75))
    assert "colour: AUROC 0.75" in found(report)["shortcut"].items[0]


def test_without_normal_images_a_tag_has_no_auroc(tmp_path):
    report = audit(helpers.write_bus_bra(tmp_path))
    assert {t.auroc for t in report.tags.values()} == {None}
    assert "shortcut" not in found(report)
    assert any(line.endswith(" -") for line in report.lines())


@pytest.mark.slow
def test_real_bus_uclm(real_data):
    report = audit(real_data / "BUS-UCLM")
    faults = found(report)
    assert len(faults["misaligned_mask"].items) == 13
    assert "HESN 13" in faults["misaligned_mask"].message
    assert round(report.tags["marks"].auroc, 2) == 0.76
    assert len(faults["duplicate_across_patients"].items) == 4
    assert faults["table"].items[0].startswith("INFO.csv: POFR_013.png")
    assert "near_duplicate_across_patients" not in faults


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pairs"), [("BUS-UCLM", 74), ("Dataset_BUSI_with_GT", 23), ("BUS-BRA", 4), ("liver", 34)]
)
def test_near_duplicates_of_real_sets_are_those_that_were_looked_at(real_data, name, pairs):
    report = audit(real_data / name)
    assert sum(len(f.items) for f in report.findings if f.kind.startswith("near_duplicate")) == pairs


def test_the_same_folder_gives_the_same_report(busi_dir, tmp_path):
    copy = shutil.copytree(busi_dir, tmp_path / "copy")
    assert audit(copy).model_dump(exclude={"root"}) == audit(busi_dir).model_dump(exclude={"root"})
