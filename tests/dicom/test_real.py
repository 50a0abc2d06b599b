"""Files of real devices, where there are some on this machine: every object is valid but for the image's own UIDs."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.dicom.conftest import Ran
from tests.dicom.made import run_of
from tests.dicom.test_objects import pixels_of, read_by_dcmtk
from ultraad.dicom.checks import validate
from ultraad.dicom.objects import OBJECTS
from ultraad.dicom.saving import write_objects

_UIDS = re.compile(r"(?:Illegal root for UID|Value invalid for this VR \[UI\]) = <(?:999\.999|1\.4)\.")
WITHOUT = "ybr422_native"  # it has a UID with a leading zero


@pytest.fixture(scope="module")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run over the real files, with every kind of object."""
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    images = sorted((real_data / "dicom").glob("*.dcm"))
    if not images:
        pytest.skip("no real DICOM files on this machine")
    out = tmp_path_factory.mktemp("real") / "out"
    run_of(out, images)
    failed = write_objects(out, OBJECTS)
    assert {Path(image).stem for image in failed} == {WITHOUT}
    assert "is no valid UID" in next(iter(failed.values()))
    return Ran(out, {path.stem: path for path in images})


def named(real: Ran) -> list[str]:
    return [name for name in real.images if name != WITHOUT]


def test_objects_of_real_files_are_valid(real: Ran) -> None:
    images = list(real.images.values())
    objects = sorted((real.folder / "dicom").glob("*.dcm"))
    assert len(objects) == len(OBJECTS) * (len(images) - 1)
    errors = [
        f"{one.path.name}: {fault.text}"
        for one in validate([*images, *objects])[len(images) :]
        for fault in (*one.faults, *one.outside)
        if fault.level == "error" and not _UIDS.search(fault.text) and "no valid UID" not in fault.text
    ]
    assert errors == []


@pytest.mark.filterwarnings("ignore:Unknown encoding:UserWarning")  # one of them has a character set that is none
def test_highdicom_reads_the_pixels_of_real_files_on_the_right_frames(real: Ran) -> None:
    for name in named(real):
        found, masks = pixels_of(real, name, "seg"), real.masks(name)
        assert masks.any(), name
        np.testing.assert_array_equal(found.any(-1), masks, err_msg=name)


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="needs DCMTK: apt-get install dcmtk")
def test_dcmtk_reads_the_reports_of_real_files(real: Ran) -> None:
    for name in named(real):
        for kind in ("sr", "ko"):
            read_by_dcmtk(real, name, kind)
