"""The header of a file that is to be de-identified."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from ultraad.dicom.source import is_valid_uid
from ultraad.errors import DataError
from ultraad.io.dicom_header import text_of
from ultraad.io.faults import Faults, keeping_remarks

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def header_of(path: Path) -> Dataset:
    """Every element but the pixels.

    Raises:
        DataError: If it cannot be read.
    """
    with keeping_remarks(), Faults(f"the DICOM header of {path} cannot be read", about=path):
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)


def complete_uids(ds: Dataset, path: Path) -> None:
    """Take missing UIDs from the meta header. Those of instances may be invalid, since they are replaced.

    Raises:
        DataError: If one is missing there, too, or the SOP class is no UID.
    """
    meta = getattr(ds, "file_meta", None) or Dataset()
    with keeping_remarks():
        for name in _UIDS:
            if text_of(ds, name) is None and (value := text_of(meta, f"MediaStorage{name}")) is not None:
                setattr(ds, name, value)
            value = text_of(ds, name)
            if value is None or (name == "SOPClassUID" and not is_valid_uid(value)):
                found = "no" if value is None else "an invalid"
                msg = f"{path} has {found} {name}, so it is no complete DICOM image; send it through a PACS first"
                raise DataError(msg)
