"""Files of real devices, where there are some on this machine: every object is valid but for the image's own UIDs."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from tests.dicom.made import run_of
from ultraad.dicom.checks import validate
from ultraad.dicom.objects import OBJECTS
from ultraad.dicom.saving import write_objects

_UIDS = re.compile(r"(?:Illegal root for UID|Value invalid for this VR \[UI\]) = <(?:999\.999|1\.4)\.")


def test_objects_of_real_files_are_valid(real_data: Path, tmp_path: Path) -> None:
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    images = sorted((real_data / "dicom").glob("*.dcm"))
    if not images:
        pytest.skip("no real DICOM files on this machine")
    run_of(tmp_path / "out", images)
    failed = write_objects(tmp_path / "out", OBJECTS)
    assert {Path(image).name for image in failed} == {"ybr422_native.dcm"}  # a UID with a leading zero
    assert "is no valid UID" in next(iter(failed.values()))
    objects = sorted((tmp_path / "out" / "dicom").glob("*.dcm"))
    assert len(objects) == len(OBJECTS) * (len(images) - 1)
    errors = [
        f"{one.path.name}: {fault.text}"
        for one in validate([*images, *objects])[len(images) :]
        for fault in (*one.faults, *one.outside)
        if fault.level == "error" and not _UIDS.search(fault.text) and "no valid UID" not in fault.text
    ]
    assert errors == []
