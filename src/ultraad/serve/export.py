"""Write what a project has found as a folder that the command line understands; runs in the worker.

data/            the marked images with masks and samples.csv, the layout 'csv'; split train or test
coco.json        the same marks as COCO annotations
support.json     what the model was adapted to
model/           the model
predictions/     as 'ultraad predict' writes it, for every image
report/          as 'ultraad evaluate' writes it, on the held-out marks
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ultraad.io import read_image, read_mask
from ultraad.io.files import whole_folder, write_image, write_json, write_text
from ultraad.metrics.lesions import flat
from ultraad.serve.decode import SAMPLES
from ultraad.types import Region, Sample

if TYPE_CHECKING:
    from ultraad.model.model import Model

WHAT = ("predictions", "masks", "coco", "support", "model", "report")
_COLUMNS = ("image", "mask", "label", "patient", "site", "device", "split")


def export(model: Model, order: Mapping[str, Any], *, progress: Callable[[int, int], None]) -> tuple[int, int]:
    """Write the folder, completely or not at all.

    Args:
        model: In use.
        order: ``target`` (folder), ``what`` (of :data:`WHAT`), ``marked`` and ``all`` (samples as JSON, the marked ones
            with ``split`` train or test), ``classes``, ``normal_class``, ``support_file``, ``folder`` (of the model).
        progress: Called with (images done, images).

    Returns:
        (files, bytes) written.
    """
    from ultraad.errors import DataError
    from ultraad.runs.evaluate import evaluate
    from ultraad.runs.predict import predict

    what = set(order["what"])
    marked: list[Sample] = SAMPLES.validate_python(order["marked"])
    everything: list[Sample] = SAMPLES.validate_python(order["all"])
    held_out = [s for s in marked if s.split == "test"]
    total = len(marked) * bool(what & {"masks", "coco"}) + len(everything) * ("predictions" in what)
    total += len(held_out) * ("report" in what)
    done = 0

    def step(*_: int) -> None:
        nonlocal done
        done += 1
        progress(min(done, total), total)

    with whole_folder(Path(order["target"])) as folder:
        if what & {"masks", "coco"}:
            files = _data(folder / "data", marked, step)
            if "coco" in what:
                write_json(folder / "coco.json", _coco(marked, files, order["classes"], order["normal_class"]))
        support_file = Path(order["support_file"])
        if "support" in what and support_file.is_file():
            shutil.copyfile(support_file, folder / "support.json")
        if "model" in what:
            shutil.copytree(order["folder"], folder / "model")
        if "predictions" in what and everything:
            predict(model, everything, folder / "predictions", progress=step)
        if "report" in what and held_out:
            try:
                evaluate(model, held_out, leaks="drop", output=folder / "report", progress=step)
            except DataError as e:  # nothing to measure
                write_text(folder / "report.txt", f"there is no report: {e}\n")
        written = [p for p in folder.rglob("*") if p.is_file()]
        return len(written), sum(p.stat().st_size for p in written)


def _data(folder: Path, marked: Sequence[Sample], step: Callable[[], None]) -> list[str]:
    """Images, masks and the table; names of the image files relative to the folder."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    names: list[str] = []
    for number, sample in enumerate(marked, start=1):
        stem = f"{number:05d}-{_readable(sample.id)}"
        image = read_image(sample.image, frame=sample.frame, depth=sample.depth)
        write_image(folder / "images" / f"{stem}.png", image)  # never the file itself: its header may name a patient
        row = {"image": f"images/{stem}.png", "label": sample.label or "", "patient": sample.group or ""}
        row |= {"site": sample.site or "", "device": sample.device or "", "split": sample.split or ""}
        if sample.masks:
            mask = read_mask(sample.masks, shape=image.shape[:2])
            write_image(folder / "masks" / f"{stem}.png", mask.astype(np.uint8) * 255)
            row["mask"] = f"masks/{stem}.png"
        table.writerow({key: _plain(value) for key, value in row.items()})
        names.append(row["image"])
        step()
    write_text(folder / "samples.csv", text.getvalue())
    return names


def _readable(id_: str) -> str:
    """The last part of an id, without its suffix, in letters that every file system takes."""
    last = re.split(r"[/\\]", id_)[-1]
    return re.sub(r"[^\w-]+", "_", re.sub(r"\.\w{1,6}(?=#|$)", "", last))[-60:] or "image"


def _plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _coco(marked: Sequence[Sample], files: Sequence[str], classes: Sequence[str], normal: str) -> dict[str, Any]:
    """COCO annotations: one entry per region of a mask, a polygon along pixel edges, or run lengths if it has holes."""
    from ultraad.metrics.lesions import lesions_of_mask

    numbers = {name: n for n, name in enumerate((c for c in classes if c != normal), start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id_, (sample, file) in enumerate(zip(marked, files, strict=True), start=1):
        region = sample.masks[0] if sample.masks else None
        size = region.size if isinstance(region, Region) else read_image(sample.image, frame=sample.frame).shape[:2]
        entry = {"id": id_, "file_name": f"data/{file}", "width": size[1], "height": size[0]}
        images.append(entry if sample.group is None else {**entry, "patient": sample.group})
        if not sample.masks or sample.label not in numbers:
            continue
        for lesion in lesions_of_mask(read_mask(sample.masks, shape=size), smallest_px=1):
            outline = [[float(n) for n in flat(lesion.outline)]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": id_,
                    "category_id": numbers[sample.label],
                    "segmentation": outline if not lesion.holes else _runs(lesion.mask(size)),
                    "bbox": list(lesion.box),
                    "area": lesion.area_px,
                    "iscrowd": int(bool(lesion.holes)),
                }
            )
    categories = [{"id": n, "name": name} for name, n in numbers.items()]
    info = {"description": "marks made with ultraad serve; for research only"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _runs(mask: np.ndarray) -> dict[str, Any]:
    from ultraad.serve.shapes import run_lengths

    return {"size": list(mask.shape), "counts": run_lengths(mask)}
