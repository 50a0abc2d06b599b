"""What a results folder holds, as far as it holds anything; see :mod:`ultraad.results.folder` for its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from ultraad.errors import DataError
from ultraad.report.kit.words import short_id
from ultraad.results.folder import ERRORS, METRICS, PREDICTIONS, RUN, read_predictions


@dataclass(frozen=True, slots=True)
class Row:
    """One predicted image.

    Attributes:
        id: Sample id.
        image: Where the image was; it may be gone.
        frame: 0-based frame.
        score: Higher is more anomalous.
        abnormal: Whether the score reaches the stored threshold.
        probs: {class: probability}; None if the method does not grade.
        label: True class; None if unknown.
        anomalous: True for lesion, False for normal, None if unknown.
        group: Patient; None if unknown.
        overlay: Picture of the map over the image; None if there is none.
    """

    id: str
    image: Path
    frame: int
    score: float
    abnormal: bool
    probs: Mapping[str, float] | None
    label: str | None
    anomalous: bool | None
    group: str | None
    overlay: Path | None

    @property
    def name(self) -> str:
        """The id, cut to what may be sent around."""
        return short_id(self.id)

    @property
    def guess(self) -> str | None:
        """The most probable class."""
        return max(self.probs, key=self.probs.__getitem__) if self.probs else None

    @property
    def verdict(self) -> str | None:
        """``"missed"``, ``"false alarm"`` or ``"right"`` at the stored threshold; None if the truth is unknown."""
        if self.anomalous is None:
            return None
        if self.anomalous == self.abnormal:
            return "right"
        return "missed" if self.anomalous else "false alarm"


@dataclass(frozen=True, slots=True)
class Results:
    """One results folder in memory, without pictures.

    Attributes:
        folder: Where it lies.
        run: ``run.json``; empty if there is none.
        metrics: ``metrics.json``; empty if nothing was measured.
        rows: Predictions in the order of the file.
        errors: (id, reason) of images that could not be used.
    """

    folder: Path
    run: Mapping[str, Any]
    metrics: Mapping[str, Any]
    rows: tuple[Row, ...]
    errors: tuple[tuple[str, str], ...]

    def fact(self, *keys: str) -> Any:  # noqa: ANN401  # whatever JSON holds there
        """A value of ``run.json``, e.g. ``fact("model", "backbone", "name")``; None if it is not there."""
        value: Any = self.run
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order; in order of appearance if the run does not say."""
        named = self.fact("model", "classes") or [c for r in self.rows for c in r.probs or ()]
        return tuple(dict.fromkeys([*named, *(r.label for r in self.rows if r.label is not None)]))

    @property
    def image_threshold(self) -> float | None:
        """Stored image threshold."""
        return self._threshold("image")

    @property
    def pixel_threshold(self) -> float | None:
        """Stored pixel threshold."""
        return self._threshold("pixel")

    def _threshold(self, kind: str) -> float | None:
        found = self.fact("thresholds", kind)
        if found is None:
            found = self.metrics.get("thresholds", {}).get(kind)
        return None if found is None else float(found)


def last_part(path: str) -> str:
    """The folder's own name, whatever system wrote the path."""
    return PureWindowsPath(path).name or path


def read(folder: Path) -> Results:
    """Everything of a results folder that a page can show.

    Args:
        folder: What ``evaluate`` or ``predict`` wrote.

    Raises:
        DataError: If it holds no results, or a file is damaged.
    """
    run, metrics = _mapping(folder / RUN), _mapping(folder / METRICS)
    if not metrics and not (folder / PREDICTIONS).is_file():
        msg = (
            f"{folder} holds neither {METRICS} nor {PREDICTIONS}, so there is nothing to report; "
            "wanted a folder written by 'ultraad evaluate' or 'ultraad predict'"
        )
        raise DataError(msg)
    normal = run.get("model", {}).get("normal_class")
    rows = []
    for number, found in enumerate(read_predictions(folder), start=1):
        try:
            rows.append(_row(found, folder, normal=normal))
        except (KeyError, TypeError, ValueError) as e:
            msg = f"{folder / PREDICTIONS}: prediction {number} lacks or garbles {e}; evaluate again"
            raise DataError(msg) from e
    return Results(folder, run, metrics, tuple(rows), _errors(folder / ERRORS))


def _row(found: Mapping[str, Any], folder: Path, *, normal: str | None) -> Row:
    label, anomalous, overlay = found.get("label"), found.get("anomalous"), found.get("overlay")
    if anomalous is None and label is not None and normal is not None:
        anomalous = label != normal
    return Row(
        id=str(found["id"]),
        image=Path(found["image"]),
        frame=int(found.get("frame") or 0),
        score=float(found["score"]),
        abnormal=bool(found["abnormal"]),
        probs=found.get("probs"),
        label=label,
        anomalous=anomalous,
        group=found.get("group"),
        overlay=folder / overlay if overlay else None,
    )


def _mapping(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        msg = f"{path} is damaged: {e}; evaluate again, or delete it to report without it"
        raise DataError(msg) from e
    if not isinstance(content, dict):
        msg = f"{path} holds a {type(content).__name__}, wanted a JSON object; evaluate again"
        raise DataError(msg)
    return content


def _errors(path: Path) -> tuple[tuple[str, str], ...]:
    """The lines of ``errors.jsonl``; one cut off by a kill is passed over, as in the predictions."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append((str(entry.get("id", "?")), str(entry.get("error", "no reason given"))))
    return tuple(found)
