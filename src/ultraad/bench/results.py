"""The results folder: rows that are only ever appended, and the files they name. docs/bench-format.md is its schema."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ultraad.bench.pictures import Pictures, SmallMaps, unpack_maps
from ultraad.errors import DataError
from ultraad.io.files import append_line, ensure_writable, write_bytes, write_json
from ultraad.metrics.pixel import PixelTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FORMAT = "ultraad.bench/1"
BENCH, RESULTS = "bench.json", "results.jsonl"
PREDICTIONS, PIXELS, MAPS, PICTURES = "predictions", "pixels", "maps", "pictures"
SUPPORTS, ERRORS, FEATURES, PAINTED = "supports", "errors", "features", "painted"
LOCK = ".running"  # held while a run writes to the folder

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """One row and its files.

    Attributes:
        row: As in ``results.jsonl``.
        files: {path in the results folder: content}.
    """

    row: Row
    files: Mapping[str, bytes]


class Results:
    """A results folder. Made by :meth:`open` or :meth:`create`.

    Args:
        folder: The folder.
        bench: What ``bench.json`` says.
    """

    def __init__(self, folder: Path, bench: dict[str, Any]) -> None:
        self.folder = folder
        self.bench = bench

    @classmethod
    def open(cls, folder: Path | str) -> Results:
        """Read a results folder.

        Raises:
            DataError: If it is none.
        """
        path = Path(folder) / BENCH
        try:
            bench = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            msg = f"{folder} holds no benchmark results ({path.name}: {e}); make some with 'ultraad bench run'"
            raise DataError(msg) from e
        if not isinstance(bench, dict) or bench.get("format") != FORMAT:
            msg = f"{path} was not written by this version of ultraad; wanted format {FORMAT}"
            raise DataError(msg)
        return cls(Path(folder), bench)

    @classmethod
    def create(cls, folder: Path | str, bench: dict[str, Any]) -> Results:
        """Make a results folder, or go on with one that an earlier run of the same recipe left.

        Args:
            folder: Made if needed.
            bench: For ``bench.json``; ``bench["recipe"]["name"]`` identifies it.

        Raises:
            DataError: If it cannot be written to, or holds results of another recipe.
        """
        folder = ensure_writable(folder)
        if (folder / BENCH).exists():
            earlier, now = cls.open(folder).bench["recipe"]["name"], bench["recipe"]["name"]
            if earlier != now:
                msg = f"{folder} holds results of the recipe {earlier!r}, not of {now!r}; choose another output folder"
                raise DataError(msg)
        for name in (PREDICTIONS, PIXELS, MAPS, PICTURES, SUPPORTS, ERRORS):
            (folder / name).mkdir(exist_ok=True)
        results = cls(folder, {"format": FORMAT, **bench})
        results.update()
        return results

    def update(self, **facts: Any) -> None:  # noqa: ANN401
        """Change ``bench.json``."""
        self.bench |= facts
        write_json(self.folder / BENCH, self.bench)

    def add(self, finished: Finished) -> None:
        """Keep a row: its files first, then its line, flushed to the disk."""
        for path, content in finished.files.items():
            write_bytes(self.folder / path, content)
        line = json.dumps(finished.row, ensure_ascii=False, allow_nan=False)
        append_line(self.folder / RESULTS, line, durable=True)

    def rows(self, *, all: bool = False) -> list[Row]:  # noqa: A002
        """One row for each label and id, in the order of first finishing; of an id that was tried again the last one.

        Labels are the recipe's as it is now; lines that resolve to the same options are one id under several labels.

        Args:
            all: Also rows that the recipe, as it is now, no longer asks for.
        """
        found: dict[str, Row] = {}
        for row in self._lines():
            found[row["id"]] = row
        jobs = self.bench["jobs"]
        labels: dict[str, list[str]] = {}
        for id_, label in zip(jobs["rows"], jobs.get("labels") or [""] * len(jobs["rows"]), strict=True):
            labels.setdefault(id_, []).append(label)
        return [
            {**row, "label": label or row["label"]}
            for id_, row in found.items()
            for label in labels.get(id_, [""] if all else [])
        ]

    def predictions(self, row: Row) -> list[Row]:
        """The images of a row; empty unless it is ok."""
        path = row["files"]["predictions"]
        if path is None:
            return []
        return [json.loads(line) for line in (self.folder / path).read_text(encoding="utf-8").splitlines()]

    def pixels(self, row: Row) -> PixelTable | None:
        """Masses for paired tests on pixel metrics; None if the row has no maps or masks."""
        found = self._arrays(row["files"]["pixels"])
        if found is None:
            return None
        return PixelTable(
            groups=tuple(str(g) for g in found["groups"]),
            mass=np.asarray(found["mass"], dtype=np.float64),
            wide=np.asarray(found["wide"], dtype=np.bool_),
            sums=np.asarray(found["sums"], dtype=np.float64),
            stored=bool(found["stored"]),
        )

    def maps(self, row: Row) -> SmallMaps | None:
        """Small maps of a row; None if they were not kept."""
        found = self._arrays(row["files"]["maps"])
        return None if found is None else unpack_maps(found)

    def pictures(self, row: Row) -> Pictures | None:
        """Small pictures of the row's test set; None if it is not public."""
        found: dict[str, Any] | None = self._arrays(row["files"]["pictures"])
        return None if found is None else Pictures(**{**found, "ids": tuple(str(i) for i in found["ids"])})

    def _lines(self) -> Iterator[Row]:
        path = self.folder / RESULTS
        if not path.is_file():
            return
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except ValueError:  # cut off by a kill
                    continue
                if isinstance(row, dict) and "id" in row:
                    yield row

    def _arrays(self, path: str | None) -> dict[str, NDArray[np.generic]] | None:
        if path is None:
            return None
        with np.load(self.folder / path, allow_pickle=False) as found:
            return dict(found)


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as the bytes of a compressed ``.npz``."""
    buffer = io.BytesIO()
    given: dict[str, Any] = dict(arrays)
    np.savez_compressed(buffer, **given)
    return buffer.getvalue()
