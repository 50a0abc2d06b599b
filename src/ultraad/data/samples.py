"""Samples from files, folders and patterns, without a data layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ultraad import io
from ultraad.data.sources import frames_of
from ultraad.io.faults import one_run
from ultraad.types import Sample


@one_run()
def samples_of(items: Iterable[str | Path | Sample], *, frame: int | None = None) -> list[Sample]:
    """Samples for files, folders and patterns, one per frame of a multi-frame file; samples are returned unchanged.

    Args:
        items: Paths as in :func:`ultraad.io.find_images`, or samples.
        frame: Only this 0-based frame of multi-frame files; None takes all.

    Raises:
        DataError: If a path does not exist or nothing is found. A file that cannot be read raises only when it is read.
    """
    found: list[Sample] = []
    paths: list[str | Path] = []
    for item in items:
        if isinstance(item, Sample):
            found.append(item)
        else:
            paths.append(item)
    for path in io.find_images(paths) if paths else []:
        frames = frames_of(path)
        for number, header in frames:
            if number is None:
                found.append(Sample(id=path.as_posix(), image=path, frame=frame or 0, group=header.group))
            elif frame in (None, number):
                found.append(Sample(id=f"{path.as_posix()}#{number}", image=path, frame=number, group=header.group))
        if frame is not None and frames[0][0] is not None and frame >= len(frames):  # reading it raises
            found.append(Sample(id=f"{path.as_posix()}#{frame}", image=path, frame=frame))
    return found
