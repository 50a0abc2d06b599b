"""What is known of images beside their truth, such as scanner or age: what subgroups are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ultraad.config import shortened
from ultraad.data.sources._tables import is_nothing, read_rows
from ultraad.errors import ConfigError, DataError, first_names
from ultraad.io.image import is_dicom
from ultraad.types import Sample

_OF_SAMPLES: Mapping[str, Callable[[Sample], str | None]] = {
    "device": lambda s: s.device,
    "site": lambda s: s.site,
    "split": lambda s: s.split,
    "class": lambda s: s.label,
}
_OF_HEADERS = {"patient-age": "age_years", "patient-sex": "sex"}
_KEYS = ("image", "id", "file", "filename", "name")  # columns that name the images of a table
_DISTINCT = 8  # a fact with more different numbers is cut into parts
_PARTS = 4
_MOST = 60  # subgroups of one fact


_NAMED = 3  # rows or images in a message


def check_table(by: Sequence[str], table: str | Path | None) -> None:
    """A table is of no use without the names of facts.

    Raises:
        ConfigError: If there is one without.
    """
    if table is not None and not by:
        msg = (
            f"the table {table} was given, but no fact to compare; name columns of it with by= (--by), or leave it out"
        )
        raise ConfigError(msg)


def facts_of(
    samples: Sequence[Sample], by: Sequence[str], *, table: str | Path | None = None
) -> dict[str, dict[str, str]]:
    """The value of each fact for each image.

    Args:
        samples: The images.
        by: Names of facts: ``device``, ``site``, ``split``, ``class``, ``patient-age`` and ``patient-sex`` (the last
            two from DICOM headers), or columns of the table. Case, dashes and underscores do not matter. Numbers are
            cut where the name says (``patient-age:40:60`` makes three parts), or else, if there are more than 8
            different ones, into quarters of the images.
        table: CSV, TSV or .xlsx. Its column ``image``, ``id``, ``file``, ``filename`` or ``name``, or else its first
            one, has the images: ids, file names or file names without suffix.

    Returns:
        {name of the fact: {id of the image: value}}; an image of which the value is not known is left out.

    Raises:
        ConfigError: If there is a table, and no name.
        DataError: If a fact is not known of any image, has too many values, or has cut points and is no number.
    """
    check_table(by, table)
    columns = {} if table is None else _columns(Path(table), samples)
    found = {}
    for asked in by:
        name, *cuts = (part.strip() for part in asked.split(":"))
        values = columns.get(_plain(name)) or _known(name, samples)
        if not values:
            raise DataError(_unknown(name, samples, columns, table))
        found[name] = values = _in_parts(name, values, cuts)
        if len(set(values.values())) > _MOST:
            msg = (
                f"{name!r} has {len(set(values.values()))} different values; wanted at most {_MOST} subgroups. "
                f"If they are numbers, give cut points, such as {name}:10:20"
            )
            raise DataError(msg)
    return found


def _plain(name: str) -> str:
    return name.strip().casefold().replace("_", "-").replace(" ", "-")


def _known(name: str, samples: Iterable[Sample]) -> dict[str, str]:
    """Values that the samples carry, or the headers of their files; empty if nothing has such a fact."""
    plain = _plain(name)
    if plain in _OF_SAMPLES:
        return {s.id: value for s in samples if (value := _OF_SAMPLES[plain](s))}
    if plain in _OF_HEADERS:
        found = {s.id: _in_header(s.image, _OF_HEADERS[plain]) for s in samples}
        return {id_: value for id_, value in found.items() if value is not None}
    return {}


def _in_header(path: Path, fact: str) -> str | None:
    """A fact of a DICOM file; None of other files, and of those that cannot be read, which a prediction reports."""
    from ultraad.io import dicom

    try:
        value: Any = dict(dicom.metadata(path)).get(fact) if is_dicom(path) else None
    except DataError:
        return None
    return f"{value:g}" if isinstance(value, float) else value


def gaps_of(table: str | Path, samples: Sequence[Sample], *, whole: Sequence[Sample]) -> tuple[str, ...]:
    """Sentences about rows of a table that name no image, and images without a row; none without any.

    Args:
        table: As in :func:`facts_of`.
        samples: Images that are evaluated.
        whole: All images of their data set: a row may name one that is not evaluated.
    """
    rows = _rows(Path(table))[2]
    found = _row_of(samples, rows)
    used = {*found.values(), *_row_of(whole, rows).values()}
    name, gaps = Path(table).name, []
    if idle := [repr(cell) if is_nothing(cell) else cell for cell in rows if cell not in used]:
        gaps.append(f"the table {name} has {len(idle)} row(s) that name no image: {first_names(idle, _NAMED)}")
    if bare := [s.id for s in samples if s.id not in found]:
        gaps.append(f"the table {name} has no row for {len(bare)} image(s): {first_names(bare, _NAMED)}")
    return tuple(gaps)


def _columns(table: Path, samples: Sequence[Sample]) -> dict[str, dict[str, str]]:
    """{plain name of a column: {id of the image: value}} of a table."""
    names, key, rows = _rows(table)
    found = {id_: rows[cell] for id_, cell in _row_of(samples, rows).items()}
    if not found:
        there = first_names(list(rows), _NAMED)
        msg = (
            f"{table}, column {key!r} names none of the {len(samples)} images. It has {there}; "
            f"wanted ids or file names such as {first_names([s.id for s in samples], _NAMED)}"
        )
        raise DataError(msg)
    return {_plain(c): {id_: row[c] for id_, row in found.items() if not is_nothing(row[c])} for c in names if c != key}


def _rows(table: Path) -> tuple[list[str], str, dict[str, Mapping[str, str]]]:
    """(columns, the one that names the images, {its cell: row}) of a table."""
    names, rows = read_rows(table)
    if not names:
        msg = f"{table} is empty; wanted a table with one row for each image"
        raise DataError(msg)
    key = next((c for want in _KEYS for c in names if _plain(c) == want), names[0])
    cells = Counter(row.cells[key] for row in rows)
    if twice := [cell for cell, n in cells.items() if n > 1]:
        msg = (
            f"{table}, column {key!r}: {first_names(twice, _NAMED)} in more than one row; wanted one row for each image"
        )
        raise DataError(msg)
    return names, key, {row.cells[key]: row.cells for row in rows}


def _row_of(samples: Sequence[Sample], rows: Collection[str]) -> dict[str, str]:
    """{id of the image: cell that names it}; an image without a row is left out."""
    alone = Counter(s.image.stem for s in samples)
    found = {}
    for s in samples:
        whole = s.id.partition("#")[0]
        short = (s.image.name, s.image.stem) if alone[s.image.stem] == 1 or s.id != whole else ()
        if (cell := next((k for k in (s.id, whole, *short) if k in rows), None)) is not None:
            found[s.id] = cell
    return found


def _unknown(name: str, samples: Sequence[Sample], columns: Mapping[str, object], table: str | Path | None) -> str:
    known = [f"{fact} ({len(values)})" for fact in (*_OF_SAMPLES, *_OF_HEADERS) if (values := _known(fact, samples))]
    there = shortened(", ".join([*known, *columns])) or "none"
    advice = "" if table is not None else "; a table with further facts can be given with --by-table"
    return f"{name!r} is not known of any of the {len(samples)} images. Known facts: {there}{advice}"


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", ".") if text.count(",") == 1 else text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _in_parts(name: str, values: dict[str, str], cuts: Sequence[str]) -> dict[str, str]:
    """Numbers as ranges; other values as they are."""
    numbers = {id_: n for id_, text in values.items() if (n := _number(text)) is not None}
    known = np.array(list(numbers.values()))
    if cuts:
        edges = [n for c in cuts if (n := _number(c)) is not None]
        wrong = [text for id_, text in values.items() if id_ not in numbers]
        if wrong or len(edges) < len(cuts) or any(a >= b for a, b in pairwise(edges)):
            what = f"it has {first_names(wrong, 3)}" if wrong else f"the cut points are {', '.join(cuts)}"
            msg = f"{name!r} cannot be cut: {what}; wanted numbers, and rising cut points such as {name}:40:60"
            raise DataError(msg)
    elif known.size < len(values) or np.unique(known).size <= _DISTINCT:
        return values
    else:
        whole = bool((known == np.round(known)).all())
        quarters = np.quantile(known, np.arange(1, _PARTS) / _PARTS)
        edges = sorted({float(np.ceil(q)) if whole else float(f"{q:.3g}") for q in quarters})
    ranges = [
        f"under {edges[0]:g}",
        *(f"{a:g} to under {b:g}" for a, b in pairwise(edges)),
        f"{edges[-1]:g} or more",
    ]
    return {id_: ranges[int(np.searchsorted(edges, n, side="right"))] for id_, n in numbers.items()}
