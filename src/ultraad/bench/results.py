"""The results folder: rows that are only ever appended, and the files they name. docs/bench-format.md is its schema."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ultraad.bench.pictures import Pictures, SmallMaps, unpack_maps, unpack_pictures
from ultraad.bench.row import FORMAT, Bench, ImageLine, Row, parse_row
from ultraad.config import shortened
from ultraad.errors import Caught, DataError, brief
from ultraad.io.files import append_line, ensure_writable, write_bytes, write_json
from ultraad.metrics.one_image import MASSES, SUMS
from ultraad.metrics.pixel import PixelTable

BENCH, RESULTS = "bench.json", "results.jsonl"
PREDICTIONS, PIXELS, MAPS, PICTURES = "predictions", "pixels", "maps", "pictures"
SUPPORTS, ERRORS, FEATURES, PAINTED = "supports", "errors", "features", "painted"
NAMES = (RESULTS, PREDICTIONS, PIXELS, MAPS, PICTURES, SUPPORTS, ERRORS, FEATURES)
"""What is written beside ``bench.json``, and after it."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One row and its files.

    Attributes:
        row: As in ``results.jsonl``.
        files: {path in the results folder: content}.
    """

    row: Row
    files: Mapping[str, bytes]


class BenchFolder:
    """A results folder. Made by :meth:`open` or :meth:`create`.

    Args:
        path: The folder.
        bench: The content of ``bench.json``.
    """

    def __init__(self, path: Path, bench: Bench) -> None:
        self.path = path
        self.bench = bench

    @classmethod
    def open(cls, path: Path | str) -> BenchFolder:
        """Read a results folder.

        Raises:
            DataError: If it is none, or was written by another version of ultraad.
        """
        file = Path(path) / BENCH
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            msg = (
                f"{path} is not the results folder of a benchmark ({file.name}: {e}); make one with 'ultraad bench run'"
            )
            raise DataError(msg) from e
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            msg = f"{file} is not of the format {FORMAT}, which this version of ultraad reads; run the recipe again"
            raise DataError(msg)
        with _understood(file):
            return cls(Path(path), Bench.model_validate(facts))

    @classmethod
    def create(cls, path: Path | str, bench: Bench) -> BenchFolder:
        """Make a results folder, or continue one that an earlier run of the same recipe left.

        Args:
            path: Made if needed.
            bench: For ``bench.json``; the recipe's name identifies the folder.

        Raises:
            DataError: If it cannot be written to, or holds results of another recipe.
        """
        path = ensure_writable(path)
        if (path / BENCH).exists():
            earlier, now = cls.open(path).bench.recipe.name, bench.recipe.name
            if earlier != now:
                msg = f"{path} holds results of the recipe {earlier!r}, not of {now!r}; choose another output folder"
                raise DataError(msg)
        for name in (PREDICTIONS, PIXELS, MAPS, PICTURES, SUPPORTS, ERRORS):
            (path / name).mkdir(exist_ok=True)
        folder = cls(path, bench)
        folder.update(format=FORMAT)
        return folder

    def update(self, **facts: Any) -> None:  # noqa: ANN401
        """Change fields of ``bench.json``."""
        self.bench = self.bench.model_copy(update=facts)
        write_json(self.path / BENCH, self.bench.model_dump(mode="json", exclude_unset=True))

    def add(self, finished: Finished) -> None:
        """Keep a row: its files first, then its line, flushed to the disk."""
        for path, content in finished.files.items():
            write_bytes(self.path / path, content)
        append_line(self.path / RESULTS, finished.row.to_json(), durable=True)

    def rows(self, *, all: bool = False) -> list[Row]:  # noqa: A002
        """One row for each label and id, in the order of first finishing; the last one of an id that was tried again.

        Labels are those of the current recipe; methods with the same resolved options share an id.

        Args:
            all: Also rows that the current recipe no longer asks for.

        Raises:
            DataError: If a row was written by another version of ultraad.
        """
        found = {row.id: row for row in self._lines()}
        jobs = self.bench.jobs
        labels: dict[str, list[str]] = {}
        with _understood(self.path / BENCH):
            for id_, label in zip(jobs.rows, jobs.labels or ("",) * len(jobs.rows), strict=True):
                labels.setdefault(id_, []).append(label)
        return [
            row.model_copy(update={"label": label or row.label})
            for id_, row in found.items()
            for label in labels.get(id_, [""] if all else [])
        ]

    def predictions(self, row: Row) -> list[ImageLine]:
        """The images of a row; empty unless it has a result."""
        if row.files.predictions is None:
            return []
        file = self.path / row.files.predictions
        with _understood(file):
            return [ImageLine.model_validate_json(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def pixels(self, row: Row) -> PixelTable | None:
        """Masses for paired tests on pixel metrics; None if the row has no maps or masks."""
        if row.files.pixels is None:
            return None
        with self._arrays(row.files.pixels) as found:
            sums = np.asarray(found["sums"], dtype=np.float64)
            newer = np.full((len(sums), SUMS - sums.shape[1]), np.nan)  # metrics that the version of the folder lacks
            table = PixelTable(
                groups=tuple(str(g) for g in found["groups"]),
                mass=np.asarray(found["mass"], dtype=np.float64),
                wide=np.asarray(found["wide"], dtype=np.bool_),
                sums=np.hstack([sums, newer]),
                stored=bool(found["stored"]),
            )
            count, shape = len(table.groups), table.mass.shape
            if found["groups"].ndim != 1 or len(sums) != count or shape != (count, MASSES, *table.wide.shape):
                msg = f"masses {shape} and sums {sums.shape} of {count} groups"
                raise ValueError(msg)
            return table

    def maps(self, row: Row) -> SmallMaps | None:
        """Small maps of a row; None if they were not kept."""
        if row.files.maps is None:
            return None
        with self._arrays(row.files.maps) as found:
            return unpack_maps(found)

    def pictures(self, row: Row) -> Pictures | None:
        """Small pictures of the row's test set; None if it is not public."""
        if row.files.pictures is None:
            return None
        with self._arrays(row.files.pictures) as found:
            return unpack_pictures(found)

    def _lines(self) -> Iterator[Row]:
        path = self.path / RESULTS
        if not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace") as lines, _understood(path):
            for line in lines:
                try:
                    facts = json.loads(line)
                except (ValueError, RecursionError):  # cut off by a kill
                    continue
                yield parse_row(facts)

    @contextmanager
    def _arrays(self, path: str) -> Iterator[dict[str, NDArray[np.generic]]]:
        """The arrays of a file; what the block cannot use is a fault of the file."""
        with _understood(self.path / path), (self.path / path).open("rb") as file:
            with np.load(file, allow_pickle=False) as found:
                arrays = dict(found)
            yield arrays


@contextmanager
def _understood(file: Path) -> Iterator[None]:
    """Say in one sentence that a file is damaged or of another version; zip and numpy raise almost anything."""
    with Caught() as caught:
        yield
    e = caught.error
    if isinstance(e, DataError):
        raise e
    if isinstance(e, ValidationError):
        first = e.errors()[0]
        where = shortened(".".join(map(str, first["loc"])))
        msg = (
            f"{file} does not fit this version of ultraad ({where}: {first['msg']}); use the version that wrote "
            "it, or run the recipe again into a new folder"
        )
        raise DataError(msg) from e
    if e is not None:
        msg = f"{file} is damaged ({brief(e)}); run the recipe again into a new folder"
        raise DataError(msg) from e


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as the bytes of a compressed ``.npz``."""
    buffer = io.BytesIO()
    given: dict[str, Any] = dict(arrays)
    np.savez_compressed(buffer, **given)
    return buffer.getvalue()
