"""The demo: data, support set, adaptation, prediction, evaluation and report in one call."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultraad.backbones import DEFAULT
from ultraad.data import sources
from ultraad.data.samples import samples as shipped
from ultraad.data.support import draw_support, fingerprints, save_support
from ultraad.errors import ConfigError, DataError
from ultraad.io.files import ensure_writable
from ultraad.io.store_copy import on_disk
from ultraad.model.adapt import adapt
from ultraad.results.folder import REPORT
from ultraad.rng import seeded
from ultraad.runs.evaluate import evaluate
from ultraad.runs.judge import unseen
from ultraad.runs.predict import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ultraad.types import Sample, SupportSet

_log = logging.getLogger(__name__)

SHOTS = (4, 2, 1)  # the paper's smallest number first; fewer if nothing would be left to evaluate
EVALUATED = 240  # images; enough for useful intervals, and a minute or two on two cores
SIMULATED = {"support": 60, "unseen": 90}  # images
SIZE = 256  # of simulated images, in pixels
SHOWN = 6  # images in the prediction step


@dataclass(frozen=True, slots=True)
class Story:
    """What the demo did.

    Attributes:
        lines: One line for each step.
        metrics: As :func:`ultraad.runs.evaluate.evaluate` returns them.
        model: Folder of the model.
        report: HTML file.
    """

    lines: tuple[str, ...]
    metrics: dict[str, Any]
    model: Path
    report: Path


def run(
    output: str | Path,
    *,
    data: str | Path | None = None,
    simulated: bool = False,
    layout: str = "auto",
    normal_class: str | None = None,
    backbone: str = DEFAULT,
    options: Mapping[str, Any] | None = None,
    images: int = EVALUATED,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Story:
    """Run every step.

    Args:
        output: Folder for all results.
        data: A labelled data set. None takes the real images that ship with the package.
        simulated: Simulate two data sets instead; the one for the evaluation has other patients and machines.
        layout: Layout of ``data``.
        normal_class: The class of ``data`` that means "no lesion", if its name does not say so.
        backbone: As in :func:`ultraad.model.adapt.adapt`.
        options: Options of the method.
        images: Largest number of images to evaluate, drawn evenly from the classes.
        seed: Seed of every step.
        progress: Called with (step, done, total).

    Raises:
        ConfigError: If both ``data`` and ``simulated`` are given.
        DataError: If the layout is not recognised, or there are too few images to adapt and to evaluate.
    """
    if data is not None and simulated:
        msg = "got a data set and simulated=True (--data and --simulated); give one of them"
        raise ConfigError(msg)
    output = ensure_writable(output)
    if simulated:
        support, evaluated, layout = _simulated(output / "data", seed=seed)
    elif data is None:
        support, evaluated, layout = _divided(shipped(), layout="bus_bra", per_patient=True, seed=seed)
    else:
        support, evaluated, layout = _divided(on_disk(data), layout=layout, normal_class=normal_class, seed=seed)
    chosen = _evenly(evaluated, images, seed=seed)
    save_support(support, output / "support.json")
    held = list(dict.fromkeys(s.label or "" for s in support.samples))
    lines = [
        f"support   {support.shots} images of each class ({', '.join(held)}) from {support.source}",
        f"unseen    {len(chosen)} of {len(evaluated)} images that share no image or known patient with the support set",
    ]
    if support.normal_class not in held:
        lines[0] += "; no normal image, so detection stays zero-shot"
    model = adapt(support, backbone=backbone, options=options, seed=seed, progress=progress)
    folder = model.save(output / "model")
    lines.append(
        f"adapted   {sum(model.origin.learned.values()):,} values in {model.origin.seconds:.1f} s on {backbone}"
    )

    tell = progress or _silent
    outcome = predict(model, [s.image for s in chosen[:SHOWN]], output / "predictions", resume=False)
    lines.append(f"predicted {outcome.predicted} images into {output / 'predictions'}")
    metrics = evaluate(
        model,
        chosen,
        layout=layout,
        output=output / "evaluation",
        seed=seed,
        progress=lambda done, total: tell("evaluate", done, total),
    )
    return Story(tuple(lines), metrics, folder, output / "evaluation" / REPORT)


def _silent(what: str, done: int, total: int) -> None:
    """Progress is not shown."""


def _simulated(root: Path, *, seed: int) -> tuple[SupportSet, list[Sample], str]:
    from ultraad.simulate import write_dataset

    for i, (name, count) in enumerate(SIMULATED.items()):
        write_dataset(root / name, n=count, seed=2 * seed + i, size=SIZE)
    support = draw_support(root / "support", shots=SHOTS[0], seed=seed)
    others = [replace(s, group=f"unseen/{s.group}") for s in sources.scan(root / "unseen")]  # none of the support set's
    return support, others, "synthetic"


def _divided(
    root: Path, *, layout: str, seed: int, normal_class: str | None = None, per_patient: bool = False
) -> tuple[SupportSet, list[Sample], str]:
    """A support set from one data set, the images that share nothing with it, and the layout.

    If the data have a published test split, only that is evaluated.
    """
    layout = sources.detect(root) if layout == "auto" else layout
    samples = sources.scan(root, layout=layout)
    pool = [s for s in samples if s.split == "test"] or samples
    for shots in SHOTS:
        try:
            support = draw_support(
                root, shots=shots, seed=seed, layout=layout, normal_class=normal_class, per_patient=per_patient
            )
        except DataError as e:
            if shots == SHOTS[-1]:
                raise
            _log.info("too few images for %d shots: %s", shots, e)
            continue
        rest = unseen(fingerprints(support), [s for s in pool if s.label in support.classes], layout=layout)
        if _sides(rest, support) == _sides(support.samples, support):
            return support, rest, layout
    msg = (
        f"{root} is too small for the demo. Found: {dict(Counter(s.label for s in samples))}. Wanted: an image of each "
        "class to adapt on, and images of other patients to evaluate on, normal ones if there are any and abnormal ones"
    )
    raise DataError(msg)


def _sides(samples: Iterable[Sample], support: SupportSet) -> set[bool]:
    """Whether there are normal images, and whether there are others."""
    return {s.label == support.normal_class for s in samples}


def _evenly(samples: Sequence[Sample], count: int, *, seed: int) -> list[Sample]:
    """At most ``count`` samples in random order, one of each class in turn: the classes stay balanced."""
    by_class: dict[str | None, list[Sample]] = {}
    for i in seeded(seed, "demo").permutation(len(samples)):
        by_class.setdefault(samples[i].label, []).append(samples[i])
    turns = max(map(len, by_class.values()))
    queues = [by_class[label] for label in sorted(by_class, key=str)]
    return [q[k] for k in range(turns) for q in queues if k < len(q)][:count]
