"""Tables: one content, written as HTML (by the template), Markdown, LaTeX and CSV.

What is missing is a dash with its reason as a footnote, in every form; never 0.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from itertools import groupby
from string import ascii_lowercase
from typing import TYPE_CHECKING

from ultraad.report.run.numbers import DASH

if TYPE_CHECKING:
    from collections.abc import Sequence

BETTER, WORSE = "better", "worse"
_ARROWS = {BETTER: "\N{BLACK UP-POINTING TRIANGLE}", WORSE: "\N{BLACK DOWN-POINTING TRIANGLE}"}
_LATEX_ARROWS = {BETTER: r"$\blacktriangle$", WORSE: r"$\blacktriangledown$"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in one place of a table.

    Attributes:
        text: What is read there; a dash if there is nothing.
        value: The number behind it, for sorting and CSV; None if there is none.
        spread: Behind a plus-minus sign; empty for none.
        mark: ``"better"`` or ``"worse"`` than the reference row; empty if neither is shown.
        best: The best of its column.
        detail: More of it: the interval.
        reason: Why it is missing, or what must be known: a footnote.
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
        """The mark as a sign."""
        return _ARROWS.get(self.mark, "")


@dataclass(frozen=True, slots=True)
class Line:
    """One row: the name in front, and as many entries as the table has columns.

    Attributes:
        name: Of the row.
        entries: Left to right.
        kind: ``"reference"``, ``"paper"`` (a printed row, not one of ours), or nothing.
    """

    name: str
    entries: tuple[Entry, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: Of its file.
        title: Above it.
        about: What is shown and how, a sentence or two.
        stub: Head of the first column.
        heads: One tuple for each column, from the outermost head to the innermost; all of one length.
        lines: Rows.
        notes: Sentences below it.
    """

    name: str
    title: str
    about: str
    stub: str
    heads: tuple[tuple[str, ...], ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    letters: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for line in self.lines:
            assert len(line.entries) == len(self.heads), self.name
            for entry in line.entries:
                if entry.reason is not None and entry.reason not in self.letters:
                    self.letters[entry.reason] = _letter(len(self.letters))

    def head_rows(self) -> list[list[tuple[str, int]]]:
        """Rows of heads from the outermost to the innermost; equal neighbours are one head: (text, columns)."""
        depth = len(self.heads[0]) if self.heads else 0
        return [
            [(path[-1], len(list(same))) for path, same in groupby(h[: level + 1] for h in self.heads)]
            for level in range(depth)
        ]

    @property
    def marked(self) -> bool:
        """Whether any entry is marked better or worse."""
        return any(e.mark for line in self.lines for e in line.entries)

    def footnotes(self) -> list[tuple[str, str]]:
        """(letter, reason)."""
        return [(letter, reason) for reason, letter in self.letters.items()]


def markdown(table: Table) -> str:
    """GitHub's Markdown; the heads of a column are joined."""
    heads = [", ".join(h) for h in table.heads]
    rows = [[table.stub, *heads], ["---", *["---:"] * len(heads)]]
    for line in table.lines:
        name = f"*{_plain(line.name)}*" if line.kind == "paper" else _plain(line.name)
        rows.append([name, *(_markdown(e, table) for e in line.entries)])
    body = "\n".join("| " + " | ".join(r) + " |" for r in [[_plain(h) for h in rows[0]], *rows[1:]])
    below = [f"<sup>{letter}</sup> {_plain(reason)}" for letter, reason in table.footnotes()]
    return "\n\n".join([f"## {table.title}", table.about, body, *below, *table.notes]) + "\n"


def latex(table: Table) -> str:
    """A floating table with the rules of booktabs; the triangles need amssymb."""
    columns = len(table.heads)
    out = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(table.title)}. {_tex(table.about)}}}"]
    out += [rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{l{'r' * columns}}}", r"\toprule"]
    rows = table.head_rows()
    for level, heads in enumerate(rows):
        last = level == len(rows) - 1
        cells = [_tex(h) if n == 1 and last else rf"\multicolumn{{{n}}}{{c}}{{{_tex(h)}}}" for h, n in heads]
        out.append(" & ".join([_tex(table.stub) if last else "", *cells]) + r" \\")
        if not last:
            out.append(" ".join(_rules([n for _, n in heads])))
    out.append(r"\midrule")
    for line in table.lines:
        name = rf"\textit{{{_tex(line.name)}}}" if line.kind == "paper" else _tex(line.name)
        out.append(" & ".join([name, *(_latex(e, table) for e in line.entries)]) + r" \\")
    out += [r"\bottomrule", r"\end{tabular}"]
    below = [rf"\textsuperscript{{{letter}}} {_tex(reason)}" for letter, reason in table.footnotes()]
    below += [_tex(note) for note in table.notes]
    out += [r"\par\smallskip\footnotesize", r"\\ ".join(below)] if below else []
    return "\n".join([*out, r"\end{table}"]) + "\n"


def csv_text(table: Table) -> str:
    """One line for each row; what is missing is empty, its reason and the spread stand in columns of their own."""
    spread = [any(line.entries[i].spread for line in table.lines) for i in range(len(table.heads))]
    names = [", ".join(h) for h in table.heads]
    buffer = io.StringIO()
    out = csv.writer(buffer, lineterminator="\n")
    extra = [[*([f"{n}, spread"] if s else []), f"{n}, remark"] for n, s in zip(names, spread, strict=True)]
    out.writerow([table.stub, *(x for n, more in zip(names, extra, strict=True) for x in (n, *more))])
    for line in table.lines:
        cells: list[str] = []
        for entry, wide in zip(line.entries, spread, strict=True):
            cells.append("" if entry.text == DASH else entry.text)
            if wide:
                cells.append(entry.spread)
            cells.append("; ".join(filter(None, (entry.mark, entry.detail, entry.reason))))
        out.writerow([line.name, *cells])
    return buffer.getvalue()


def rank_best(values: Sequence[float | None], *, higher_is_better: bool) -> list[bool]:
    """Which of a column's numbers are the best; equal ones all are, and none if there is nothing to compare."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return [False] * len(values)
    top = max(known) if higher_is_better else min(known)
    return [v == top for v in values]


# --- pieces ----------------------------------------------------------------------------------------------------------


def _letter(n: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    return (_letter(n // 26 - 1) if n >= 26 else "") + ascii_lowercase[n % 26]


def _markdown(e: Entry, table: Table) -> str:
    text = f"**{_plain(e.text)}**" if e.best else _plain(e.text)
    spread = f" ± {e.spread}" if e.spread else ""
    note = f" <sup>{table.letters[e.reason]}</sup>" if e.reason is not None else ""
    return f"{text}{spread}{' ' + e.arrow if e.mark else ''}{note}"


def _latex(e: Entry, table: Table) -> str:
    text = rf"\textbf{{{_tex(e.text)}}}" if e.best else _tex(e.text)
    spread = rf" {{\scriptsize$\pm$ {e.spread}}}" if e.spread else ""
    note = rf"\textsuperscript{{{table.letters[e.reason]}}}" if e.reason is not None else ""
    return f"{text}{spread}{' ' + _LATEX_ARROWS[e.mark] if e.mark else ''}{note}"


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
