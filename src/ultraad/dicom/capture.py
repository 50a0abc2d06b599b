"""Secondary captures of the overlay, for stations that show nothing but pictures.

A still becomes a Secondary Capture Image (PS3.3 A.8.1), a cine a Multi-frame True Color one (A.8.5) that plays at the
speed of its source. Words stand in a strip below the picture, so they hide no pixel of it; in the picture there are
only the map, the outlines, and the number of each lesion beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from ultraad.dicom.findings import Findings
from ultraad.dicom.parts import RESEARCH_ONLY, Kind, fill, shell, source_image, write
from ultraad.dicom.presentation import label
from ultraad.dicom.segmentation import Maps
from ultraad.dicom.source import OURS
from ultraad.io.overlay import overlay

STILL = Kind("sc", "1.2.840.10008.5.1.4.1.1.7", "US", 103, "overlay")
CINE = Kind("sc", "1.2.840.10008.5.1.4.1.1.7.4", "US", 103, "overlay cine")
_LINES = 3  # of words: at most so many lesions are measured there; the report has all
_TEXT_SHARE = 45  # a line of words is 1/45 of the shorter side high, ours
_SMALLEST_TEXT, _LARGEST_TEXT = 9, 24  # pixels

Pictures = Callable[[int], NDArray[np.uint8]]
"""The picture (H W 3) of a 0-based frame."""


def write_capture(path: Path, found: Findings, *, pictures: Pictures, maps: Maps) -> None:
    """Write the overlay of every predicted frame.

    Raises:
        DataError: If it cannot be written, or would be larger than 2 GiB.
    """
    source, frames = found.source, list(found.rows)
    cine = len(frames) > 1
    ds = shell(found, CINE if cine else STILL)
    ds.ImageType, ds.ConversionType = ["DERIVED", "SECONDARY"], "WSD"
    ds.PatientOrientation = source.orientation
    ds.Laterality = source.laterality or ""
    ds.DerivationDescription = f"Map and lesions of {OURS} over the image, {RESEARCH_ONLY}"
    ds.SourceImageSequence = [source_image(found, frames)]
    ds.BurnedInAnnotation = source.burned_in or "YES"  # the source says if a patient can be read; if not, perhaps
    fill(ds, source.lossy)
    rows, columns = source.size
    rows += _strip(found)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    if cine:
        _time(ds, found)
    write(path, ds, _frames(found, pictures, maps), length=len(frames) * rows * columns * 3)


def _time(ds: Dataset, found: Findings) -> None:
    """Multi-frame and cine modules; without a frame time, the frames are numbered pages."""
    ds.NumberOfFrames = len(found.rows)
    if found.source.frame_ms is not None:
        ds.FrameIncrementPointer, ds.FrameTime = 0x00181063, f"{found.source.frame_ms:.6g}"
    else:
        ds.FrameIncrementPointer, ds.PageNumberVector = 0x00182001, [frame + 1 for frame in found.rows]


def _frames(found: Findings, pictures: Pictures, maps: Maps) -> Iterator[bytes]:
    for frame in found.rows:
        yield drawn(found, frame, pictures(frame), maps(frame)).tobytes()


def drawn(found: Findings, frame: int, picture: NDArray[np.uint8], scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture with its map and lesions, and a strip of words below, uint8 (H+strip W 3)."""
    line = _line(found)
    font = _font(line)
    over = overlay(picture, scores, threshold=found.run.thresholds.pixel)
    out = Image.new("RGB", (over.shape[1], over.shape[0] + _strip(found)))
    out.paste(Image.fromarray(over))
    draw = ImageDraw.Draw(out)
    seen = [(track, track.at[frame]) for track in found.tracks if frame in track.at]
    for track, lesion in seen:
        x, y, w, _ = lesion.box
        at = (min(x + w + 2, over.shape[1] - line), max(0, y - line // 2))
        draw.text(at, str(track.number), font=font, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    words = [*_headlines(found, frame), *(label(track, lesion) for track, lesion in seen[:_LINES])]
    for number, text in enumerate(words):
        draw.text((3, over.shape[0] + number * line + 1), text, font=font, fill=(230, 230, 230))
    return np.asarray(out)


def _headlines(found: Findings, frame: int) -> tuple[str, str]:
    """Two lines, so that they fit below a narrow picture."""
    row = found.rows[frame]
    state, grade = "abnormal" if row.abnormal else "normal", found.grade(frame)
    graded = f", {grade} {100 * (row.probs or {})[grade]:.0f} %" if grade and row.abnormal else ""
    number = f", frame {frame + 1}/{found.source.frames}" if found.source.frames > 1 else ""
    lesions = len(row.lesions or ())
    count = f", {lesions} lesions" if lesions > _LINES else ""
    return f"{OURS}, {RESEARCH_ONLY}{number}", f"{state} {100 * row.score:.0f} %{graded}{count}"


def _strip(found: Findings) -> int:
    """Height of the strip in pixels: two headlines, and the first lesions."""
    return _line(found) * (2 + _LINES)


def _line(found: Findings) -> int:
    """Height of a line of words in pixels."""
    return round(1.35 * min(max(min(found.source.size) // _TEXT_SHARE, _SMALLEST_TEXT), _LARGEST_TEXT))


@cache
def _font(line: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=line / 1.35)
