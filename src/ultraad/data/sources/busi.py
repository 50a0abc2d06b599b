"""BUSI: 780 breast-ultrasound images in three class folders, masks beside the images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ultraad.data.sources import Source, images_in, is_anomalous, relative_id
from ultraad.types import Sample

_CLASSES = ("normal", "benign", "malignant")
_MASK = re.compile(r"(?P<image>.+)_mask(_\d+)?")  # "benign (4)_mask", and "_mask_1" ... for further lesions


def _matches(root: Path) -> bool:
    return any((root / c).is_dir() and next((root / c).glob(f"{c} (*).png"), None) is not None for c in _CLASSES)


def _read(root: Path) -> Iterator[Sample]:
    for label in _CLASSES:
        files = images_in(root / label)
        masks: dict[str, list[Path]] = {}
        for path in files:
            if m := _MASK.fullmatch(path.stem):
                masks.setdefault(m["image"], []).append(path)
        for path in files:
            if not _MASK.fullmatch(path.stem):
                yield Sample(
                    id=relative_id(path, root),
                    image=path,
                    masks=tuple(masks.get(path.stem, ())),
                    label=label,
                    anomalous=is_anomalous(label, _CLASSES),
                )


SOURCE = Source(
    name="busi",
    title="BUSI, Dataset of breast ultrasound images, 780 images (normal, benign, malignant)",
    licence="CC BY 4.0 (the article); the authors' page asks for citation",
    citation="Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28:104863 (2020)",
    layout="""
root/
  normal/normal (1).png        normal (1)_mask.png (black)
  benign/benign (1).png        benign (1)_mask.png, benign (1)_mask_1.png: one file for each lesion
  malignant/malignant (1).png  malignant (1)_mask.png
""",
    group_rule="BUSI has no patient IDs.",
    matches=_matches,
    read=_read,
    published=True,
    organ="breast",
)
