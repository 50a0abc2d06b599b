"""One table in four forms."""

from __future__ import annotations

import csv
import io
import re

from ultraad.report.kit.tables import Table, TableCell, TableRow, csv_text, latex, markdown, rank_best
from ultraad.report.kit.words import DASH

NO_MAP, OTHER = TableCell(reason="no | map <x>"), TableCell(reason="other")
TABLE = Table(
    name="small",
    title="Small & odd",
    about="In %.",
    stub="Method",
    heads=(("A", "4 shots", "x"), ("A", "4 shots", "y"), ("B", "4 shots", "x")),
    rows=(
        TableRow(
            "first_one",
            (TableCell("87.0", 0.87, spread="0.4", mark="better", best=True), TableCell("1.0", 0.01), NO_MAP),
        ),
        TableRow("second", (TableCell("80.0", 0.8, mark="worse", detail="95 %: 1 to 2"), OTHER, NO_MAP), "reference"),
        TableRow("first_one (paper)", (TableCell("86.0", 0.86), OTHER, OTHER), "paper"),
    ),
    notes=("A note.",),
)


def test_equal_reasons_share_a_letter() -> None:
    assert TABLE.footnotes() == [("a", "no | map <x>"), ("b", "other")]
    many = Table("m", "m", "", "", (("h",),), tuple(TableRow(str(i), (TableCell(reason=str(i)),)) for i in range(30)))
    assert [letter for letter, _ in many.footnotes()][24:29] == ["y", "z", "aa", "ab", "ac"]


def test_heads_are_joined_where_they_are_equal() -> None:
    assert TABLE.head_rows() == [[("A", 2), ("B", 1)], [("4 shots", 2), ("4 shots", 1)], [("x", 1), ("y", 1), ("x", 1)]]


def test_markdown() -> None:
    text = markdown(TABLE)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert rows[0] == "| Method | A, 4 shots, x | A, 4 shots, y | B, 4 shots, x |"
    assert rows[2] == rf"| first\_one | **87.0** ± 0.4 ▲ | 1.0 | {DASH} <sup>a</sup> |"
    assert rows[4].startswith(r"| *first\_one (paper)* |")
    assert r"<sup>a</sup> no \| map \<x\>" in text
    assert text.endswith("A note.\n")


def test_latex_is_balanced_and_escaped() -> None:
    text = latex(TABLE)
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in body} == {3}
    assert all(row.endswith(r"\\") for row in body)
    assert r"\begin{tabular}{lrrr}" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in text
    assert (
        r"first\_one & \textbf{87.0} {\scriptsize$\pm$ 0.4} $\blacktriangle$ & 1.0 & --\textsuperscript{a} \\" in text
    )
    assert r"\caption{Small \& odd. In \%.}" in text
    assert "no | map \\textless{}x\\textgreater{}" in text
    assert text.count("{") == text.count("}")


def test_csv_leaves_missing_values_empty() -> None:
    head, first, second, _ = csv.reader(io.StringIO(csv_text(TABLE)))
    found = [dict(zip(head, row, strict=True)) for row in (first, second)]
    assert found[0]["A, 4 shots, x"] == "87.0"
    assert found[0]["A, 4 shots, x, spread"] == "0.4"
    assert found[0]["A, 4 shots, x, remark"] == "better"
    assert found[1]["A, 4 shots, x, remark"] == "worse; 95 %: 1 to 2"
    assert found[0]["B, 4 shots, x"] == ""
    assert found[0]["B, 4 shots, x, remark"] == "no | map <x>"


def test_best_of_a_column() -> None:
    assert rank_best([0.1, None, 0.3, 0.3], higher_is_better=True) == [False, False, True, True]
    assert rank_best([0.1, None, 0.3], higher_is_better=False) == [True, False, False]
    assert rank_best([0.1, None], higher_is_better=True) == [False, False]
