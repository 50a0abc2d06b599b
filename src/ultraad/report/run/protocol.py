"""The protocol of a run: what is needed to repeat it, and to trust it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ultraad.model.calibration import Calibration, Estimate
from ultraad.model.probabilities import told
from ultraad.report.kit.words import Protocol, count, decimals, known
from ultraad.report.run.words import data_name, intervals, shots, source_name
from ultraad.results.row import GIVEN, Run, Thresholds

if TYPE_CHECKING:
    from ultraad.report.run.read import RunData


def protocol(data: RunData) -> Protocol:
    """What is needed to repeat the run; unknown facts are left out."""
    run, used = data.run or Run(command="evaluate"), data.thresholds
    model, origin = data.model, data.origin
    backbone = model.backbone if model else None
    auxiliary = origin.auxiliary if origin else None
    setting = dict.fromkeys(filter(None, (origin.setting, shots(data)))) if origin else ()
    return known(
        {
            "Model": [
                ("Method", model and model.method),
                ("Protocol", ", ".join(setting)),
                ("Classes", ", ".join(model.classes if model else data.classes)),
                ("No lesion", model and model.normal_class),
                ("Learned values", f"{sum(origin.learned.values()):,}" if origin and origin.learned else None),
                ("Selection", origin and origin.selection),
                ("Seed", origin and origin.seed),
                ("Preset", model and model.options.get("preset")),
                ("Model digest", model and model.digest[:16]),
            ],
            "Backbone": [
                ("Name", backbone.name),
                ("Weights", backbone.fingerprint[:16]),
                ("Input", f"{backbone.size} x {backbone.size} px"),
                ("Number format", backbone.dtype),
                ("Preprocessing", f"{backbone.preprocess.mode}, {backbone.preprocess.interpolation}"),
            ]
            if backbone
            else [],
            "Thresholds": [
                ("Image", decimals(used.image, 4)),
                ("Pixel", decimals(used.pixel, 4)),
                ("Image from", used.image_rule or (model and model.calibration.rule)),
                ("Pixel from", used.pixel_rule or (model and model.calibration.rule)),
                (
                    "Prevalence",
                    None if used.prevalence is None else f"{told(used.prevalence)}, for class probabilities",
                ),
                ("Class left open", used.abstain),
                ("Prediction sets", used.sets),
                ("Sensitivity", _rate(used.sensitivity, "lesion")),
                ("Specificity", _rate(used.specificity, "normal")),
                ("Folds", model and _folds(model.calibration)),
                ("Fitted on this data", model and _fitted_here(used)),
            ],
            "Data": [
                ("Support", origin and origin.source and source_name(origin.source)),
                ("Support digest", run.support_digest and run.support_digest[:16]),
                ("Auxiliary", auxiliary and source_name(auxiliary.source)),
                ("Auxiliary digest", auxiliary and auxiliary.digest[:16]),
                ("Evaluated", data_name(data) if data.measured else None),
                ("Layout", data.data.layout),
                ("Split", data.data.split),
                ("Images", f"{len(data.rows)} used, {len(data.errors)} failed"),
                ("Out of scope", f"{count(len(data.outside), 'image')} not used" if data.outside else None),
                ("Leakage check", _leakage(data)),
            ],
            "Run": [
                ("Started", run.started),
                ("Status", run.status),
                ("Wall time", None if run.seconds is None else f"{run.seconds:,.1f} s"),
                ("Speed", f"{run.images_per_second:g} images per second" if run.images_per_second else None),
                ("Intervals", intervals(data)),
                *run.versions.items(),
            ],
        }
    )


def options(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """All options of the method, dotted as on the command line."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from options(value, f"{above}{key}.")
        else:
            yield above + key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _folds(calibration: Calibration) -> str:
    if not calibration.folds:
        return "none"
    apart = "patients kept together" if calibration.grouped else "patients unknown"
    return f"{calibration.folds}, {calibration.images} support images out of fold, {apart}"


def _rate(found: Estimate | None, kind: str) -> str | None:
    """What the support set says about a threshold that was chosen for this run."""
    if found is None:
        return None
    return f"{found.value:.3f} ({decimals(found.low)} to {decimals(found.high)}) on {found.n} held-out {kind} images"


def _fitted_here(used: Thresholds) -> str:
    if GIVEN in (used.image_rule, used.pixel_rule):
        return "not known: a threshold was given by hand"
    return "no: thresholds come from the support set"


def _leakage(data: RunData) -> str | None:
    if data.run and data.run.protocol == "zero-shot":
        return "nothing to leak: no image was used to adapt"
    leakage = data.run.leakage if data.run else None
    if leakage is None or not leakage.checked:
        return "not recorded" if data.measured else None
    found = (
        f"{count(leakage.dropped, 'image')} left out"
        if leakage.dropped
        else "no image or patient that the model has learned from was evaluated"
    )
    return f"checked by bytes, id and patient: {found}"
