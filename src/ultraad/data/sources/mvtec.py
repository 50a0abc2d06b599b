"""MVTec-AD style: normal training images, test images by kind of defect, masks in a folder of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultraad.data.sources._base import (
    SPLIT_NAMES,
    Source,
    folders_in,
    images_in,
    is_anomalous,
    is_normal,
    plain,
    relative_id,
)
from ultraad.types import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _matches(root: Path) -> bool:
    return (root / "train" / "good").is_dir() and (root / "test").is_dir() and (root / "ground_truth").is_dir()


def _read(root: Path) -> Iterator[Sample]:
    for part in folders_in(root):
        if plain(part.name) not in SPLIT_NAMES:
            continue
        for folder in folders_in(part):
            label = folder.name
            truth = root / "ground_truth" / label
            masks = {p.stem.removesuffix("_mask"): p for p in images_in(truth)}
            for path in images_in(folder):
                mask = None if is_normal(label) else masks.get(path.stem)
                yield Sample(
                    id=relative_id(path, root),
                    image=path,
                    masks=(mask,) if mask else (),
                    label=label,
                    anomalous=is_anomalous(label, ("good",)),
                    split=SPLIT_NAMES[plain(part.name)],
                )


SOURCE = Source(
    name="mvtec",
    title="MVTec-AD or VisA style, one object",
    licence="that of the data",
    citation="Bergmann et al., MVTec AD: A comprehensive real-world dataset for unsupervised anomaly detection (2019)",
    layout="""
root/
  train/good/000.png
  test/good/000.png
  test/scratch/000.png          each folder is a class
  ground_truth/scratch/000_mask.png (or 000.png)
""",
    group_rule="Patients are unknown.",
    matches=_matches,
    read=_read,
)
