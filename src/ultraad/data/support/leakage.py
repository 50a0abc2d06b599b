"""Refuse to evaluate a model on images or patients it has learned from."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ultraad.data import sources
from ultraad.data.sources._base import DICOM_PATIENT
from ultraad.data.support.draw import content_hash, frame_hash
from ultraad.data.support.file import folder_of, source_root
from ultraad.errors import DataError, LeakageError, first_names
from ultraad.io.files import sha256, stamp_of
from ultraad.types import Sample, SupportSet

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies a support image later, without the image itself.

    Attributes:
        id: Sample id.
        group: Patient; None if unknown.
        sha256: :func:`~ultraad.data.support.content_hash` of the image.
        source: ``"<layout>:<root>"`` of its data set; empty if unknown.
    """

    id: str
    group: str | None
    sha256: str
    source: str


def fingerprints(support: SupportSet) -> tuple[Fingerprint, ...]:
    """One fingerprint for each support image, in order.

    Raises:
        DataError: If an image cannot be read.
    """
    return fingerprints_of(support.samples, support.source)


def fingerprints_of(samples: Iterable[Sample], source: str) -> tuple[Fingerprint, ...]:
    """One fingerprint for each sample of ``"<layout>:<root>"``; see :func:`fingerprints`."""
    return tuple(Fingerprint(s.id, s.group, content_hash(s), source) for s in samples)


def write_fingerprints(images: Iterable[tuple[Fingerprint, str]]) -> str:
    """(fingerprint, label) of each image as CSV, without the common source."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "label", "group", "sha256"))
    table.writerows((p.id, label, p.group or "", p.sha256) for p, label in images)
    return text.getvalue()


def read_fingerprints(path: Path, source: str | None) -> Iterator[tuple[Fingerprint, str]]:
    """Read what :func:`write_fingerprints` wrote, for images of ``"<layout>:<root>"``."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found = Fingerprint(id=row["id"], group=row["group"] or None, sha256=row["sha256"], source=source or "")
            yield found, row["label"]


class _Known:
    """The support, looked up by image and by patient."""

    def __init__(self, support: SupportSet | Iterable[Fingerprint], layout: str | None) -> None:
        prints = fingerprints(support) if isinstance(support, SupportSet) else tuple(support)
        self._hashes = {p.sha256 for p in prints}
        self._groups = {p.group for p in prints if p.group}
        self._of_source: dict[str, tuple[set[str], set[str | None]]] = {}
        for p in prints:
            ids, groups = self._of_source.setdefault(p.source, (set(), set()))
            ids.add(p.id)
            groups.add(p.group)
        self._published = f"{layout}:" if layout and sources.get(layout).published else None

    def _same_set(self, sample: Sample, source: str) -> bool:
        """Whether the sample belongs to the data set of a support source, so that ids and patients can be compared."""
        if self._published and source.startswith(self._published):
            return True
        return ":" in source and _below(sample.image, source_root(source))

    def image(self, sample: Sample) -> bool:
        same_id = (sample.id in ids and self._same_set(sample, src) for src, (ids, _) in self._of_source.items())
        return _hash(sample) in self._hashes or any(same_id)

    def patient(self, sample: Sample) -> bool:
        if not self.same_name(sample):
            return False
        same = (sample.group in gs and self._same_set(sample, src) for src, (_, gs) in self._of_source.items())
        return str(sample.group).startswith(DICOM_PATIENT) or any(same)

    def same_name(self, sample: Sample) -> bool:
        return sample.group in self._groups


def leaking(
    support: SupportSet | Iterable[Fingerprint], samples: Iterable[Sample], *, layout: str | None = None
) -> list[Sample]:
    """The samples that are support images or of support patients; arguments and rules as in :func:`check_leakage`."""
    known = _Known(support, layout)
    return [s for s in samples if known.patient(s) or known.image(s)]


def check_leakage(
    support: SupportSet | Iterable[Fingerprint],
    samples: Sequence[Sample],
    *,
    layout: str | None = None,
    role: Literal["support", "auxiliary"] = "support",
) -> None:
    """Refuse to evaluate on images or patients that a model has learned from.

    An image leaks if its bytes equal those of a support image, or if it has the same id in the same data set. A patient
    leaks if the same name means the same person: both images are below the support's root, or both are from the same
    published data set, or the name comes from DICOM headers. The same name in unrelated folders is only logged.

    Args:
        support: The support set, or its fingerprints.
        samples: Samples to evaluate. The bytes of files that cannot be read are not compared.
        layout: Layout of the evaluated samples, if known; needed to recognise copies of a published data set.
        role: What the model has used the images for; part of the message.

    Raises:
        LeakageError: If an image or patient leaks; names both and says what to do.
    """
    known = _Known(support, layout)
    images = [s.id for s in samples if known.image(s)]
    patients = {str(s.group) for s in samples if known.patient(s)}
    same_name = {str(s.group) for s in samples if known.same_name(s)} - patients
    if same_name:
        _log.warning(
            "%s and evaluated data both have patient(s) called %s, from different folders; if these are the same "
            "people, exclude them",
            role,
            ", ".join(sorted(same_name)),
        )
    if not images and not patients:
        return
    found = [f"{len(images)} {role} image(s): {first_names(images)}"] if images else []
    found += [f"{len(patients)} {role} patient(s): {first_names(sorted(patients))}"] if patients else []
    advice = {
        "support": "draw the support with the evaluated patients excluded",
        "auxiliary": "adapt again with another auxiliary set",
    }
    msg = (
        f"the evaluated data contains {' and '.join(found)}. Scores on them would be too high. Evaluate on another "
        f"split or data set, or {advice[role]}"
    )
    raise LeakageError(msg)


@lru_cache(maxsize=4)  # the frames of one file come one after the other
def _file_hash(path: Path, stamp: tuple[int, ...]) -> str:  # noqa: ARG001 - part of the cache's key
    return sha256(path)


def _hash(sample: Sample) -> str | None:
    try:
        return frame_hash(_file_hash(sample.image, stamp_of(sample.image.stat())), sample.frame)
    except (OSError, DataError):
        return None


def _below(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(folder_of(root).resolve())
