"""A data set in the look of another: its pictures are changed, and everything beside them is copied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.config import resolve
from ultraad.data import sources
from ultraad.errors import ConfigError, DataError
from ultraad.io import read_image
from ultraad.io.files import ensure_writable, write_bytes, write_json
from ultraad.io.store_copy import on_disk
from ultraad.rng import seeded
from ultraad.translate.style import STYLES, Style, StyleWay, restyle
from ultraad.types import Sample

Way = Literal[StyleWay, "cycle"]
WAYS: tuple[Way, ...] = (*STYLES, "cycle")
RECORD = "translate.json"
_WRITTEN = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_JPEG_QUALITY = 95
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Translated:
    """What was done.

    Attributes:
        pictures: Pictures that were written now.
        kept: Pictures that were there already.
        copied: Other files, such as masks and tables, that are there as they were.
        failed: {file: reason} of pictures that cannot be read.
    """

    pictures: int
    kept: int
    copied: int
    failed: dict[str, str]


def translate(
    source: Path | str,
    target: Path | str,
    output: Path | str,
    *,
    way: Way = "histogram",
    beta: float = 0.01,
    most: int = 200,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Translated:
    """Write the data set ``source`` in the look of ``target``; a second call goes on where the first was stopped.

    The layout stays: every picture keeps its name, every other file is copied. Pictures with more than eight bits
    become pictures of eight bits; JPEG is written with quality 95.

    ``"cycle"`` trains a small network first (:mod:`ultraad.translate.cycle`). Beside ``output``, the folder
    ``NAME-cycle`` then holds the network, how far to trust it, and a map and a certainty for each picture
    (docs/translation.md); a training that was stopped goes on with the same bits.

    Args:
        source: Data set in any layout.
        target: Data set whose look is wanted; its masks and labels are not read.
        output: Folder for the result, new or of the same call.
        way: See :func:`ultraad.translate.restyle`; or ``"cycle"``.
        beta: See :func:`ultraad.translate.restyle`.
        most: Pictures of ``target`` that are looked at, drawn by ``seed``.
        seed: Of the draw, and of the training.
        options: Of ``"cycle"``, see :class:`ultraad.translate.cycle.CycleConfig`.
        device: Of ``"cycle"``, as in :func:`ultraad.load_backbone`.
        progress: Called with (what, done, total).
        announce: Called before a training, with a sentence about its size, time and memory.

    Raises:
        ConfigError: If ``output`` is inside ``source``, or holds something else than the same translation; or if an
            option is unknown, or given for another way than ``"cycle"``.
        DataError: If a data set is not found, a picture is DICOM or a video, or no picture of ``target`` can be used.
    """
    source, output = on_disk(source).resolve(), Path(output).resolve()
    tell = progress or _silent
    samples = _samples(source)
    pictures = [s.image for s in samples]
    looked_at = _drawn([s.image for s in _samples(on_disk(target).resolve())], most, seed)
    about: dict[str, Any] = {
        "from": str(source), "to": str(Path(target).resolve()), "way": way, "beta": beta, "most": most, "seed": seed
    }  # fmt: skip
    if way == "cycle":
        from ultraad.backbones import pick_device
        from ultraad.translate.cycle import CycleConfig
        from ultraad.translate.trained import prepare

        config = resolve(CycleConfig, options)
        about["options"] = config.model_dump()
        _check_free(output, source, about)
        trained = prepare(
            output.with_name(f"{output.name}-cycle"),
            samples,
            looked_at,
            config=config,
            seed=seed,
            device=pick_device(device),
            progress=tell,
            announce=announce,
        )
        write_json(ensure_writable(output) / RECORD, about)
        found = _write_all(pictures, source, output, trained.restyle, tell)
        trained.write_table()
        return found
    if options:
        msg = f"got options ({', '.join(options)}) for {way!r}, which has none; they are for 'cycle'"
        raise ConfigError(msg)
    _check_free(output, source, about)
    try:
        style = Style.of(_read(looked_at, tell))
    except ValueError as e:
        msg = f"{target} has no look to take over: {e}"
        raise DataError(msg) from e
    write_json(ensure_writable(output) / RECORD, about)
    return _write_all(pictures, source, output, lambda picture, _: restyle(picture, style, way, beta=beta), tell)


def _write_all(
    pictures: list[Path],
    source: Path,
    output: Path,
    change: Callable[[NDArray[np.uint8], str], NDArray[np.uint8]],
    tell: Progress,
) -> Translated:
    """Change every picture that is not there, by itself and its name in the data set, and copy all other files."""
    done = kept = 0
    failed: dict[str, str] = {}
    for i, path in enumerate(pictures, start=1):
        name = path.relative_to(source)
        to = output / name
        if to.is_file():
            kept += 1
        else:
            try:
                picture = read_image(path)
            except DataError as e:
                failed[str(path)] = str(e)
            else:
                to.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(to, _encoded(change(picture, name.as_posix()), to.suffix))
                done += 1
        tell("translate", i, len(pictures))
    return Translated(done, kept, _copy_rest(source, output, set(pictures)), failed)


def _silent(what: str, done: int, total: int | None) -> None:
    """No progress."""


def _samples(root: Path) -> list[Sample]:
    """A sample of every picture, sorted by the picture."""
    by_picture = {s.image: s for s in sources.scan(root)}
    found = [by_picture[image] for image in sorted(by_picture)]
    other = [s.image for s in found if s.image.suffix.lower() not in _WRITTEN]
    if other:
        msg = (
            f"{other[0]} is not a PNG, JPEG, BMP or TIFF picture, and neither are {len(other) - 1} others: only such "
            "pictures are translated; export DICOM and videos as PNG first"
        )
        raise DataError(msg)
    return found


def _drawn(pictures: list[Path], most: int, seed: int) -> list[Path]:
    order = seeded(seed, "translate").permutation(len(pictures))[:most]
    return [pictures[i] for i in sorted(order)]


def _read(paths: list[Path], tell: Progress) -> Iterator[NDArray[np.uint8]]:
    for i, path in enumerate(paths, start=1):
        yield read_image(path)
        tell("look", i, len(paths))


def _check_free(output: Path, source: Path, about: dict[str, Any]) -> None:
    """Refuse an output folder that holds something else than the begin of this translation."""
    if output == source or output.is_relative_to(source):
        msg = f"{output} is inside {source}; give a folder outside of it"
        raise ConfigError(msg)
    there = {path.name for path in ensure_writable(output).iterdir()} if output.exists() else set[str]()
    if there <= {RECORD}:  # nothing, or what a call left that failed before its first picture
        return
    if RECORD not in there:
        msg = f"{output} is not empty and holds no translation; give another folder"
        raise ConfigError(msg)
    found = json.loads((output / RECORD).read_text(encoding="utf-8"))
    if found != about:
        other = next(key for key in about if found.get(key) != about[key])
        msg = (
            f"{output} holds a translation with another {other!r} ({found.get(other)}, now {about[other]}); "
            "give another folder, or remove it"
        )
        raise ConfigError(msg)


def _encoded(picture: NDArray[np.uint8], suffix: str) -> bytes:
    """The bytes of a file; a picture whose channels are equal is written as grey."""
    grey = bool((picture == picture[..., :1]).all())
    pixels = picture[..., 0] if grey else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix.lower() in (".jpg", ".jpeg") else []
    return bytes(cv2.imencode(suffix, pixels, options)[1])


def _copy_rest(source: Path, output: Path, pictures: set[Path]) -> int:
    """Copy every other file that is not there; returns how many there are."""
    rest = [p for p in sorted(source.rglob("*")) if p.is_file() and p not in pictures]
    for path in rest:
        to = output / path.relative_to(source)
        if not to.is_file():
            to.parent.mkdir(parents=True, exist_ok=True)
            part = to.with_name(f"{to.name}.part")
            shutil.copyfile(path, part)
            part.replace(to)
    return len(rest)
