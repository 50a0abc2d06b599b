"""The model card: what a bundle's README.md tells a person who finds the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultraad import methods
from ultraad.data import sources

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_LIMITS = """\
- For research only. This is no medical device: it must not be used to diagnose, to treat, or to decide for a patient.
- It has learned from few images or few sources. Scanners, settings, organs and populations that it has not seen can
  give other scores at the same threshold; check it on labelled images of your own first.
- Calipers, text and body markers inside a picture can act as a shortcut; compare results with and without them.
- Scores rank images. Whether they are calibrated probabilities on your data has to be measured.
"""

_NAMES = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel average precision",
    "class_auroc_macro": "class AUROC, macro one-vs-rest",
    "benign_malignant_auroc": "benign vs malignant AUROC",
    "balanced_accuracy": "balanced accuracy",
}


def model_card(config: Mapping[str, Any]) -> str:
    """Markdown from the content of ``config.json``."""
    info = methods.get(config["method"]).info
    origin, calibration, tower = config["origin"], config["calibration"], config["backbone"]
    parts = [
        f"# {info.title}, {_protocol(origin)}\n",
        f"{_abilities(info.outputs, config['classes'])} ('{config['normal_class']}' means no lesion).\n\n"
        f"- method: `{info.name}` ([paper]({info.url}): {info.paper})\n"
        f"- backbone: `{tower['name']}`, frozen, {tower['size']} px, weights {tower['fingerprint'][:16]}\n"
        f"- learned values: {sum(origin['learned'].values()):,}; selection: {origin['selection'] or 'none'}\n"
        f"- seed: {origin['seed']}; model digest: {config['digest'][:16]}\n"
        f"- made with {', '.join(f'{k} {v}' for k, v in config['versions'].items())}\n",
        f"## Data\n\n{_data(origin)}",
        f"## Thresholds\n\n{_thresholds(calibration)}",
        f"## What the support set says\n\n{_estimates(calibration)}",
        f"## Limits\n\n{_LIMITS}",
        "## Use\n\n```\nultraad predict THIS_FOLDER IMAGES -o results\n"
        "ultraad evaluate THIS_FOLDER DATASET -o results\n```\n",
    ]
    notes = [*origin["notes"], *calibration["notes"]]
    if notes:
        parts.insert(-2, "## Notes\n\n" + "".join(f"- {note}\n" for note in notes))
    return "\n".join(parts)


def _abilities(outputs: Collection[str], classes: Sequence[str]) -> str:
    found = ["finds abnormal ultrasound images"]
    found += ["localises lesions"] if "map" in outputs else []
    found += [f"grades images as {', '.join(classes)}"] if "classes" in outputs else []
    text = " and ".join([", ".join(found[:-1]), found[-1]]) if len(found) > 1 else found[0]
    return text[0].upper() + text[1:]


def _protocol(origin: Mapping[str, Any]) -> str:
    named = {"zero-shot": "zero-shot", "auxiliary": "trained on another data set"}
    return named.get(origin["protocol"], f"{origin['shots']} images per class")


def _data(origin: Mapping[str, Any]) -> str:
    if origin["protocol"] == "zero-shot":
        return "None: the model works from sentences alone.\n"
    parts = []
    if origin["source"] is not None:
        parts.append(
            f"{origin['shots']} images per class, listed in `support.csv` (no picture is stored here).\n\n"
            f"- support digest: {origin['support_digest'][:16]}\n{_source(origin['source'])}"
        )
    if origin["auxiliary"] is not None:
        auxiliary = origin["auxiliary"]
        parts.append(
            f"An auxiliary set of {auxiliary['images']} images, listed in `auxiliary.csv`.\n\n"
            f"- auxiliary digest: {auxiliary['digest'][:16]}\n{_source(auxiliary['source'])}"
        )
    return "\n".join(parts)


def _source(source: str) -> str:
    layout = source.partition(":")[0]
    text = f"- layout: {layout}\n"
    if layout in sources.available():
        known = sources.get(layout)
        text += f"- licence of the images: {known.licence}\n"
        text += f"- cite: {known.citation}\n" if known.citation else ""
    return text


def _thresholds(calibration: Mapping[str, Any]) -> str:
    pixel = calibration["pixel_threshold"]
    folds = f"; {calibration['folds']} folds" if calibration["folds"] else ""
    patients = ", patients kept together" if calibration["grouped"] else ""
    return (
        f"- image: {calibration['image_threshold']:.4f}\n"
        f"- pixel: {'-' if pixel is None else format(pixel, '.4f')}\n"
        f"- rule: {calibration['rule']}{folds}{patients}\n"
    )


def _estimates(calibration: Mapping[str, Any]) -> str:
    if not calibration["estimates"]:
        return "Nothing: no image was held out.\n"
    rows = []
    for key, e in calibration["estimates"].items():
        interval = "-" if e["low"] is None else f"{e['low']:.3f} to {e['high']:.3f}"
        rows.append(f"| {_NAMES.get(key, key)} | {e['value']:.3f} | {interval} | {e['n']} |\n")
    return (
        f"Scores of {calibration['images']} support images, each held out once. Few images: the intervals are wide, "
        "and they say nothing about other scanners.\n\n"
        "| metric | value | 95 % interval | images |\n| --- | --- | --- | --- |\n" + "".join(rows)
    )
