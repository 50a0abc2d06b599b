"""The model card: the README.md in a model's folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ultraad import methods
from ultraad.data import sources
from ultraad.metrics.catalogue import spec

if TYPE_CHECKING:
    from ultraad.model.calibration import Calibration
    from ultraad.model.record import Description

_LIMITS = """\
- For research only. This is not a medical device: do not use it to diagnose, to treat, or to decide for a patient.
- It has learned from few images or few sources. Other scanners, settings, organs and populations can give other scores
  at the same threshold; check it on labelled images of your own first.
- Calipers, text and body markers in an image can act as a shortcut; compare results with and without them.
- Scores rank images. Measure on your own data whether they are calibrated probabilities.
"""


def model_card(model: Description, *, digest: str, versions: Mapping[str, str]) -> str:
    """The card in Markdown.

    Args:
        model: What the model is and where it comes from.
        digest: The model's digest.
        versions: {package: version} that made it.
    """
    info = methods.get(model.method).info
    model = type(model).model_validate(_harmless(model.model_dump(mode="json")))
    versions = {_plain(k): _plain(v) for k, v in versions.items()}
    origin, calibration, backbone = model.origin, model.calibration, model.backbone
    parts = [
        f"# {info.title}, {_setting(model)}\n",
        f"{_abilities(info.outputs, model.classes)} ('{model.normal_class}' means no lesion).\n\n"
        f"- method: `{info.name}` ([paper]({info.url}): {info.paper})\n"
        f"- backbone: `{backbone.name}`, frozen, {backbone.size} px, weights {backbone.fingerprint[:16]}\n"
        f"- learned values: {sum(origin.learned.values()):,}; selection: {origin.selection or 'none'}\n"
        f"- seed: {origin.seed}; model digest: {digest[:16]}\n"
        f"- made with {', '.join(f'{k} {v}' for k, v in versions.items())}\n",
        f"## Data\n\n{_data(model)}",
        f"## Thresholds\n\n{_thresholds(calibration)}",
        f"## Estimates from the support set\n\n{_estimates(calibration)}",
        f"## Limits\n\n{_LIMITS}",
        "## Use\n\n```\nultraad predict THIS_FOLDER IMAGES -o results\n"
        "ultraad evaluate THIS_FOLDER DATASET -o results\n```\n",
    ]
    notes = [*origin.notes, *calibration.notes]
    if notes:
        parts.insert(-2, "## Notes\n\n" + "".join(f"- {note}\n" for note in notes))
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Text that no renderer of Markdown takes for HTML, on one line."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def _harmless(value: Any) -> Any:  # noqa: ANN401  a part of a description as JSON
    """The value with every text in it made plain."""
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, list):
        return [_harmless(v) for v in value]
    return {k: _harmless(v) for k, v in value.items()} if isinstance(value, dict) else value


def _abilities(outputs: Collection[str], classes: Sequence[str]) -> str:
    found = ["finds abnormal ultrasound images"]
    found += ["localises lesions"] if "map" in outputs else []
    found += [f"grades images as {', '.join(classes)}"] if "classes" in outputs else []
    text = " and ".join([", ".join(found[:-1]), found[-1]]) if len(found) > 1 else found[0]
    return text[0].upper() + text[1:]


def _setting(model: Description) -> str:
    named = {"zero-shot": "zero-shot", "auxiliary": "trained on another data set"}
    return named.get(model.origin.setting, model.origin.shots_of(model.normal_class))


def _data(model: Description) -> str:
    origin = model.origin
    if origin.setting == "zero-shot":
        return "None: the model uses text alone.\n"
    parts = []
    if origin.source is not None:
        parts.append(
            f"Listed in `support.csv`: {origin.shots_of(model.normal_class)}. The folder holds no images.\n\n"
            f"- support digest: {(origin.support_digest or '')[:16]}\n{_fan(model)}{_source(origin.source)}"
        )
    if origin.auxiliary is not None:
        parts.append(
            f"An auxiliary set of {origin.auxiliary.images} images, listed in `auxiliary.csv`.\n\n"
            f"- auxiliary digest: {origin.auxiliary.digest[:16]}\n{_source(origin.auxiliary.source)}"
        )
    return "\n".join(parts)


def _fan(model: Description) -> str:
    if model.fan == "off":
        return ""
    return "- fan of the probe: looked for, and only its pixels were seen; so are new images (`--fan off` shows all)\n"


def _source(source: str) -> str:
    layout = source.partition(":")[0]
    text = f"- layout: {layout}\n"
    if layout in sources.available():
        known = sources.get(layout)
        text += f"- licence of the images: {known.licence}\n"
        text += f"- cite: {known.citation}\n" if known.citation else ""
    return text


def _thresholds(calibration: Calibration) -> str:
    pixel = calibration.pixel_threshold
    folds = f"; {calibration.folds} folds" if calibration.folds else ""
    patients = ", patients kept together" if calibration.grouped else ""
    return (
        f"- image: {calibration.image_threshold:.4f}\n"
        f"- pixel: {'-' if pixel is None else format(pixel, '.4f')}\n"
        f"- rule: {calibration.rule}{folds}{patients}\n"
    )


def _estimates(calibration: Calibration) -> str:
    if not calibration.estimates:
        return "None: images of one kind only.\n" if calibration.images else "None: no image was held out.\n"
    rows = []
    for key, e in calibration.estimates.items():
        interval = "-" if e.low is None or e.high is None else f"{e.low:.3f} to {e.high:.3f}"
        rows.append(f"| {spec(key).title} | {e.value:.3f} | {interval} | {e.n} |\n")
    return (
        f"Scores of {calibration.images} support images, each held out once. With few images the intervals are wide, "
        "and they say nothing about other scanners.\n\n"
        "| metric | value | 95 % interval | images |\n| --- | --- | --- | --- |\n" + "".join(rows)
    )
