"""The real images that ship with the package: 48 of BUS-BRA, chosen by a rule and not by eye.

    python -m docs.samples DATA/BUS-BRA

The rule: of the cases that no backbone is trained on (every fifth, ``Case % 5 == 0``) and that have two views, twelve
of each pathology. The machines take turns, in alphabetical order, each with its lowest case number that is left; a
machine without cases is passed over. Images keep every pixel and masks stay one bit; only the files get smaller.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from itertools import zip_longest
from pathlib import Path

from docs.build import ROOT
from PIL import Image

FOLDER = ROOT / "src" / "ultraad" / "data" / "bus_bra"
HELD_OUT = 5  # every fifth case, as in pretraining/
CASES = 12  # of each pathology
COLUMNS = ("ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Side")
"""The others give sizes and boxes in pixels of the original files, which this copy need not have."""


def chosen(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of ``bus_data.csv`` that follow the rule, in the order of the table."""
    views: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if int(row["Case"]) % HELD_OUT == 0:
            views.setdefault(row["Case"], []).append(row)
    machines: dict[str, dict[str, list[str]]] = {}
    for case in sorted((c for c, pair in views.items() if len(pair) == 2), key=int):
        first = views[case][0]
        machines.setdefault(first["Pathology"], {}).setdefault(first["Device"], []).append(case)
    cases: set[str] = set()
    for of_class in machines.values():
        turns = zip_longest(*(of_class[name] for name in sorted(of_class)))
        cases.update([case for turn in turns for case in turn if case][:CASES])
    return [row for row in rows if row["Case"] in cases]


def write(source: Path, folder: Path) -> None:
    """Write the selection in the layout of BUS-BRA, with its licence."""
    with (source / "bus_data.csv").open(newline="", encoding="utf-8") as file:
        rows = chosen(list(csv.DictReader(file)))
    for name in ("Images", "Masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for row in rows:
        mask = row["ID"].replace("bus_", "mask_", 1)
        for path in (Path("Images", f"{row['ID']}.png"), Path("Masks", f"{mask}.png")):
            with Image.open(source / path) as picture:
                picture.save(folder / path, optimize=True)
    with (folder / "bus_data.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    shutil.copyfile(source / "LICENSE.txt", folder / "LICENSE.txt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="BUS-BRA")
    write(parser.parse_args().source, FOLDER)
