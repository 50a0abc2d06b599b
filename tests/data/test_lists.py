from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from ultraad.data.lists import parts_of
from ultraad.errors import DataError


def written(tmp_path: Path, name: str, names: list[str]) -> Path:
    path = tmp_path / name
    if path.suffix == ".parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"patient": ["p"] * len(names), "image": names}), path)
    elif path.suffix == ".txt":
        path.write_text("\n".join(names) + "\n\n", encoding="utf-8")
    else:
        cut = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(f"p{cut}{n}\n" for n in ["image", *names]), encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.parquet"])
def test_a_list_comes_in_parts_with_paths_beside_it(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, ["a b.png", "../c.png", "/d/e.dcm"])
    here = tmp_path.as_posix()
    assert list(parts_of(path, 2)) == [(f"{here}/a b.png", f"{tmp_path.parent.as_posix()}/c.png"), ("/d/e.dcm",)]


def test_the_first_part_is_there_before_the_last_line_is_read(tmp_path: Path) -> None:
    """A damaged end of a long list does not matter for its beginning: nothing is read ahead by more than a block."""
    path = tmp_path / "long.csv"
    path.write_bytes(b"image\n" + b"".join(b"%06d.png\n" % i for i in range(60_000)) + b"\xff\xfe\n")
    parts = parts_of(path, 100)
    assert all(len(part) == 100 for part in islice(parts, 500))
    with pytest.raises(DataError, match="cannot read the list"):
        list(parts)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "file\nx.png\n", "has no column 'image'; found file"),
        ("a.txt", "\n\n", "names no image; wanted one path a line"),
        ("gone.txt", None, "cannot read the list"),
        ("a.parquet", "no parquet", "cannot read the list"),
    ],
)
def test_a_list_that_cannot_be_used_says_why(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(parts_of(tmp_path / name, 2))
    assert says in str(caught.value)
