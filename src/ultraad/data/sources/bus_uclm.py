"""BUS-UCLM: 683 breast-ultrasound images of 38 patients, with patients, normals and nuisance tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ultraad.data.sources import Source, images_in, is_anomalous, read_table, relative_id
from ultraad.io.find import is_file
from ultraad.types import Sample

# The published test patients, from the paper and the authors' scripts.
TEST_PATIENTS = frozenset({"ANFO", "COPE", "CRCI", "ELCO", "FLKA"})
_TAGS = {"Doppler": "doppler", "Marks": "marks", "Combined": "combined"}
_YES = {"yes", "y"}  # one Doppler cell says "Y"
_CLEAN = {"Yes", "No"}


def _rows(root: Path) -> list[dict[str, str]]:
    return read_table(root / "INFO.csv", required=("Image", "Label", *_TAGS), delimiter=";")


def _matches(root: Path) -> bool:
    return (root / "INFO.csv").is_file() and (root / "images").is_dir() and (root / "masks").is_dir()


def _read(root: Path) -> Iterator[Sample]:
    for row in _rows(root):
        image, mask = root / "images" / row["Image"], root / "masks" / row["Image"]
        label, patient = row["Label"].lower(), row["Image"][:4]
        yield Sample(
            id=relative_id(image, root),
            image=image,
            masks=(mask,) if is_file(mask) else (),
            label=label,
            anomalous=is_anomalous(label, ("normal",)),
            group=patient,
            split="test" if patient in TEST_PATIENTS else "train",
            device="Siemens ACUSON S2000",
            tags=frozenset(tag for column, tag in _TAGS.items() if row[column].lower() in _YES),
        )


def _quirks(root: Path) -> list[str]:
    rows = _rows(root)
    dirty = [
        f"INFO.csv: {row['Image']}, column {column}: {row[column]!r} instead of 'Yes' or 'No', read as "
        f"{'Yes' if row[column].lower() in _YES else 'No'}"
        for row in rows
        for column in _TAGS
        if row[column] not in _CLEAN
    ]
    listed = {row["Image"] for row in rows}
    stray = [p.name for p in images_in(root / "images") if p.name not in listed]
    return dirty + [f"images/{name} is not listed in INFO.csv and is skipped" for name in stray]


SOURCE = Source(
    name="bus_uclm",
    title="BUS-UCLM breast ultrasound, 683 images of 38 patients (normal, benign, malignant)",
    licence="CC BY 4.0 (the authors' script repository says CC BY-NC)",
    citation="Vallez et al., BUS-UCLM: Breast ultrasound lesion segmentation dataset, Scientific Data 12:242 (2025)",
    layout="""
root/
  INFO.csv            Image;Resolution;Label;Doppler;Marks;Combined
  images/ALWI_000.png
  masks/ALWI_000.png  black: background, green: benign, red: malignant
""",
    group_rule="The patient is the first four letters of the file name.",
    matches=_matches,
    read=_read,
    quirks=_quirks,
    published=True,
    organ="breast",
)
