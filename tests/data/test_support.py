from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests import helpers
from ultraad.data import sources
from ultraad.data.support import (
    check_leakage,
    content_hash,
    draw_support,
    fingerprints,
    leaking,
    load_support,
    save_support,
    support_from_folder,
)
from ultraad.errors import ConfigError, DataError, LeakageError
from ultraad.types import Region, SupportSet


def ids(support: SupportSet, label: str | None = None) -> list[str]:
    return [s.id for s in support.samples if label in (None, s.label)]


@pytest.fixture
def wide_dir(tmp_path):
    """A table of 3 classes: 40 normal, 20 benign, 20 malignant images of patients p0 ... p7, of uneven size."""
    rows = []
    for n in range(80):
        label = ("normal", "normal", "benign", "malignant")[n % 4]
        name = f"{n}.png"
        helpers.save(tmp_path / name, helpers.picture(n, lesion=False, size=(16, 16))[0])
        helpers.save(tmp_path / "m" / name, helpers.picture(n, lesion=True, size=(16, 16))[1])
        patient = f"p{min(n // 4, 7)}"  # p7 has most images
        mask = "" if label == "normal" else f"m/{name}"
        rows.append(f"{name},{label},{patient},{mask},{'marks' if n % 3 == 0 else ''}")
    helpers.write_table(tmp_path / "samples.csv", "image,label,patient,mask,tags", rows)
    return tmp_path


def test_a_draw_is_balanced_and_ordered(busi_dir):
    support = draw_support(busi_dir, shots=2, seed=3)
    assert [s.label for s in support.samples] == ["normal"] * 2 + ["benign"] * 2 + ["malignant"] * 2
    assert [s.anomalous for s in support.samples] == [False] * 2 + [True] * 4
    assert support.classes == ("normal", "benign", "malignant")
    assert (support.normal_class, support.shots, support.seed) == ("normal", 2, 3)
    assert support.source == f"busi:{busi_dir}"
    assert len(set(ids(support))) == 6


@pytest.mark.parametrize("per_patient", [False, True])
def test_draws_are_nested_over_shots(per_patient, wide_dir):
    draws = {k: draw_support(wide_dir, shots=k, per_patient=per_patient) for k in (1, 4, 8, 16)}
    for small, large in ((1, 4), (4, 8), (8, 16)):
        for label in draws[1].classes:
            assert ids(draws[large], label)[:small] == ids(draws[small], label)


def test_seed_and_root_spelling(wide_dir):
    a = draw_support(wide_dir, shots=4, seed=0)
    assert a == draw_support(str(wide_dir / "m" / ".."), shots=4)
    assert len({tuple(ids(draw_support(wide_dir, shots=4, seed=s))) for s in range(5)}) == 5


def test_every_image_can_be_drawn_equally_often(wide_dir):
    drawn = [i for s in range(30) for i in ids(draw_support(wide_dir, shots=5, seed=s), "benign")]
    counts = [drawn.count(i) for i in set(drawn)]
    assert len(counts) == 20  # a quarter of 30 draws each: 7.5, standard deviation 2.4
    assert max(counts) <= 16


def test_excluding_images_does_not_reorder_the_others(wide_dir):
    everything = draw_support(wide_dir, shots=20)
    fewer = draw_support(wide_dir, shots=5, exclude_tags=["marks"], exclude_groups=["p3"])
    for label in everything.classes:
        kept = [s.id for s in everything.samples if s.label == label and not s.tags and s.group != "p3"]
        assert ids(fewer, label) == kept[:5]
        assert not any(s.tags or s.group == "p3" for s in fewer.samples)


def test_one_name_alone_is_a_name(wide_dir):
    one = draw_support(wide_dir, shots=2, exclude_groups="p7", exclude_tags="marks")
    assert one == draw_support(wide_dir, shots=2, exclude_groups=["p7"], exclude_tags=["marks"])
    assert draw_support(wide_dir, shots=2, classes="benign").classes == ("normal", "benign")


def test_a_patient_without_images_of_the_drawn_classes_can_be_excluded(wide_dir):
    table = wide_dir / "samples.csv"
    helpers.save(wide_dir / "healthy.png", helpers.picture(99, lesion=False, size=(16, 16))[0])
    table.write_text(f"{table.read_text().rstrip()}\nhealthy.png,normal,p8,,rare\n")
    lesions = {"classes": ["benign", "malignant"], "shots": 2}
    drawn = draw_support(wide_dir, **lesions, exclude_groups=["p8"], exclude_tags=["rare"])
    assert ids(drawn) == ids(draw_support(wide_dir, **lesions))


def test_a_draw_per_patient_spreads_over_patients(wide_dir):
    support = draw_support(wide_dir, shots=8, per_patient=True)
    for label in support.classes:
        assert {s.group for s in support.samples if s.label == label} == {f"p{n}" for n in range(8)}
    more = draw_support(wide_dir, shots=9, per_patient=True)  # the ninth can only come from p7 again
    assert [s.group for s in more.samples if s.label == "benign"].count("p7") == 2


def test_a_draw_per_patient_needs_patient_ids(busi_dir):
    with pytest.raises(DataError, match="has no patient IDs"):
        draw_support(busi_dir, shots=1, per_patient=True)


def test_unknown_patients_count_as_one_each(tmp_path):
    for label in ("normal", "benign"):
        for n in range(3):
            helpers.save(tmp_path / f"{label}{n}.png", helpers.picture(n, lesion=False)[0])
    rows = [f"{c}{n}.png,{c},{'p' if n < 2 else ''}" for c in ("normal", "benign") for n in range(3)]
    helpers.write_table(tmp_path / "samples.csv", "image,label,patient", rows)
    for seed in range(5):
        support = draw_support(tmp_path, shots=2, per_patient=True, seed=seed)
        assert [s.group for s in support.samples].count("p") == 2  # one for each class


def test_published_test_images_are_never_drawn(bus_uclm_dir):
    support = draw_support(bus_uclm_dir, shots=4)
    assert {s.split for s in support.samples} == {"train"}
    with pytest.raises(DataError, match=r"class 'benign' has 4 image.*'train' \(published splits: .*wanted 5 shots.*8"):
        draw_support(bus_uclm_dir, shots=5)
    assert {s.group for s in draw_support(bus_uclm_dir, shots=2, split="test").samples} == {"COPE"}
    assert len(draw_support(bus_uclm_dir, shots=6, split=None).samples) == 18


def test_abnormal_images_without_usable_mask_are_skipped(bus_uclm_dir, caplog):
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        support = draw_support(bus_uclm_dir, shots=4)
    assert all(s.mask_aligned for s in support.samples if s.anomalous)
    assert "skipped 4 abnormal image(s)" in caplog.text


def test_without_any_mask_all_abnormal_images_are_used(tmp_path, caplog):
    root = helpers.write_folder(tmp_path, masks="none")
    assert len(draw_support(root, shots=4).samples) == 12
    assert caplog.text == ""


def test_classes_and_normal_class_can_be_named(tmp_path):
    root = helpers.write_folder(tmp_path, classes=("control", "nodule", "cyst"))
    with pytest.raises(DataError, match=r"none is known to mean 'no lesion'.*--normal-class"):
        draw_support(root, shots=1)
    support = draw_support(root, shots=1, normal_class="control")
    assert support.classes == ("control", "cyst", "nodule")
    assert [s.anomalous for s in support.samples] == [False, True, True]
    two = draw_support(root, shots=2, classes=["nodule", "control"], normal_class="control")
    assert two.classes == ("nodule", "control")
    assert [s.label for s in two.samples] == ["nodule", "nodule", "control", "control"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shots": 0}, ConfigError, "shots=0"),
        ({"shots": "4"}, ConfigError, "got shots='4', seed=0; wanted whole numbers, shots >= 1"),
        ({"shots": 1.5}, ConfigError, "shots=1.5"),
        ({"shots": 1, "seed": "0"}, ConfigError, "seed='0'"),
        ({"shots": 1, "seed": -1}, ConfigError, "seed=-1"),
        ({"shots": 1, "layout": "busy"}, ConfigError, "did you mean 'busi'"),
        ({"shots": 1, "classes": ["normal", "bening"]}, DataError, "did you mean 'benign'"),
        ({"shots": 1, "normal_class": "healthy"}, DataError, "no class 'healthy'"),
        ({"shots": 1, "classes": ["normal", "normal"]}, DataError, "wanted different classes"),
        ({"shots": 5}, DataError, "class 'benign' has 4 image"),
    ],
)
def test_wrong_options(options, error, message, tmp_path):
    root = helpers.write_busi(tmp_path, per_class=4)
    (root / "normal" / "normal (5).png").write_bytes((root / "normal" / "normal (4).png").read_bytes())
    with pytest.raises(error, match=message):
        draw_support(root, **options)


def labels(support: SupportSet) -> list[str | None]:
    return [s.label for s in support.samples]


def test_a_folder_of_normal_images_only(tmp_path):
    root = helpers.write_folder(tmp_path / "only", classes=("normal",))
    support = draw_support(root, shots=3)
    assert (support.classes, support.normal_class) == (("normal", "abnormal"), "normal")
    assert labels(support) == ["normal"] * 3
    assert [s.anomalous for s in support.samples] == [False] * 3
    save_support(support, tmp_path / "s.json")
    assert load_support(tmp_path / "s.json") == support
    assert labels(support_from_folder(root)) == ["normal"] * 4
    with pytest.raises(DataError, match="class 'normal' has 4 image"):
        draw_support(root, shots=5)


def test_a_split_of_normal_images_only(tmp_path):
    root = helpers.write_mvtec(tmp_path)
    support = draw_support(root, shots=4)
    assert (support.classes, support.normal_class) == (("good", "cyst"), "good")
    assert {s.id.rpartition("/")[0] for s in support.samples} == {"train/good"}
    assert labels(draw_support(root, shots=1, split="test")) == ["good", "cyst"]
    with pytest.raises(DataError, match=r"class 'cyst' has 0 image\(s\) to draw from in split 'train'"):
        draw_support(root, shots=1, classes=["good", "cyst"])


@pytest.mark.parametrize("layout", ["bus_bra", "udiat"])
def test_published_sets_of_lesions_only(layouts, layout, tmp_path):
    support = draw_support(layouts[layout](tmp_path), shots=2)
    assert (support.classes, support.normal_class) == (("normal", "benign", "malignant"), "normal")
    assert labels(support) == ["benign"] * 2 + ["malignant"] * 2
    assert all(s.anomalous for s in support.samples)


def test_folders_of_lesions_only(tmp_path):
    root = helpers.write_folder(tmp_path / "d", classes=("", "benign"))
    assert draw_support(root, shots=4).classes == ("normal", "benign")
    named = draw_support(root, shots=1, normal_class="healthy")
    assert (named.classes, named.normal_class) == (("healthy", "benign"), "healthy")
    with pytest.raises(DataError, match=r"'benign' in .* shows lesions, and 4 of its images have masks .*leave out"):
        draw_support(root, shots=1, normal_class="benign")
    other = helpers.write_folder(tmp_path / "e", classes=("", "papilloma", "scar"))
    with pytest.raises(DataError, match=r"papilloma, scar and none is known.*if all of them show lesions.*'normal'"):
        draw_support(other, shots=1)
    assert labels(draw_support(other, shots=1, normal_class="normal")) == ["papilloma", "scar"]


def test_one_side_of_a_data_set_can_be_chosen(busi_dir):
    lesions = draw_support(busi_dir, shots=2, classes=["malignant", "benign"])
    assert (lesions.classes, lesions.normal_class) == (("normal", "malignant", "benign"), "normal")
    assert labels(lesions) == ["malignant"] * 2 + ["benign"] * 2
    normal = draw_support(busi_dir, shots=2, classes=["normal"])
    assert (normal.classes, labels(normal)) == (("normal", "abnormal"), ["normal"] * 2)
    both = draw_support(busi_dir, shots=2)
    assert ids(lesions, "benign") == ids(both, "benign"), "the same draw"
    assert labels(support_from_folder(busi_dir, classes=["benign"])) == ["benign"] * 4


def test_misspelt_exclusions_are_errors_and_pointless_ones_are_logged(bus_uclm_dir, busi_dir, caplog):
    with pytest.raises(DataError, match="the tag 'mark'; did you mean 'marks'"):
        draw_support(bus_uclm_dir, shots=1, exclude_tags=["mark"])
    with pytest.raises(DataError, match="the patient 'ALVI'; did you mean 'ALWI'"):
        draw_support(bus_uclm_dir, shots=1, exclude_groups=["ALVI"])
    draw_support(busi_dir, shots=1, exclude_tags=["marks"])
    assert "has no tags, so excluding" in caplog.text
    draw_support(busi_dir, shots=1, split="test")
    assert "has no published splits, so split 'test' has no effect" in caplog.text


def test_a_hand_picked_support_takes_every_image(tmp_path):
    root = helpers.write_folder(tmp_path)
    (root / "malignant" / "3.png").unlink()
    support = support_from_folder(root)
    assert [s.label for s in support.samples] == ["normal"] * 4 + ["benign"] * 4 + ["malignant"] * 3
    assert (support.shots, support.seed, support.source) == (3, 0, f"folder:{root}")
    assert len(support_from_folder(root, classes=["normal", "benign"]).samples) == 8


def test_digest_is_the_sha256_of_ids_and_contents(busi_dir):
    support = draw_support(busi_dir, shots=1)
    lines = [f"{s.id}\0{hashlib.sha256(s.image.read_bytes()).hexdigest()}\n" for s in support.samples]
    assert support.digest == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_digest_depends_on_the_pictures_not_the_folder(busi_dir, tmp_path):
    copy = shutil.copytree(busi_dir, tmp_path / "copy")
    a, b = draw_support(busi_dir, shots=2), draw_support(copy, shots=2)
    assert a.digest == b.digest
    helpers.save(b.samples[0].image, helpers.picture(99, lesion=False)[0])
    assert draw_support(copy, shots=2).digest != a.digest


def test_frames_of_one_file_are_different_pictures(dicom_dir):
    frames = [s for s in sources.scan(dicom_dir) if s.image.name == "b.dcm"]
    assert len({content_hash(s) for s in frames}) == 3


@pytest.mark.parametrize("name", sources.available())
def test_round_trip_in_every_layout(name, layouts, tmp_path):
    root = layouts[name](tmp_path / "set")
    support = draw_support(root, shots=1, split=None)
    save_support(support, tmp_path / "support.json")
    assert load_support(tmp_path / "support.json") == support


def test_round_trip_of_outlines_and_tables(tmp_path):
    support = support_from_folder(helpers.write_coco(tmp_path / "c"))
    assert any(isinstance(m, Region) for s in support.samples for m in s.masks)
    save_support(support, tmp_path / "c.json")
    assert load_support(tmp_path / "c.json") == support
    by_table = draw_support(helpers.write_csv(tmp_path / "t") / "samples.csv", shots=1, split=None)
    save_support(by_table, tmp_path / "t.json")
    assert load_support(tmp_path / "t.json") == by_table


def test_layout_from_outside_round_trips(folder_dir, tmp_path):
    support = draw_support(folder_dir, shots=1, layout="ultraad.data.sources.folder:SOURCE")
    save_support(support, tmp_path / "s.json")
    assert load_support(tmp_path / "s.json") == support


def test_the_data_may_move(busi_dir, tmp_path):
    support = draw_support(busi_dir, shots=2)
    save_support(support, tmp_path / "s.json")
    copy = shutil.copytree(busi_dir, tmp_path / "elsewhere")
    moved = load_support(tmp_path / "s.json", root=copy)
    assert moved.source == f"busi:{copy}"
    assert moved.digest == support.digest
    assert ids(moved) == ids(support)
    assert all(s.image.is_relative_to(copy) and m.is_relative_to(copy) for s in moved.samples for m in s.masks)


def test_missing_and_changed_files_are_all_named(busi_dir, tmp_path):
    root = shutil.copytree(busi_dir, tmp_path / "set")
    support = draw_support(root, shots=2)
    save_support(support, tmp_path / "s.json")
    support.samples[0].image.unlink()
    helpers.save(support.samples[2].masks[0], helpers.picture(5, lesion=True)[1])
    with pytest.raises(DataError) as e:
        load_support(tmp_path / "s.json")
    assert f"missing: {support.samples[0].image}" in str(e.value)
    assert f"changed: {support.samples[2].masks[0]}" in str(e.value)
    assert "--root" in str(e.value)


def test_an_absent_data_set_is_not_listed_file_by_file(busi_dir, tmp_path):
    save_support(draw_support(busi_dir, shots=4), tmp_path / "s.json")
    with pytest.raises(DataError, match="and 15 more") as e:
        load_support(tmp_path / "s.json", root=tmp_path / "nowhere")
    assert len(str(e.value).splitlines()) < 20


def edited(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_edited_or_foreign_files_are_refused(busi_dir, tmp_path):
    file = tmp_path / "s.json"
    save_support(draw_support(busi_dir, shots=1), file)
    good = file.read_text()
    rows = json.loads(good)["samples"]
    for changes, message in [
        ({"samples": rows[:-1]}, "was edited"),
        ({"format": "ultraad.support/9"}, "wanted 'ultraad.support/1'"),
        ({"shots": "many"}, r"1 wrong entries, first: \('shots',\)"),
        ({"extra": 1}, "1 wrong entries"),
    ]:
        with pytest.raises(DataError, match=message):
            load_support(edited(file, **changes))
        file.write_text(good)
    file.write_text("{")
    with pytest.raises(DataError, match="cannot read the support set"):
        load_support(file)
    with pytest.raises(DataError, match="cannot read the support set"):
        load_support(tmp_path / "absent.json")


def test_other_patients_of_the_same_set_are_accepted(bus_uclm_dir):
    support = draw_support(bus_uclm_dir, shots=2)
    check_leakage(support, [s for s in sources.scan(bus_uclm_dir) if s.split == "test"])


def test_support_images_are_refused(busi_dir):
    support = draw_support(busi_dir, shots=2)
    with pytest.raises(LeakageError, match=r"6 support image\(s\): benign/benign .*Evaluate on another split"):
        check_leakage(support, sources.scan(busi_dir))
    used = set(ids(support))
    check_leakage(support, [s for s in sources.scan(busi_dir) if s.id not in used])


def test_a_copy_under_another_name_is_found_by_its_bytes(busi_dir, tmp_path):
    support = draw_support(busi_dir, shots=1)
    helpers.write_folder(tmp_path)
    shutil.copy(support.samples[1].image, tmp_path / "benign" / "new name.png")
    with pytest.raises(LeakageError, match=r"1 support image\(s\): benign/new name.png\."):
        check_leakage(support, sources.scan(tmp_path))


def test_an_image_saved_again_in_its_place_is_found_by_its_id(tmp_path):
    root = helpers.write_busi(tmp_path)
    prints = fingerprints(draw_support(root, shots=1))
    for p in prints:
        helpers.save(root / p.id, helpers.picture(77, lesion=False)[0])
    with pytest.raises(LeakageError, match="3 support image"):
        check_leakage(prints, sources.scan(root))


def test_other_images_of_a_support_patient_are_refused(bus_uclm_dir):
    support = draw_support(bus_uclm_dir, shots=1)
    used, groups = set(ids(support)), {s.group for s in support.samples}
    others = [s for s in sources.scan(bus_uclm_dir) if s.id not in used]
    with pytest.raises(LeakageError) as e:
        check_leakage(support, others)
    assert f"{len(groups)} support patient(s): {', '.join(sorted(groups))}." in str(e.value)
    assert "image(s)" not in str(e.value)


def test_patients_of_a_published_set_are_known_in_any_copy(bus_uclm_dir, tmp_path):
    support = draw_support(bus_uclm_dir, shots=1)
    copy = shutil.copytree(bus_uclm_dir, tmp_path / "copy")
    used = set(ids(support))
    others = [s for s in sources.scan(copy) if s.id not in used]
    with pytest.raises(LeakageError, match="support patient"):
        check_leakage(support, others, layout="bus_uclm")


def test_same_patient_name_in_unrelated_folders_is_only_logged(synthetic_dir, tmp_path, caplog):
    support = draw_support(synthetic_dir, shots=1)
    other = helpers.write_synthetic(tmp_path)
    samples = sources.scan(other)
    for n, s in enumerate(samples):  # other pictures
        helpers.save(s.image, helpers.picture(500 + n, lesion=False)[0])
    check_leakage(support, samples, layout="synthetic")
    assert "both have patient(s) called p0000" in caplog.text


def test_dicom_patients_are_the_same_everywhere(tmp_path):
    for n, name in enumerate(("normal", "cyst")):
        helpers.write_dicom(tmp_path / "a" / name / "x.dcm", patient=name, seed=n)
        helpers.write_dicom(tmp_path / "b" / name / "x.dcm", patient=name * (n + 1), seed=10 + n)
    support = draw_support(tmp_path / "a", shots=1)
    with pytest.raises(LeakageError, match=r"1 support patient\(s\): dicom:"):
        check_leakage(support, sources.scan(tmp_path / "b"))


def test_fingerprints_replace_the_images(busi_dir):
    support = draw_support(busi_dir, shots=1)
    prints = fingerprints(support)
    assert [(p.id, p.group, p.sha256, p.source) for p in prints] == [
        (s.id, None, content_hash(s), support.source) for s in support.samples
    ]
    with pytest.raises(LeakageError):
        check_leakage(prints, [replace(support.samples[0], id="renamed")])


def test_without_a_source_only_bytes_and_dicom_patients_count(bus_uclm_dir, monkeypatch):
    prints = [replace(p, source="") for p in fingerprints(draw_support(bus_uclm_dir, shots=1))]
    samples = sources.scan(bus_uclm_dir)
    monkeypatch.chdir(bus_uclm_dir)  # an empty root must not mean the working folder
    assert [s.id for s in leaking(prints, samples)] == sorted(p.id for p in prints)


def test_leaking_splits_what_check_refuses(bus_uclm_dir):
    support = draw_support(bus_uclm_dir, shots=1, per_patient=True)
    samples = sources.scan(bus_uclm_dir)
    bad = leaking(support, samples)
    groups = {s.group for s in support.samples}
    assert bad == [s for s in samples if s.group in groups]
    with pytest.raises(LeakageError):
        check_leakage(support, bad[:1])
    check_leakage(support, [s for s in samples if s not in bad])


def test_unreadable_evaluated_files_are_skipped(busi_dir, tmp_path):
    support = draw_support(busi_dir, shots=1)
    root = helpers.write_folder(tmp_path)
    samples = sources.scan(root)
    samples[0].image.unlink()
    check_leakage(support, samples)
