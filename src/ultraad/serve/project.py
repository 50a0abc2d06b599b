"""A project: one folder that holds everything, and what of it is kept in memory.

project.sqlite       settings, images, rows, models, scores; see database.py
files/               uploaded images under ids that the server made; imported folders stay where they are
thumbnails/  maps/   can be made again at any time
models/<n>/          every model, as 'ultraad adapt' writes it
supports/<n>.json    what it was adapted to, as 'ultraad support draw' writes it
exports/<n>/         what was taken away
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ultraad.data.sources import is_normal, plain
from ultraad.errors import ConfigError, DataError
from ultraad.io.files import ensure_writable
from ultraad.io.lock import LOCK, lock_folder
from ultraad.serve.aside import Aside, unit
from ultraad.serve.database import FILE, FILES, Database
from ultraad.serve.schemas import ClassName, Limits, Role

CLASSES = (ClassName(name="normal", normal=True), ClassName(name="benign"), ClassName(name="malignant"))
"""Of a new project without imported classes; those of the paper."""
HELD_OUT_SHARE = 0.2
LIMITS = Limits(
    file_bytes=1 << 30,
    request_bytes=1 << 30,
    files=100_000,
    frames=10_000,
    pixels=64_000_000,
    disk_bytes=200 << 30,
)
_FOLDERS = ("files", "thumbnails", "maps", "models", "supports", "exports", "incoming")


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Picture(BaseModel):
    """One image file of the project.

    Attributes:
        id: Made by the server.
        name: What users see; never used as a path.
        path: Absolute, or relative to the project for an uploaded file.
        sample: Id of the sample in its data set; the name for an uploaded file.
        source: ``"<layout>:<root>"`` of its data set; None for an uploaded file.
        frames: Number of frames; 1 for a still.
        size: (height, width) in pixels; (0, 0) if it could not be read.
        spacing_mm: Pixel spacing (row, col); None if unknown.
        spacing_source: Where the spacing comes from.
        patient: None if unknown.
        device: Scanner; None if unknown.
        site: Hospital; None if unknown.
        split: Split published with the data.
        tags: Facts such as ``"doppler"``.
        sha256: Of the file; empty if it could not be read.
        dicom: Whether the file is DICOM.
        coloured: Whether more than a thousandth of its pixels are coloured.
        two_valued: Whether it has the few grey values of a mask.
        flat: Whether it is a single grey level.
        failed: Why it cannot be used; None if it can.
        added: ISO time.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    path: str
    sample: str
    source: str | None = None
    frames: int = 1
    size: tuple[int, int] = (0, 0)
    spacing_mm: tuple[float, float] | None = None
    spacing_source: str | None = None
    patient: str | None = None
    device: str | None = None
    site: str | None = None
    split: str | None = None
    tags: tuple[str, ...] = ()
    sha256: str = ""
    dicom: bool = False
    coloured: bool = False
    two_valued: bool = False
    flat: bool = False
    failed: str | None = None
    added: str

    @property
    def uploaded(self) -> bool:
        """Whether the file belongs to the project."""
        return self.source is None


class Summary(BaseModel):
    """What people said about one frame, in short; derived from its rows.

    Attributes:
        label: Class of the frame: as given, or that of its lesions; None if neither says.
        label_from: What the label comes from.
        lesions: Lesions with at least a pixel.
        accepted: How many of these are accepted suggestions.
        role: Role that a person chose.
        skipped: Skipped in the queue.
        seen: Looked at in the review queue.
        conflict: Why the marks contradict each other.
        marked: ISO time of the last step; None without one.
        guess: What the current model said when the frame was first marked: (abnormal, class).
        row: Its last row.
    """

    model_config = ConfigDict(frozen=True)

    label: str | None = None
    label_from: Literal["label", "lesions", "import"] | None = None
    lesions: int = 0
    accepted: int = 0
    role: Role | None = None
    skipped: bool = False
    seen: bool = False
    conflict: str | None = None
    marked: str | None = None
    guess: tuple[bool, str | None] | None = None
    row: int = 0


Place = tuple[str, int]
"""(image id, frame)."""


class Project:
    """An open project; one server at a time.

    Attributes:
        folder: Absolute.
        database: Its database.
        lock: Held while the dictionaries below are read in several steps, or changed.
        pictures: {id: picture}, in the order they were added.
        summaries: {place: summary} of the frames with rows.
        drawn: Images set aside that the queue has offered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = _private(folder)
        self._lock_file = lock_folder(self.folder)
        try:
            self.database = Database(self.folder)
        except DataError:
            self._lock_file.release()
            raise
        self.lock = RLock()
        self._load()

    def _load(self) -> None:
        for name in _FOLDERS:
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(self.folder / "incoming", ignore_errors=True)  # of uploads that were cut off
        (self.folder / "incoming").mkdir(mode=0o700)
        read = self.database.read
        self.pictures = {
            id_: Picture.model_validate_json(facts)
            for id_, facts in read("SELECT id, facts FROM image ORDER BY number")
        }
        self.summaries: dict[Place, Summary] = {
            (image, frame): Summary.model_validate_json(facts)
            for image, frame, facts in read("SELECT image, frame, facts FROM frame")
        }
        self.drawn = {image for (image,) in read("SELECT image FROM offer")}
        self._aside = Aside(self.database)
        if self.database.setting("id") is None:
            self.database.set(
                id=secrets.token_hex(8),
                title=self.folder.name,
                classes=[c.model_dump() for c in CLASSES],
                held_out_share=HELD_OUT_SHARE,
                chosen_classes=False,
            )

    def close(self) -> None:
        """Close the database and let another server open the project."""
        self.database.close()
        self._lock_file.release()

    @property
    def title(self) -> str:
        """Its name for users."""
        return str(self.database.setting("title"))

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes in the order of their keys and labels."""
        return tuple(ClassName.model_validate(c) for c in self.database.setting("classes"))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return tuple(c.name for c in self.classes)

    @property
    def normal_class(self) -> str:
        """The class that means "no lesion"."""
        return next(c.name for c in self.classes if c.normal)

    @property
    def last_row(self) -> int:
        """Number of the last row; 0 before the first."""
        ((number,),) = self.database.read("SELECT coalesce(max(row), 0) FROM row")
        return int(number)

    def set_classes(self, classes: Iterable[ClassName]) -> None:
        """Change the classes; rows of a renamed class follow.

        Raises:
            ConfigError: If there is not exactly one normal class, a name occurs twice, or marks use a removed class.
        """
        wanted = list(classes)
        names = [c.name for c in wanted]
        if sum(c.normal for c in wanted) != 1 or len(set(names)) < max(2, len(names)):
            msg = f"wanted two or more different classes, one of them normal; got {', '.join(names)}"
            raise ConfigError(msg)
        renamed = {c.was: c.name for c in wanted if c.was and c.was != c.name}
        with self.lock:
            kept = {*names, *renamed}
            used = Counter(s.label for s in self.summaries.values() if s.label)
            lost = [f"{name} ({n} images)" for name, n in used.items() if name not in kept]
            if lost:
                msg = f"marks use the class {', '.join(lost)}; rename it, or change these marks first"
                raise ConfigError(msg)
            stored = [ClassName(name=c.name, normal=c.normal).model_dump() for c in wanted]
            aliases = {**(self.database.setting("renamed") or {}), **renamed}
            aliases = {old: renamed.get(new, new) for old, new in aliases.items() if old not in names}
            self.database.set(classes=stored, renamed=aliases, chosen_classes=True)
            with self.database.write() as db:
                for place, summary in self.summaries.items():
                    if summary.label in renamed:
                        self.put_summary(db, place, summary.model_copy(update={"label": renamed[summary.label]}))

    def take_classes(self, labels: Iterable[str]) -> None:
        """Use the classes of imported data, unless the user has chosen some or marks use the present ones."""
        found = list(dict.fromkeys(labels))
        with self.lock:
            if self.database.setting("chosen_classes") or any(s.label for s in self.summaries.values()):
                known = set(map(plain, self.class_names))
                more = [ClassName(name=name) for name in found if plain(name) not in known]
                stored = [*self.classes, *more]
            else:
                normal = next(filter(is_normal, found), None)
                if normal is None or len(found) < 2:
                    return
                stored = [ClassName(name=n, normal=n == normal) for n in [normal, *(f for f in found if f != normal)]]
            self.database.set(classes=[c.model_dump() for c in stored[:20]], chosen_classes=True)

    def class_of(self, label: str | None) -> str | None:
        """The class that a label of imported data means, without regard to case and spaces; None if there is none."""
        return next((name for name in self.class_names if label and plain(name) == plain(label)), None)

    def renamed(self, name: str | None) -> str | None:
        """The present name of a class that a row mentions."""
        return (self.database.setting("renamed") or {}).get(name, name) if name else None

    def put_summary(self, db: sqlite3.Connection, place: Place, summary: Summary) -> None:
        """Store and keep a summary, as part of a transaction."""
        values = (*place, summary.model_dump_json())
        db.execute("INSERT OR REPLACE INTO frame (image, frame, facts) VALUES (?, ?, ?)", values)
        self.summaries[place] = summary

    def picture(self, image: str, frame: int = 0) -> Picture:
        """An image that can be read.

        Raises:
            KeyError: If there is no such image or frame.
            DataError: If it cannot be read.
        """
        picture = self.pictures[image]
        if picture.failed:
            raise DataError(picture.failed)
        if frame >= picture.frames:
            raise KeyError(frame)
        return picture

    def path(self, picture: Picture) -> Path:
        """The file of an image."""
        return self.folder / picture.path

    def held_out(self) -> tuple[set[str], set[Place]]:
        """(patients, frames) that are kept out of support: marks on what the queue offered of the images set aside."""
        with self.lock:
            frames, patients = set(), set()
            for place, summary in self.summaries.items():
                drawn = place[0] in self.drawn and summary.role != "support"
                if summary.label and (drawn or summary.role == "held_out"):
                    frames.add(place)
                    if patient := self.pictures[place[0]].patient:
                        patients.add(patient)
            return patients, frames

    def roles(self) -> dict[Place, Role]:
        """The role of every frame that has a label and no conflict."""
        patients, frames = self.held_out()
        with self.lock:
            found: dict[Place, Role] = {}
            for place, summary in self.summaries.items():
                if summary.label is None or summary.conflict or self.pictures[place[0]].failed:
                    continue
                of_held_out = self.pictures[place[0]].patient in patients and summary.role != "support"
                found[place] = "held_out" if place in frames or of_held_out else "support"
            return found

    def add(self, found: Sequence[tuple[Picture, bytes]]) -> None:
        """Add images, each with its tiny copy (32 x 32 grey bytes): all, or none."""
        with self.lock:
            units = self._aside.choose(p for p, _ in found)
            with self.database.write() as db:
                rows = [(p.id, p.model_dump_json(), tiny) for p, tiny in found]
                db.executemany("INSERT INTO image (id, facts, tiny) VALUES (?, ?, ?)", rows)
                self._aside.add(db, units)
            self.pictures |= {p.id: p for p, _ in found}
            self._aside.units |= units

    def aside(self) -> list[str]:
        """The images set aside, in the order in which they are offered; those that were offered first."""
        with self.lock:
            return self._aside.images(self.pictures.values(), first=self.drawn)

    def set_share(self, share: float) -> None:
        """Change the share that is set aside; what is marked or was offered stays as it is."""
        with self.lock:
            fixed = {*self.drawn, *(image for (image, _), s in self.summaries.items() if s.label)}
            self._aside.set_share(share, fixed={unit(self.pictures[image]) for image in fixed})

    def remove(self, image: str) -> None:
        """Remove an image with its rows; its file, if it was uploaded."""
        with self.lock:
            picture = self.pictures[image]
            with self.database.write() as db:
                for table, key in (("image", "id"), *((t, "image") for t in _OF_IMAGE)):
                    db.execute(f"DELETE FROM {table} WHERE {key} = ?", (image,))
            del self.pictures[image]
            if (gone := unit(picture)) not in map(unit, self.pictures.values()):
                self._aside.forget(gone)
            self.summaries = {place: s for place, s in self.summaries.items() if place[0] != image}
            self.drawn.discard(image)
        if picture.uploaded:
            self.path(picture).unlink(missing_ok=True)
        for folder in ("thumbnails", "maps"):
            for file in (self.folder / folder).glob(f"**/{image}-*"):
                file.unlink(missing_ok=True)

    def delete_all(self) -> None:
        """Delete everything in the folder that a project has, and begin an empty one under the same name and port."""
        with self.lock:
            kept = {key: self.database.setting(key) for key in ("title", "port")}
            self.database.close()
            for name in FILES:
                (self.folder / name).unlink(missing_ok=True)
            for name in _FOLDERS:
                shutil.rmtree(self.folder / name)
            self.database = Database(self.folder)
            self._load()
            self.database.set(**kept)

    def used_bytes(self) -> int:
        """Bytes of the uploaded files."""
        return sum(file.stat().st_size for file in (self.folder / "files").glob("*/*"))


_OF_IMAGE = ("row", "frame", "prediction", "embedding", "offer")


def _private(folder: Path) -> Path:
    """The folder, made if needed, for its owner only.

    Raises:
        DataError: If it holds something else than a project.
    """
    folder = folder.expanduser().absolute()
    there = folder.is_dir() and any(p.name not in {LOCK, ".DS_Store"} for p in folder.iterdir())
    if there and not (folder / FILE).is_file():
        msg = f"{folder} holds files that are no ultraad project; choose an empty or new folder with --project"
        raise DataError(msg)
    ensure_writable(folder)
    with suppress(OSError):  # file systems without permissions
        folder.chmod(0o700)
    return folder
