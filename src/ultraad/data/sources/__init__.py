"""Data layouts by name: ``data/sources/foo.py`` ending in ``SOURCE = Source(...)`` is found as ``"foo"``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ultraad import registry
from ultraad.data.sources._base import (
    Source,
    anomaly_samples,
    folders_in,
    frames_of,
    images_in,
    in_print,
    indent,
    is_anomalous,
    is_normal,
    natural_key,
    of_one_depth,
    plain,
    relative_id,
    split_folders,
    split_of,
)
from ultraad.data.sources._tables import read_table
from ultraad.errors import DataError, first_names
from ultraad.io.find import is_there
from ultraad.io.store_copy import on_disk
from ultraad.types import Sample

__all__ = [
    "Source", "UnknownLayoutError", "anomaly_samples", "available", "class_order", "detect", "folders_in",
    "frames_of", "get", "images_in", "in_print", "is_anomalous", "is_normal", "locate", "natural_key",
    "of_one_depth", "plain", "read_table", "relative_id", "scan", "split_folders", "split_of",
]  # fmt: skip

_FALLBACKS = ("folder", "masks")  # the most general layouts, tried in this order when no other matches


class UnknownLayoutError(DataError):
    """A folder has no known layout."""


def available() -> list[str]:
    """Names of all layouts in this package, sorted; none is imported."""
    return registry.names(__name__)


def get(name: str) -> Source:
    """The layout behind a name.

    Args:
        name: One of :func:`available`, or ``"package.module:NAME"`` for one from outside.

    Raises:
        ConfigError: If there is no such layout; the message suggests the nearest.
    """
    source: Source = registry.find(__name__, name, "SOURCE", kind="layout")
    return source


def detect(root: Path | str) -> str:
    """Name of the layout a folder (or file) has.

    Raises:
        DataError: If it does not exist, no layout fits (the message shows what was found and every known layout), or
            several fit.
    """
    root = on_disk(root)
    _check_exists(root)
    names = [n for n in available() if n not in _FALLBACKS and get(n).matches(root)]
    if not names:
        names = _fallback(root)
    if len(names) > 1:
        msg = f"{root} fits {len(names)} layouts: {', '.join(names)}; choose one with layout= (--layout)"
        raise DataError(msg)
    if not names:
        pictures = "\n".join(f"  {n}: {get(n).title}\n{indent(get(n).layout)}" for n in available())
        msg = f"{root} has no known layout. Found: {_contents(root)}. Wanted one of:\n{pictures}"
        raise UnknownLayoutError(msg)
    return names[0]


def _fallback(root: Path) -> list[str]:
    """The first of the general layouts that matches, unless the folders inside are data sets rather than classes."""
    name = next((n for n in _FALLBACKS if get(n).matches(root)), None)
    if name is None:
        return []
    inside = [f for f in folders_in(root) if not split_of(f.name)]
    sets = [f.name for f in inside if any(n not in _FALLBACKS and get(n).matches(f) for n in available())]
    if sets:
        msg = f"{root} contains several data sets: {', '.join(sets)}; give one of these folders"
        raise DataError(msg)
    return [name]


def _contents(root: Path) -> str:
    """The first names in a folder, for an error message."""
    if root.is_file():
        return f"the file {root.name}"
    names = sorted((p.name + "/" * p.is_dir() for p in root.iterdir() if p.name[0] != "."), key=natural_key)
    return first_names(names) if names else "an empty folder"


def locate(root: Path | str, layout: str = "auto") -> tuple[Path, str]:
    """(absolute path, name of the layout) of a data set; see :func:`scan`."""
    root = on_disk(root).resolve()
    return root, detect(root) if layout == "auto" else layout


def scan(root: Path | str, *, layout: str = "auto", resize_masks: bool = False) -> list[Sample]:
    """Every sample of a data set, in natural order of ids.

    Args:
        root: Folder (or, for ``csv`` and ``coco``, the file); or its URL on a store, which is copied to this disk first
            (:func:`ultraad.io.store_copy.on_disk`).
        layout: A name from :func:`available`, or ``"auto"``.
        resize_masks: Resize masks of another size but the same aspect to their images; otherwise such masks are not
            used.

    Raises:
        ConfigError: If the layout's name is unknown.
        DataError: If the folder does not exist, has another layout, or contains no images.

    Examples:
        >>> import ultraad
        >>> from ultraad.simulate import write_dataset
        >>> folder = write_dataset("simulated", n=6, size=64)
        >>> samples = ultraad.scan("simulated")
        >>> len(samples), samples[0].label, samples[0].anomalous
        (6, 'benign', True)
    """
    root = on_disk(root)
    _check_exists(root)
    return get(detect(root) if layout == "auto" else layout).scan(root, resize_masks=resize_masks)


def _check_exists(root: Path) -> None:
    if not is_there(root):
        msg = f"the data set {root} does not exist; give its folder"
        raise DataError(msg)


def class_order(samples: Sequence[Sample]) -> tuple[tuple[str, ...], str | None]:
    """The classes of a data set in label order.

    The normal class comes first, then the others in natural order (benign before malignant).

    Returns:
        (classes, normal class). The normal class is None unless exactly one class is free of lesions.
    """
    state: dict[str, set[bool | None]] = {}
    for s in samples:
        if s.label is not None:
            state.setdefault(s.label, set()).add(s.anomalous)
    normal = [label for label, flags in state.items() if flags == {False}]
    normal_class = normal[0] if len(normal) == 1 else None
    order = sorted(state, key=lambda label: (label not in normal, natural_key(label)))
    return tuple(order), normal_class
