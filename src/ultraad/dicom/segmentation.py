"""Segmentation objects (PS3.3 A.51) of stills and cines, in one shape.

    BINARY       one segment for each lesion, with the tracking UID of its group in the report; the default
    LABELMAP     the same segments as numbers in one picture per frame; newer, not known to every PACS
    FRACTIONAL   the map of every frame as one segment, 255 for 1

Libraries write a segmentation of single frames or of a volume, not of an ultrasound cine, which has frames but no frame
of reference. Here each frame names its source frame (DerivationImageSequence), and the dimensions are the segment and
the TemporalPositionIndex, which is the number of the source frame. PlaneOrientation without a frame of reference says
nothing true about the patient: a viewer needs it to open the object (docs/dicom.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from ultraad.dicom.findings import Findings, Track
from ultraad.dicom.parts import (
    LESION,
    Code,
    Kind,
    fill,
    item,
    organ_code,
    referenced_series,
    shell,
    source_image,
    uid,
    write,
)
from ultraad.dicom.source import OURS

Type = Literal["BINARY", "LABELMAP", "FRACTIONAL"]
KINDS: dict[Type, Kind] = {
    "BINARY": Kind("seg", "1.2.840.10008.5.1.4.1.1.66.4", "SEG", 100, "lesions"),
    "LABELMAP": Kind("labelmap", "1.2.840.10008.5.1.4.1.1.66.7", "SEG", 106, "lesions, label map"),
    "FRACTIONAL": Kind("fractional", "1.2.840.10008.5.1.4.1.1.66.4", "SEG", 107, "lesion map"),
}
_SEGMENT_NUMBER, _SEGMENT_GROUP = 0x0062000B, 0x0062000A
_TEMPORAL_INDEX, _FRAME_CONTENT = 0x00209128, 0x00209111
_MOST_LABELS = 255
Maps = Callable[[int], NDArray[np.float32]]
"""The map (H W) in [0, 1] of a 0-based frame."""


def write_segmentation(path: Path, found: Findings, kind: Type, *, maps: Maps) -> bool:
    """Write a segmentation object.

    Args:
        path: To write.
        found: What it shows.
        kind: See the module.
        maps: Only for FRACTIONAL.

    Returns:
        False if there is nothing to write, since no lesion was found; an empty segmentation does not exist in DICOM.

    Raises:
        DataError: If it cannot be written.
    """
    tracks = () if kind == "FRACTIONAL" else found.tracks
    if kind != "FRACTIONAL" and not tracks:
        return False
    frames: list[tuple[int, int]]  # (segment or 0 for all, 0-based frame of the source), in the order of the pixels
    if kind == "BINARY":
        frames = [(track.number, frame) for track in tracks for frame in track.at]
    elif kind == "LABELMAP":
        frames = [(0, frame) for frame in sorted({frame for track in tracks for frame in track.at})]
    else:
        frames = [(1, frame) for frame in found.rows]
    deep = kind == "LABELMAP" and len(tracks) > _MOST_LABELS
    ds = shell(found, KINDS[kind])
    _describe(ds, found, kind, frames=len(frames), bits=1 if kind == "BINARY" else 16 if deep else 8)
    ds.SegmentSequence = Items(_segments(found, kind))
    _place(ds, found, kind, frames)
    rows, columns = found.source.size
    if kind == "BINARY":
        length = -(-len(frames) * rows * columns // 8)
        write(path, ds, _packed(found, frames), length=length)
    elif kind == "LABELMAP":
        pixels = (_labels(found, frame, np.uint16 if deep else np.uint8).tobytes() for _, frame in frames)
        write(path, ds, pixels, length=len(frames) * rows * columns * (2 if deep else 1))
    else:
        values = (np.rint(np.clip(maps(frame), 0, 1) * 255).astype(np.uint8).tobytes() for _, frame in frames)
        write(path, ds, values, length=len(frames) * rows * columns)
    return True


def _describe(ds: Dataset, found: Findings, kind: Type, *, frames: int, bits: int) -> None:
    """Image pixel and segmentation image modules."""
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.PatientOrientation = found.source.orientation
    ds.ContentLabel, ds.ContentCreatorName = "LESION", f"{OURS}^"
    ds.ContentDescription = "Lesions found by ultraad, research only"
    ds.SegmentationType = kind
    if kind == "FRACTIONAL":
        ds.SegmentationFractionalType, ds.MaximumFractionalValue = "PROBABILITY", 255
    if kind != "LABELMAP":
        ds.SegmentsOverlap = "NO"
    else:
        ds.PixelPaddingValue = 0
    fill(ds, found.source.lossy or {"LossyImageCompression": "00"})
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns = found.source.size
    ds.NumberOfFrames = frames
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.BurnedInAnnotation = "NO"
    ds.ReferencedSeriesSequence = Items(referenced_series(found))


def _segments(found: Findings, kind: Type) -> list[Dataset]:
    if kind == "FRACTIONAL":
        return [_segment(found, 1, "Lesion map", None)]
    lesions = [_segment(found, track.number, track.name, track) for track in found.tracks]
    if kind == "BINARY":
        return lesions
    background = Dataset()
    background.SegmentNumber, background.SegmentLabel = 0, "Background"
    background.SegmentAlgorithmType, background.SegmentAlgorithmName = "AUTOMATIC", OURS
    background.SegmentedPropertyCategoryCodeSequence = [item(Code("91723000", "SCT", "Anatomical Structure"))]
    background.SegmentedPropertyTypeCodeSequence = [item(Code("125040", "DCM", "Background"))]
    return [background, *lesions]


def _segment(found: Findings, number: int, label: str, track: Track | None) -> Dataset:
    out, algorithm = Dataset(), Dataset()
    out.SegmentNumber, out.SegmentLabel = number, label
    out.SegmentAlgorithmType, out.SegmentAlgorithmName = "AUTOMATIC", OURS
    algorithm.AlgorithmFamilyCodeSequence = [item(Code("123110", "DCM", "Artificial Intelligence"))]
    algorithm.AlgorithmName, algorithm.AlgorithmVersion = OURS, found.version
    algorithm.AlgorithmParameters = f"model sha256 {found.model_digest}, pixel threshold {found.run.thresholds.pixel}"
    out.SegmentationAlgorithmIdentificationSequence = [algorithm]
    category = Code("49755003", "SCT", "Morphologically Abnormal Structure")
    out.SegmentedPropertyCategoryCodeSequence = [item(category)]
    out.SegmentedPropertyTypeCodeSequence = [item(LESION)]
    if (organ := organ_code(found.organ)) is not None:
        out.AnatomicRegionSequence = [item(organ)]
    if track is not None:
        out.TrackingID, out.TrackingUID = track.name, tracking_uid(found, track)
    return out


def tracking_uid(found: Findings, track: Track) -> str:
    """The UID that a segment shares with the group of its lesion in the report."""
    return uid(found, "track", track.number)


def _place(ds: Dataset, found: Findings, kind: Type, frames: Sequence[tuple[int, int]]) -> None:
    """Dimensions and functional groups: to which segment and source frame each frame belongs."""
    organisation, one = uid(found, KINDS[kind].name, "dimensions"), Dataset()
    one.DimensionOrganizationUID = organisation
    ds.DimensionOrganizationSequence = [one]
    dimensions = [
        _dimension(organisation, _SEGMENT_NUMBER, _SEGMENT_GROUP, "Segment Number"),
        _dimension(organisation, _TEMPORAL_INDEX, _FRAME_CONTENT, "Temporal Position Index"),
    ]
    ds.DimensionIndexSequence = Items(dimensions[1:] if kind == "LABELMAP" else dimensions)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    if found.spacing_mm is not None:
        measures.PixelSpacing = [f"{spacing:.8g}" for spacing in found.spacing_mm]
    measures.SliceThickness = "1"
    orientation.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = Items([_frame(found, kind, *frame) for frame in frames])


def _dimension(organisation: str, pointer: int, group: int, label: str) -> Dataset:
    out = Dataset()
    out.DimensionOrganizationUID, out.DimensionDescriptionLabel = organisation, label
    out.DimensionIndexPointer, out.FunctionalGroupPointer = pointer, group
    return out


def _frame(found: Findings, kind: Type, segment: int, frame: int) -> Dataset:
    out, content, derivation = Dataset(), Dataset(), Dataset()
    content.TemporalPositionIndex = frame + 1
    content.DimensionIndexValues = [frame + 1] if kind == "LABELMAP" else [segment, frame + 1]
    out.FrameContentSequence = [content]
    if kind != "LABELMAP":
        identification = Dataset()
        identification.ReferencedSegmentNumber = segment
        out.SegmentIdentificationSequence = [identification]
    source = source_image(found, [frame])
    source.SpatialLocationsPreserved = "YES"
    derivation.DerivationCodeSequence = [item(Code("113076", "DCM", "Segmentation"))]
    derivation.SourceImageSequence = [source]
    out.DerivationImageSequence = [derivation]
    return out


def _packed(found: Findings, frames: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """The masks as single bits, first pixel in the lowest; the bits go on from frame to frame (PS3.5 8.2)."""
    for start in range(0, len(frames), 8):  # eight frames of any size end with a whole byte
        masks = [found.mask(found.tracks[segment - 1], frame) for segment, frame in frames[start : start + 8]]
        yield np.packbits(np.stack(masks).ravel(), bitorder="little").tobytes()


def _labels(found: Findings, frame: int, dtype: type[np.uint8 | np.uint16]) -> NDArray[np.uint8 | np.uint16]:
    labels = np.zeros(found.source.size, dtype=dtype)
    for track in found.tracks:
        if frame in track.at:
            labels[found.mask(track, frame)] = track.number
    return labels
