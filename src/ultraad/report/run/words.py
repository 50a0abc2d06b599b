"""What the page says about a run in sentences; unknown facts are left out, never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultraad.report.kit.words import count
from ultraad.report.run.read import last_part
from ultraad.results.folder import RUN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultraad.report.run.read import Results


def title(results: Results) -> str:
    """The heading of the page."""
    what = ", ".join(filter(None, (method_name(results), shots(results))))
    return f"{what}, evaluated on {data_name(results)}" if results.metrics else f"{what}: predictions"


def method_name(results: Results) -> str:
    """The method's own name."""
    return str(results.fact("model", "method") or "The model")


def shots(results: Results) -> str:
    """``"8 images per class"``, ``"zero-shot"``, ``"no support image"``, or nothing if unknown."""
    protocol = results.fact("model", "origin", "protocol")
    if protocol == "zero-shot":
        return "zero-shot"
    if protocol == "auxiliary":
        return "no support image"
    n = results.fact("model", "origin", "shots")
    return f"{count(n, 'image')} per class" if n else ""


def data_name(results: Results) -> str:
    """The data set by its folder's name: paths of one machine mean nothing to the reader."""
    root = results.fact("data", "root")
    layout = results.fact("data", "layout")
    return "simulated images" if layout == "synthetic" else last_part(root) if root else str(layout or "given images")


def lead(results: Results) -> list[str]:
    """What was adapted on what, and evaluated on what."""
    origin = results.fact("model", "origin") or {}
    classes = ", ".join(results.classes)
    backbone = results.fact("model", "backbone", "name")
    on = f", on the frozen backbone {backbone}" if backbone else ""
    more = f" and trained on {_auxiliary(origin['auxiliary'])}" if origin.get("auxiliary") else ""
    if origin.get("protocol") == "zero-shot":
        first = f"{method_name(results)} zero-shot: no image was used to adapt, only sentences about {classes}{on}."
    elif origin.get("shots"):
        first = (
            f"{method_name(results)} was adapted on {count(origin['shots'], 'image')} of each class ({classes}) "
            f"from {source_name(origin.get('source'))}{more}{on}."
        )
    elif origin.get("auxiliary"):
        first = f"{method_name(results)} was trained on {_auxiliary(origin['auxiliary'])} alone{on}."
    else:
        first = f"{method_name(results)}{on}; how it was adapted is not recorded."
    return [first, _measured_on(results) if results.metrics else _predicted(results)]


def _auxiliary(auxiliary: Mapping[str, Any]) -> str:
    return f"{count(auxiliary.get('images', 0), 'image')} of another data set, {source_name(auxiliary.get('source'))}"


def source_name(source: str | None) -> str:
    """``"<layout>:<root>"`` as words."""
    layout, _, root = (source or "").partition(":")
    return f"{last_part(root)} ({layout})" if root else "a source that is not recorded"


def _measured_on(results: Results) -> str:
    n = results.metrics.get("n", {})
    patients = f" of {count(n['groups'], 'patient')}" if n.get("groups") else ""
    split = results.fact("data", "split")
    return (
        f"It was evaluated on {count(n.get('images', 0), 'image')}{patients} from {data_name(results)}"
        f"{f', split {split}' if split else ''}: {n.get('lesions', 0)} with a lesion, {n.get('normals', 0)} without; "
        f"{n.get('masks', 0)} lesion images have a usable mask."
    )


def _predicted(results: Results) -> str:
    flagged = sum(r.abnormal for r in results.rows)
    cut = results.image_threshold
    at = f" {cut:.3f}" if cut is not None else ""
    return (
        f"It was run on {count(len(results.rows), 'image')}; {flagged} at or above the image threshold{at}. "
        "Nothing was measured."
    )


def beside_prior(results: Results) -> str | None:
    """What the pixel AUROC is worth beside a blob in the middle."""
    metrics = results.metrics.get("metrics", {})
    prior, pixel = metrics.get("pixel_auroc_centre_prior") or {}, metrics.get("pixel_auroc") or {}
    if prior.get("value") is None or pixel.get("value") is None:
        return None
    text = (
        f"Lesions tend to sit in the middle of the picture. A fixed blob there, which has seen no image, reaches a "
        f"pixel AUROC of {prior['value']:.3f}; the model reaches {pixel['value']:.3f}."
    )
    low = pixel.get("low")
    if pixel["value"] <= prior["value"]:
        return f"{text} By this number it does not localise better than the blob."
    if low is not None and low <= prior["value"]:
        return f"{text} Its interval reaches down to the blob: these images do not show that it localises better."
    return text


def cautions(results: Results) -> list[str]:
    """What a reader must know before the numbers."""
    found = []
    status = results.fact("status")
    if status not in (None, "complete"):
        found.append(f"The run is {status}: this page shows what was done until then.")
    if not results.run:
        found.append(f"{RUN} is missing: model, thresholds and protocol are not known.")
    if results.errors:
        found.append(f"{count(len(results.errors), 'file')} could not be used; see the list below.")
    dropped = results.fact("leakage", "dropped")
    if dropped:
        found.append(f"{count(dropped, 'image')} of the support set or its patients lay in the data and were left out.")
    unlabelled = sum(r.verdict is None for r in results.rows)
    if results.metrics and unlabelled:
        found.append(f"Normal or abnormal is not known of {count(unlabelled, 'image')}; detection leaves them out.")
    notes = (*(results.fact("model", "origin", "notes") or ()), *(results.fact("model", "calibration", "notes") or ()))
    return found + [f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in notes]


def intervals(results: Results) -> str | None:
    """How the intervals were made; None if there are none."""
    bootstrap = results.metrics.get("bootstrap") or {}
    if not bootstrap.get("resamples"):
        return None
    return (
        f"95 %, {bootstrap['resamples']} bootstrap resamples of {bootstrap.get('unit')}s, seed {bootstrap.get('seed')}"
    )
