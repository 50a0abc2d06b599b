"""What the B-mode region does to scores: images bare, and on a scanner's screen with and without its region.

Images of a data set that is cropped already are set into such a screen (800 x 600: banner, settings, grey bar, depth
scale, focus marks, cine bar) and written as DICOM whose header names the region. The model is zero-shot, and adapted to
bare images of other patients:

    python -m perf.regions DATA/BUS-UCLM --images 30 --shots 8 -o perf/results/regions.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import ultraad
from ultraad.data.loader import decode
from ultraad.io.files import write_image, write_json
from ultraad.rng import seeded
from ultraad.types import Sample

SCREEN = (600, 800)
ROOM = (130, 60, 560, 460)  # x, y, width, height of the largest B-mode region on the screen
METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "dice")


def on_a_screen(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The screen uint8 (600 800 3) with an image, at a scale of its own, and its box (x, y, width, height)."""
    screen = Image.new("RGB", SCREEN[::-1])
    x, y, w, h = ROOM
    scale = min(w / image.shape[1], h / image.shape[0])
    width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
    left, top = x + (w - width) // 2, y
    screen.paste(Image.fromarray(image).resize((width, height)), (left, top))
    draw, font, small = ImageDraw.Draw(screen), ImageFont.load_default(18), ImageFont.load_default(13)
    draw.rectangle((0, 0, 799, 48), fill=(16, 28, 60))
    draw.text((12, 4), "MAKER   DOE JANE   F 54", font=font, fill=(240, 240, 240))
    draw.text((12, 26), "123456   Breast right   2026-01-02 10:11", font=font, fill=(240, 240, 240))
    draw.text((600, 12), "MI 0.8  TIS 0.2", font=font, fill=(240, 240, 240))
    for n, line in enumerate(("L12-5", "32 Hz", "4.0 cm", "2D", "Gn 50", "C 50", "3/2/0", "Map 4", "P off")):
        draw.text((8, 70 + 22 * n), line, font=small, fill=(220, 220, 220))
    for n in range(120):
        draw.line((772, 80 + n, 786, 80 + n), fill=(255 - 2 * n,) * 3)
    for n in range(9):
        draw.line((740, 70 + 50 * n, 740 + (12 if n % 2 else 6), 70 + 50 * n), fill=(255, 255, 255))
        if n % 2:
            draw.text((756, 63 + 50 * n), f"{n // 2}", font=small, fill=(255, 255, 255))
    draw.polygon([(728, 240), (738, 234), (738, 246)], fill=(255, 220, 0))
    draw.line((180, 560, 600, 560), fill=(40, 200, 40), width=2)
    draw.text((620, 552), "127/128", font=small, fill=(220, 220, 220))
    return np.asarray(screen), (left, top, width, height)


def write_dicom(path: Path, pixels: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """An RGB ultrasound file whose header names the region."""
    ds, region = Dataset(), Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.6.1", generate_uid(), "US"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    x, y, w, h = box
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = x, y
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = x + w - 1, y + h - 1
    ds.SequenceOfUltrasoundRegions = [region]
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    ds["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def write_sets(samples: list[Sample], folder: Path) -> None:
    """``bare/`` and ``screen/``, both as a folder for each class with masks beside the images."""
    for number, sample in enumerate(samples):
        found = decode(sample, normal_class="normal")
        screen, box = on_a_screen(found.image)
        x, y, w, h = box
        mask = found.mask if found.mask is not None else np.zeros(found.image.shape[:2], bool)
        on_screen = np.zeros(SCREEN, np.uint8)
        on_screen[y : y + h, x : x + w] = (
            np.asarray(Image.fromarray(mask).resize((w, h), Image.Resampling.NEAREST)) * 255
        )
        for kind, pixels, truth in (("bare", found.image, mask * np.uint8(255)), ("screen", screen, on_screen)):
            place = folder / kind / str(sample.label)
            place.mkdir(parents=True, exist_ok=True)
            name = f"{number:03d}"
            if kind == "bare":
                write_image(place / f"{name}.png", pixels)
            else:
                write_dicom(place / f"{name}.dcm", pixels, box)
            if mask.any():
                write_image(place / f"{name}_mask.png", truth)


def measure(root: Path, *, images: int, shots: int, backbone: str) -> dict[str, Any]:
    """Metrics of the three ways to look at the same images, by model."""
    clean = [s for s in ultraad.scan(root) if s.mask_aligned and not s.tags]
    marked = {tag for s in ultraad.scan(root) for tag in s.tags}
    support = ultraad.draw_support(root, shots=shots, per_patient=True, exclude_tags=marked)
    learned = {s.group for s in support.samples}
    samples = [s for s in clean if s.group not in learned]
    chosen = []
    for label in sorted({s.label or "" for s in samples}):
        members = [s for s in samples if s.label == label]
        order = seeded(0, f"regions {label}").permutation(len(members))
        chosen += [members[i] for i in order[:images]]
    models = {
        "zero-shot": ultraad.zero_shot(backbone=backbone),
        f"{shots} shots": ultraad.adapt(support, backbone=backbone),
    }
    ways = (("bare", "bare", "auto"), ("region", "screen", "auto"), ("screen", "screen", "off"))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_sets(chosen, Path(folder))
        for name, model in models.items():
            for way, kind, region in ways:
                result = ultraad.evaluate(model, Path(folder) / kind, region=region, bootstrap=200)["metrics"]
                values = {m: {k: round(result[m][k], 4) for k in ("value", "low", "high")} for m in METRICS}
                found.setdefault(name, {})[way] = values
    return {"data": root.name, "images": len(chosen), "backbone": backbone, "metrics": found}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=20, help="of each class")
    parser.add_argument("--shots", type=int, default=8, help="of the adapted model")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    found = measure(given.data, images=given.images, shots=given.shots, backbone=given.backbone)
    print(json.dumps(found, indent=1))
    if given.output:
        write_json(given.output, found)


if __name__ == "__main__":
    main()
