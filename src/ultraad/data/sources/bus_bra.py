"""BUS-BRA: 1875 breast-ultrasound images of 1064 patients, biopsy-proven lesions with BI-RADS categories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ultraad.data.sources import Source, is_anomalous, read_table, relative_id
from ultraad.io.find import is_file
from ultraad.types import Sample

SEEN = "pretraining"
"""Tag of the images of all other cases: what a backbone that ships says of them is no test of it."""


def is_held_out(case: str | None) -> bool:
    """Whether no backbone that ships was trained on this case: by its number, every fifth."""
    return case is not None and case.isdecimal() and int(case) % 5 == 0


def _matches(root: Path) -> bool:
    return (root / "bus_data.csv").is_file() and (root / "Images").is_dir()


def _read(root: Path) -> Iterator[Sample]:
    for row in read_table(root / "bus_data.csv", required=("ID", "Case", "Pathology")):
        name, label = row["ID"], row["Pathology"].lower()  # "bus_0001-l"
        image = root / "Images" / f"{name}.png"
        mask = root / "Masks" / f"{name.replace('bus_', 'mask_', 1)}.png"
        tags = {f"birads_{row['BIRADS']}"} if row.get("BIRADS") else set()
        yield Sample(
            id=relative_id(image, root),
            image=image,
            masks=(mask,) if is_file(mask) else (),
            label=label,
            anomalous=is_anomalous(label, (label,)),
            group=row["Case"] or None,
            device=row.get("Device") or None,
            tags=frozenset(tags if is_held_out(row["Case"]) else {*tags, SEEN}),
        )


SOURCE = Source(
    name="bus_bra",
    title="BUS-BRA breast ultrasound, 1875 images of 1064 patients (benign, malignant; no normal images)",
    licence="CC BY 4.0",
    citation=(
        "Gomez-Flores et al., BUS-BRA: A breast ultrasound dataset for assessing computer-aided diagnosis systems, "
        "Medical Physics 51:3110 (2024), doi 10.5281/zenodo.8231412"
    ),
    layout="""
root/
  bus_data.csv            ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,...
  Images/bus_0001-l.png
  Masks/mask_0001-l.png
""",
    group_rule="The patient is in the column Case of bus_data.csv.",
    matches=_matches,
    read=_read,
    published=True,
    organ="breast",
)
