"""Label Studio: its JSON and JSON-MIN exports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ultraad.data.sources import Source
from ultraad.data.sources._annotations import (
    UNNAMED,
    Annotated,
    Finding,
    ellipse,
    image_places,
    json_files,
    json_head,
    load_json,
    outline,
    samples_of,
    size_of,
)
from ultraad.data.sources._brush import from_packed_bits, in_window
from ultraad.data.sources._tables import Faults, files_named, is_nothing
from ultraad.types import Region, Sample

_MARKS = ('"annotation_id"', '"lead_time"', '"original_width"', '"annotations"')
_PATIENT = ("patient", "patient_id", "case")
_SHAPES = ("polygonlabels", "ellipselabels", "rectanglelabels", "brushlabels", "keypointlabels", "labels")


def _files(root: Path) -> list[Path]:
    return [f for f in json_files(root, _MARKS) if json_head(f).startswith("[")]  # a list, unlike COCO


def _matches(root: Path) -> bool:
    return bool(_files(root))


def _read(root: Path) -> Iterator[Sample]:
    folder = root.parent if root.is_file() else root
    images: list[Annotated] = []
    faults: list[Faults] = []
    for file in _files(root):
        faults.append(Faults(file, "entry"))
        images += _read_file(file, faults[-1])
    yield from samples_of(images, folder, faults)


def _read_file(file: Path, faults: Faults) -> Iterator[Annotated]:
    content = load_json(file)
    tasks = []
    for number, task in enumerate(content if isinstance(content, list) else [content]):
        facts = task.get("data", task) if isinstance(task, dict) else {}
        name = _image_name(facts) if isinstance(facts, dict) else None
        if name is None:
            faults.add(f"task {task.get('id', number) if isinstance(task, dict) else number} names no image")
        else:
            tasks.append((name, facts, task))
    paths = files_named((name for name, _, _ in tasks), image_places(file), file)
    for name, facts, task in tasks:
        patient = next((str(facts[k]) for k in _PATIENT if facts.get(k) is not None), "")
        results = _results(task, name, faults)
        findings, labels = _judgements(results or [], paths[name], name, faults)
        yield Annotated(
            image=paths[name],
            findings=findings,
            labels=labels,
            judged=results is not None,
            group=None if is_nothing(patient) else patient,
        )


def _image_name(facts: dict[str, Any]) -> str | None:
    """The value of "image", or the first text that looks like the path of an image."""
    named = [v for k in ("image", "img") if isinstance(v := facts.get(k), str)]
    if named:
        return named[0]
    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm")
    return next((v for v in facts.values() if isinstance(v, str) and v.lower().endswith(suffixes)), None)


def _results(task: dict[str, Any], name: str, faults: Faults) -> list[Any] | None:
    """What an annotator marked; None if nobody has looked at the task."""
    if "data" not in task:  # JSON-MIN: the results are the lists of the task itself, choices are text
        found: list[Any] = []
        for value in task.values():
            if isinstance(value, list):
                found += [{"value": v} for v in value if isinstance(v, dict)]
            elif isinstance(value, dict) and isinstance(value.get("choices"), list):
                found.append({"value": value})
        choice = next((task[k] for k in ("choice", "class", "diagnosis") if isinstance(task.get(k), str)), None)
        return [*found, {"value": {"choices": [choice]}}] if choice else found
    annotations = task.get("annotations", task.get("completions"))
    given = [a for a in annotations if isinstance(a, dict)] if isinstance(annotations, list) else []
    valid = [a for a in given if not a.get("was_cancelled") and isinstance(a.get("result"), list)]
    for number in range(2, len(valid) + 1):
        faults.add(f"{name}: annotation {number} of {len(valid)}; the first one is used")
    return valid[0]["result"] if valid else None


def _judgements(
    results: list[Any], image: Path, name: str, faults: Faults
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """(shapes, classes of the whole image)."""
    findings: list[Finding] = []
    labels: list[str] = []
    for number, result in enumerate(results):

        def complain(flaw: str, number: int = number) -> None:
            faults.add(f"{name}, result {number}: {flaw}")

        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            complain("no 'value'")
            findings.append(Finding(None))
            continue
        if isinstance(value.get("choices"), list):
            labels += [str(c) for c in value["choices"] if not is_nothing(str(c))]
            continue
        shape = value.keys() & {"points", "radiusX", "width", "rle", "x"}
        if not shape:
            continue  # a text, a rating or a relation
        named = [str(n) for key in _SHAPES if isinstance(value.get(key), list) for n in value[key]]
        size = size_of(
            result.get("original_height", value.get("original_height")),
            result.get("original_width", value.get("original_width")),
            image,
        )
        region = _outline(value, size, complain)
        findings += [Finding(n, region) for n in named or [UNNAMED]]
    return tuple(findings), tuple(labels)


def _outline(value: dict[str, Any], size: tuple[int, int] | None, complain: Callable[[str], None]) -> Region | None:
    """The outline of one shape; Label Studio's numbers are per cent of the image's sides."""
    if size is None:
        complain("the size of the image is unknown")
        return None
    h, w = (side / 100 for side in size)
    try:
        if "points" in value:
            return outline([[c for x, y in value["points"] for c in (float(x) * w, float(y) * h)]], size, complain)
        if "radiusX" in value:
            x, y, rx, ry = (float(value[k]) for k in ("x", "y", "radiusX", "radiusY"))
            turn = float(value.get("rotation") or 0)
            return outline([ellipse(x * w, y * h, rx * w, ry * h, turn)], size, complain)
        if "rle" in value:
            return in_window(from_packed_bits(value["rle"], size=size), left=0, top=0, size=size)
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        complain(f"a shape is damaged ({type(e).__name__}: {e})")
    return None  # a box or a point: the pixels are unknown


SOURCE = Source(
    name="label_studio",
    title="annotations of Label Studio (JSON or JSON-MIN)",
    licence="yours",
    citation="Tkachenko et al., Label Studio: data labeling software (2020)",
    layout="""
root/project-1.json (any .json file that Label Studio exported)
  a.png or images/a.png         uploads are also found without the eight digits before their name
the class is the label of the shapes or the choice of the image; an annotated task without shapes is normal, one that
was not annotated has no class; polygons, ellipses and brush masks are masks
""",
    group_rule='The patient is the value "patient" in the data of a task, if there is one.',
    matches=_matches,
    read=_read,
)
