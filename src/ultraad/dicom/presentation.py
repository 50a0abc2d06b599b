"""Softcopy presentation states: the outlines of the lesions over the original pixels.

A grey image (MONOCHROME) gets a Grayscale Softcopy Presentation State (PS3.3 A.33.1), any other a Color one (A.33.2).
Both name the frame of each outline.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import ImageCms
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from ultraad.dicom.findings import Findings, Track
from ultraad.dicom.parts import Kind, reference, shell, write
from ultraad.dicom.segmentation import tracking_uid
from ultraad.dicom.source import OURS
from ultraad.results.row import LesionRow

COLOUR = Kind("pr", "1.2.840.10008.5.1.4.1.1.11.2", "PR", 102, "outlines")
GREY = Kind("pr", "1.2.840.10008.5.1.4.1.1.11.1", "PR", 102, "outlines")
_LAYER = "ULTRAAD"
_LAB = (46003, 21331, 12079)  # CIELab of the blue of the overlays (0, 160, 255), as C.10.7.1.1 encodes it
_PROFILE_DATE = bytes.fromhex("07ea000100010000000000") + b"\0"  # 2026-01-01: the same bytes on every day


def write_presentation(path: Path, found: Findings) -> bool:
    """Write a presentation state.

    Returns:
        False if there is no lesion to outline.

    Raises:
        DataError: If it cannot be written.
    """
    if not found.tracks:
        return False
    grey = found.source.grey
    ds = shell(found, GREY if grey else COLOUR)
    ds.PresentationCreationDate, ds.PresentationCreationTime = ds.ContentDate, ds.ContentTime
    ds.ContentLabel, ds.ContentCreatorName = _LAYER, f"{OURS}^"
    ds.ContentDescription = "Lesions found by ultraad, research only"
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedImageSequence = found.source.series_uid, [reference(found)]
    ds.ReferencedSeriesSequence = [series]
    ds.DisplayedAreaSelectionSequence = [_area(found)]
    frames = sorted({frame for track in found.tracks for frame in track.at})
    ds.GraphicAnnotationSequence = Items([_annotation(found, frame) for frame in frames])
    ds.GraphicLayerSequence = [_layer()]
    if grey:
        ds.PresentationLUTShape = "IDENTITY"
    else:
        ds.ICCProfile = _srgb()
        ds.ColorSpace = "SRGB"
    ds.Laterality = found.source.laterality or ""
    del ds.ContentDate, ds.ContentTime  # the module has its own
    write(path, ds)
    return True


def _area(found: Findings) -> Dataset:
    area = Dataset()
    area.ReferencedImageSequence = [reference(found)]
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = list(found.source.size[::-1])
    area.PresentationSizeMode = "SCALE TO FIT"
    if found.spacing_mm is not None:
        area.PresentationPixelSpacing = [f"{spacing:.8g}" for spacing in found.spacing_mm]
    else:
        area.PresentationPixelAspectRatio = [1, 1]
    return area


def _layer() -> Dataset:
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = _LAYER, 1
    layer.GraphicLayerDescription = "lesions found by ultraad"
    layer.GraphicLayerRecommendedDisplayCIELabValue = list(_LAB)
    return layer


def _annotation(found: Findings, frame: int) -> Dataset:
    out = Dataset()
    out.ReferencedImageSequence = [reference(found, [frame])]
    out.GraphicLayer = _LAYER
    seen = [(track, track.at[frame]) for track in found.tracks if frame in track.at]
    out.TextObjectSequence = Items([_text(track, lesion) for track, lesion in seen])
    out.GraphicObjectSequence = Items([_outline(found, track, lesion) for track, lesion in seen])
    return out


def _outline(found: Findings, track: Track, lesion: LesionRow) -> Dataset:
    out = Dataset()
    points = [*lesion.outline, *lesion.outline[:2]]
    out.GraphicAnnotationUnits, out.GraphicDimensions = "PIXEL", 2
    out.NumberOfGraphicPoints, out.GraphicData = len(points) // 2, [float(value) for value in points]
    out.GraphicType, out.GraphicFilled = "POLYLINE", "N"
    out.TrackingID, out.TrackingUID = track.name, tracking_uid(found, track)
    return out


def _text(track: Track, lesion: LesionRow) -> Dataset:
    out = Dataset()
    x, y, w, _ = lesion.box
    out.AnchorPointAnnotationUnits, out.AnchorPoint = "PIXEL", [float(x + w), float(y)]
    out.AnchorPointVisibility = "N"
    out.UnformattedTextValue = label(track, lesion)
    return out


def label(track: Track, lesion: LesionRow) -> str:
    """``"lesion 1: 21.3 x 11.2 mm, 87 %"``; in pixels where the spacing is unknown."""
    size = f"{lesion.long_px:.0f} x {lesion.short_px:.0f} pixels"
    if lesion.long_mm is not None and lesion.short_mm is not None:
        size = f"{lesion.long_mm:.1f} x {lesion.short_mm:.1f} mm"
    return f"{track.name}: {size}, {100 * lesion.score:.0f} %"


@cache
def _srgb() -> bytes:
    """An sRGB profile of the class that presentation states require (input: "scnr", PS3.3 C.11.15)."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:12] + b"scnr" + profile[16:24] + _PROFILE_DATE + profile[36:]
