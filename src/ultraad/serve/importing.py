"""Bring images into a project: a folder of this machine by reference, or uploaded files."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Lock, Thread

from ultraad.errors import ConfigError, DataError
from ultraad.serve.decode import Decoder, Looked
from ultraad.serve.marking import Marking
from ultraad.serve.project import LIMITS, Picture, Place, Project, now
from ultraad.serve.schemas import Import
from ultraad.serve.uploads import Found, names_of, sorted_out, title_of
from ultraad.types import Sample

_log = logging.getLogger(__name__)

_BATCH = 16  # images per transaction; they appear in the list in such steps


class Importer:
    """Imports, one after the other, in a thread.

    Args:
        project: Open.
        marking: For marks that come with the data.
        tell: Called with the import after each step.
        added: Called with the ids of new images.
    """

    def __init__(
        self,
        project: Project,
        marking: Marking,
        *,
        tell: Callable[[Import], None],
        added: Callable[[list[str]], None],
    ) -> None:
        self._project, self._marking = project, marking
        self._tell, self._added = tell, added
        self._decoder = Decoder()
        self._turn = Lock()
        self._stopped = Event()
        self._numbers = Lock()
        self._threads: list[Thread] = []
        for number, facts in project.database.facts("import").items():
            found = Import.model_validate(facts)
            if found.state == "running":  # by a server that was killed
                note = "this import was cut off; import the folder again to get the rest"
                project.database.put(
                    "import", number, found.model_copy(update={"state": "failed", "error": note}).model_dump_json()
                )

    @property
    def running(self) -> bool:
        """Whether an import runs."""
        return any(thread.is_alive() for thread in self._threads)

    def all(self) -> list[Import]:
        """Every import, newest first."""
        return [Import.model_validate(f) for _, f in sorted(self._project.database.facts("import").items())][::-1]

    def folder(self, path: str, *, layout: str, use_marks: bool) -> Import:
        """Begin to import a folder or file by reference.

        Raises:
            ConfigError: If there is no such folder or file.
        """
        root = Path(path).expanduser()
        if not root.is_absolute() or not root.exists():
            msg = "there is no such folder or file on this machine; give its whole path"
            raise ConfigError(msg)
        root = root.resolve()
        if root.is_relative_to(self._project.folder):
            msg = "this folder belongs to the project; give the folder with the images"
            raise ConfigError(msg)

        def find(started: Import) -> tuple[list[Found], Import]:
            samples, found, remarks = self._decoder.scan(root, layout)
            source = f"{found or 'folder'}:{root}"
            names = [s.id if found else _below(Path(s.id), root) for s in samples]
            listed = [Found(s, source, n, use_marks) for s, n in zip(samples, names, strict=True)]
            return listed, started.model_copy(update={"notes": [_no_root(r, root) for r in remarks[:20]]})

        return self._begin(root.name, find)

    def uploads(self, batch: str, *, use_marks: bool) -> Import:
        """Begin to import the files that were uploaded under one batch id.

        Raises:
            ConfigError: If there are none.
        """
        folder = self._project.folder / "incoming" / batch
        names = names_of(folder)
        if not names:
            msg = "no file was uploaded under this batch id; upload some first"
            raise ConfigError(msg)

        def find(started: Import) -> tuple[list[Found], Import]:
            found = list(sorted_out(names, self._decoder, use_marks=use_marks))
            return found, started

        return self._begin(title_of(names.values()), find, cleanup=folder)

    def stop(self) -> None:
        """End the running import after the current image."""
        self._stopped.set()
        self._decoder.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _begin(
        self, title: str, find: Callable[[Import], tuple[list[Found], Import]], *, cleanup: Path | None = None
    ) -> Import:
        with self._numbers:
            number = max(self._project.database.facts("import"), default=0) + 1
            started = Import(number=number, title=title, state="running")
            self._put(started)

        def run() -> None:
            with self._turn:
                try:
                    found, progress = find(started)
                    self._import(found, progress)
                except (DataError, ConfigError) as e:
                    self._put(started.model_copy(update={"state": "failed", "error": str(e)}))
                finally:
                    if cleanup is not None:
                        shutil.rmtree(cleanup, ignore_errors=True)

        thread = Thread(target=run, name=f"import {number}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return started

    def _put(self, progress: Import) -> None:
        self._project.database.put("import", progress.number, progress.model_dump_json())
        self._tell(progress)

    def _import(self, found: Sequence[Found], progress: Import) -> None:
        known = {(p.source, p.sample) for p in self._project.pictures.values()}
        stills = _one_per_file(found)
        fresh = [group for group in stills if (group[0].source, _file_id(group[0])) not in known or not group[0].source]
        again = len(stills) - len(fresh)
        room = LIMITS.files - len(self._project.pictures)
        notes = list(progress.notes)
        if again:
            notes.append(f"{again} image(s) were in the project already")
        if len(fresh) > room:
            notes.append(f"only {room} of {len(fresh)} images fit; a project has at most {LIMITS.files} files")
            fresh = fresh[:room]
        labels = [f.sample.label for group in fresh for f in group if f.marked and f.sample.label]
        if labels:
            self._project.take_classes(sorted(set(labels)))
        progress = progress.model_copy(update={"found": len(fresh), "notes": notes})
        self._put(progress)
        hashes = Counter(p.sha256 for p in self._project.pictures.values() if p.sha256)
        for start in range(0, len(fresh), _BATCH):
            if self._stopped.is_set():
                return
            progress = self._batch(fresh[start : start + _BATCH], progress, hashes)
        self._put(progress.model_copy(update={"state": "done"}))

    def _batch(self, groups: Sequence[list[Found]], progress: Import, hashes: Counter[str]) -> Import:
        pictures: list[tuple[Picture, bytes]] = []
        marks: list[tuple[Place, str | None, list[list[int]]]] = []
        failed = 0
        for group in groups:
            picture, tiny = self._picture(group)
            failed += picture.failed is not None
            if picture.sha256 and picture.uploaded and hashes[picture.sha256]:
                self._project.path(picture).unlink(missing_ok=True)
                continue  # the same file was uploaded before
            hashes[picture.sha256] += 1
            pictures.append((picture, tiny))
            if picture.failed is None:
                marks += self._marks(picture, group)
        self._project.add(pictures)
        self._marking.take(marks)
        self._added([p.id for p, _ in pictures])
        done = {"done": progress.done + len(groups), "failed": progress.failed + failed}
        progress = progress.model_copy(update=done)
        self._put(progress)
        return progress

    def _picture(self, group: Sequence[Found]) -> tuple[Picture, bytes]:
        """The record of a file, with its thumbnail on disk and its tiny copy."""
        first = group[0]
        sample, id_ = first.sample, secrets.token_hex(8)
        path, failed, looked = sample.image, None, None
        try:
            looked = self._decoder.look(path)
        except DataError as e:
            failed = str(e)
        if first.source is None:
            path = self._keep(path, id_)
        facts = {} if looked is None else _facts(looked, sample)
        picture = Picture(
            id=id_,
            name=first.name.removesuffix(f"#{sample.frame}"),
            path=str(path),
            sample=_file_id(first),
            source=first.source,
            patient=sample.group or (looked.group if looked else None),
            site=sample.site,
            split=sample.split,
            tags=tuple(sorted(sample.tags)),
            failed=failed,
            added=now(),
            **facts,
        )
        if looked is None:
            _log.info("image %s cannot be read", id_)
            return picture, b""
        thumbnail = self._project.folder / "thumbnails" / id_[:2] / f"{id_}-0.jpg"
        thumbnail.parent.mkdir(exist_ok=True)
        thumbnail.write_bytes(looked.thumbnail)
        return picture, looked.tiny

    def _keep(self, path: Path, id_: str) -> Path:
        """Move an uploaded file to its place; the path relative to the project."""
        place = Path("files") / id_[:2] / id_
        (self._project.folder / place.parent).mkdir(mode=0o700, exist_ok=True)
        path.rename(self._project.folder / place)
        return place

    def _marks(self, picture: Picture, group: Sequence[Found]) -> Iterator[tuple[Place, str | None, list[list[int]]]]:
        for found in group:
            sample = found.sample
            label = self._project.class_of(sample.label)
            if not found.marked or (label is None and not sample.masks):
                continue
            lesions: list[list[int]] = []
            if sample.masks and sample.mask_aligned and label != self._project.normal_class:
                try:
                    counts = self._decoder.mask(sample, size=picture.size)
                except DataError:
                    counts = []
                if len(counts) > 1:
                    lesions.append(counts)
            yield (picture.id, sample.frame), label, lesions


def _facts(looked: Looked, sample: Sample) -> dict[str, object]:
    spacing = sample.spacing_mm or looked.spacing_mm
    return {
        "frames": looked.frames,
        "size": looked.size,
        "spacing_mm": spacing,
        "spacing_source": None if spacing is None else "DICOM" if looked.dicom else "data set",
        "device": sample.device or looked.device,
        "sha256": looked.sha256,
        "dicom": looked.dicom,
        "coloured": looked.coloured,
        "two_valued": looked.two_valued,
        "flat": looked.flat,
    }


def _one_per_file(found: Sequence[Found]) -> list[list[Found]]:
    """The samples of each file; a cine has one for each frame."""
    files: dict[Path, list[Found]] = {}
    for one in found:
        files.setdefault(one.sample.image, []).append(one)
    return list(files.values())


def _file_id(found: Found) -> str:
    """The sample's id without the number of the frame."""
    return re.sub(r"#\d+$", "", found.sample.id)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _no_root(remark: str, root: Path) -> str:
    return remark.replace(f"{root}/", "").replace(str(root), "the folder")
