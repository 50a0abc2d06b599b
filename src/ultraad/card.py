"""The model card: what a bundle's README.md tells a person who finds the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultraad import methods
from ultraad.data import sources

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMITS = """\
- For research only. This is no medical device: it must not be used to diagnose, to treat, or to decide for a patient.
- It was adapted on few images, of one source. Scanners, settings, organs and populations that it has not seen can give
  other scores at the same threshold; check it on labelled images of your own first.
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


def card(config: Mapping[str, Any]) -> str:
    """Markdown from the content of ``config.json``."""
    info = methods.get(config["method"]).info
    origin, calibration, tower = config["origin"], config["calibration"], config["backbone"]
    parts = [
        f"# {info.title}, {_protocol(origin)}\n",
        f"Finds abnormal ultrasound images, localises lesions and grades them as {', '.join(config['classes'])} "
        f"('{config['normal_class']}' means no lesion).\n\n"
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


def _protocol(origin: Mapping[str, Any]) -> str:
    return "zero-shot" if origin["protocol"] == "zero-shot" else f"{origin['shots']} images per class"


def _data(origin: Mapping[str, Any]) -> str:
    if origin["source"] is None:
        return "None: the model works from sentences alone.\n"
    layout = origin["source"].partition(":")[0]
    text = f"{origin['shots']} images per class, listed in `support.csv` (no picture is stored here).\n\n"
    text += f"- support digest: {origin['support_digest'][:16]}\n- layout: {layout}\n"
    if layout in sources.available():
        source = sources.get(layout)
        text += f"- licence of the images: {source.licence}\n"
        text += f"- cite: {source.citation}\n" if source.citation else ""
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
