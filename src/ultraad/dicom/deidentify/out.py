"""The folder with the de-identified images. Nothing in it tells who they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from ultraad import __version__
from ultraad.data.sources import plain
from ultraad.dicom.deidentify.pictures import write_mask, write_pictures
from ultraad.dicom.deidentify.pixels import check_supported, rewrite
from ultraad.dicom.deidentify.profile import EDITION, Profile
from ultraad.dicom.deidentify.source import complete_uids, header_of
from ultraad.errors import DataError
from ultraad.io.dicom_header import text_of
from ultraad.io.files import append_line, ensure_writable, remove_leftovers, write_json
from ultraad.io.image import is_dicom
from ultraad.io.lock import lock_folder
from ultraad.io.names import stem_of
from ultraad.results.row import Facts
from ultraad.types import Box

ABOUT, WRITTEN = "deidentified.json", "deidentified.jsonl"
# Folders that say what their images show, and are no name of a person: "good" and "mass" can be one.
CLASS_FOLDERS = frozenset(
    {"normal", "normals", "healthy", "negative", "no_lesion", "no_finding", "no_findings", "nolesion"}
    | {"abnormal", "anomalous", "benign", "malignant", "lesion", "lesions", "tumor", "tumors", "tumour", "tumours"}
)


class Plan(NamedTuple):
    """How a file is written.

    Attributes:
        path: The file.
        name: Its path below the folder that was given.
        keep: Rectangles that stay; empty: the whole picture, and then nothing is declared about it.
        blank: Rectangles that do not.
        seen: Whether a person has confirmed it.
        state: Depends on the content of the file and on these rectangles.
        mask_of: Of a mask: its image below the folder, which was added before, and the frame, if that has several.
    """

    path: Path
    name: Path
    keep: tuple[Box, ...]
    blank: tuple[Box, ...]
    seen: bool
    state: str
    mask_of: tuple[Path, int | None] | None = None

    @property
    def declared(self) -> bool:
        """Whether its pixels are declared free of identity: what stays was given, and a person has looked."""
        return bool(self.keep) and self.seen


class About(Facts):
    """How the images were made."""

    ultraad: str = Field(description="version")
    edition: str = Field(description="of DICOM PS3.15")
    retain: tuple[str, ...] = Field((), description="options of the profile: dates, device, patient")
    keep_names: bool = Field(default=False, description="whether files kept their names")
    key: str | None = Field(None, description="tells keys apart; null if the key was forgotten")


class Written(Facts):
    """A file that was written."""

    name: str = Field(description="what its files begin with")
    files: tuple[str, ...] = Field(description="its path; of a picture with several pages, several")
    pixels: str = Field(description="how they are encoded")
    rectangles: int = Field(
        description="that were left of the picture; 0: the whole picture, nothing around it was blanked"
    )
    boxes: int = Field(description="that were blanked because there was text")
    mask: bool = Field(default=False, description="whether it is a lesion mask, which was not searched for text")
    declared: bool = Field(description="whether its pixels are declared free of identity")
    removed: tuple[str, ...] = Field((), description="elements outside the table that were removed, by keyword")
    state: str = Field(description="changes with the original file and with what was decided about it; says nothing")


class Out:
    """The folder.

    Args:
        folder: Made if needed; one that an earlier run wrote with the same key and options is completed.
        profile: The profile.
        keep_names: Whether files keep their names.
        linked: Whether the secret will be known to later runs.

    Raises:
        DataError: If the folder holds anything else, or another run is writing to it.
    """

    def __init__(self, folder: Path, profile: Profile, *, keep_names: bool, linked: bool) -> None:
        self.folder, self.profile, self._keep_names = folder, profile, keep_names
        about = About(
            ultraad=__version__,
            edition=EDITION,
            retain=tuple(sorted(profile.retain)),
            keep_names=keep_names,
            key=profile.secret.mark() if linked else None,
        )
        self._check(about)
        ensure_writable(folder)
        self._lock = lock_folder(folder)
        remove_leftovers(folder)
        write_json(folder / ABOUT, about.model_dump(mode="json"))
        self._before = dict(_read(folder / WRITTEN))
        self._now: dict[str, Path] = {}
        self._images: dict[Path, tuple[str, str]] = {}  # what masks of them, and of their frames, are named after
        self._masks = Counter[str]()

    def close(self) -> None:
        """Let others write to the folder."""
        self._lock.release()

    def _check(self, about: About) -> None:
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return
        try:
            before = About.model_validate_json((self.folder / ABOUT).read_bytes())
        except (OSError, ValidationError) as e:
            msg = f"{self.folder} holds files that 'ultraad deidentify' did not write; choose an empty or a new folder"
            raise DataError(msg) from e
        if before.key is None or before != about:
            why = "a key that was forgotten" if before.key is None else "another key or with other options"
            msg = f"{self.folder} was written with {why}; choose an empty or a new folder"
            raise DataError(msg)

    def add(self, plan: Plan) -> bool:
        """Write a file; False if an earlier run wrote it.

        Raises:
            DataError: If it cannot be read or written, or another file of this run has its name.
        """
        if plan.mask_of is not None:
            return self._add_mask(plan, *plan.mask_of)
        if is_dicom(plan.path):
            return self._add_dicom(plan)
        return self._add_picture(plan)

    def _is_done(self, stem: str, plan: Plan) -> bool:
        """Whether the result is there; and nothing else of this run may have its name."""
        first = self._now.setdefault(stem, plan.path)
        if first != plan.path:
            msg = (
                f"{plan.path} would have the name of the result of {first}: the same DICOM instance, or two names that "
                "differ in their suffix only; rename it, or leave one of them out"
            )
            raise DataError(msg)
        before = self._before.get(stem)
        return (
            before is not None
            and before.state == plan.state
            and all((self.folder / name).is_file() for name in before.files)
        )

    def _add_dicom(self, plan: Plan) -> bool:
        ds = header_of(plan.path)
        check_supported(ds, plan.path)
        complete_uids(ds, plan.path)
        secret = self.profile.secret
        classes = [word for part in plan.name.parent.parts if (word := plain(part)) in CLASS_FOLDERS]
        image = secret.name("image", text_of(ds, "SOPInstanceUID") or "")
        own = "/".join([*classes, self.profile.patient(ds), f"{image}.dcm"])
        name = plan.name.as_posix() if self._keep_names else own
        self._images[plan.name] = name.removesuffix(".dcm"), "_frame{}"
        if self._is_done(name, plan):
            return False
        stated = text_of(ds, "BurnedInAnnotation")
        removed = self.profile.apply(ds)
        if plan.declared:
            self.profile.declare(ds)
        elif stated == "YES":
            ds.BurnedInAnnotation = "YES"
        elif "BurnedInAnnotation" in ds:
            del ds.BurnedInAnnotation
        path = self._place(name)
        pixels = rewrite(plan.path, ds, path, keep=plan.keep, blank=plan.blank)
        self._note(name, plan, (name,), pixels, removed)
        return True

    def _add_picture(self, plan: Plan) -> bool:
        secret = self.profile.secret
        parts = plan.name.parent.parts
        folders = [word if (word := plain(part)) in CLASS_FOLDERS else secret.name("folder", part) for part in parts]
        own = "/".join([*folders, secret.name("file", plan.name.as_posix())])
        stem = plan.name.with_suffix("").as_posix() if self._keep_names else own
        self._images[plan.name] = stem, "-{:04d}"
        if self._is_done(stem, plan):
            return False
        names: list[str] = []

        def place(page: int, pages: int) -> Path:
            names.append(f"{stem}.png" if pages == 1 else f"{stem}-{page:04d}.png")
            return self._place(names[-1])

        write_pictures(plan.path, place, keep=plan.keep, blank=plan.blank)
        self._note(stem, plan, tuple(names), "PNG", [])
        return True

    def _add_mask(self, plan: Plan, image: Path, frame: int | None) -> bool:
        """Beside its image, or where it was if names are kept: it is found as the mask of that image there."""
        owner, of_frame = self._images[image]
        end = "" if frame is None else of_frame.format(frame)
        if self._keep_names:
            stem = plan.name.with_suffix("").as_posix()
            stem = stem if frame is None else stem.replace(f"{stem_of(image)}_frame{frame}", f"{stem_of(image)}{end}")
        else:
            number = self._masks[owner + end]
            self._masks[owner + end] += 1
            stem = f"{owner}{end}_mask{f'_{number}' if number else ''}"
        if self._is_done(stem, plan):
            return False
        root = plan.path.parents[len(plan.name.parts) - 1]
        write_mask(plan.path, self._place(f"{stem}.png"), image=root / image, blank=plan.blank)
        self._note(stem, plan, (f"{stem}.png",), "PNG", [])
        return True

    def _place(self, name: str) -> Path:
        path = self.folder / name
        ensure_writable(path.parent)
        return path

    def _note(self, stem: str, plan: Plan, files: tuple[str, ...], pixels: str, removed: list[str]) -> None:
        row = Written(
            name=stem,
            files=files,
            pixels=pixels,
            rectangles=len(plan.keep),
            boxes=len(plan.blank),
            mask=plan.mask_of is not None,
            declared=plan.declared,
            removed=tuple(dict.fromkeys(removed)),
            state=plan.state,
        )
        self._before[stem] = row
        append_line(self.folder / WRITTEN, row.model_dump_json())


def _read(path: Path) -> Iterator[tuple[str, Written]]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            row = Written.model_validate_json(line)
        except ValidationError:  # a line that a killed run left
            continue
        yield row.name, row
