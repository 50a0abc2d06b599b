"""Tables as Excel, pandas, R and people write them are read; one bad row costs itself only, and is named."""

from __future__ import annotations

import csv
import io
import sys

import openpyxl
import pytest

from tests import helpers
from ultraad.data import sources
from ultraad.errors import DataError

HEADER = ["image", "mask", "label", "patient"]
ROWS = [[f"scans/{n}.png", "", ("normal", "benign")[n % 2], f"p{n}"] for n in range(4)]


@pytest.fixture
def root(tmp_path):
    for n in range(4):
        image, mask = helpers.picture(n, lesion=n % 2 == 1)
        helpers.save(tmp_path / "scans" / f"{n}.png", image)
        helpers.save(tmp_path / "truth" / f"{n}.png", mask)
    return tmp_path


def write(root, rows, *, separator=",", encoding="utf-8", before="", after="", name="samples.csv", **options):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, **{"lineterminator": "\n", **options}).writerows(rows)
    (root / name).write_bytes((before + text.getvalue() + after).encode(encoding))
    return root / name


def facts(samples):
    return [(s.image.name, s.image.is_file(), s.label, s.group, len(s.masks)) for s in samples]


GOOD = [(f"{n}.png", True, ("normal", "benign")[n % 2], f"p{n}", 0) for n in range(4)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_every_usual_separator_and_encoding(root, separator, encoding):
    write(root, [HEADER, *ROWS], separator=separator, encoding=encoding)
    assert facts(sources.scan(root)) == GOOD


@pytest.mark.parametrize(
    "options",
    [
        {"after": ",,,\n,,,\n\n"},
        {"before": "\n,,\n"},
        {"before": "sep=;\n", "separator": ";"},
        {"quoting": csv.QUOTE_ALL},
        {"lineterminator": "\r\n"},
        {"lineterminator": "\r"},
        {"name": "samples.tsv", "separator": "\t"},
    ],
    ids=str,
)
def test_what_spreadsheets_add(root, options, caplog):
    write(root, [HEADER, *ROWS], **options)
    assert facts(sources.scan(root)) == GOOD
    assert not [r for r in caplog.records if not r.name.endswith("._base")]  # which counts files that no row names


def test_a_separator_inside_cells_does_not_win(root):
    write(root, [["image", "label;kind;size;side", "patient"], *([r[0], "a;b;c;d", r[3]] for r in ROWS)])
    assert [s.group for s in sources.scan(root)] == ["p0", "p1", "p2", "p3"]


def test_letters_of_windows_are_read_with_a_warning(root, caplog):
    write(root, [HEADER, *([r[0], "", r[2].replace("benign", "bénin"), r[3]] for r in ROWS)], encoding="cp1252")
    assert {s.label for s in sources.scan(root)} == {"normal", "bénin"}
    assert "was read as Windows-1252" in caplog.text


@pytest.mark.parametrize(
    "shown", ["scans\\{}.png", "C:\\study\\scans\\{}.png", "/elsewhere/scans/{}.png", "run/scans/{}.png"]
)
def test_paths_of_another_machine(root, shown, caplog):
    write(root, [HEADER, *([shown.format(n), f"truth\\{n}.png", *row[2:]] for n, row in enumerate(ROWS))])
    assert facts(sources.scan(root)) == [(*row[:4], 1) for row in GOOD]
    assert ("4 path(s) of another machine" in caplog.text) == (not shown.startswith("scans"))


@pytest.mark.parametrize(
    ("on_disk", "shown"),
    [
        ("scans/{}.png", "Scans/{}.PNG"),
        ("scans/{}.PNG", "D:\\work\\SCANS\\{}.png"),
        ("scans/e\u0301{}.png", "scans/\u00e9{}.png"),
        ("scans/\u00e9{}.png", "scans/E\u0301{}.png"),
    ],
)
def test_names_that_are_spelt_differently_on_the_disk(root, on_disk, shown, caplog):
    for n in range(4):
        (root / "scans" / f"{n}.png").rename(root / on_disk.format(n))
    write(root, [HEADER, *([shown.format(n), "", *row[2:]] for n, row in enumerate(ROWS))])
    found = sources.scan(root)
    assert [s.image for s in found] == [root / on_disk.format(n) for n in range(4)]
    assert "4 path(s) of another machine were found by their last parts or another spelling" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="one file for two spellings there")
def test_a_name_that_could_mean_two_files_means_none(root, caplog):
    for name in ("a.png", "A.png"):
        (root / "scans" / "0.png").with_name(name).write_bytes((root / "scans" / "0.png").read_bytes())
    write(root, [["image", "patient"], ["scans/a.png", "p0"], ["scans/a.PNG", "p1"]])
    assert {s.group: s.image.is_file() for s in sources.scan(root)} == {"p0": True, "p1": False}


def test_classes_whose_accents_are_stored_differently_are_one(root):
    names = ["normal", "b\u00e9nin", "normal", "be\u0301nin"]
    write(root, [HEADER, *([row[0], "", name, row[3]] for row, name in zip(ROWS, names, strict=True))])
    assert len({s.label for s in sources.scan(root)}) == 2


def test_zero_bytes_cost_their_row_only(root, caplog):
    write(root, [HEADER, *ROWS])
    table = root / "samples.csv"
    table.write_bytes(table.read_bytes().replace(b"p1", b"p\0\0"))
    assert [s.group for s in sources.scan(root)] == ["p0", "p2", "p3"]
    assert "row 3: it contains zero bytes" in caplog.text


def test_two_paths_are_never_taken_for_one_file(root, caplog):
    write(root, [["image", "patient"], ["/a/scans/0.png", "p0"], ["/b/scans/0.png", "p1"], ["scans/1.png", "p2"]])
    assert [s.image.is_file() for s in sources.scan(root)] == [False, False, True]
    assert "2 path(s) could each mean a file that another names: /a/scans/0.png, /b/scans/0.png" in caplog.text


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "NULL", "N/A", "#N/A", "<NA>", "-"])
@pytest.mark.parametrize("column", ["mask", "label", "patient"])
def test_words_for_nothing_count_as_empty(root, word, column, caplog):
    place = HEADER.index(column)
    write(root, [HEADER, *([*row[:place], word, *row[place + 1 :]] for row in ROWS)])
    (column_as_read,) = {
        tuple(getattr(s, {"mask": "masks", "patient": "group"}.get(column, column)) or ()) for s in sources.scan(root)
    }
    assert column_as_read == ()
    assert f"4 cell(s) count as empty: row 2, {column}: {word!r}" in caplog.text


def test_classes_that_differ_in_case_and_spaces_are_one(root, caplog):
    names = ["Normal", "benign ", "normal", "BENIGN"]
    write(root, [HEADER, *([row[0], "", name, row[3]] for row, name in zip(ROWS, names, strict=True))])
    assert [s.label for s in sources.scan(root)] == ["normal", "benign"] * 2
    assert "'Normal', 'normal' are 'normal'" in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("scans/9.png,,benign,p9,more", "row 3: more cells than the header (4), the first is 'more'"),
        (",,benign,p9", "row 3: the cell 'image' is empty"),
        ('scans/9.png,"benign,p9', "row 3: a quote is misplaced in 'scans/9.png,\"benign,p9'"),
        ("scans/0.png,,normal,p0", "row 3: the image 'scans/0.png' is listed more than once, first in row 2"),
        (
            "scans/0.png,,benign,p0",
            "row 3: label is 'benign', but row 2 says 'normal' for the same image 'scans/0.png'",
        ),
        ("scans/0.png,,normal,p1", "row 3: patient is 'p1', but row 2 says 'p0' for the same image 'scans/0.png'"),
    ],
)
def test_one_bad_row_costs_itself_only(root, row, message, caplog):
    lines = [",".join(r) for r in (HEADER, *ROWS)]
    helpers.write_table(root / "samples.csv", lines[0], [lines[1], row, *lines[2:]])
    assert facts(sources.scan(root)) == GOOD
    assert "1 row(s) not used" in caplog.text
    assert message in caplog.text


def test_a_bad_frame_costs_its_row_only(root, caplog):
    helpers.write_table(root / "samples.csv", "image,frame", ["scans/0.png,0", "scans/1.png,first", "scans/2.png,²"])
    assert [s.image.name for s in sources.scan(root)] == ["0.png"]
    assert "2 row(s) not used: row 3: frame is 'first'" in caplog.text


def test_many_bad_rows_are_counted_and_the_first_named(root, caplog):
    helpers.write_table(
        root / "samples.csv", "image,frame", ["scans/0.png,0", *(f"scans/1.png,x{n}" for n in range(99))]
    )
    assert len(sources.scan(root)) == 1
    assert "99 row(s) not used" in caplog.text
    assert "and 94 more" in caplog.text


def test_one_row_for_each_lesion(root):
    write(root, [HEADER, *(["scans/1.png", f"truth/{n}.png", "benign", "p1"] for n in (1, 2))])
    (sample,) = sources.scan(root)
    assert [m.name for m in sample.masks] == ["1.png", "2.png"]


def test_a_cell_with_a_line_break(root):
    write(root, [[*HEADER, "remark"], *([*row, 'two\nlines, "quoted"'] for row in ROWS)])
    assert facts(sources.scan(root)) == GOOD


def test_a_sheet(root):
    book = openpyxl.Workbook()
    book.create_sheet("second").append(["not", "this"])
    for row in ([], HEADER, *ROWS, [None] * 4):
        book.active.append([cell or None for cell in row])
    book.active.append(["scans/3.png", None, "benign", "p3"])
    book.save(root / "samples.xlsx")
    assert facts(sources.scan(root)) == GOOD
    assert sources.scan(root / "samples.xlsx") == sources.scan(root)


def test_numbers_in_a_sheet_are_written_as_excel_shows_them(root):
    book = openpyxl.Workbook()
    for row in (["image", "patient", "frame"], ["scans/0.png", 7.0, 0], ["scans/1.png", 12, None]):
        book.active.append(row)
    book.save(root / "samples.xlsx")
    assert [s.group for s in sources.scan(root)] == ["7", "12"]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut off", b"image\nscans/0.png\n"])
def test_a_damaged_sheet_is_one_short_error(root, data):
    (root / "samples.xlsx").write_bytes(data)
    with pytest.raises(DataError, match=r"cannot read the sheet .*samples\.xlsx"):
        sources.scan(root)


def test_an_old_sheet_says_what_to_save(root):
    (root / "samples.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(DataError, match=r"wanted \.xlsx or \.csv"):
        sources.scan(root / "samples.xls")


def test_a_column_twice_is_a_question(root):
    helpers.write_table(root / "samples.csv", "image,label,label", ["scans/0.png,normal,benign"])
    with pytest.raises(DataError, match="two columns 'label'"):
        sources.scan(root)
