"""Draw k images of each class, nested over k, and identify them exactly."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from numbers import Integral
from pathlib import Path

from ultraad.config import names_of
from ultraad.data import sources
from ultraad.data.fans import in_fans
from ultraad.data.loader import decode, warn_misaligned
from ultraad.data.regions import RegionChoice, in_regions
from ultraad.errors import ConfigError, DataError, first_names
from ultraad.fan import FanChoice
from ultraad.io.faults import one_run
from ultraad.io.files import sha256
from ultraad.registry import did_you_mean
from ultraad.rng import seeded
from ultraad.types import Sample, SupportSet

_log = logging.getLogger(__name__)

NORMAL, ABNORMAL = "normal", "abnormal"  # classes without images, if a data set has lesions or normal images only


@one_run()
def draw_support(
    root: Path | str,
    *,
    shots: int,
    seed: int = 0,
    layout: str = "auto",
    per_patient: bool = False,
    exclude_tags: Collection[str] = (),
    exclude_groups: Collection[str] = (),
    split: str | None = "train",
    classes: Sequence[str] | None = None,
    normal_class: str | None = None,
    resize_masks: bool = False,
    region: RegionChoice = "auto",
    fan: FanChoice = "off",
) -> SupportSet:
    """Draw ``shots`` images of each class.

    The seed puts every class in a random order; its k-shot set is the first k images. So the 4 shots are among the 8,
    the 8 among the 16, and excluding images (by tag, patient, split) never reorders the others.

    A data set, or its split, may hold normal images only, or lesions only. Then the other side has classes without
    images: ``"abnormal"`` beside normal images, ``"normal"`` beside lesions, unless the data set names them. Not every
    method can use such a set; ``adapt`` says which can.

    The images that are drawn are read, and no others. One that cannot be read, or whose mask cannot, is left out, and
    the next of the same order takes its place. A mask that does not fit its image counts as unknown. One warning in the
    log names each kind.

    Args:
        root: Data set.
        shots: Images per class, >= 1 (the paper uses 4, 8 and 16).
        seed: Determines the order, >= 0.
        layout: Name of the layout, or ``"auto"``.
        per_patient: False draws images regardless of the patient (the paper does not say more). True takes one image
            of each patient of a class in turn, so that the images come from as many patients as possible.
        exclude_tags: Exclude images with any of these tags, e.g. ``{"marks", "doppler"}``.
        exclude_groups: Exclude these patients.
        split: Draw only from this published split and from images without one. None: from all images.
        classes: Classes to draw, in label order; None takes all, the normal one first.
        normal_class: The class that means "no lesion"; None takes the class whose name says so. If all classes show
            lesions, it may be a usual name without images, such as ``"normal"`` (the default) or ``"healthy"``.
        resize_masks: As in :func:`ultraad.scan`.
        region: As in :func:`ultraad.predict`; the support set remembers it for ``adapt``.
        fan: Likewise.

    Returns:
        ``shots`` samples for each class that has images, ordered by class, then by draw order.

    Raises:
        ConfigError: If ``shots`` or ``seed`` is no whole number, or out of range.
        DataError: If the normal class is unknown, a class, tag or patient does not exist, or a class has too few images
            that can be read.

    Examples:
        >>> import ultraad
        >>> from ultraad.simulate import write_dataset
        >>> folder = write_dataset("simulated", n=6, size=64)
        >>> support = ultraad.draw_support("simulated", shots=2)
        >>> [sample.label for sample in support.samples]
        ['normal', 'normal', 'benign', 'benign', 'malignant', 'malignant']
    """
    numbers: tuple[object, ...] = (shots, seed)  # nobody checks the types of a notebook
    if not all(isinstance(n, Integral) for n in numbers) or shots < 1 or seed < 0:
        msg = f"got shots={shots!r}, seed={seed!r}; wanted whole numbers, shots >= 1 and seed >= 0"
        raise ConfigError(msg)
    exclude_tags, exclude_groups = names_of(exclude_tags), names_of(exclude_groups)
    classes = None if classes is None else names_of(classes)
    root, layout = sources.locate(root, layout)
    samples = in_fans(in_regions(sources.scan(root, layout=layout, resize_masks=resize_masks), region), fan)
    _check_known("tag", exclude_tags, {t for s in samples for t in s.tags}, root)
    _check_known("patient", exclude_groups, {s.group for s in samples if s.group}, root)
    order, normal = _classes(samples, classes, normal_class, root)
    samples = _labelled(samples, classes or order, normal, root)
    if split not in (None, "train") and not any(s.split for s in samples):
        _log.warning("%s has no published splits, so split %r has no effect", root, split)
    if per_patient and not any(s.group for s in samples):
        msg = f"{root} (layout {layout!r}) has no patient IDs, so images cannot be drawn per patient; draw by image"
        raise DataError(msg)

    tags, groups = set(exclude_tags), set(exclude_groups)
    allowed = {
        s.id for s in samples if split in (None, s.split or split) and not tags & s.tags and s.group not in groups
    }
    usable = allowed - _without_mask([s for s in samples if s.id in allowed])
    drawn: list[Sample] = []
    unread: dict[str, str] = {}
    misfits: list[str] = []
    for label in order if classes else _of_split(samples, order, normal, split):
        members = [s for s in samples if s.label == label]
        if not members:
            continue
        queue = [s for s in _shuffled(members, seed, label, per_patient=per_patient) if s.id in usable]
        if per_patient:
            queue = _in_turn(queue)
        chosen, faults, unfit = _readable(queue, shots, normal)
        if len(chosen) < shots:
            raise DataError(_too_few(label, members, found=len(chosen), wanted=shots, split=split, unread=faults))
        drawn += chosen
        unread |= faults
        misfits += unfit
    _warn_unread(unread)
    warn_misaligned(misfits)
    return _support(drawn, order, normal, shots=shots, seed=seed, source=f"{layout}:{root}")


@one_run()
def support_from_folder(
    root: Path | str,
    *,
    layout: str = "auto",
    classes: Sequence[str] | None = None,
    normal_class: str | None = None,
    resize_masks: bool = False,
    fan: FanChoice = "off",
) -> SupportSet:
    """A hand-picked support set: every labelled image of a data set.

    Args:
        root: Data set that contains only the support images.
        layout: Name of the layout, or ``"auto"``.
        classes: As in :func:`draw_support`.
        normal_class: As in :func:`draw_support`.
        resize_masks: As in :func:`ultraad.scan`.
        fan: As in :func:`draw_support`.

    Returns:
        The samples in order of class, then of id; ``shots`` is the size of the smallest class, ``seed`` is 0.

    Raises:
        DataError: If the normal class is unknown or a class has no images.
    """
    classes = None if classes is None else names_of(classes)
    root, layout = sources.locate(root, layout)
    samples = in_fans(sources.scan(root, layout=layout, resize_masks=resize_masks), fan)
    order, normal = _classes(samples, classes, normal_class, root)
    chosen = sorted(
        _labelled(samples, classes or order, normal, root), key=lambda s: order.index(s.label or "")
    )  # stable: ids in order
    shots = min(Counter(s.label for s in chosen).values())
    return _support(chosen, order, normal, shots=shots, seed=0, source=f"{layout}:{root}")


def content_hash(sample: Sample) -> str:
    """sha256 of the file, plus ``#frame`` for all but the first frame; equal hashes mean the same picture.

    Raises:
        DataError: If the file cannot be read.
    """
    return frame_hash(sha256(sample.image), sample.frame)


def frame_hash(file_hash: str, frame: int) -> str:
    """The content hash of one frame, given the hash of its file."""
    return f"{file_hash}#{frame}" if frame else file_hash


def digest(ids: Iterable[str], hashes: Iterable[str]) -> str:
    """sha256 over the ids and content hashes of a support set, in order."""
    lines = (f"{id_}\0{hash_}\n" for id_, hash_ in zip(ids, hashes, strict=True))
    return hashlib.sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


def _support(
    samples: list[Sample], classes: tuple[str, ...], normal: str, *, shots: int, seed: int, source: str
) -> SupportSet:
    return SupportSet(
        samples=tuple(samples),
        classes=classes,
        normal_class=normal,
        shots=shots,
        seed=seed,
        source=source,
        digest=digest((s.id for s in samples), map(content_hash, samples)),
    )


def _classes(
    samples: list[Sample], classes: Sequence[str] | None, normal_class: str | None, root: Path
) -> tuple[tuple[str, ...], str]:
    """(label order, normal class) as requested or as found, after checking both; a class may have no images."""
    found, known = sources.class_order(samples)
    for name in [*(classes or ()), *([normal_class] if normal_class else [])]:
        if name not in found and (not sources.is_normal(name) or any(map(sources.is_normal, found))):
            there = ", ".join(found) or "none, no image has a class"
            msg = f"{root} has no class {name!r}{did_you_mean(name, found) or '.'} Found: {there}"
            raise DataError(msg)
    order = tuple(classes or found)
    normal = normal_class or known or next(filter(sources.is_normal, order), None)
    if normal is None and order and all(s.anomalous for s in samples if s.label in order):
        normal = NORMAL
    if normal is None or not order:
        msg = (
            f"{root} has the classes {', '.join(order) or 'none'} and none is known to mean 'no lesion', which a "
            "support set requires. Name it with normal_class= (--normal-class); if all of them show lesions, name it "
            f"{NORMAL!r}"
        )
        raise DataError(msg)
    if len(set(order)) < len(order):
        msg = f"wanted different classes, got: {', '.join(order)} (in {root}: {', '.join(found)})"
        raise DataError(msg)
    if normal not in order:
        order = (normal, *order)
    if not classes:
        order = tuple(sorted(order, key=lambda c: c != normal))
    return (order if len(order) > 1 else (*order, ABNORMAL)), normal


def _of_split(samples: list[Sample], classes: tuple[str, ...], normal: str, split: str | None) -> tuple[str, ...]:
    """The classes to draw: only the normal one, or only the others, if the split has no image of the other side."""
    there = {s.label == normal for s in samples if split in (None, s.split or split)}
    return classes if len(there) != 1 else tuple(c for c in classes if (c == normal) in there)


def _labelled(samples: list[Sample], classes: Sequence[str], normal: str, root: Path) -> list[Sample]:
    """The samples of these classes, anomalous unless they are of the normal class."""
    if outlined := [s.id for s in samples if s.label == normal and s.anomalous and s.masks]:
        msg = (
            f"the class {normal!r} in {root} shows lesions, and {len(outlined)} of its images have masks "
            f"({first_names(outlined, 3)}), so it cannot mean 'no lesion'. Lesions alone can be drawn: leave out "
            "normal_class= (--normal-class)"
        )
        raise DataError(msg)
    return [replace(s, anomalous=s.label != normal) for s in samples if s.label in classes]


def _check_known(kind: str, asked: Collection[str], known: set[str], root: Path) -> None:
    """A misspelt exclusion is an error; a data set without any tags or patients only gets a warning."""
    for name in asked:
        if name in known:
            continue
        if known:
            hint, there = did_you_mean(name, known) or ".", ", ".join(sorted(known))
            msg = f"no image in {root} has the {kind} {name!r}{hint} Known: {there}"
            raise DataError(msg)
        _log.warning("%s has no %ss, so excluding %r has no effect", root, kind, name)


def _without_mask(samples: list[Sample]) -> set[str]:
    """Ids of abnormal samples to skip because they have no usable mask; none if no abnormal sample has one."""
    abnormal = [s for s in samples if s.anomalous]
    without = [s for s in abnormal if not (s.masks and s.mask_aligned)]
    lacking = [s.id for s in without]
    if not lacking or len(lacking) == len(abnormal):
        return set()
    _log.warning(
        "skipped %d abnormal image(s) without a mask of the same size: %s%s",
        len(lacking),
        first_names(lacking, 3),
        "; 'ultraad data check' says whether --resize-masks helps" if any(s.masks for s in without) else "",
    )
    return set(lacking)


def _shuffled(members: list[Sample], seed: int, label: str, *, per_patient: bool) -> list[Sample]:
    """The class in random order; per patient: patients in random order, and each patient's images too."""
    order = [members[i] for i in seeded(seed, f"split/{label}").permutation(len(members))]
    if not per_patient:
        return order
    patients = sorted({_patient(s) for s in members})
    rank = dict(zip(patients, seeded(seed, f"split/{label}/patients").permutation(len(patients)), strict=True))
    return sorted(order, key=lambda s: int(rank[_patient(s)]))  # stable


def _in_turn(queue: list[Sample]) -> list[Sample]:
    """The first image of each patient, then the second of each, and so on."""
    by_patient: dict[tuple[bool, str], list[Sample]] = {}
    for s in queue:
        by_patient.setdefault(_patient(s), []).append(s)
    return [s for turn in zip_longest(*by_patient.values()) for s in turn if s is not None]


def _patient(sample: Sample) -> tuple[bool, str]:
    """Sortable key of the patient; an image of an unknown patient counts as its own patient."""
    return (True, sample.group) if sample.group else (False, sample.id)


def _readable(queue: list[Sample], shots: int, normal: str) -> tuple[list[Sample], dict[str, str], list[str]]:
    """The first ``shots`` samples that can be read, {id: fault} of those before them, and ids whose mask does not fit.

    No more is read than this takes. Without enough samples in the queue, nothing is read.
    """
    chosen: list[Sample] = []
    faults: dict[str, str] = {}
    misfits: list[str] = []
    for sample in queue if len(queue) >= shots else ():
        if len(chosen) == shots:
            break
        try:
            decoded = decode(sample, normal_class=normal)
        except DataError as e:
            faults[sample.id] = str(e)
            continue
        chosen.append(sample)
        if decoded.misaligned:
            misfits.append(sample.id)
    return chosen if len(queue) >= shots else queue, faults, misfits


def _warn_unread(faults: Mapping[str, str]) -> None:
    if faults:
        _log.warning(
            "left out %d image(s) that cannot be read or whose mask cannot, and drew the next: %s (%s); "
            "'ultraad data check' names all of them",
            len(faults),
            first_names([*faults], 5),
            next(iter(faults.values())),
        )


def _too_few(
    label: str, members: list[Sample], *, found: int, wanted: int, split: str | None, unread: Mapping[str, str]
) -> str:
    splits = Counter(s.split for s in members if s.split)
    where = f" in split {split!r} (published splits: {', '.join(f'{k} {n}' for k, n in splits.items())})"
    broken = f"; {len(unread)} cannot be read: {first_names([*unread], 5)}" if unread else ""
    return (
        f"class {label!r} has {found} image(s) to draw from{where if split and splits else ''}, wanted {wanted} shots; "
        f"it has {len(members)} before splits, exclusions and missing masks are considered{broken}. Ask for fewer "
        "shots, exclude less, or draw from another split"
    )
