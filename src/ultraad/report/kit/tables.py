"""Tables: one content, written as HTML (by the page's template), Markdown, LaTeX and CSV.

A missing number is a dash with its reason as a footnote, in every format; never 0.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from string import ascii_lowercase

from ultraad.report.kit.words import DASH

BETTER, WORSE = "better", "worse"
_ARROWS = {BETTER: "\N{BLACK UP-POINTING TRIANGLE}", WORSE: "\N{BLACK DOWN-POINTING TRIANGLE}"}
_LATEX_ARROWS = {BETTER: r"$\blacktriangle$", WORSE: r"$\blacktriangledown$"}


@dataclass(frozen=True, slots=True)
class TableCell:
    """One cell of a table.

    Attributes:
        text: What is printed; a dash if there is nothing.
        value: The number behind the text, for sorting; None if there is none.
        spread: Printed after a plus-minus sign; empty for none.
        mark: ``"better"`` or ``"worse"`` than the reference row; empty if neither is shown.
        best: Whether it is the best of its column.
        detail: The interval, shown as a tooltip.
        reason: A footnote: why the number is missing, or what limits it.
    """

    text: str = DASH
    value: float | None = None
    spread: str = ""
    mark: str = ""
    best: bool = False
    detail: str = ""
    reason: str | None = None

    @property
    def arrow(self) -> str:
        """The mark as a triangle."""
        return _ARROWS.get(self.mark, "")


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        name: Its first column.
        cells: The other columns, left to right.
        kind: ``"reference"``, ``"paper"`` (numbers printed in a paper, not measured here), or nothing.
    """

    name: str
    cells: tuple[TableCell, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: Stem of its file.
        title: Printed above it.
        about: What is shown and how, in a sentence or two.
        stub: Head of the first column.
        heads: For each other column, its heads from the outermost to the innermost; all of one length.
        rows: Top to bottom.
        notes: Sentences below it.
    """

    name: str
    title: str
    about: str
    stub: str
    heads: tuple[tuple[str, ...], ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    letters: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row.cells) == len(self.heads), self.name
            for cell in row.cells:
                if cell.reason is not None and cell.reason not in self.letters:
                    self.letters[cell.reason] = _letter(len(self.letters))

    def head_rows(self) -> list[list[tuple[str, int]]]:
        """Rows of heads as (text, columns), outermost first; equal neighbours are merged."""
        depth = len(self.heads[0]) if self.heads else 0
        return [
            [(path[-1], len(list(same))) for path, same in groupby(h[: level + 1] for h in self.heads)]
            for level in range(depth)
        ]

    @property
    def marked(self) -> bool:
        """Whether any cell is marked better or worse."""
        return any(c.mark for row in self.rows for c in row.cells)

    def footnotes(self) -> list[tuple[str, str]]:
        """(letter, reason)."""
        return [(letter, reason) for reason, letter in self.letters.items()]


@dataclass(frozen=True, slots=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        classes: Heads of the columns: most probable classes.
        rows: (true class, [(images, share of the row, whether the class is right)], images of the row).
    """

    classes: tuple[str, ...]
    rows: list[tuple[str, list[tuple[float, float, bool]], float]]


def confusion(classes: Sequence[str], matrix: Sequence[Sequence[float]]) -> Confusion | None:
    """Counts with their share of the true class; None without a graded image."""
    if not any(map(sum, matrix)):
        return None
    rows = [
        (name, [(n, n / max(1, sum(counts)), i == j) for j, n in enumerate(counts)], sum(counts))
        for i, (name, counts) in enumerate(zip(classes, matrix, strict=True))
    ]
    return Confusion(tuple(classes), rows)


def markdown(table: Table) -> str:
    """GitHub's Markdown; the heads of a column are joined."""
    heads = [", ".join(h) for h in table.heads]
    lines = [[_plain(h) for h in (table.stub, *heads)], ["---", *["---:"] * len(heads)]]
    for row in table.rows:
        name = f"*{_plain(row.name)}*" if row.kind == "paper" else _plain(row.name)
        lines.append([name, *(_markdown(c, table) for c in row.cells)])
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    below = [f"<sup>{letter}</sup> {_plain(reason)}" for letter, reason in table.footnotes()]
    return "\n\n".join([f"## {table.title}", table.about, body, *below, *table.notes]) + "\n"


def latex(table: Table) -> str:
    """A floating table with the rules of booktabs; the triangles need amssymb."""
    out = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(table.title)}. {_tex(table.about)}}}"]
    out += [rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{l{'r' * len(table.heads)}}}", r"\toprule"]
    levels = table.head_rows()
    for level, heads in enumerate(levels):
        last = level == len(levels) - 1
        texts = [_tex(h) if n == 1 and last else rf"\multicolumn{{{n}}}{{c}}{{{_tex(h)}}}" for h, n in heads]
        out.append(" & ".join([_tex(table.stub) if last else "", *texts]) + r" \\")
        if not last:
            out.append(" ".join(_rules([n for _, n in heads])))
    out.append(r"\midrule")
    for row in table.rows:
        name = rf"\textit{{{_tex(row.name)}}}" if row.kind == "paper" else _tex(row.name)
        out.append(" & ".join([name, *(_latex(c, table) for c in row.cells)]) + r" \\")
    out += [r"\bottomrule", r"\end{tabular}"]
    below = [rf"\textsuperscript{{{letter}}} {_tex(reason)}" for letter, reason in table.footnotes()]
    below += [_tex(note) for note in table.notes]
    out += [r"\par\smallskip\footnotesize", r"\\ ".join(below)] if below else []
    return "\n".join([*out, r"\end{table}"]) + "\n"


def csv_text(table: Table) -> str:
    """Comma-separated values; a missing number is empty, and spreads and remarks have columns of their own."""
    spread = [any(row.cells[i].spread for row in table.rows) for i in range(len(table.heads))]
    names = [", ".join(h) for h in table.heads]
    buffer = io.StringIO()
    out = csv.writer(buffer, lineterminator="\n")
    extra = [[*([f"{n}, spread"] if s else []), f"{n}, remark"] for n, s in zip(names, spread, strict=True)]
    out.writerow([table.stub, *(x for n, more in zip(names, extra, strict=True) for x in (n, *more))])
    for row in table.rows:
        values: list[str] = []
        for cell, wide in zip(row.cells, spread, strict=True):
            values.append("" if cell.text == DASH else cell.text)
            if wide:
                values.append(cell.spread)
            values.append("; ".join(filter(None, (cell.mark, cell.detail, cell.reason))))
        out.writerow([row.name, *values])
    return buffer.getvalue()


def rank_best(values: Sequence[float | None], *, higher_is_better: bool) -> list[bool]:
    """Which numbers of a column are the best: all equal ones, and none if there is nothing to compare with."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return [False] * len(values)
    top = max(known) if higher_is_better else min(known)
    return [v == top for v in values]


def _letter(n: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    return (_letter(n // 26 - 1) if n >= 26 else "") + ascii_lowercase[n % 26]


def _markdown(c: TableCell, table: Table) -> str:
    text = f"**{_plain(c.text)}**" if c.best else _plain(c.text)
    spread = f" ± {c.spread}" if c.spread else ""
    note = f" <sup>{table.letters[c.reason]}</sup>" if c.reason is not None else ""
    return f"{text}{spread}{' ' + c.arrow if c.mark else ''}{note}"


def _latex(c: TableCell, table: Table) -> str:
    text = rf"\textbf{{{_tex(c.text)}}}" if c.best else _tex(c.text)
    spread = rf" {{\scriptsize$\pm$ {c.spread}}}" if c.spread else ""
    note = rf"\textsuperscript{{{table.letters[c.reason]}}}" if c.reason is not None else ""
    return f"{text}{spread}{' ' + _LATEX_ARROWS[c.mark] if c.mark else ''}{note}"


def _rules(widths: Sequence[int]) -> list[str]:
    rules, start = [], 2
    for width in widths:
        rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    return rules


def _plain(text: str) -> str:
    """Text that is not taken for Markdown."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text.replace("\n", " "))


_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", DASH: "--", "\N{MINUS SIGN}": "$-$", "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "±": r"$\pm$", "≥": r"$\geq$", **{c: rf"\{c}" for c in "&%$#_{}"},
    **{_ARROWS[k]: v for k, v in _LATEX_ARROWS.items()},
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text.replace("\n", " "))
