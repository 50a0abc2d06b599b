"""A cine of 300 frames: the throughput on a multi-frame DICOM, and the delay of a live picture.

    python -m perf.cine

Files: ``ultraad.runs.predict`` without overlays and maps, from the header to the report, on 480 x 640 pixels: colour
uncompressed and as JPEG; grey uncompressed, as RLE and as JPEG 2000. Live: a source that yields a frame every 40 ms
(and one every 10 ms, which is too fast) through ``Model.stream(newest=True)``; the delay of a frame is the time from
its arrival to its prediction.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import torch
from numpy.typing import NDArray
from perf.timing import Row, arguments, finish
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

import ultraad
from ultraad.model.model import Model
from ultraad.runs.predict import predict
from ultraad.simulate import simulate

HEIGHT, WIDTH = 480, 640
DISTINCT = 20  # frames that are drawn and compressed; the cine repeats them
REAL_TIME, AIM = 25, 60  # frames/s
Frame = NDArray[np.uint8]


def frames() -> list[Frame]:
    """A gliding probe: one picture, shifted a little from frame to frame."""
    still = simulate(0, size=WIDTH).image[:HEIGHT]
    return [np.roll(still, 3 * i, axis=1) for i in range(DISTINCT)]


def write_cine(path: Path, pictures: list[Frame], number: int, *, syntax: UID, grey: bool) -> Path:
    """A multi-frame ultrasound file."""
    pictures = [p[..., 0] if grey else p for p in pictures]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = UltrasoundMultiFrameImageStorage, generate_uid(), "US"
    ds.PhotometricInterpretation = "MONOCHROME2" if grey else "RGB"
    ds.SamplesPerPixel = 1 if grey else 3
    ds.Rows, ds.Columns, ds.NumberOfFrames = HEIGHT, WIDTH, number
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    if not grey:
        ds.PlanarConfiguration = 0
    if syntax == JPEGBaseline8Bit:
        ds.PhotometricInterpretation = "YBR_FULL_422"
    encoded = [encode(p, ds, syntax) for p in pictures]
    repeated = [encoded[i % len(encoded)] for i in range(number)]
    ds.PixelData = encapsulate(repeated) if syntax.is_compressed else b"".join(repeated)
    ds["PixelData"].VR = "OB"
    ds.save_as(path, enforce_file_format=True)
    return path


def encode(picture: Frame, ds: Dataset, syntax: UID) -> bytes:
    """One frame as it is encoded in the file."""
    if syntax == ExplicitVRLittleEndian:
        return picture.tobytes()
    if syntax == RLELossless:
        options = pydicom.pixels.utils.as_pixel_options(ds) | {"number_of_frames": 1}
        return get_encoder(syntax).encode(picture.tobytes(), index=0, encoding_plugin="pydicom", **options)
    buffer = io.BytesIO()
    if syntax == JPEGBaseline8Bit:
        Image.fromarray(picture).save(buffer, format="JPEG", quality=90)
    else:
        Image.fromarray(picture).save(buffer, format="JPEG2000", irreversible=False, no_jp2=True)
    return buffer.getvalue()


def files(model: Model, folder: Path, number: int) -> Iterator[Row]:
    """Frames per second of one file in each encoding."""
    pictures = frames()
    for what, syntax, grey in (
        ("colour, uncompressed", ExplicitVRLittleEndian, False),
        ("colour, JPEG", JPEGBaseline8Bit, False),
        ("grey, uncompressed", ExplicitVRLittleEndian, True),
        ("grey, RLE", RLELossless, True),
        ("grey, JPEG 2000", JPEG2000Lossless, True),
    ):
        cine = write_cine(folder / "cine.dcm", pictures, number, syntax=syntax, grey=grey)
        start = time.perf_counter()
        done = predict(model, [cine], folder / "results", resume=False, save=())
        rate = done.predicted / (time.perf_counter() - start)
        yield Row(
            f"cine of {number} frames, {WIDTH} x {HEIGHT}, {what}",
            f"real time, {REAL_TIME} frames/s",
            "rate",
            rate,
            must=REAL_TIME,
            aim=AIM,
            detail={"megabytes": round(cine.stat().st_size / 1e6), "failed": len(done.failed)},
        )


def scanner(pictures: list[Frame], number: int, *, rate: float) -> Iterator[tuple[Frame, float]]:
    """A source that yields frames on time, late only if it is blocked."""
    start = time.monotonic()
    for i in range(number):
        due = start + i / rate
        time.sleep(max(0.0, due - time.monotonic()))
        yield pictures[i % len(pictures)], due


def live(model: Model, number: int, *, rate: float) -> Row:
    """Delays of a live picture."""
    seen = list(model.stream(scanner(frames(), number, rate=rate), newest=True))
    delays = sorted(1000 * one.delay for one in seen)
    return Row(
        f"live, {number} frames of {WIDTH} x {HEIGHT} at {rate:g} frames/s: median delay in ms",
        "the frame's arrival",
        "report",
        statistics.median(delays),
        low=delays[0],
        high=delays[-1],
        detail={
            "p95_ms": round(delays[int(0.95 * (len(delays) - 1))], 1),
            "predicted": len(seen),
            "dropped": number - len(seen),
        },
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--backbone", default="embedded")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = ultraad.zero_shot(backbone=args.backbone)
    model.predict(frames()[0])  # the first call is slower
    with tempfile.TemporaryDirectory() as folder:
        rows = list(files(model, Path(folder), args.frames))
    rows += [live(model, args.frames, rate=rate) for rate in (REAL_TIME, 4 * REAL_TIME)]
    finish(rows, args.output)


if __name__ == "__main__":
    main()
