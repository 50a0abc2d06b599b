"""Tables as other programs write them: any usual separator and encoding, sheets of Excel, cells that mean "nothing"."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultraad.config import shortened
from ultraad.data.sources._names import Spellings, shorter_names, spelling
from ultraad.errors import Caught, DataError, MissingExtraError, first_names, one_line
from ultraad.io.find import is_file
from ultraad.registry import did_you_mean

_log = logging.getLogger(__name__)

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".xlsx", ".xlsm", ".xls", ".ods"})  # the last two are refused with advice
_SHEETS = frozenset({".xlsx", ".xlsm", ".xls", ".ods"})
_SEPARATORS = ",;\t|"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with the same bytes
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Cells that pandas, R, Excel and people write where they know nothing.
_NOTHING = frozenset({"", "nan", "none", "null", "nil", "nat", "na", "n/a", "#n/a", "#null!", "<na>", "-", "--", "?"})
VIA_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
_MAX_BYTES = 1 << 29  # of a table; beyond the largest sheet of Excel
_MAX_LINES = 20  # of one row
_SHOWN = 5  # faults named in a warning
_LONGEST = 500  # characters of one fault, which may quote a damaged value


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its number in the file, as an editor or Excel shows it, and its cells by column."""

    number: int
    cells: dict[str, str]


@dataclass(slots=True)
class Faults:
    """The entries of one file that could not be used as written: collected, then named in one warning.

    Attributes:
        file: The table or annotation file.
        what: What an entry is called, ``"row"`` or ``"annotation"``.
    """

    file: Path
    what: str = "row"
    found: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Note one entry that is not used."""
        self.found.append(shortened(message, _LONGEST))

    def report(self) -> None:
        """Log a warning with the number of entries and the first few."""
        if self.found:
            _log.warning("%s: %d %s(s) not used: %s", self.file, len(self.found), self.what, self.text())

    def text(self) -> str:
        """The first few messages."""
        more = f"; and {len(self.found) - _SHOWN} more" if len(self.found) > _SHOWN else ""
        return "; ".join(self.found[:_SHOWN]) + more


def is_via_table(path: Path) -> bool:
    """Whether a CSV file is an export of the VGG Image Annotator, judged by its header."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError:
        return False
    return all(column.encode() in head.partition(b"\n")[0] for column in VIA_COLUMNS) or is_via3_head(head)


def is_via3_head(head: bytes) -> bool:
    """Whether a CSV file that begins like this is an export of version 3 of the VGG Image Annotator."""
    return head.lstrip(b"\xef\xbb\xbf").startswith(b"#") and b"CSV_HEADER" in head and b"spatial_coordinates" in head


def is_nothing(cell: str) -> bool:
    """True for an empty cell and for what programs write instead of one: ``nan``, ``None``, ``N/A``, ``-`` ..."""
    return cell.strip().casefold() in _NOTHING


def merge_spellings(labels: Iterable[str], file: Path) -> dict[str, str]:
    """{class as written: class}: names that differ only in case and spaces are one class, in the most common spelling.

    So are names whose accents are stored differently, which look the same. Logs a warning if any were merged.
    """
    counts: dict[str, dict[str, int]] = {}
    for label in labels:
        spellings = counts.setdefault(" ".join(spelling(label).split()), {})
        spellings[label] = spellings.get(label, 0) + 1
    best = {key: max(s, key=lambda name: (s[name], name.islower())).strip() for key, s in counts.items()}
    merged = [f"{', '.join(map(repr, s))} are {best[key]!r}" for key, s in counts.items() if len(s) > 1]
    if merged:
        _log.warning("%s: class names that differ only in case or spaces are one class: %s", file, "; ".join(merged))
    return {name: best[key] for key, s in counts.items() for name in s}


def read_text(path: Path, what: str = "the table", *, zeros: bool = False) -> str:
    """The text of a file in UTF-8, UTF-16, UTF-32 or, if it is none of these, Windows-1252 (with a warning).

    Args:
        path: The file.
        what: What it is, for messages.
        zeros: Leave zero bytes in the text of a file that otherwise is text.

    Raises:
        DataError: If the file cannot be read, is too large, or is not text.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= _MAX_BYTES else b""
    except (OSError, ValueError) as e:
        msg = f"cannot read {what} {path}: {e}"
        raise DataError(msg) from e
    if size > _MAX_BYTES:
        msg = f"cannot read {what} {path}: it has {size} bytes; wanted at most {_MAX_BYTES}"
        raise DataError(msg)
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), None) or _guess(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as e:
        if encoding != "utf-8" or b"\0" in data:
            msg = f"cannot read {what} {path}: it is not text ({e}). Save it as UTF-8"
            raise DataError(msg) from e
        text = data.decode("cp1252", errors="replace")
        _log.warning("%s is not UTF-8 and was read as Windows-1252; save it as UTF-8 if names look wrong", path)
    if "\0" in text and not zeros:
        msg = f"cannot read {what} {path}: it is not text (it contains zero bytes). Save it as UTF-8"
        raise DataError(msg)
    return text


def _guess(data: bytes) -> str:
    """UTF-16 without a mark has a zero byte in every other place of ASCII text; everything else is tried as UTF-8."""
    head = data[:4096]
    if len(head) >= 8 and len(data) % 2 == 0:
        half = len(head) // 2
        if head[1::2].count(0) > 0.7 * half and 0 not in head[::2]:
            return "utf-16-le"
        if head[::2].count(0) > 0.7 * half and 0 not in head[1::2]:
            return "utf-16-be"
    return "utf-8"


def read_rows(path: Path, *, known: Sequence[str] = (), delimiter: str | None = None) -> tuple[list[str], list[Row]]:
    """The header and the rows of a table.

    Args:
        path: A CSV file, separated by comma, semicolon, tab or ``|``, or an ``.xlsx`` sheet.
        known: Columns to expect; they decide which separator fits the header.
        delimiter: The separator; None finds it.

    Returns:
        (columns, rows). Cells are stripped of spaces; empty rows are skipped; a row that does not fit the header is
        named in a warning and skipped.

    Raises:
        DataError: If the file cannot be read as a table.
        MissingExtraError: If an ``.xlsx`` sheet needs openpyxl.
    """
    faults, rows = Faults(path), []
    numbered = number_cells(path, faults, known=known, delimiter=delimiter)
    lines = ((n, [c.strip() for c in cells]) for n, cells in numbered)
    filled = ((n, cells) for n, cells in lines if any(cells))
    _, columns = next(filled, (0, []))
    while columns and not columns[-1]:  # Excel writes the separators of empty columns
        columns.pop()
    for number, cells in filled:
        extra = [c for c in cells[len(columns) :] if c]
        if extra:
            faults.add(
                f"row {number}: more cells than the header ({len(columns)}), the first is {extra[0]!r}; quote cells "
                "that contain the separator"
            )
            continue
        padded = cells + [""] * (len(columns) - len(cells))
        rows.append(Row(number, dict(zip(columns, padded, strict=False))))
    if faults.found and not rows:
        msg = f"{path}, {faults.text()}"
        raise DataError(msg)
    faults.report()
    return columns, rows


def read_table(path: Path, *, required: Sequence[str] = (), delimiter: str | None = None) -> list[dict[str, str]]:
    """Rows of a table with a header line; see :func:`read_rows`.

    Args:
        path: The file.
        required: Columns that must be there.
        delimiter: What separates the cells; None finds it.

    Returns:
        One {column: cell} per row; columns and cells are stripped of spaces.

    Raises:
        DataError: If the file cannot be read as text, a required column is missing (the message names the most similar
            one), or no row fits the header.
    """
    columns, rows = read_rows(path, known=required, delimiter=delimiter)
    for want in required:
        if want not in columns:
            msg = (
                f"{path} has no column {want!r}{did_you_mean(want, columns) or '.'} "
                f"Found: {shortened(', '.join(columns)) or 'nothing'}. Wanted: {', '.join(required)}"
            )
            raise DataError(msg)
    return [row.cells for row in rows]


def number_cells(
    path: Path, faults: Faults, *, known: Sequence[str] = (), delimiter: str | None = None
) -> Iterator[tuple[int, list[str]]]:
    """(row number in the file, cells) of a table, header included; see :func:`read_rows` for arguments and errors.

    Rows that cannot be split into cells are added to ``faults``.
    """
    if path.suffix.lower() in _SHEETS:
        yield from enumerate(_sheet_cells(path, known), start=1)
        return
    lines = io.StringIO(read_text(path, zeros=True), newline="").readlines()  # unlike splitlines, at line ends only
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    if lines and re.fullmatch("sep=.", lines[first].strip(), re.IGNORECASE):  # Excel's own hint
        delimiter = delimiter or lines[first].strip()[4]
        first += 1
    delimiter = delimiter or _separator(lines[first] if first < len(lines) else "", known)
    width = 0
    while first < len(lines):
        cells, count = _record(lines[first : first + _MAX_LINES], delimiter, width)
        if any("\0" in line for line in lines[first : first + count]):  # a part of the file that was lost
            faults.add(f"row {first + 1}: it contains zero bytes")
        elif cells is None:
            faults.add(f"row {first + 1}: a quote is misplaced in {lines[first].strip()[:80]!r}")
        else:
            width = width or len(cells)
            yield first + 1, cells
        first += count


def _record(lines: Sequence[str], delimiter: str, width: int) -> tuple[list[str] | None, int]:
    """(cells, lines used) of the first row; cells are None if its quotes are wrong.

    A quoted cell may contain line breaks. An open quote must not swallow the rows after it, so a row of several lines
    counts only if it has ``width`` cells.
    """
    for count in range(1, len(lines) + 1):
        try:
            cells = next(csv.reader(lines[:count], delimiter=delimiter, strict=True), [])
        except csv.Error as e:
            if "end of data" in str(e):
                continue
            break
        if count == 1 or len(cells) == width:
            return cells, count
        break
    return None, 1


def _separator(header: str, known: Sequence[str]) -> str:
    """The separator that finds most known columns in the header, then most columns; a comma if there is one column."""
    wanted = {name.casefold() for name in known}

    def fit(separator: str) -> tuple[int, int]:
        columns = [c.strip().casefold() for c in next(csv.reader([header], delimiter=separator), [])]
        return len(wanted & set(columns)), len(columns)

    return max(_SEPARATORS, key=fit)  # the first of equals


def _sheet_cells(path: Path, known: Sequence[str]) -> list[list[str]]:
    """The rows of a workbook; see :func:`_fullest`."""
    if path.suffix.lower() in {".xls", ".ods"}:
        msg = f"cannot read {path}: wanted .xlsx or .csv; open it in a spreadsheet program and save it as one of these"
        raise DataError(msg)
    try:
        import openpyxl
    except ImportError as e:
        msg = f'reading {path.name} needs openpyxl: pip install "ultraad[xlsx]", or save the sheet as CSV beside it'
        raise MissingExtraError(msg) from e
    rows: list[list[str]] = []
    with Caught() as caught:  # zip, XML and openpyxl raise almost anything on damaged sheets
        _check_unpacked(path)
        with path.open("rb") as stream:  # openpyxl does not close a file that it cannot read
            with warnings.catch_warnings(record=True):  # about styles and extensions, which do not concern the cells
                book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            rows = _fullest(book.worksheets, known)
    if isinstance(caught.error, DataError):
        raise caught.error
    if caught.error is not None:
        msg = f"cannot read the sheet {path}: {one_line(caught.error)}. Save it again as .xlsx or as CSV in UTF-8"
        raise DataError(msg) from caught.error
    return rows


def _check_unpacked(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MAX_BYTES:
        msg = f"cannot read {path}: unpacked it has {size} bytes; wanted at most {_MAX_BYTES}"
        raise DataError(msg)


def _fullest(sheets: Iterable[Any], known: Sequence[str]) -> list[list[str]]:
    """The rows of the first sheet whose header has a known column; else of the first that has any rows."""
    wanted = {name.casefold() for name in known}
    first: list[list[str]] = []
    for sheet in sheets:
        rows = [[_text(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
        header = next((row for row in rows if any(row)), [])
        if wanted & {cell.strip().casefold() for cell in header}:
            return rows
        first = first or (rows if header else [])
    return first


def _text(cell: object) -> str:
    """A cell as text: ``12`` for the number 12.0, as Excel shows it."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def files_named(names: Iterable[str], places: Sequence[Path], file: Path) -> dict[str, Path]:
    r"""{name as written: image file} for the names in a table or an annotation file.

    A name is looked up as it is, then with ``\`` as ``/``. A path of another machine (``C:\data\a.png``,
    ``/data/upload/1/ab12cd34-a.png``, a URL) is looked up by its last parts, without the eight digits that Label Studio
    puts before a name; a warning says so. So does one for a name that differs in case or in the code of its accents,
    as Windows and macOS allow. Two names that would mean one file mean none.

    Args:
        names: The names as written.
        places: Folders to look in, the likeliest first.
        file: The file that holds the names.

    Returns:
        Every name; the path in the first place if there is no such file.
    """
    spellings = Spellings()
    found: dict[str, Path] = {}
    guesses: dict[Path, list[str]] = {}
    for name in dict.fromkeys(names):
        plain = name.replace("\\", "/")
        path = next((p / n for n in (name, plain) for p in places if is_file(p / n)), None)
        if path is None:
            shorter = list(shorter_names(name))
            path = next((p / n for n in shorter for p in places if is_file(p / n)), None)
            path = path or next((f for n in (plain, *shorter) for p in places if (f := spellings.find(p, n))), None)
            if path:
                guesses.setdefault(path, []).append(name)
        found[name] = path or places[0] / plain
    guessed = {name for group in guesses.values() for name in group}
    known = {path for name, path in found.items() if name not in guessed}
    clear = {path: g[0] for path, g in guesses.items() if len(g) == 1 and path not in known}
    for path, group in guesses.items():
        if path not in clear:
            found.update((name, places[0] / name.replace("\\", "/")) for name in group)
    if clear:
        shown = first_names([f"{name} is {path}" for path, name in clear.items()], 3)
        how = "path(s) of another machine were found by their last parts or another spelling"
        _log.warning("%s: %d %s: %s", file, len(clear), how, shown)
    unclear = [name for path, g in guesses.items() if path not in clear for name in g]
    if unclear:
        shown = first_names(unclear, 3)
        _log.warning("%s: %d path(s) could each mean a file that another names: %s", file, len(unclear), shown)
    return found
