"""UDIAT (Dataset B): 163 breast-ultrasound images, benign and malignant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ultraad.data.sources import Source, images_in, is_anomalous, plain, relative_id
from ultraad.data.sources._tables import Faults, number_cells
from ultraad.errors import DataError
from ultraad.types import Sample

_CLASSES = ("benign", "malignant")


def _matches(root: Path) -> bool:
    return (root / "original").is_dir() and (root / "GT").is_dir()


def _read(root: Path) -> Iterator[Sample]:
    images = root / "original"
    by_folder: list[tuple[Path, str | None]] = [
        (path, label) for label in _CLASSES for path in images_in(_subfolder(images, label))
    ]
    for path, label in by_folder or _by_table(root):
        mask = next((m for m in (root / "GT" / path.relative_to(images), root / "GT" / path.name) if m.is_file()), None)
        yield Sample(
            id=relative_id(path, root),
            image=path,
            masks=(mask,) if mask else (),
            label=label,
            anomalous=is_anomalous(label, _CLASSES),
        )


def _subfolder(folder: Path, name: str) -> Path:
    return next((p for p in folder.iterdir() if p.is_dir() and plain(p.name) == name), folder / name)


def _by_table(root: Path) -> list[tuple[Path, str | None]]:
    labels = _labels(root)
    return [(path, labels.get(_key(path.stem))) for path in images_in(root / "original")]


def _labels(root: Path) -> dict[str, str]:
    """{image number: class} from the table beside the images."""
    tables = [p for p in sorted(root.iterdir()) if p.suffix.lower() in {".csv", ".xlsx"} and p.name[0] not in ".~"]
    if not tables:
        msg = (
            f"{root} has images in original/ but no classes: wanted DatasetB.xlsx or a CSV file beside it, or the "
            "folders original/benign and original/malignant"
        )
        raise DataError(msg)
    table = next((p for p in tables if p.suffix.lower() == ".csv"), tables[0])
    known = {_key(p.stem) for p in images_in(root / "original")}
    labels: dict[str, str] = {}
    faults = Faults(table)
    for _, row in number_cells(table, faults):
        # Copies of the sheet differ in headers and column order, so cells are recognised by their content: one is the
        # name of an existing image, another says benign or malignant.
        label = next((plain(c) for c in row if plain(c) in _CLASSES), None)
        number = next((_key(c) for c in row if _key(c) in known), None)
        if label and number:
            labels[number] = label
    faults.report()
    if not labels:
        msg = f"{table} has no row with the name of an image in original/ and the word benign or malignant"
        raise DataError(msg)
    return labels


def _key(name: str) -> str:
    """The image number: ``"12"`` for ``"000012"``, ``"12"``, ``"12.0"`` and ``"000012.png"``."""
    stem = name.strip().removesuffix(".png").removesuffix(".0")
    return stem.lstrip("0") or stem


SOURCE = Source(
    name="udiat",
    title="UDIAT Dataset B breast ultrasound, 163 images (benign, malignant; no normal images)",
    licence="research use, on request from the authors",
    citation=(
        "Yap et al., Automated breast ultrasound lesions detection using convolutional neural networks, IEEE Journal "
        "of Biomedical and Health Informatics 22:1218 (2018)"
    ),
    layout="""
root/
  original/000001.png   or original/benign/..., original/malignant/...
  GT/000001.png
  DatasetB.xlsx         (or a CSV file): one row for each image with its number and Benign or Malignant
""",
    group_rule="UDIAT has no patient IDs.",
    matches=_matches,
    read=_read,
    published=True,
    organ="breast",
)
