"""The images of one shard, ready to be read: files where they are, and copies of objects on a store."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any
from urllib.parse import unquote

from ultraad.data.samples import samples_of
from ultraad.errors import ConfigError, DataError
from ultraad.io.find import find_images
from ultraad.io.store import NoRoomError, is_url, public_url
from ultraad.io.store_copy import fetched
from ultraad.results.saving import DICOM
from ultraad.types import Sample, Stored


@contextmanager
def readable(images: Sequence[str], shard: str, options: Mapping[str, Any]) -> Iterator[list[Sample]]:
    """The samples of a shard, which can be read inside the block. Copies of objects are removed after it.

    Copies are in the folder for temporary files (``TMPDIR``), which has to hold all objects of a shard. Those that a
    killed process left there go with the next try on the same machine, or by :func:`remove_copies`.

    Args:
        images: Paths and URLs. One that cannot be read is a sample too, so that reading it says why.
        shard: Its folder, ``<folder of the run>/shards/<number>``.
        options: Of :func:`ultraad.predict`; here ``frame``, ``every`` and ``save`` count.

    Raises:
        ConfigError: As :func:`check_saving`, if there is a URL.
        DataError: If the store is away, or copies cannot be written.
        MissingExtraError: If there is a URL, and pyarrow is not installed.
    """
    frames = {key: options[key] for key in ("frame", "every") if key in options}
    urls = {public_url(name): name for name in images if is_url(name)}
    if not urls:
        yield _samples(images, {}, **frames)
        return
    check_saving(options.get("save"))
    run, number = Path(shard).parent.parent, Path(shard).name
    remove_copies(run, number)
    with TemporaryDirectory(prefix=_prefix(run, number)) as place:
        copies = _copied(urls, Path(place))
        yield _samples(list(dict.fromkeys(map(public_url, images))), copies, **frames)


def check_saving(save: Collection[str] | None) -> None:
    """Refuse what needs the files of images on a store again after they were predicted.

    Raises:
        ConfigError: If DICOM objects are wanted.
    """
    if DICOM in (save or ()):
        msg = "no DICOM objects are made of images on a store with an engine; predict without one, or do not save dicom"
        raise ConfigError(msg)


def remove_copies(run: Path, number: str = "") -> None:
    """Remove the copies on this machine that processes of a run left, of all shards or of one."""
    for left in Path(gettempdir()).glob(f"{escape(_prefix(run, number))}*"):
        shutil.rmtree(left, ignore_errors=True)


def _prefix(run: Path, number: str) -> str:
    digest = hashlib.sha256(str(run).encode(errors="surrogateescape")).hexdigest()[:16]
    return f"ultraad-{digest}-{f'{number}-' if number else ''}"


def _copied(urls: Mapping[str, str], place: Path) -> dict[str, tuple[Path, str | None]]:
    """{public URL: its copy, and why there is none}."""
    copies = {name: place / f"{i:06d}-{_readable(name)}" for i, name in enumerate(urls)}
    try:
        faults = list(fetched((urls[name], copy) for name, copy in copies.items()))
    except NoRoomError as e:
        msg = f"{e}. Set TMPDIR, or take a smaller --shard"
        raise NoRoomError(msg) from e
    return {
        name: (copy, None if fault is None else str(fault))
        for (name, copy), fault in zip(copies.items(), faults, strict=True)
    }


def _readable(name: str) -> str:
    """The last part of a URL as the name of a file; its suffix stays."""
    return re.sub(r"[^\w.()-]+", "_", unquote(name).rpartition("/")[2])[-80:]


def _samples(
    names: Sequence[str],
    copies: Mapping[str, tuple[Path, str | None]],
    *,
    frame: int | None = None,
    every: int = 1,
) -> list[Sample]:
    items: list[object] = []
    urls: dict[Path, str] = {}
    for name in names:
        path, fault = copies.get(name, (Path(name), None))
        if fault is not None or not _is_there(name if name not in copies else path):
            items.append(Sample(name, path, stored=Stored(name, fault) if name in copies else None))
            continue
        items.append(path)
        if name in copies:
            urls[path] = name
    found = samples_of(items, frame=frame, every=every)
    return [_of_object(sample, urls[sample.image]) if sample.image in urls else sample for sample in found]


def _of_object(copy: Sample, url: str) -> Sample:
    """The sample of a copy with the id of its object: the URL, and the frame if the file has several."""
    return replace(copy, id=f"{url}{copy.id.removeprefix(copy.image.as_posix())}", stored=Stored(url))


def _is_there(name: str | Path) -> bool:
    try:
        find_images([name])
    except DataError:
        return False
    return True
