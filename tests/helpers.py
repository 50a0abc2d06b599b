"""Tiny data sets of every layout, written to disk: speckle with a dark ellipse, seeded, a few KB each."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)  # (h, w): not square, so that a swap shows
FIRST_SEED = {  # no two layouts share a picture, so that one can serve as support and another as evaluation
    "busi": 0,
    "bus_uclm": 10_000,
    "bus_bra": 20_000,
    "udiat": 30_000,
    "folder": 40_000,
    "mvtec": 50_000,
    "bmad": 60_000,
    "csv": 70_000,
    "coco": 80_000,
    "synthetic": 90_000,
    "dicom": 100_000,
}


def picture(seed: int, *, lesion: bool, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 (h w 3), mask bool (h w)); a different scene for each seed."""
    rng = np.random.default_rng(seed)
    h, w = size
    coarse = rng.uniform(60, 200, (6, 8)).astype(np.float32)
    tissue = np.asarray(Image.fromarray(coarse).resize((w, h), Image.Resampling.BICUBIC))
    tissue = tissue * rng.rayleigh(0.8, size)
    y, x = np.mgrid[:h, :w]
    cy, cx = rng.uniform(0.35, 0.65, 2) * size
    ry, rx = rng.uniform(0.15, 0.25, 2) * size
    mask = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
    if lesion:
        tissue = np.where(mask, 0.3 * tissue, tissue)
    grey = np.clip(tissue, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), mask & lesion


def save(path: Path, array: np.ndarray) -> Path:
    """Write uint8 or bool (True as 255) as an image file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(path)
    return path


def write_table(path: Path, header: str, rows: list[str], *, bom: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8-sig" if bom else "utf-8")
    return path


def write_busi(root: Path, *, per_class: int = 4) -> Path:
    """BUSI; the first benign image has two mask files, the lesion's left and right half."""
    for c, label in enumerate(("normal", "benign", "malignant")):
        for n in range(1, per_class + 1):
            image, mask = picture(FIRST_SEED["busi"] + 100 * c + n, lesion=label != "normal")
            save(root / label / f"{label} ({n}).png", image)
            if label == "benign" and n == 1:
                half = np.arange(mask.shape[1]) < mask.shape[1] // 2
                save(root / label / f"{label} ({n})_mask.png", mask & half)
                save(root / label / f"{label} ({n})_mask_1.png", mask & ~half)
            else:
                save(root / label / f"{label} ({n})_mask.png", mask)
    return root


def write_bus_uclm(root: Path, *, patients: tuple[str, ...] = ("ALWI", "HESN", "MENE", "COPE"), each: int = 6) -> Path:
    """BUS-UCLM with its quirks: byte order mark, a dirty cell, coloured masks, and HESN's masks of another size.

    Each patient has images of all three classes in turn; every lesion of ALWI is marked.
    """
    colour = {"Normal": (0, 0, 0), "Benign": (0, 255, 0), "Malignant": (255, 0, 0)}
    rows = []
    for p, patient in enumerate(patients):
        for n in range(each):
            name, label = f"{patient}_{n:03d}.png", list(colour)[n % 3]
            image, mask = picture(FIRST_SEED["bus_uclm"] + 1000 * (p + 1) + n, lesion=label != "Normal")
            if patient == "HESN":
                image = image[4:-4]  # cropped, while the mask keeps the whole frame
            save(root / "images" / name, image)
            save(root / "masks" / name, (mask[..., None] * np.array(colour[label])).astype(np.uint8))
            marks = "Yes" if patient == "ALWI" and label != "Normal" else "No"
            doppler = "Y" if (patient, n) == ("MENE", 1) else "No"
            rows.append(f"{name};856x606;{label};{doppler};{marks};No")
    write_table(root / "INFO.csv", "Image;Resolution;Label;Doppler;Marks;Combined", rows, bom=True)
    return root


def write_bus_bra(root: Path) -> Path:
    rows = []
    for case, label in ((1, "benign"), (2, "malignant")):
        for side in "lr":
            name = f"bus_{case:04d}-{side}"
            image, mask = picture(FIRST_SEED["bus_bra"] + 10 * case + (side == "r"), lesion=True)
            save(root / "Images" / f"{name}.png", image)
            save(root / "Masks" / f"{name.replace('bus', 'mask')}.png", mask)
            rows.append(f"{name},{case},Fibroadenoma,{label},{case + 2},LOGIQ 5,64,48,{side}")
    write_table(root / "bus_data.csv", "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side", rows)
    return root


def write_udiat(root: Path, *, labels: str = "xlsx") -> Path:
    """UDIAT with its classes in ``"xlsx"``, ``"csv"`` or ``"folders"``; even numbers are malignant."""
    kinds = [(n, "Malignant" if n % 2 == 0 else "Benign") for n in range(1, 5)]
    for n, kind in kinds:
        image, mask = picture(FIRST_SEED["udiat"] + n, lesion=True)
        folder = root / "original" / (kind if labels == "folders" else "")
        save(folder / f"{n:06d}.png", image)
        save(root / "GT" / f"{n:06d}.png", mask)
    if labels == "csv":
        write_table(root / "DatasetB.csv", "Image;Type", [f"{n};{kind}" for n, kind in kinds])
    if labels == "xlsx":
        import openpyxl

        book = openpyxl.Workbook()
        for row in [("Type", "Image"), *((kind, n) for n, kind in kinds)]:
            book.active.append(row)
        book.save(root / "DatasetB.xlsx")
    return root


def write_folder(
    root: Path,
    *,
    masks: str = "beside",
    classes: tuple[str, ...] = ("normal", "benign", "malignant"),
    per_class: int = 4,
) -> Path:
    """A folder for each class; masks ``"beside"`` the image, ``"inside"``, ``"sibling"``, ``"apart"`` or ``"none"``.

    The first class is the normal one; if it is empty, there are lesions only.
    """
    for c, label in enumerate(classes):
        if not label:
            continue
        for n in range(per_class):
            lesion = label != classes[0]
            image, mask = picture(FIRST_SEED["folder"] + 100 * c + n, lesion=lesion)
            save(root / label / f"{n}.png", image)
            place = {
                "beside": root / label / f"{n}_mask.png",
                "inside": root / label / "masks" / f"{n}.png",
                "sibling": root / f"{label}_mask" / f"{n}.png",
                "apart": root / "masks" / label / f"{n}_mask.png",
            }
            if lesion and masks != "none":
                save(place[masks], mask)
    return root


def write_mvtec(root: Path) -> Path:
    for n in range(4):
        save(root / "train" / "good" / f"{n:03d}.png", picture(FIRST_SEED["mvtec"] + n, lesion=False)[0])
        save(root / "test" / "good" / f"{n:03d}.png", picture(FIRST_SEED["mvtec"] + 10 + n, lesion=False)[0])
        image, mask = picture(FIRST_SEED["mvtec"] + 20 + n, lesion=True)
        save(root / "test" / "cyst" / f"{n:03d}.png", image)
        save(root / "ground_truth" / "cyst" / f"{n:03d}_mask.png", mask)
    return root


def write_bmad(root: Path, *, inner: bool = True) -> Path:
    """BMAD; ``inner`` puts the images into ``img`` folders beside the truth."""
    img = "img" if inner else ""
    for n in range(3):
        save(root / "train" / "good" / img / f"{n}.png", picture(FIRST_SEED["bmad"] + n, lesion=False)[0])
        for s, split in enumerate(("valid", "test"), start=1):
            save(root / split / "good" / img / f"{n}.png", picture(FIRST_SEED["bmad"] + 10 * s + n, lesion=False)[0])
            image, mask = picture(FIRST_SEED["bmad"] + 100 * s + n, lesion=True)
            save(root / split / "Ungood" / img / f"{n}.png", image)
            if inner:
                save(root / split / "Ungood" / ("label" if split == "valid" else "anomaly_mask") / f"{n}.png", mask)
    return root


def write_csv(root: Path) -> Path:
    """A table with every column; the third image has two masks."""
    rows = []
    for n, label in enumerate(("normal", "normal", "benign", "malignant")):
        image, mask = picture(FIRST_SEED["csv"] + n, lesion=n > 1)
        save(root / "scans" / f"{n}.png", image)
        names = [f"truth/{n}_{k}.png" for k in range(2 if n == 2 else n > 1)]
        for name in names:
            save(root / name, mask)
        split, tags = ("train", "test")[n % 2], "marks;doppler" if n == 3 else ""
        rows.append([f"scans/{n}.png", ";".join(names), label, f"p{n}", "here", "scanner", split, "", tags])
    with (root / "samples.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "label", "patient", "site", "device", "split", "frame", "tags"])
        table.writerows(rows)
    return root


def write_coco(root: Path) -> Path:
    """One image each: polygon, run lengths, compressed run lengths, a box only, no annotation; all 4 x 6 scaled up."""
    h, w = SIZE
    square = [[10.0, 8.0, 30.0, 8.0, 30.0, 20.0, 10.0, 20.0]]
    runs = [10 * h + 8, 12, h * w - 10 * h - 20]  # one column of twelve pixels
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": h, "width": w, "patient": f"p{n}"} for n in range(5)],
        "categories": [{"id": 1, "name": "benign"}, {"id": 2, "name": "malignant"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "segmentation": square},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [h, w], "counts": runs}},
            {"id": 3, "image_id": 2, "category_id": 2, "segmentation": {"size": [h, w], "counts": encode_rle(runs)}},
            {"id": 4, "image_id": 2, "category_id": 1, "segmentation": square},
            {"id": 5, "image_id": 3, "category_id": 1, "segmentation": [], "bbox": [1, 2, 3, 4]},
        ],
    }
    for n in range(5):
        save(root / "images" / f"{n}.png", picture(FIRST_SEED["coco"] + n, lesion=n < 4)[0])
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def encode_rle(runs: list[int]) -> str:
    """COCO's compressed string, written from its description (the inverse of what the package reads)."""
    out = []
    for i, run in enumerate(runs):
        x = run - (runs[i - 2] if i > 2 else 0)
        while True:
            low, x = x % 32, x // 32
            done = (x == 0 and low < 16) or (x == -1 and low >= 16)
            out.append(chr(48 + low + (0 if done else 32)))
            if done:
                break
    return "".join(out)


def write_synthetic(root: Path, *, patients: int = 3) -> Path:
    """What ``ultraad simulate`` writes, in small: every patient has one image of each class."""
    for p in range(patients):
        for c, label in enumerate(("normal", "benign", "malignant")):
            image, mask = picture(FIRST_SEED["synthetic"] + 10 * p + c, lesion=c > 0)
            save(root / label / f"p{p:04d}_{c:04d}.png", image)
            save(root / label / f"p{p:04d}_{c:04d}_mask.png", mask)
    (root / "simulated.json").write_text(json.dumps({"generator": "ultraad.simulate", "seed": 0, "n": 3 * patients}))
    return root


def write_dicom(path: Path, *, frames: int = 1, patient: str = "Doe", seed: int = 0) -> Path:
    """An uncompressed 8-bit grey ultrasound file."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    pixels = np.stack([picture(FIRST_SEED["dicom"] + seed + f, lesion=False)[0][..., 0] for f in range(frames)])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1" if frames > 1 else "1.2.840.10008.5.1.4.1.1.6.1"
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{seed + 1}"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.PatientID, ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = patient, "US", "Maker", "One"
    ds.Rows, ds.Columns = SIZE
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelSpacing = [0.1, 0.2]
    if frames > 1:
        ds.NumberOfFrames = frames
    ds.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


KINDS = ("normal", "benign", "malignant")
SQUARE = ((10, 8), (30, 8), (30, 20), (10, 20))  # outline of a lesion, as x, y


def write_drawn(root: Path, first_seed: int) -> list[tuple[str, str, tuple[tuple[int, int], ...]]]:
    """Three images for an annotation tool: (file name, class, outline)."""
    found = []
    for n, label in enumerate(KINDS):
        save(root / f"{n}.png", picture(first_seed + n, lesion=n > 0)[0])
        found.append((f"{n}.png", label, SQUARE if n else ()))
    return found


def write_labelme(root: Path) -> Path:
    for name, label, points in write_drawn(root, 110_000):
        shapes = [{"label": label, "points": points, "shape_type": "polygon", "flags": {}}] if points else []
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None}
        content |= {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        (root / name).with_suffix(".json").write_text(json.dumps(content))
    return root


def write_via(root: Path) -> Path:
    content = {}
    for name, label, points in write_drawn(root, 120_000):
        shape = {"name": "polygon", "all_points_x": [x for x, _ in points], "all_points_y": [y for _, y in points]}
        regions = [{"shape_attributes": shape, "region_attributes": {"class": label}}] if points else []
        content[f"{name}123"] = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    (root / "via_region_data.json").write_text(json.dumps(content))
    return root


def write_label_studio(root: Path) -> Path:
    h, w = SIZE
    tasks = []
    for n, (name, label, points) in enumerate(write_drawn(root / "images", 130_000)):
        value = {"points": [[100 * x / w, 100 * y / h] for x, y in points], "polygonlabels": [label]}
        result = {"type": "polygonlabels", "value": value, "original_width": w, "original_height": h}
        note = {"id": n, "result": [result] if points else [], "was_cancelled": False, "lead_time": 3.5}
        tasks.append({"id": n, "annotations": [note], "data": {"image": f"/data/upload/1/ab12cd3{n}-{name}"}})
    (root / "project-1-at-2024-05-06.json").write_text(json.dumps(tasks))
    return root


def write_cvat(root: Path) -> Path:
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations><version>1.1</version>"]
    for n, (name, label, points) in enumerate(write_drawn(root / "images", 140_000)):
        lines.append(f'<image id="{n}" name="{name}" width="{SIZE[1]}" height="{SIZE[0]}">')
        if points:
            text = ";".join(f"{x}.00,{y}.00" for x, y in points)
            lines.append(
                f'<polygon label="{label}" source="manual" occluded="0" points="{text}" z_order="0"></polygon>'
            )
        lines.append("</image>")
    (root / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))
    return root


def write_masks(root: Path) -> Path:
    """A mask of each class for each image, empty where it has no such lesion."""
    for n, label in enumerate(KINDS):
        image, mask = picture(190_000 + n, lesion=n > 0)
        save(root / "images" / f"{n}.png", image)
        for kind in KINDS[1:]:
            save(root / "masks" / kind / f"{n}.png", mask if kind == label else np.zeros_like(mask))
    return root


def write_brest(root: Path) -> Path:
    """The sheet as a CSV file; the benign image has a second lesion."""
    rows = []
    for n, label in enumerate(KINDS, start=1):
        image, mask = picture(150_000 + n, lesion=n > 1)
        name, half = f"case{n:03d}", np.arange(mask.shape[1]) < mask.shape[1] // 2
        save(root / f"{name}.png", image)
        masks = ["Not applicable", ""]
        if n > 1:
            masks = [f"{name}_tumor.png", f"{name}_other1.png" if n == 2 else ""]
            save(root / masks[0], mask & half if n == 2 else mask)
        if n == 2:
            save(root / masks[1], mask & ~half)
        rows.append(f"{n};{name}.png;{';'.join(masks)};0.007;{'4a' if n > 1 else '1'};{label}")
    header = "CaseID;Image_filename;Mask_tumor_filename;Mask_other_filename;Pixel_size;BIRADS;Classification"
    write_table(root / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.csv", header, rows)
    return root


def write_ddti(root: Path) -> Path:
    """Two benign and two malignant cases; the first has two images."""
    for case, grade in enumerate(("2", "3", "4a", "5"), start=1):
        marks = ""
        for n in range(1, 3 if case == 1 else 2):
            save(root / f"{case}_{n}.jpg", picture(160_000 + 10 * case + n, lesion=True)[0])
            points = [{"x": x, "y": y} for x, y in SQUARE]
            svg = json.dumps([{"points": points, "annotation": {}, "regionType": "freehand"}])
            marks += f"<mark>\n<image>{n}</image>\n<svg>{svg}</svg></mark>\n"
        text = f"<case><number>{case}</number><age></age><sex>F</sex><tirads>{grade}</tirads>\n{marks}</case>"
        (root / f"{case}.xml").write_text(text)
    return root


def write_mmotu(root: Path) -> Path:
    """Chocolate cyst, normal ovary and high grade serous in both lists."""
    for s, split in enumerate(("train", "val")):
        lines = []
        for k, number in enumerate((0, 5, 7)):
            n = 10 * s + k + 1
            image, mask = picture(170_000 + n, lesion=number != 5)
            save(root / "images" / f"{n}.JPG", image)
            save(root / "annotations" / f"{n}.PNG", mask[..., None] * np.array((0, 128, 0), dtype=np.uint8))
            save(root / "annotations" / f"{n}_binary.PNG", mask)
            lines.append(f"{n}.JPG  {number}")
        (root / f"{split}_cls.txt").write_text("\n".join(lines) + "\n")
    return root


def write_liver(root: Path) -> Path:
    for c, label in enumerate(KINDS):
        folder = root / label.title()
        for n in range(2):
            save(folder / "image" / f"{n}.jpg", picture(180_000 + 10 * c + n, lesion=c > 0)[0])
            for part in ("liver", "mass", "outline")[: 3 if c else 1]:
                file = folder / "segmentation" / part / f"{n}.json"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(SQUARE))
    return root
