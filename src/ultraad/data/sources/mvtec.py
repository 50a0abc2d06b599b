"""MVTec-AD style: normal training images, test images by kind of defect, masks in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ultraad.data.sources import Source, anomaly_samples, images_in
from ultraad.types import Sample


def _matches(root: Path) -> bool:
    return (root / "train" / "good").is_dir() and (root / "test").is_dir() and (root / "ground_truth").is_dir()


def _read(root: Path) -> Iterator[Sample]:
    return anomaly_samples(
        root,
        images=images_in,
        masks=lambda folder: {p.stem.removesuffix("_mask"): p for p in images_in(root / "ground_truth" / folder.name)},
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
    group_rule="There are no patient IDs.",
    matches=_matches,
    read=_read,
)
