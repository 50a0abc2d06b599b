from __future__ import annotations

from pathlib import Path

import pytest

from ultraad.data.facts import facts_of, gaps_of
from ultraad.errors import ConfigError, DataError
from ultraad.types import Sample


def images(n: int = 4, **more: object) -> list[Sample]:
    return [Sample(f"scans/{i}.png", Path(f"/data/scans/{i}.png"), **more) for i in range(n)]  # type: ignore[arg-type]


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "facts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_facts_that_samples_carry_are_found_and_unknown_ones_left_out() -> None:
    a, b, c, d = images(device="LOGIQ", site="Lyon")
    some = [a, b, Sample(c.id, c.image), Sample(d.id, d.image, device="Aplio")]
    assert facts_of(some, ["device"]) == {"device": {a.id: "LOGIQ", b.id: "LOGIQ", d.id: "Aplio"}}
    assert facts_of(some, ["Site"]) == {"Site": {a.id: "Lyon", b.id: "Lyon"}}


@pytest.mark.parametrize("cell", ["scans/{}.png", "{}.png", "{}"])
def test_a_table_names_images_by_id_file_name_or_stem(tmp_path: Path, cell: str) -> None:
    rows = "\n".join(f"{cell.format(i)},{'ab'[i % 2]},n/a" for i in range(3))
    path = table(tmp_path, f"file,Probe type,Empty\n{rows}\n")
    assert facts_of(images(), ["probe_type"], table=path) == {
        "probe_type": {"scans/0.png": "a", "scans/1.png": "b", "scans/2.png": "a"}
    }
    with pytest.raises(
        DataError, match=r"'empty' is not known of any of the 4 images\. Known facts: probe-type, empty"
    ):
        facts_of(images(), ["empty"], table=path)


def test_numbers_are_cut_where_the_name_says_or_into_quarters(tmp_path: Path) -> None:
    ages = [20, 39, 40, 59.5, 60, 61, 62, 63, 64, 65, 66, 67]
    path = table(tmp_path, "image,age\n" + "".join(f"{i}.png,{age}\n" for i, age in enumerate(ages)))
    cut = facts_of(images(12), ["age:40:60"], table=path)["age"]
    assert [cut[f"scans/{i}.png"] for i in range(5)] == ["under 40", "under 40", *["40 to under 60"] * 2, "60 or more"]
    quarters = facts_of(images(12), ["age"], table=path)["age"]
    assert len(set(quarters.values())) == 4
    assert all(list(quarters.values()).count(part) == 3 for part in quarters.values())


def test_age_and_sex_come_from_dicom_headers(tmp_path: Path) -> None:
    from pydicom import examples

    found = []
    for i, (age, sex) in enumerate((("045Y", "F"), ("018M", "F"), ("", ""))):
        ds = examples.us if hasattr(examples, "us") else examples.ct
        ds.PatientAge, ds.PatientSex = age, sex
        ds.save_as(tmp_path / f"{i}.dcm")
        found.append(Sample(f"{i}.dcm", tmp_path / f"{i}.dcm"))
    assert facts_of(found, ["patient-age", "patient-sex"]) == {
        "patient-age": {"0.dcm": "45", "1.dcm": "1.5"},
        "patient-sex": {"0.dcm": "F", "1.dcm": "F"},
    }


@pytest.mark.parametrize(
    ("text", "by", "says"),
    [
        ("image,x\n0.png,a\n0.png,b\n", "x", "0.png in more than one row; wanted one row for each image"),
        ("image,x\nother.png,a\n", "x", "names none of the 4 images. It has other.png; wanted ids or file names"),
        ("image,x\n0.png,a\n", "y", "Known facts: x"),
        ("image,x\n0.png,a\n1.png,2\n", "x:1", "it has a; wanted numbers"),
        ("image,x\n0.png,1\n1.png,2\n", "x:5:3", "the cut points are 5, 3; wanted numbers, and rising cut points"),
    ],
)
def test_a_table_that_does_not_fit_says_what_is_wanted(tmp_path: Path, text: str, by: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        facts_of(images(), [by], table=table(tmp_path, text))
    assert says in str(caught.value)


def test_rows_and_images_without_each_other_are_said(tmp_path: Path) -> None:
    path = table(tmp_path, "image,x\n0.png,a\n1,b\nscans/2.png,c\nnew.png,d\n")
    whole = images()
    idle = "the table facts.csv has 1 row(s) that name no image: new.png"
    assert gaps_of(path, whole, whole=whole) == (idle, "the table facts.csv has no row for 1 image(s): scans/3.png")
    assert gaps_of(path, whole[:1], whole=whole) == (idle,)
    (more,) = gaps_of(path, whole[:1], whole=whole[:1])
    assert more == "the table facts.csv has 3 row(s) that name no image: 1, scans/2.png, new.png"
    assert gaps_of(table(tmp_path, "image,x\n0,a\n1,b\n2,c\n3,d\n"), whole, whole=whole) == ()


def test_a_table_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no fact to compare; name columns of it with by= \(--by\)"):
        facts_of(images(), [], table=table(tmp_path, "image,x\n0.png,a\n"))


def test_a_fact_with_a_value_for_each_image_is_refused() -> None:
    some = [Sample(s.id, s.image, site=f"site {i}") for i, s in enumerate(images(61))]
    with pytest.raises(DataError, match="'site' has 61 different values; wanted at most 60"):
        facts_of(some, ["site"])
