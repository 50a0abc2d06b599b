"""One run over every kind of file, with every kind of object; tests only read it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.dicom.made import SHIPPED, ULTRASOUND, H, W, region, run_of, write_us
from ultraad.dicom.objects import OBJECTS
from ultraad.dicom.saving import write_objects
from ultraad.io.maps import read_map
from ultraad.results.folder import read_rows
from ultraad.results.row import ImageRow

MADE = ("grey", "grey_cine", "rgb", "rgb_cine", "ybr", "palette", "palette_cine", "deep", "untimed", "two_views")
NAMES = (*MADE, *ULTRASOUND)


@dataclass(frozen=True)
class Ran:
    """The run.

    Attributes:
        folder: Of the run.
        images: {name: file}.
    """

    folder: Path
    images: dict[str, Path]

    @cached_property
    def listed(self) -> dict[str, dict]:
        """{file: its entry in objects.json}."""
        content = json.loads((self.folder / "dicom" / "objects.json").read_text())
        return {entry["image"]: entry for entry in content["images"]}

    def path(self, name: str, kind: str) -> Path:
        """The file of an object."""
        return self.folder / "dicom" / self.listed[self.images[name].as_posix()]["objects"][kind]["file"]

    def read(self, name: str, kind: str) -> Dataset:
        """An object."""
        return pydicom.dcmread(self.path(name, kind))

    def source(self, name: str) -> Dataset:
        """The image, without pixels."""
        return pydicom.dcmread(self.images[name], stop_before_pixels=True)

    @cached_property
    def _rows(self) -> list[ImageRow]:
        return list(read_rows(self.folder))

    def rows(self, name: str) -> list[ImageRow]:
        """The rows of an image, by frame."""
        return [row for row in self._rows if row.image == self.images[name].as_posix()]

    def masks(self, name: str) -> np.ndarray:
        """bool (n h w), where the map reaches the threshold."""
        return np.stack([read_map(self.folder / row.map) >= np.float32(0.5) for row in self.rows(name)])


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Every kind of file and of object."""
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    root = tmp_path_factory.mktemp("objects")
    box = (4, 3, W - 9, H - 8)
    halves = [region((0, 0, 48, H), (0.1, 0.1)), region((48, 0, W - 48, H), (0.3, 0.3))]
    made = {
        "grey": {"regions": [region(box, (0.07, 0.11))]},
        "grey_cine": {"frames": 12, "regions": [region(box, (0.2, 0.2))], "Laterality": "L"},
        "rgb": {"photometric": "RGB"},
        "rgb_cine": {"photometric": "RGB", "frames": 26, "regions": [region(box, (0.1, 0.1))]},
        "ybr": {"photometric": "YBR_FULL", "BurnedInAnnotation": "NO"},
        "palette": {"photometric": "PALETTE COLOR", "regions": [region(box, (0.1, 0.1))], "ImageLaterality": "R"},
        "palette_cine": {"photometric": "PALETTE COLOR", "frames": 3},
        "deep": {"bits": 16},
        "untimed": {"frames": 3, "FrameTime": None, "FrameIncrementPointer": None},
        "two_views": {"regions": halves},
    }
    images = {name: write_us(root / "in" / f"{name}.dcm", **options) for name, options in made.items()}
    images |= {name: SHIPPED / f"{name}.dcm" for name in ULTRASOUND}
    run_of(root / "out", images.values())
    assert write_objects(root / "out", OBJECTS) == {}
    return Ran(root / "out", images)
