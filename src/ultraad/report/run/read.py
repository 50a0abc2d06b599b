"""The folder of one run, typed; see :mod:`ultraad.results.folder` for its files. Any of them may be missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from ultraad.config import explain
from ultraad.errors import DataError, brief
from ultraad.metrics.metric import Metric
from ultraad.metrics.subgroups import Subgroup
from ultraad.model.record import Origin
from ultraad.results.folder import METRICS, PREDICTIONS, RUN, read_errors, read_rows
from ultraad.results.row import DataFacts, Facts, ImageRow, ModelFacts, Run, Thresholds

F = TypeVar("F", bound=Facts)


class ConfusionMatrix(Facts):
    """Counts of images; rows are true classes, columns most probable ones."""

    classes: tuple[str, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()


class Bootstrap(Facts):
    """How the intervals were made."""

    unit: str = "image"
    resamples: int = 0
    seed: int = 0


class Subgroups(Facts):
    """The subgroups of one fact, the worst first."""

    ordered_by: str | None = None
    subgroups: tuple[Subgroup, ...] = ()


class Measurements(Facts):
    """``metrics.json``; see :meth:`ultraad.metrics.summary.Evaluation.result`."""

    metrics: dict[str, Metric] = Field({})
    subsets: dict[str, dict[str, Metric]] = Field({})
    subgroups: dict[str, Subgroups] = Field({})
    curves: dict[str, Any] = Field({})
    confusion: ConfusionMatrix = ConfusionMatrix()
    n: dict[str, int] = Field({})
    bootstrap: Bootstrap = Bootstrap()
    thresholds: Thresholds = Thresholds()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunData:
    """The folder of one run in memory, without pictures.

    Attributes:
        folder: Its path.
        run: ``run.json``; None if there is none.
        measured: ``metrics.json``; None if nothing was measured.
        rows: Predictions in the order of the file.
        errors: (id, reason) of images that could not be used.
        outside: Predictions of images out of scope that the page does not count; of an evaluation none, whose metrics
            count every image.
    """

    folder: Path
    run: Run | None
    measured: Measurements | None
    rows: tuple[ImageRow, ...]
    errors: tuple[tuple[str, str], ...]
    outside: tuple[ImageRow, ...] = ()

    @property
    def model(self) -> ModelFacts | None:
        """The model of the run; None if unknown."""
        return self.run.model if self.run else None

    @property
    def origin(self) -> Origin | None:
        """Where the model comes from; None if unknown."""
        return self.model.origin if self.model else None

    @property
    def data(self) -> DataFacts:
        """Which images; empty if unknown."""
        return (self.run and self.run.data) or DataFacts()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order; in order of appearance if the model is unknown."""
        named = self.model.classes if self.model else [c for r in self.rows for c in r.probs or ()]
        return tuple(dict.fromkeys([*named, *(r.label for r in self.rows if r.label is not None)]))

    @property
    def thresholds(self) -> Thresholds:
        """Stored thresholds, from ``run.json`` or else ``metrics.json``."""
        stored = (self.run.thresholds if self.run else None, self.measured.thresholds if self.measured else None)
        known = [t.model_dump(exclude_none=True) for t in reversed(stored) if t]
        return Thresholds(**{kind: value for found in known for kind, value in found.items()})

    @property
    def by_label(self) -> dict[str | None, list[ImageRow]]:
        """Rows by true class, in label order; those without a class are last, under None."""
        parts = {c: [r for r in self.rows if r.label == c] for c in (*self.classes, None)}
        return {label: rows for label, rows in parts.items() if rows}

    def metric(self, key: str) -> Metric:
        """A metric; its value is None if it is undefined or was not measured."""
        return (self.measured and self.measured.metrics.get(key)) or Metric(None, reason="not measured")


def last_part(path: str) -> str:
    """The name of a folder, whatever system wrote the path."""
    return PureWindowsPath(path).name or path


def read(folder: Path) -> RunData:
    """Everything in the folder of a run that a page can show.

    Args:
        folder: What ``evaluate`` or ``predict`` wrote.

    Raises:
        DataError: If it holds no results, or a file is damaged.
    """
    run, measured = _facts(folder / RUN, Run), _facts(folder / METRICS, Measurements)
    if measured is None and not (folder / PREDICTIONS).is_file():
        msg = (
            f"{folder} holds neither {METRICS} nor {PREDICTIONS}, so there is nothing to report; "
            "wanted a folder written by 'ultraad evaluate' or 'ultraad predict'"
        )
        raise DataError(msg)
    normal, known = (run.model.normal_class, run.model.classes) if run and run.model else (None, ())
    rows = tuple(
        r.model_copy(update={"anomalous": r.label != normal}) if r.anomalous is None and r.label in known else r
        for r in read_rows(folder)
    )
    apart = measured is None and not (run and run.keep_out_of_scope)
    outside = tuple(r for r in rows if apart and r.out_of_scope)
    counted = tuple(r for r in rows if not (apart and r.out_of_scope))
    return RunData(folder, run, measured, counted, read_errors(folder), outside)


def _facts(path: Path, kind: type[F]) -> F | None:
    if not path.is_file():
        return None
    try:
        return kind.model_validate(json.loads(path.read_bytes()))  # pydantic's own parser refuses odd bytes of names
    except (OSError, ValueError, RecursionError) as e:  # pydantic's ValidationError is a ValueError
        found = explain(e, where=str(path)) if isinstance(e, ValidationError) else f"{path}: invalid JSON: {brief(e)}"
        msg = (
            f"{found}; the file is damaged or from another version: evaluate or predict again, "
            "or delete it to report without it"
        )
        raise DataError(msg) from e
