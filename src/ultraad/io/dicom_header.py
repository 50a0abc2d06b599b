"""Header elements of DICOM, each by itself: a missing, empty or invalid one never decides about the others."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from ultraad.errors import DataError
from ultraad.io.faults import Faults, warn_of
from ultraad.io.names import is_nobody

_LONGEST = 64  # characters of a text such as PatientID, PS3.5 6.2; damage can make it as long as the file

FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_GROUPED = (  # sequence within a functional group (PS3.3 C.7.6.16.2), its elements that are used here
    ("FrameVOILUTSequence", ("WindowCenter", "WindowWidth", "VOILUTFunction")),
    ("PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept")),
    ("PixelMeasuresSequence", ("PixelSpacing",)),
)
_COLOURS, _PALETTE = ("Red", "Green", "Blue"), "PaletteColorLookupTableDescriptor"
_VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
Header = Any
"""A pydicom dataset; only ``io/dicom.py`` imports pydicom."""


def value_of(ds: Header, name: str) -> Any:  # noqa: ANN401  # whatever pydicom makes of the element
    """The value of an element; None if it is missing, empty or invalid."""
    try:
        with Faults(name, about=name):
            value = ds.get(name)
            return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value
    except DataError:
        return None


def numbers_of(ds: Header, name: str) -> list[float]:
    """The finite values of a numeric element; empty if it is missing, empty or invalid."""
    value = value_of(ds, name)
    if value is None or isinstance(value, (bytes, str)):
        return []
    try:
        found = [float(v) for v in (value if hasattr(value, "__iter__") else (value,))]
    except (TypeError, ValueError):
        return []
    return found if all(map(math.isfinite, found)) else []


def number_of(ds: Header, name: str) -> float | None:
    """The first value of a numeric element; None if there is none."""
    return next(iter(numbers_of(ds, name)), None)


def text_of(ds: Header, name: str) -> str | None:
    """A text of printable characters without outer spaces, cut at 64 characters; None if there is none."""
    return printable(str(value_of(ds, name) or ""))[:_LONGEST] or None


def patient_of(ds: Header, path: Path) -> str | None:
    """A pseudonym of the patient: 16 hex digits of sha256 over issuer and PatientID; None if the file names nobody."""
    patient = text_of(ds, "PatientID")
    if patient is None:
        return None
    if is_nobody(patient):
        warn_of(
            path, f"the PatientID is {patient!r}, which stands for nobody; the patient is unknown", "stock PatientID"
        )
        return None
    return hashlib.sha256(f"{text_of(ds, 'IssuerOfPatientID') or ''}\n{patient}".encode()).hexdigest()[:16]


def age_of(ds: Header) -> float | None:
    """The patient's age in years, from days, weeks, months or years (PS3.5 6.2, AS); None if unknown."""
    text = text_of(ds, "PatientAge") or ""
    days = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}.get(text[-1:].upper())
    return int(text[:-1]) * days / 365.25 if days is not None and text[:-1].isdecimal() else None


def printable(text: str) -> str:
    """The text as one line of printable characters, without outer spaces."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def complete(ds: Header, path: Path, *, held: int | None) -> None:
    """Give the elements that describe the pixels their defaults where they are missing, and take out unusable ones.

    Args:
        ds: The header; changed.
        path: For messages.
        held: Bytes of native pixel data in the file; None if they are encapsulated.

    Raises:
        DataError: If the pixels are indices of a palette that is missing.
    """
    photometric = text_of(ds, "PhotometricInterpretation")
    samples = number_of(ds, "SamplesPerPixel")
    if photometric is None:
        palette = value_of(ds, "RedPaletteColorLookupTableDescriptor") is not None
        photometric = "RGB" if samples == 3 else "PALETTE COLOR" if palette else "MONOCHROME2"
        warn_of(path, f"PhotometricInterpretation is missing; the pixels are read as {photometric}")
    elif photometric.startswith("MONOCHROME") and samples == 3:
        warn_of(path, f"{photometric} with 3 samples per pixel; the pixels are read as RGB")
        photometric = "RGB"
    elif photometric.startswith(("RGB", "YBR")) and samples == 1:
        samples = 3 if held is not None and held >= 3 * _grey_bytes(ds) else 1
        read_as = photometric if samples == 3 else "MONOCHROME2"
        warn_of(path, f"{photometric} with 1 sample per pixel; the pixels are read as {read_as}")
        photometric = read_as
    if photometric == "PALETTE COLOR" and any(value_of(ds, f"{c}{_PALETTE}") is None for c in _COLOURS):
        msg = f"{path} has pixels that are indices of a palette, but no palette; export it as RGB"
        raise DataError(msg)
    ds.PhotometricInterpretation = photometric
    ds.SamplesPerPixel = int(samples or (3 if photometric.startswith(("RGB", "YBR")) else 1))
    stored = int(number_of(ds, "BitsStored") or 0)
    allocated = int(number_of(ds, "BitsAllocated") or (16 if stored > 8 else 8))
    if stored > allocated:
        warn_of(path, f"BitsStored is {stored} but BitsAllocated is {allocated}; {allocated} is taken")
    ds.BitsAllocated, ds.BitsStored = allocated, min(stored or allocated, allocated)
    ds.PixelRepresentation = int(number_of(ds, "PixelRepresentation") or 0)
    if ds.PixelRepresentation and ds.BitsStored == 8 and text_of(ds, "Modality") == "US":  # PS3.3 C.8.5.6: always 0
        warn_of(
            path, "its pixels are said to be signed, which those of ultrasound never are; they are read as unsigned"
        )
        ds.PixelRepresentation = 0
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = int(number_of(ds, "PlanarConfiguration") or 0)


def _grey_bytes(ds: Header) -> int:
    """Bytes of all frames if a pixel has one sample."""
    numbers = (number_of(ds, name) for name in ("Rows", "Columns", "BitsAllocated"))
    rows, columns, bits = (int(number or 1) for number in numbers)
    return rows * columns * max(1, bits // 8) * max(1, int(number_of(ds, "NumberOfFrames") or 1))


def for_frame(ds: Header, frame: int, path: Path) -> Header:
    """The header with the window and rescale of one frame, from its functional groups, without unusable ones."""
    ds = ds[:]  # copy.copy would share its elements with the header of the file
    for groups, index in zip(FUNCTIONAL_GROUPS, (0, frame), strict=True):
        group = item_of(ds, groups, index)
        for sequence, names in _GROUPED if group is not None else ():
            item = item_of(group, sequence, 0)
            for name in names if item is not None else ():
                if (found := value_of(item, name)) is not None:
                    _remove(ds, name)  # an element that is there would be changed for all frames
                    setattr(ds, name, found)
    _check_rescale(ds, path)
    _check_window(ds, path)
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        lut = item_of(ds, name, 0)
        if lut is None or len(numbers_of(lut, "LUTDescriptor")) != 3 or value_of(lut, "LUTData") is None:
            _remove(ds, name)
    return ds


def _check_rescale(ds: Header, path: Path) -> None:
    slope, intercept = number_of(ds, "RescaleSlope"), number_of(ds, "RescaleIntercept")
    _remove(ds, "RescaleSlope", "RescaleIntercept")
    if slope == 0:
        warn_of(path, "RescaleSlope is 0, which is no picture; the stored values are shown")
    elif slope is not None or intercept is not None:
        ds.RescaleSlope, ds.RescaleIntercept = 1.0 if slope is None else slope, intercept or 0.0


def _check_window(ds: Header, path: Path) -> None:
    centre, width = number_of(ds, "WindowCenter"), number_of(ds, "WindowWidth")
    function = text_of(ds, "VOILUTFunction")
    if function is not None and function not in _VOI_FUNCTIONS:
        warn_of(path, f"the VOI LUT function {function} is unknown; LINEAR is used")
        function = None
    _remove(ds, "WindowCenter", "WindowWidth", "VOILUTFunction")
    if centre is not None and width is not None and width >= 1:  # some writers leave a window of width 0
        ds.WindowCenter, ds.WindowWidth = centre, width
        ds.VOILUTFunction = function or "LINEAR"


def item_of(ds: Header, name: str, index: int) -> Header | None:
    """An item of a sequence; None if there is none."""
    sequence = value_of(ds, name)
    return sequence[index] if sequence is not None and index < len(sequence) else None


def _remove(ds: Header, *names: str) -> None:
    for name in names:
        if name in ds:
            del ds[name]


def frame_ms(header: Header) -> float | None:
    """Milliseconds from a frame to the next; None if unknown.

    From FrameTime, FrameTimeVector (its median), CineRate or RecommendedDisplayFrameRate, in this order.
    """
    steps = sorted(step for step in numbers_of(header, "FrameTimeVector")[1:] if step > 0)
    found = number_of(header, "FrameTime") or (steps[len(steps) // 2] if steps else None)
    if found is not None and found > 0:
        return found
    rates = (number_of(header, name) for name in ("CineRate", "RecommendedDisplayFrameRate"))
    return next((1000.0 / rate for rate in rates if rate is not None and rate > 0), None)
