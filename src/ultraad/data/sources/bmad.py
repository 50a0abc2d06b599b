"""BMAD style: train / valid / test with the classes good and Ungood, pixel truth beside the images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ultraad.data.sources import Source, anomaly_samples, images_in
from ultraad.types import Sample

_TRUTH = ("label", "anomaly_mask")


def _matches(root: Path) -> bool:
    begins = (root / "train" / "good").is_dir() or (root / "valid" / "good").is_dir()
    return begins and (root / "test" / "Ungood").is_dir()


def _read(root: Path) -> Iterator[Sample]:
    return anomaly_samples(
        root,
        images=lambda folder: images_in(folder / "img") or images_in(folder),
        masks=lambda folder: {p.stem: p for name in _TRUTH for p in images_in(folder / name)},
    )


SOURCE = Source(
    name="bmad",
    title="BMAD benchmark style, one modality",
    licence="that of the data",
    citation="Bao et al., BMAD: Benchmarks for medical anomaly detection, CVPR Workshops 2024",
    layout="""
root/
  train/good/img/1.png              (or train/good/1.png; MVFA's copies have no train)
  valid/good/img/2.png   valid/Ungood/img/3.png   valid/Ungood/label/3.png (or anomaly_mask/3.png)
  test/good/img/4.png    test/Ungood/img/5.png    test/Ungood/label/5.png
""",
    group_rule="There are no patient IDs.",
    matches=_matches,
    read=_read,
)
