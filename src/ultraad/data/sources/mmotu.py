"""MMOTU (OTU_2d): 1469 ultrasound images of the ovary in eight classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ultraad.data.sources import Source, images_in, is_anomalous, relative_id
from ultraad.data.sources._tables import Faults, read_text
from ultraad.errors import DataError
from ultraad.types import Sample

# In the order of the published numbers; "normal ovary" is called normal.
_CLASSES = (
    "chocolate cyst",
    "serous cystadenoma",
    "teratoma",
    "theca cell tumor",
    "simple cyst",
    "normal",
    "mucinous cystadenoma",
    "high grade serous",
)
_LISTS = {"train_cls.txt": "train", "val_cls.txt": "valid", "test_cls.txt": "test"}


def _matches(root: Path) -> bool:
    return (root / "images").is_dir() and any((root / name).is_file() for name in _LISTS)


def _uses(root: Path) -> Iterable[Path]:
    return (*(root / name for name in _LISTS), *images_in(root / "annotations"))


def _read(root: Path) -> Iterator[Sample]:
    images = {p.stem: p for p in images_in(root / "images")}
    masks = {p.stem: p for p in images_in(root / "annotations")}
    faults = [Faults(root / name) for name in _LISTS if (root / name).is_file()]
    seen: set[str] = set()
    for fault in faults:
        for number, line in enumerate(read_text(fault.file, "the list").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            stem = Path(words[0]).stem
            if len(words) != 2 or not words[1].isascii() or words[1] not in map(str, range(len(_CLASSES))):
                fault.add(
                    f"row {number}: {line.strip()[:60]!r}; wanted a name and a class from 0 to {len(_CLASSES) - 1}"
                )
            elif stem not in images:
                fault.add(f"row {number}: {words[0]!r} is not in images/")
            elif stem in seen:
                fault.add(f"row {number}: {words[0]!r} is listed more than once")
            else:
                seen.add(stem)
                label = _CLASSES[int(words[1])]
                mask = masks.get(f"{stem}_binary") or masks.get(stem)
                yield Sample(
                    id=relative_id(images[stem], root),
                    image=images[stem],
                    masks=(mask,) if mask and label != "normal" else (),
                    label=label,
                    anomalous=is_anomalous(label, _CLASSES),
                    split=_LISTS[fault.file.name],
                )
    broken = [f for f in faults if f.found]
    if broken and not seen:
        msg = f"{broken[0].file} has no usable row: {broken[0].text()}"
        raise DataError(msg)
    for fault in broken:
        fault.report()


def _quirks(root: Path) -> list[str]:
    listed = set()
    for name in _LISTS:
        if (root / name).is_file():
            listed |= {Path(line.split()[0]).stem for line in read_text(root / name).splitlines() if line.strip()}
    stray = [p.name for p in images_in(root / "images") if p.stem not in listed]
    return [f"images/{name} is in none of the lists and is skipped" for name in stray]


SOURCE = Source(
    name="mmotu",
    title="MMOTU (OTU_2d) ovarian ultrasound, 1469 images (normal and seven kinds of tumour)",
    licence="research use; the authors' page asks for citation",
    citation=(
        "Zhao et al., MMOTU: A multi-modality ovarian tumor ultrasound image dataset for unsupervised cross-domain "
        "semantic segmentation, arXiv 2207.06799 (2022)"
    ),
    layout="""
root/  (the folder OTU_2d)
  train_cls.txt, val_cls.txt   lines of a name and a class from 0 to 7: "1.JPG  0"
  images/1.JPG
  annotations/1_binary.PNG     (or 1.PNG)
class 5, normal ovary, is normal; its outline is that of the ovary and is not used
""",
    group_rule="MMOTU has no patient IDs.",
    matches=_matches,
    read=_read,
    quirks=_quirks,
    uses=_uses,
    published=True,
    organ="ovary",
)
