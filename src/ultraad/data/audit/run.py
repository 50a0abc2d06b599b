"""The data check: measure every image once, then compare the images with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from ultraad.data import sources
from ultraad.data.audit.duplicates import clusters, exact_groups, near_pairs
from ultraad.data.audit.measure import Measured, measure
from ultraad.data.audit.report import AuditReport, ClassCount, Finding, Severity, TagCount, worst_first
from ultraad.data.samples import samples_of
from ultraad.errors import DataError
from ultraad.io.faults import one_run
from ultraad.io.names import stem_of, summary
from ultraad.io.store_copy import on_disk
from ultraad.texts.tags import auroc_of_tag, is_shortcut
from ultraad.types import Sample

_FULL = 0.95  # share of mask pixels above which a mask may be inverted
_STOCK_SHARE = 0.5  # of all images, from which one patient with every class may be several people
_NO_CLASS = "(no class)"


@one_run()
def audit(
    root: Path | str,
    *,
    layout: str = "auto",
    resize_masks: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Check a data set. A folder of images that has no layout is checked without classes.

    Errors make numbers wrong or too high: unreadable images or masks, masks of another size than their image, lesions
    on normal images, a patient in two splits, identical files across classes, patients or splits. Warnings are
    near-duplicates, empty or full masks, faulty tables, tags that predict the label, and unknown patients or normal
    class.

    Args:
        root: Data set.
        layout: Name of the layout, or ``"auto"``.
        resize_masks: As in :func:`ultraad.scan`.
        progress: Called with (images done, images in all).

    Returns:
        Counts and findings. About 1 KB of memory is used for each image.

    Raises:
        DataError: If there are no images or a table is broken.
    """
    root = on_disk(root)
    source = _source(root) if layout == "auto" else sources.get(layout)
    samples = source.samples(root, resize_masks=resize_masks)
    unused = source.unused(root, samples)
    measured = []
    for done, sample in enumerate(samples, start=1):
        measured.append(measure(sample))
        if progress is not None:
            progress(done, len(samples))
    classes, normal = sources.class_order(samples)
    return AuditReport(
        root=str(root),
        layout=source.name,
        title=source.title,
        images=len(samples),
        patients=len({s.group for s in samples if s.group}),
        without_patient=sum(s.group is None for s in samples),
        classes=_counts(samples, classes),
        normal_class=normal,
        tags=_tags(measured),
        findings=findings_of(measured, unused=unused, quirks=source.quirks(root)),
    )


def findings_of(
    measured: Sequence[Measured], *, unused: Mapping[Path, str] | None = None, quirks: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """What is wrong with images that are measured already, most severe first; see :func:`audit`.

    Args:
        measured: The images.
        unused: {file: kind} of files that belong to no image.
        quirks: Known faults of published tables.
    """
    samples = [m.sample for m in measured]
    classes, normal = sources.class_order(samples)
    return worst_first(
        [
            *_files(measured),
            *_unused(unused or {}),
            *_masks(measured),
            *_exact(measured),
            *_near(measured),
            *_patients(samples),
            *_classes(samples, classes, normal),
            *_quirks(quirks),
            *_shortcuts(_tags(measured)),
        ]
    )


def _source(root: Path) -> sources.Source:
    """The layout of a data set, or one that takes every image as it comes."""
    try:
        return sources.get(sources.detect(root))
    except sources.UnknownLayoutError:
        try:
            samples = samples_of([root])
        except DataError:
            samples = []
        if not samples:
            raise
    return sources.Source(
        name="none",
        title="images without classes, because the folder has no known layout; see 'ultraad data list'",
        licence="yours",
        citation="",
        layout="",
        group_rule="The patient is that in the DICOM header.",
        matches=Path.exists,
        read=lambda root: [
            replace(s, id=sources.relative_id(s.image, root, frame=s.frame if "#" in s.id else None)) for s in samples
        ],
    )


def _counts(samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, ClassCount]:
    out = {}
    for name in [*classes, *([_NO_CLASS] if any(s.label is None for s in samples) else [])]:
        members = [s for s in samples if (s.label or _NO_CLASS) == name]
        out[name] = ClassCount(
            images=len(members),
            patients=len({s.group for s in members if s.group}),
            splits=dict(sorted(Counter(s.split for s in members if s.split).items(), key=_split_order)),
            masks=sum(bool(s.masks) and s.mask_aligned for s in members),
        )
    return out


def _split_order(item: tuple[str, int]) -> tuple[bool, bool, str]:
    """Sort key: training first, test last."""
    return item[0] != "train", item[0] == "test", item[0]


def _tags(measured: Sequence[Measured]) -> dict[str, TagCount]:
    """Every tag as a lesion detector."""
    tagged = {m.sample.id: m.sample.tags | ({"colour"} if m.coloured else set()) for m in measured}
    normal = [tagged[m.sample.id] for m in measured if m.sample.anomalous is False]
    abnormal = [tagged[m.sample.id] for m in measured if m.sample.anomalous is True]
    out = {}
    for tag in sorted({t for tags in tagged.values() for t in tags}):
        n, a = sum(tag in t for t in normal), sum(tag in t for t in abnormal)
        out[tag] = TagCount(normal=n, abnormal=a, auroc=auroc_of_tag(a, len(abnormal), n, len(normal)))
    return out


def _finding(severity: Severity, kind: str, message: str, items: Sequence[str]) -> Iterator[Finding]:
    """One finding with ``{n}`` filled in, or none if there are no items."""
    if items:
        yield Finding(severity=severity, kind=kind, message=message.format(n=len(items)), items=tuple(items))


def _files(measured: Sequence[Measured]) -> Iterator[Finding]:
    yield from _finding(
        "error",
        "unreadable_image",
        "{n} image(s) cannot be read; restore or remove them",
        [f"{m.sample.id}: {m.error}" for m in measured if m.error],
    )
    yield from _finding(
        "error",
        "unreadable_mask",
        "{n} image(s) have masks that cannot be read; restore or remove them",
        [f"{m.sample.id}: {m.mask_error}" for m in measured if m.mask_error],
    )
    yield from _finding(
        "warning",
        "flat_image",
        "{n} image(s) are a single grey level; remove them",
        [m.sample.id for m in measured if m.flat],
    )


def _unused(unused: Mapping[Path, str]) -> Iterator[Finding]:
    orphans = [str(p) for p, kind in unused.items() if kind == "mask without an image"]
    yield from _finding(
        "warning", "orphan_mask", "{n} mask(s) belong to no image; rename them, or restore the images", orphans
    )
    images = [str(p) for p, kind in unused.items() if kind == "image"]
    yield from _finding(
        "warning", "unused_image", "{n} image(s) are not where the layout looks for them and are not used", images
    )
    if unused:
        yield Finding(
            severity="info",
            kind="unused_files",
            message=summary(unused, shown=0),
            items=tuple(f"{path}: {kind}" for path, kind in unused.items()),
        )


def _masks(measured: Sequence[Measured]) -> Iterator[Finding]:
    off = [m for m in measured if m.misaligned]
    scaled = sum(m.same_aspect for m in off)
    advice = f"; {scaled} of them have the aspect of their image: --resize-masks uses these" if scaled else ""
    yield from _finding(
        "error",
        "misaligned_mask",
        f"{{n}} mask(s) differ in size from their image{_of_patients([m.sample for m in off])}; these images are "
        f"excluded from mask supervision and pixel metrics{advice}",
        [f"{m.sample.id}: {m.misaligned}" for m in off],
    )
    known = [(m.sample, m.lesion) for m in measured if m.lesion is not None]
    yield from _finding(
        "error",
        "lesion_on_normal",
        "{n} normal image(s) have a mask that is not empty; the label or the mask is wrong",
        [f"{s.id}: {share:.1%} of the pixels" for s, share in known if s.anomalous is False and share > 0],
    )
    yield from _finding(
        "warning",
        "empty_mask",
        "{n} abnormal image(s) have an empty mask, so a detected lesion counts as a false positive; delete the mask if "
        "the outline is unknown",
        [s.id for s, share in known if s.anomalous and share == 0],
    )
    yield from _finding(
        "warning",
        "full_mask",
        f"{{n}} mask(s) cover more than {_FULL:.0%} of the image; check whether they are inverted",
        [f"{s.id}: {share:.1%}" for s, share in known if share > _FULL],
    )
    yield from _finding(
        "warning",
        "inverted_mask",
        "{n} mask(s) cover most of the image and its border; background and lesion may be swapped",
        [f"{m.sample.id}: {m.lesion:.1%}" for m in measured if m.inverted and m.lesion and m.lesion <= _FULL],
    )
    stems = [stem_of(m.sample.image) for m in measured]
    yield from _finding(
        "warning",
        "mask_as_image",
        "{n} image(s) have only the grey values of a mask. If they are masks, name them like one (a_mask.png beside "
        "a.png) or move them to a folder masks/",
        [_like_mask(m.sample, stems) for m in measured if m.two_valued and not m.flat],
    )
    bare = [m.sample.id for m in measured if m.sample.anomalous and not m.sample.masks]
    yield from _finding(
        "warning", "no_mask", "{n} abnormal image(s) have no mask and are excluded from pixel metrics", bare
    )


def _like_mask(sample: Sample, stems: Sequence[str]) -> str:
    """The id, and the image whose stem the file carries."""
    own = stem_of(sample.image)
    carried = max((s for s in stems if s != own and s in own), key=len, default=None)
    return f"{sample.id}: carries the stem of {carried}" if carried else sample.id


def _exact(measured: Sequence[Measured]) -> Iterator[Finding]:
    readable = [m for m in measured if not m.error]
    found: dict[str, list[str]] = {}
    for group in exact_groups([m.hash for m in readable]):
        members = [readable[i].sample for i in group]
        kinds = {kind for a, b in combinations(members, 2) for kind in _relations(a, b)}
        for kind in kinds - {"within_patient", "patient_unknown"} or {"otherwise"}:
            found.setdefault(kind, []).append(" = ".join(s.id for s in members))
    texts = {
        "across_classes": "{n} picture(s) are in two classes as identical files; one of the labels is wrong",
        "across_splits": "{n} picture(s) are in two published splits as identical files; the test set leaks",
        "across_patients": "{n} picture(s) belong to two patients as identical files; a split by patient leaks",
    }
    for kind, text in texts.items():
        yield from _finding("error", f"duplicate_{kind}", text, found.get(kind, []))
    text = "{n} picture(s) occur more than once as identical files; keep one copy, or keep all copies in one split"
    yield from _finding("warning", "duplicate", text, found.get("otherwise", []))


def _near(measured: Sequence[Measured]) -> Iterator[Finding]:
    usable = [m for m in measured if m.thumbnail is not None and not m.flat]
    if len(usable) < 2:
        return
    thumbnails = np.stack([m.thumbnail for m in usable if m.thumbnail is not None])
    found: dict[str, list[tuple[int, int, float]]] = {}
    for i, j, detail in near_pairs(thumbnails):
        if usable[i].hash != usable[j].hash:
            for kind in _relations(usable[i].sample, usable[j].sample):
                found.setdefault(kind, []).append((i, j, detail))
    texts: dict[str, tuple[Severity, str]] = {
        "across_classes": ("warning", "near-duplicates in two classes"),
        "across_splits": ("warning", "near-duplicates in two published splits"),
        "across_patients": ("warning", "near-duplicates of two patients, who may be one person"),
        "patient_unknown": (
            "warning",
            "near-duplicates without patient IDs, so a random split can put one lesion on both sides",
        ),
        "within_patient": ("info", "near-duplicates of one patient (neighbouring frames); split by patient"),
    }
    for kind, (severity, text) in texts.items():
        pairs = sorted(found.get(kind, []), key=lambda p: -p[2])
        images = len({k for i, j, _ in pairs for k in (i, j)})
        scenes = clusters([(i, j) for i, j, _ in pairs])
        items = [f"{usable[i].sample.id} ~ {usable[j].sample.id} (similarity {d:.2f})" for i, j, d in pairs]
        yield from _finding(
            severity, f"near_duplicate_{kind}", f"{{n}} pair(s), {images} images of {scenes} scene(s): {text}", items
        )


def _relations(a: Sample, b: Sample) -> list[str]:
    """Why two samples must not be one picture; ``within_patient`` means that they may, ``patient_unknown`` perhaps."""
    out = []
    if a.label is not None and b.label is not None and a.label != b.label:
        out.append("across_classes")
    if a.split is not None and b.split is not None and a.split != b.split:
        out.append("across_splits")
    if a.group is not None and b.group is not None and a.group != b.group:
        out.append("across_patients")
    if out:
        return out
    return ["patient_unknown" if a.group is None or b.group is None else "within_patient"]


def _patients(samples: Sequence[Sample]) -> Iterator[Finding]:
    splits: dict[str, set[str]] = {}
    for s in samples:
        if s.group and s.split:
            splits.setdefault(s.group, set()).add(s.split)
    yield from _finding(
        "error",
        "patient_in_two_splits",
        "{n} patient(s) are in more than one published split, so the test set contains patients of the training set",
        [f"{group}: {', '.join(sorted(names))}" for group, names in splits.items() if len(names) > 1],
    )
    labels = {s.label for s in samples if s.label is not None}
    of_patient: dict[str, list[Sample]] = {}
    for s in samples:
        if s.group and s.label is not None:
            of_patient.setdefault(s.group, []).append(s)
    yield from _finding(
        "warning",
        "patient_with_all_classes",
        "{n} patient ID(s) have images of every class and a large part of the data set; they may be several people",
        [
            f"{group}: {len(own)} images"
            for group, own in of_patient.items()
            if len(labels) > 1 and {s.label for s in own} == labels and len(own) >= _STOCK_SHARE * len(samples)
        ],
    )
    if not any(s.group for s in samples):
        yield Finding(
            severity="warning",
            kind="no_patients",
            message="no patient IDs: a split may put a patient on both sides, and confidence intervals are too narrow",
        )


def _classes(samples: Sequence[Sample], classes: Sequence[str], normal: str | None) -> Iterator[Finding]:
    if not classes:
        text = f"none of the {len(samples)} images has a class, so they cannot be drawn or graded"
        yield Finding(severity="warning", kind="no_class", message=text)
        return
    if normal is None:
        names = ", ".join(classes) or "none"
        text = f"no class is known to mean 'no lesion' (classes: {names}); 'ultraad support draw' needs --normal-class"
        if classes and all(s.anomalous for s in samples if s.label is not None):
            text = f"lesions only (classes: {names}): grading and maps can be adapted, detection stays zero-shot"
        yield Finding(severity="warning", kind="no_normal_class", message=text)
    missing = [s.id for s in samples if s.label is None]
    yield from _finding("warning", "no_class", "{n} image(s) have no class and cannot be drawn or graded", missing)


def _quirks(quirks: Sequence[str]) -> Iterator[Finding]:
    yield from _finding("warning", "table", "{n} unexpected cell(s) or file(s)", quirks)


def _shortcuts(tags: dict[str, TagCount]) -> Iterator[Finding]:
    telling = [
        f"{name}: AUROC {t.auroc:.2f} ({t.abnormal} abnormal and {t.normal} normal images have it)"
        for name, t in tags.items()
        if is_shortcut(name, t.auroc)
    ]
    text = (
        "{n} tag(s) predict the label: a model can use them instead of the lesion. Also report detection on images "
        "without them (--exclude-tags)"
    )
    yield from _finding("warning", "shortcut", text, telling)


def _of_patients(samples: Sequence[Sample]) -> str:
    counts = Counter(s.group for s in samples if s.group)
    return f" (patients: {', '.join(f'{g} {n}' for g, n in sorted(counts.items()))})" if counts else ""
