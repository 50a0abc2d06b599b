"""What the page says about a run in sentences; unknown facts are left out, never guessed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ultraad.model.record import Auxiliary
from ultraad.report.kit.words import count
from ultraad.report.run.read import last_part
from ultraad.results.folder import PREDICTIONS, RUN
from ultraad.texts.tags import auroc_of_tag, is_shortcut

if TYPE_CHECKING:
    from ultraad.report.run.read import RunData


def title(data: RunData) -> str:
    """The heading of the page."""
    what = ", ".join(filter(None, (method_name(data), shots(data))))
    return f"{what}, evaluated on {data_name(data)}" if data.measured else f"{what}: predictions"


def method_name(data: RunData) -> str:
    """The method's own name."""
    return data.model.method if data.model else "The model"


def shots(data: RunData) -> str:
    """``"8 images per class"``, ``"zero-shot"``, ``"no support image"``, or nothing if unknown."""
    origin, model = data.origin, data.model
    if origin is None or model is None:
        return ""
    if origin.setting == "few-shot":
        return origin.shots_of(model.normal_class) if origin.shots else ""
    return "zero-shot" if origin.setting == "zero-shot" else "no support image"


def data_name(data: RunData) -> str:
    """The data set by the name of its folder: a path of another computer means nothing to the reader."""
    root, layout = data.data.root, data.data.layout
    return "simulated images" if layout == "synthetic" else last_part(root) if root else layout or "given images"


def lead(data: RunData) -> list[str]:
    """What the model was adapted on, and what it was evaluated on."""
    name, origin, classes = (
        method_name(data),
        data.origin,
        ", ".join(data.model.classes if data.model else data.classes),
    )
    on = f", on the frozen backbone {data.model.backbone.name}" if data.model else ""
    if origin and origin.setting == "zero-shot":
        first = f"{name} was used zero-shot: it has seen no image, only text prompts about {classes}{on}."
    elif origin and origin.shots:
        more = f" and trained on {_auxiliary(origin.auxiliary)}" if origin.auxiliary else ""
        of = ", ".join(origin.support_classes) or classes
        what, comma, alone = shots(data).replace("per class", "of each class").partition(",")
        first = f"{name} was adapted on {what} ({of}){comma}{alone}{comma} from {source_name(origin.source)}{more}{on}."
    elif origin and origin.auxiliary:
        first = f"{name} was trained only on {_auxiliary(origin.auxiliary)}{on}."
    else:
        first = f"{name}{on}; how it was adapted is not recorded."
    return [first, _measured_on(data) if data.measured else _predicted(data)]


def source_name(source: str | None) -> str:
    """``"<layout>:<root>"`` as words."""
    layout, _, root = (source or "").partition(":")
    if not root:
        return "a source that is not recorded"
    return layout if last_part(root) == layout else f"{last_part(root)} ({layout})"


def beside_prior(data: RunData) -> str | None:
    """How the pixel AUROC compares with that of a fixed blob in the middle."""
    prior, pixel = data.metric("pixel_auroc_centre_prior"), data.metric("pixel_auroc")
    if prior.value is None or pixel.value is None:
        return None
    text = (
        f"Lesions tend to be in the middle of the image. A fixed blob there, which has seen no image, reaches a "
        f"pixel AUROC of {prior.value:.3f}; the model reaches {pixel.value:.3f}."
    )
    if pixel.value <= prior.value:
        return f"{text} By this number the model does not localise better than the blob."
    if pixel.low is not None and pixel.low <= prior.value:
        return f"{text} Its interval includes the blob: these images do not show that the model localises better."
    return text


def cautions(data: RunData) -> list[str]:
    """What a reader must know before the numbers."""
    found, run = [], data.run
    if run is None:
        found.append(f"{RUN} is missing: model, thresholds and protocol are unknown.")
    elif run.status not in (None, "complete"):
        found.append(f"The run is {run.status}: this page shows what was done until then.")
    if run and (missing := run.lost(len(data.rows))):
        found.append(f"{count(missing, 'result')} cannot be read any more: {PREDICTIONS} was damaged after the run.")
    if data.errors:
        found.append(f"{count(len(data.errors), 'file')} could not be used; see the list below.")
    if run and run.leakage and run.leakage.dropped:
        dropped = count(run.leakage.dropped, "image")
        found.append(f"{dropped} left out of the evaluation: in the support set, or of one of its patients.")
    if data.outside:
        found.append(
            f"{count(len(data.outside), 'image')} out of scope: unlike what the model can judge. "
            "Counts, charts and rankings leave them out; they are shown in grey, and are in the tables of this folder."
        )
    t = data.thresholds
    if t.prevalence is not None:
        if isinstance(t.prevalence, dict):
            shares = ", ".join(f"{100 * share:g} % are {name}" for name, share in t.prevalence.items())
        else:
            shares = f"{100 * t.prevalence:g} % show a lesion"
        found.append(f"Class probabilities are for a place where, of the images, {shares}.")
    if n_unsure := sum(bool(r.unsure) for r in data.rows):
        why = "a wrong answer would cost more" if "cost" in (t.abstain or "") else "the prediction set is no answer"
        found.append(
            f"The class of {count(n_unsure, 'image')} is left open ({t.abstain}): {why}. "
            "Metrics count them; the risk-coverage curve shows what leaving images open is worth."
        )
    if sizes := Counter(len(r.prediction_set) for r in data.rows if r.prediction_set is not None):
        parts = [f"{count(n, 'image')} with {size} class{'es' * (size != 1)}" for size, n in sorted(sizes.items())]
        found.append(f"Prediction sets (level {t.sets}): {', '.join(parts)}.")
    if n_unknown := sum(r.in_scope is not None and r.in_scope.ok is None for r in data.rows):
        found.append(
            f"Whether the model can judge {count(n_unknown, 'image')} is not known: it carries no record of that for "
            "its backbone."
        )
    n = data.measured.n if data.measured else {}
    if n.get("lesions") and not n.get("normals"):
        found.append("No evaluated image is normal: how often normal ones would be flagged was not measured.")
    unknown = sum(r.verdict is None for r in data.rows)
    if data.measured and unknown:
        found.append(
            f"The truth of {count(unknown, 'image')} is unknown (normal or abnormal); detection leaves them out."
        )
    if data.measured:
        found += [*_unknown_patients(data), *_telling_tags(data)]
    notes = dict.fromkeys(data.measured.notes if data.measured else ())
    if data.model:
        notes |= dict.fromkeys((*data.model.origin.notes, *data.model.calibration.notes))
    notes |= dict.fromkeys(data.thresholds.notes)
    return found + [f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in notes]


def _unknown_patients(data: RunData) -> list[str]:
    """A sentence about images of unknown patient; none without any."""
    n, alone = len(data.rows), _alone(data)
    if not alone:
        return []
    who, which = f"The patient of {alone} of {count(n, 'image')} is unknown", "each of these"
    if alone == n:
        who, which = "No patient is known", "each image"
    return [f"{who}: {which} counts as a patient of its own, so intervals may be too narrow."]


def _alone(data: RunData) -> int:
    """Images of unknown patient."""
    return sum(row.group is None for row in data.rows)


def _telling_tags(data: RunData) -> list[str]:
    """A sentence about each tag, such as marks, that tells lesion images from normal ones."""
    of = {truth: [set(row.tags) for row in data.rows if row.anomalous is truth] for truth in (True, False)}
    found = []
    for tag in sorted({tag for row in data.rows for tag in row.tags}):
        a, n = (sum(tag in tags for tags in of[truth]) for truth in (True, False))
        if is_shortcut(tag, auroc_of_tag(a, len(of[True]), n, len(of[False]))):
            found.append(
                f"The tag {tag} is on {a} of {count(len(of[True]), 'image')} with a lesion and {n} of {len(of[False])} "
                "without: a model can use it instead of the lesion. The breakdown has the metrics without these images."
            )
    return found


def intervals(data: RunData) -> str | None:
    """How the intervals were made; None if there are none."""
    if data.measured is None or not data.measured.bootstrap.resamples:
        return None
    b = data.measured.bootstrap
    alone = ", each image of unknown patient as one" if b.unit == "patient" and _alone(data) else ""
    return f"95 %, {b.resamples} bootstrap resamples of {b.unit}s{alone}, seed {b.seed}"


def _auxiliary(auxiliary: Auxiliary) -> str:
    return f"{count(auxiliary.images, 'image')} of another data set, {source_name(auxiliary.source)}"


def _measured_on(data: RunData) -> str:
    assert data.measured is not None
    n = data.measured.n
    of, alone = count(n.get("groups", 0), "patient"), _alone(data)
    patients = ""
    if n.get("groups"):
        patients = f" ({len(data.rows) - alone} of {of}, {alone} of unknown patient)" if alone else f" of {of}"
    split = f", split {data.data.split}" if data.data.split else ""
    return (
        f"It was evaluated on {count(n.get('images', 0), 'image')}{patients} from {data_name(data)}{split}: "
        f"{n.get('lesions', 0)} with a lesion, {n.get('normals', 0)} without. "
        f"A usable mask is known for {count(n.get('masks', 0), 'lesion image')}."
    )


def _predicted(data: RunData) -> str:
    flagged, cut = sum(r.abnormal for r in data.rows), data.thresholds.image
    at = "" if cut is None else f" {cut:.3f}"
    return f"It was run on {_counted(data)}; {flagged} reached the image threshold{at}. Nothing was measured."


def _counted(data: RunData) -> str:
    """``"2 images"``, ``"75 frames of 1 video"``, or both."""
    rows = (*data.rows, *data.outside)
    videos = [row.video for row in rows if row.video is not None]
    images = len(rows) - len(videos)
    parts = [count(images, "image")] if images or not videos else []
    if videos:
        parts.append(f"{count(len(videos), 'frame')} of {count(len(set(videos)), 'video')}")
    return " and ".join(parts)
