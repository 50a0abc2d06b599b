"""The rows of a run as Parquet, for tables that a spreadsheet cannot hold."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from ultraad.results.row import ImageRow

_GROUP = 10_000  # rows in memory
_TEXTS = ("id", "image", "label", "group", "map", "overlay", "mask", "contours")


def write_parquet(path: Path, rows: Iterable[ImageRow]) -> bool:
    """Write the numbers and names of rows, without outlines, part by part.

    Args:
        path: Replaced in one step.
        rows: In the order of the table.

    Returns:
        False if pyarrow (extra ``[ray]``) is not installed: nothing is written then.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        return False
    schema = arrow.schema(
        [
            *((name, arrow.string()) for name in _TEXTS),
            ("frame", arrow.int32()),
            ("score", arrow.float64()),
            ("abnormal", arrow.bool_()),
            ("unsure", arrow.bool_()),
            ("in_scope", arrow.bool_()),
            ("like_reference", arrow.float64()),
            ("like_support", arrow.float64()),
            ("lesions", arrow.int32()),
            ("probs", arrow.map_(arrow.string(), arrow.float64())),
        ]
    )
    work = path.with_name(f".{path.name}.tmp")
    with parquet.ParquetWriter(work, schema) as writer:
        cells = map(_cells, rows)
        while part := list(islice(cells, _GROUP)):
            writer.write_table(arrow.Table.from_pylist(part, schema=schema))
    work.replace(path)
    return True


def _cells(row: ImageRow) -> dict[str, Any]:
    s = row.in_scope
    return {
        **{name: getattr(row, name) for name in _TEXTS},
        "frame": row.frame,
        "score": row.score,
        "abnormal": row.abnormal,
        "unsure": row.unsure,
        "in_scope": s and s.ok,
        "like_reference": s and s.reference,
        "like_support": s and s.support,
        "lesions": None if row.lesions is None else len(row.lesions),
        "probs": list((row.probs or {}).items()),
    }
