"""Ultrasound DICOM files of every kind, made here, and runs with maps that are known."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from ultraad.data.samples import samples_of
from ultraad.io import read_image
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results.folder import RunFolder
from ultraad.results.saving import checked
from ultraad.runs.job import facts
from ultraad.types import InScope, Prediction, Result

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
ULTRASOUND = ("ExplVR_BigEnd", "examples_jpeg2k", "examples_palette", "examples_rgb_color", "examples_ybr_color")
"""The ultrasound files in pydicom's wheel."""
H, W = 60, 83  # odd, so that the bits of a frame end within a byte


def speckle(seed: int, frames: int, *, size: tuple[int, int] = (H, W)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.rayleigh(40, (frames, *size)).clip(0, 255).astype(np.uint8)


def region(box: tuple[int, int, int, int], mm: tuple[float, float]) -> Dataset:
    """A tissue region (x, y, width, height) with this spacing (row, col)."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = 1, 1, 0
    x, y, w, h = box
    item.RegionLocationMinX0, item.RegionLocationMinY0 = x, y
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = x + w - 1, y + h - 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaY, item.PhysicalDeltaX = mm[0] / 10, mm[1] / 10
    return item


def write_us(
    path: Path,
    *,
    frames: int = 0,
    photometric: str = "MONOCHROME2",
    bits: int = 8,
    regions: Iterable[Dataset] = (),
    size: tuple[int, int] = (H, W),
    **tags: object,
) -> Path:
    """An uncompressed ultrasound file; ``frames=0`` is a still. A tag of None is left out."""
    grey = speckle(len(path.name), max(1, frames), size=size)
    cine = frames > 0
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1" if cine else "1.2.840.10008.5.1.4.1.1.6.1"
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study", path.name])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series", path.name])
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Müller^Åsa", "P-1", "19700102", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260102", "101112.5", "7", "A9"
    ds.SpecificCharacterSet, ds.ReferringPhysicianName, ds.PatientOrientation = "ISO_IR 100", "Roe^Jane", ""
    ds.SeriesNumber, ds.InstanceNumber, ds.ImageType, ds.Laterality = 1, 3, ["ORIGINAL", "PRIMARY"], ""
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "US", "Maker", "One"
    ds.Rows, ds.Columns = size
    ds.PhotometricInterpretation, ds.SamplesPerPixel = photometric, 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (8 if bits == 8 else 16), bits, bits - 1, 0
    pixels = grey
    if photometric in ("RGB", "YBR_FULL"):
        ds.SamplesPerPixel, ds.PlanarConfiguration = 3, 0
        pixels = np.stack([grey, 128 + grey // 8, 128 - grey // 8], axis=-1)
    elif photometric == "PALETTE COLOR":
        for n, colour in enumerate(("Red", "Green", "Blue")):
            table = (np.linspace(0, 65535, 256) * (1 - 0.2 * n)).astype("<u2").tobytes()
            setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(ds, f"{colour}PaletteColorLookupTableData", table)
    elif bits > 8:
        pixels = grey.astype(np.uint16) << (bits - 8)
    if cine:
        ds.NumberOfFrames, ds.FrameTime, ds.FrameIncrementPointer = frames, "40", 0x00181063
    if regions:
        ds.SequenceOfUltrasoundRegions = Sequence(list(regions))
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in tags.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.6.1")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format="SOPInstanceUID" in ds)
    return path


def ellipse(shape: tuple[int, int], centre: tuple[float, float], axes: tuple[float, float]) -> np.ndarray:
    """bool (h w): the pixels whose centres lie in the ellipse of this centre (x, y) and half axes (x, y)."""
    y, x = np.ogrid[0.5 : shape[0], 0.5 : shape[1]]
    return ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 < 1


def made_map(shape: tuple[int, int], frame: int) -> np.ndarray:
    """A lesion that moves, with a hole, and one that is away for two frames of seven and ends after 20."""
    h, w = shape
    scores = np.full(shape, 0.1, np.float32)
    step = min(frame, w // 4)
    scores[ellipse(shape, (w * 0.35 + step, h * 0.5), (w * 0.14, h * 0.12))] = 0.9 - 0.005 * abs(frame - 9)
    scores[ellipse(shape, (w * 0.35 + step, h * 0.5), (w * 0.05, h * 0.04))] = 0.2
    if frame < 20 and frame % 7 < 5:
        scores[ellipse(shape, (w * 0.7, h * 0.25), (w * 0.07, h * 0.1))] = 0.7
    return scores


SETS: dict[str, tuple[str, ...]] = {"rgb": ("benign", "malignant"), "deep": ()}
"""{image: its prediction set}; of the others, ``("malignant",)``."""


def image_score(frame: int) -> float:
    return 0.8 - 0.01 * abs(frame - 9)


@cache
def _model() -> Model:
    return zero_shot(backbone="tiny")


def run_of(
    out: Path, images: Iterable[Path], *, maps=made_map, score=image_score, threshold: float = 0.5, sets: str = "0.9"
) -> Path:
    """A run over these files with maps that are known; the folder."""
    run = facts(_model(), "predict")
    chosen = {"pixel": threshold, "image": 0.6, "sets": sets, "abstain": "size=1"}
    cuts = run.thresholds.model_copy(update=chosen)
    folder = RunFolder(out, run.model_copy(update={"thresholds": cuts}), resume=False, save=checked(["dicom"]))
    for sample in samples_of(images):
        image = read_image(sample.image, frame=sample.frame, depth=sample.depth)
        probs = {"normal": 0.2, "benign": 0.3, "malignant": 0.5}
        judged = InScope(sample.image.stem != "grey", reference=0.3, support=None, words="")
        grid = maps(image.shape[:2], sample.frame)
        classes = SETS.get(sample.image.stem, ("malignant",))
        found = Prediction(
            sample.id, score(sample.frame), grid, probs, "ultraad", in_scope=judged, prediction_set=classes
        )
        folder.add(Result(sample, image, found, None))
    folder.finish("complete")
    return out
