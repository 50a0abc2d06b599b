"""The protocol card: what is needed to do the same again, and to trust it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ultraad.report.kit.words import count, decimals
from ultraad.report.run.words import data_name, intervals, shots, source_name

if TYPE_CHECKING:
    from ultraad.report.run.read import Results


def protocol(results: Results) -> list[tuple[str, list[tuple[str, str]]]]:
    """The protocol card: what is needed to do the same again, and to trust it."""
    fact = results.fact
    origin: Mapping[str, Any] = fact("model", "origin") or {}
    calibration: Mapping[str, Any] = fact("model", "calibration") or {}
    learned, auxiliary = origin.get("learned"), origin.get("auxiliary") or {}
    seconds, rate = fact("seconds"), fact("images_per_second")
    cards = [
        (
            "Model",
            [
                ("Method", fact("model", "method")),
                ("Protocol", ", ".join(dict.fromkeys(filter(None, (origin.get("protocol"), shots(results)))))),
                ("Classes", ", ".join(results.classes)),
                ("No lesion", fact("model", "normal_class")),
                ("Learned values", f"{sum(learned.values()):,}" if learned else None),
                ("Selection", origin.get("selection")),
                ("Seed", origin.get("seed")),
                ("Preset", fact("model", "options", "preset")),
                ("Model digest", _digest(fact("model", "digest"))),
            ],
        ),
        (
            "Backbone",
            [
                ("Name", fact("model", "backbone", "name")),
                ("Weights", _digest(fact("model", "backbone", "fingerprint"))),
                ("Input", _px(fact("model", "backbone", "size"))),
                ("Number format", fact("model", "backbone", "dtype")),
                ("Preprocessing", _preprocess(fact("model", "backbone", "preprocess"))),
            ],
        ),
        (
            "Thresholds",
            [
                ("Image", decimals(results.image_threshold, 4)),
                ("Pixel", decimals(results.pixel_threshold, 4)),
                ("From", calibration.get("rule")),
                ("Folds", _folds(calibration)),
                ("Fitted on this data", "no: thresholds are stored with the model" if calibration else None),
            ],
        ),
        (
            "Data",
            [
                ("Support", source_name(origin.get("source")) if origin.get("source") else None),
                ("Support digest", _digest(fact("support_digest"))),
                ("Auxiliary", source_name(auxiliary.get("source")) if auxiliary else None),
                ("Auxiliary digest", _digest(auxiliary.get("digest"))),
                ("Evaluated", data_name(results) if results.metrics else None),
                ("Layout", fact("data", "layout")),
                ("Split", fact("data", "split")),
                ("Images", f"{len(results.rows)} used, {len(results.errors)} failed"),
                ("Leakage check", _leakage(results)),
            ],
        ),
        (
            "Run",
            [
                ("Started", fact("started")),
                ("Status", fact("status")),
                ("Wall time", f"{seconds:,.1f} s" if seconds is not None else None),
                ("Speed", f"{rate:g} images per second" if rate else None),
                ("Intervals", intervals(results)),
                *((f"{name}", version) for name, version in (fact("versions") or {}).items()),
            ],
        ),
    ]
    known = [(title, [(term, str(value)) for term, value in rows if value not in (None, "")]) for title, rows in cards]
    return [(title, rows) for title, rows in known if rows]


def options(results: Results) -> list[tuple[str, str]]:
    """All options of the method, dotted as on the command line."""
    return list(_flat(results.fact("model", "options") or {}))


def _digest(value: str | None) -> str | None:
    return value[:16] if value else None


def _px(value: int | None) -> str | None:
    return f"{value} x {value} px" if value else None


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _preprocess(config: Mapping[str, Any] | None) -> str | None:
    return f"{config.get('mode')}, {config.get('interpolation')}" if config else None


def _folds(calibration: Mapping[str, Any]) -> str | None:
    if not calibration:
        return None
    if not calibration.get("folds"):
        return "none"
    apart = "patients kept together" if calibration.get("grouped") else "patients unknown"
    return f"{calibration['folds']}, {calibration.get('images')} support images out of fold, {apart}"


def _leakage(results: Results) -> str | None:
    if results.fact("protocol") == "zero-shot":
        return "nothing to leak: no image was used to adapt"
    if results.fact("leakage", "checked") is not True:
        return "not recorded" if results.metrics else None
    dropped = results.fact("leakage", "dropped") or 0
    found = (
        f"{count(dropped, 'image')} left out" if dropped else "no image or patient it has learned from was evaluated"
    )
    return f"checked by bytes, id and patient: {found}"
