"""What a run found in one DICOM file, as all objects of that file tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ultraad.dicom.source import Source
from ultraad.errors import DataError
from ultraad.metrics.key_frames import key_frames
from ultraad.metrics.tracks import Blob, link
from ultraad.results.coco import mask_of
from ultraad.results.row import ImageRow, LesionRow, Run
from ultraad.texts.bank import breast_texts
from ultraad.types import Spacing


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One lesion of a still, or of a cine over its frames.

    Attributes:
        number: From 1, by falling score; of equal ones, by rising frame and number in the frame.
        at: {0-based frame: the lesion there}, by rising frame.
    """

    number: int
    at: Mapping[int, LesionRow]

    @property
    def name(self) -> str:
        """``"lesion 1"``."""
        return f"lesion {self.number}"

    @property
    def best(self) -> int:
        """The frame of its highest score; of equal ones the first."""
        return max(self.at, key=lambda frame: (self.at[frame].score, -frame))


@dataclass(frozen=True, eq=False)
class Findings:
    """The predictions of one DICOM file.

    Attributes:
        source: The file.
        run: The facts about the run.
        rows: {0-based frame: its row}, by rising frame; every row has its lesions.
        spacing_mm: Pixel spacing of the whole picture; None if it is unknown or differs.
    """

    source: Source
    run: Run
    rows: Mapping[int, ImageRow]
    spacing_mm: Spacing | None

    @cached_property
    def tracks(self) -> tuple[Track, ...]:
        """The lesions, by number."""
        frames = list(self.rows)
        lesions = [self.rows[frame].lesions or () for frame in frames]
        linked = link(
            (frame, [Blob(n.box, self._pixels(n)) for n in found]) for frame, found in zip(frames, lesions, strict=True)
        )
        at: dict[int, dict[int, LesionRow]] = {}
        for frame, found, tracks in zip(frames, lesions, linked, strict=True):
            for lesion, track in zip(found, tracks, strict=True):
                at.setdefault(track, {})[frame] = lesion
        order = sorted(at.values(), key=lambda seen: -max(lesion.score for lesion in seen.values()))
        return tuple(Track(number, seen) for number, seen in enumerate(order, start=1))

    def _pixels(self, lesion: LesionRow) -> NDArray[np.bool_]:
        x, y, w, h = lesion.box
        moved = lesion.model_copy(
            update={
                "outline": _moved(lesion.outline, x, y),
                "holes": tuple(_moved(hole, x, y) for hole in lesion.holes),
            }
        )
        return mask_of(moved, (h, w))

    def mask(self, track: Track, frame: int) -> NDArray[np.bool_]:
        """The pixels of a lesion in a frame, bool (H W)."""
        lesion = track.at[frame]
        x, y, w, h = lesion.box
        mask = np.zeros(self.source.size, dtype=np.bool_)
        mask[y : y + h, x : x + w] = self._pixels(lesion)
        return mask

    @cached_property
    def best(self) -> int:
        """The frame of the highest score; of equal ones the first."""
        return max(self.rows, key=lambda frame: (self.rows[frame].score, -frame))

    @cached_property
    def key_frames(self) -> tuple[int, ...]:
        """By :data:`~ultraad.metrics.key_frames.KEY_RULE`, in the order of time; empty if no frame is abnormal."""
        ms = self.source.frame_ms
        abnormal = [(frame, row.score) for frame, row in self.rows.items() if row.abnormal]
        return key_frames(abnormal, seconds=None if ms is None else ms / 1000)

    def grade(self, frame: int) -> str | None:
        """The most probable abnormal class of a frame; None if the model does not grade."""
        probs, model = self.rows[frame].probs, self.run.model
        if not probs or model is None:
            return None
        names = [name for name in probs if name != model.normal_class]
        return max(names, key=probs.__getitem__, default=None)

    @property
    def organ(self) -> str | None:
        """What the sentences of the model describe; None if it has none."""
        options = {} if self.run.model is None else self.run.model.options
        if "texts" not in options:
            return None
        return str((options["texts"] or {}).get("organ") or breast_texts().organ)

    @property
    def model_digest(self) -> str:
        """sha256 of the model."""
        return "" if self.run.model is None else self.run.model.digest

    @property
    def when(self) -> datetime:
        """The time when the run began, in the zone of this machine, as DICOM's dates and times are local."""
        started = self.run.started
        return (datetime.fromisoformat(started) if started else datetime.now().astimezone()).astimezone()

    @property
    def version(self) -> str:
        """That of ultraad."""
        return self.run.versions.get("ultraad", "unknown")


def findings_of(source: Source, run: Run, rows: Sequence[ImageRow], *, spacing_mm: Spacing | None) -> Findings:
    """The findings of a file.

    Args:
        source: The file.
        run: The facts about the run.
        rows: The rows of its frames, in any order.
        spacing_mm: Pixel spacing of the whole picture; None if it is unknown or differs.

    Raises:
        DataError: If a row has no lesions, belongs to no frame of the file, or its picture has another size.
    """
    for row in rows:
        size = (row.height, row.width)
        if row.lesions is None or not 0 <= row.frame < source.frames or size != source.size:
            msg = (
                f"{row.id} was predicted at {size} (height, width) as frame {row.frame}, but {source.path} has "
                f"{source.frames} frame(s) of {source.size}; predict it again with --save dicom"
            )
            raise DataError(msg)
    return Findings(source, run, {row.frame: row for row in sorted(rows, key=lambda row: row.frame)}, spacing_mm)


def _moved(points: Sequence[int], x: int, y: int) -> tuple[int, ...]:
    return tuple(value - (x, y)[i % 2] for i, value in enumerate(points))
