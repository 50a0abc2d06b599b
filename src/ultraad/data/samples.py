"""Samples from files, folders and patterns, without a data layout; and the real images that ship with the package."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from ultraad import io
from ultraad.data.regions import with_regions
from ultraad.data.sources import frames_of, in_print, of_one_depth
from ultraad.errors import DataError
from ultraad.io.faults import one_run
from ultraad.io.files import whole_folder
from ultraad.types import Sample


@one_run()
def samples_of(items: Iterable[object], *, frame: int | None = None, every: int = 1) -> list[Sample]:
    """Samples for files, folders and patterns, one per frame of a multi-frame file; samples are returned unchanged.

    Args:
        items: Paths as in :func:`ultraad.io.find_images`, or samples.
        frame: Only this 0-based frame of multi-frame files; None takes all.
        every: Every how many frames of multi-frame files one is taken, unless ``frame`` says which.

    Raises:
        DataError: If a path does not exist, an item is neither a path nor a sample, or nothing is found. A file that
            cannot be read raises only when it is read.
    """
    given: list[Sample] = []
    found: list[Sample] = []
    paths: list[str | Path] = []
    for item in items:
        if isinstance(item, Sample):
            given.append(item)
        elif isinstance(item, (str, Path)):
            paths.append(item)
        else:
            msg = (
                f"got {type(item).__name__}, wanted files, folders, patterns or samples; give one picture to predict, "
                "and frames to stream"
            )
            raise DataError(msg)
    for path in io.find_images(paths) if paths else []:
        frames = frames_of(path)
        for number, header in frames:
            id_ = path.as_posix() if number is None else f"{path.as_posix()}#{number}"
            at = (frame or 0) if number is None else number
            if at == frame or (frame is None and at % every == 0):
                found.append(Sample(id=id_, image=path, frame=at, group=header.group, spacing_mm=header.spacing_mm))
        if frame is not None and frames[0][0] is not None and frame >= len(frames):  # reading it raises
            found.append(Sample(id=f"{path.as_posix()}#{frame}", image=path, frame=frame))
    return [*given, *of_one_depth(with_regions([*map(in_print, found)]))]


def samples() -> Path:
    """The folder of the real images that ship with ultraad: 48 breast-ultrasound images of 24 patients, with masks.

    They are a selection of BUS-BRA in its own layout: 12 patients with a benign and 12 with a malignant lesion, two
    views each, four machines, no normal image. No backbone in the package was trained on these patients, but settings
    of ``embedded`` were chosen on them: results illustrate and are no benchmark. Cite BUS-BRA; its licence is in the
    folder, and ``NOTICE.md`` there says how the images were chosen.

    Returns:
        A folder for every verb that takes a data set. It is part of the installation: copy it before changing it, see
        :func:`copy_samples`.

    Examples:
        >>> import ultraad
        >>> images = ultraad.scan(ultraad.samples())
        >>> len(images), len({image.group for image in images}), sorted({image.label for image in images})
        (48, 24, ['benign', 'malignant'])
        >>> images[0].id, images[0].device
        ('Images/bus_0005-l.png', 'GE Logiq 7 @10-14MHz')
    """
    return Path(str(files("ultraad.data") / "bus_bra"))


def copy_samples(folder: str | Path) -> Path:
    """Copy :func:`samples` with its licence.

    Args:
        folder: Must not exist.

    Returns:
        The folder.

    Raises:
        DataError: If it exists, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        msg = f"{folder} is there already; name a new folder"
        raise DataError(msg)
    with whole_folder(folder) as fresh:
        for path in sorted(samples().rglob("*")):  # a folder before its files
            copy = fresh / path.relative_to(samples())
            if path.is_dir():
                copy.mkdir()
            else:
                shutil.copyfile(path, copy)
    return folder
