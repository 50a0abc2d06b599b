"""Data sets written by ``ultraad.simulate``: generated images with exact masks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ultraad.data.sources import Source, folders_in, images_in, is_anomalous, relative_id
from ultraad.types import Sample

_MARKER = "simulated.json"
_GENERATOR = "ultraad.simulate"


def _matches(root: Path) -> bool:
    try:
        marker = json.loads((root / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(marker, dict) and marker.get("generator") == _GENERATOR


def _read(root: Path) -> Iterator[Sample]:
    folders = folders_in(root)
    labels = [f.name for f in folders]
    for folder in folders:
        for path in images_in(folder):
            if path.stem.endswith("_mask"):
                continue
            mask = path.with_name(f"{path.stem}_mask{path.suffix}")
            patient, _, _ = path.stem.partition("_")
            yield Sample(
                id=relative_id(path, root),
                image=path,
                masks=(mask,) if mask.is_file() else (),
                label=folder.name,
                anomalous=is_anomalous(folder.name, labels),
                group=patient,
            )


SOURCE = Source(
    name="synthetic",
    title="simulated ultrasound, written by ultraad simulate",
    licence="Apache-2.0, as ultraad",
    citation="",
    layout="""
root/
  simulated.json             {"generator": "ultraad.simulate", ...}
  benign/p0007_0003.png      benign/p0007_0003_mask.png
  normal/p0007_0004.png      normal/p0007_0004_mask.png (black)
""",
    group_rule="The simulated patient is the part of the file name before the underscore.",
    matches=_matches,
    read=_read,
    organ="breast",
)
