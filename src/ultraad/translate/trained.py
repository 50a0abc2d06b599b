"""``--by cycle``: trains the network, calibrates its spread on held-out pictures, and keeps what it says of each.

Everything is in a folder beside the translated data set, because files inside would be taken for images of it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import DataError
from ultraad.io import read_image
from ultraad.io.files import append_line, ensure_writable, json_lines, write_json, write_text
from ultraad.io.maps import write_map
from ultraad.metrics.spread import SpreadCalibration, calibration, recalibration
from ultraad.model.checkpoint import Checkpoints, remove
from ultraad.report.translation import Panels, TranslationReport, render
from ultraad.rng import seeded
from ultraad.translate.cycle import Cycle, CycleConfig, There, digest, fit, seen_at
from ultraad.translate.style import grey_of, moved
from ultraad.types import Sample

LINES, TABLE, CALIBRATION, MAPS, REPORT = (
    "certainty.jsonl", "certainty.csv", "calibration.json", "spread", "report.html"
)  # fmt: skip
SHOWN = 6  # held-out pictures in the report
_FEWEST = 8  # held-out pictures, so that half of them can recalibrate and the others test
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Certainty:
    """What the network says of one picture; all but ``certainty`` in grey values, means over pixels that are not black.

    Attributes:
        image: Path inside the data set.
        certainty: u / (u + expected_error), u the mean of the held-out pictures: 0.5 for a usual one, at most 1.
        expected_error: Predicted mean absolute error of the way back.
        cycle_error: Its observed one.
        change: Mean absolute change by the translation.
    """

    image: str
    certainty: float
    expected_error: float
    cycle_error: float
    change: float


class Trained:
    """A network between two looks, with the folder of what belongs to it.

    Attributes:
        network: The trained network.
        scale, power: Spreads s become scale s^power, from the held-out pictures.
        usual: Mean expected error of the held-out pictures, in grey values.
        folder: Where its files are.
    """

    def __init__(self, network: Cycle, *, scale: float, power: float, usual: float, folder: Path) -> None:
        self.network, self.scale, self.power, self.usual, self.folder = network, scale, power, usual, folder

    def restyle(self, picture: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        """A picture u8 (h w) or (h w 3) in the other look; its map and its line in the table are written first."""
        grey = grey_of(picture)
        there = self.network.apply_to(grey.astype(np.float32))
        made = moved(picture, there.change)
        path = self.folder / MAPS / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_map(path, np.where(grey > 0, self.scale * there.spread**self.power / 255, 0).clip(0, 1))
        append_line(self.folder / LINES, json.dumps(asdict(self.certainty(there, picture, made, name))))
        return made

    def certainty(self, there: There, before: NDArray[np.uint8], after: NDArray[np.uint8], name: str) -> Certainty:
        """The line of one picture; a black one is certain, as nothing changes."""
        tissue = grey_of(before) > 0
        errors, spreads = there.tissue
        expected = self.scale * float((spreads**self.power).mean()) if len(spreads) else 0.0
        change = np.abs(grey_of(after) - grey_of(before))[tissue]
        return Certainty(
            image=name,
            certainty=round(self.usual / (self.usual + expected), 4),
            expected_error=round(expected, 3),
            cycle_error=round(float(errors.mean()) if len(errors) else 0.0, 3),
            change=round(float(change.mean()) if len(change) else 0.0, 3),
        )

    def write_table(self) -> None:
        """``certainty.csv`` from the lines, the most certain picture first; the last line of a picture counts."""
        rows = {str(line["image"]): line for _, line in json_lines(self.folder / LINES)}
        text = io.StringIO()
        table = csv.DictWriter(text, list(Certainty.__slots__), lineterminator="\n")
        table.writeheader()
        table.writerows(sorted(rows.values(), key=lambda r: (-float(r["certainty"]), str(r["image"]))))
        write_text(self.folder / TABLE, text.getvalue())


def prepare(
    folder: Path,
    here: Sequence[Sample],
    there: Sequence[Path],
    *,
    config: CycleConfig,
    seed: int,
    device: str,
    progress: Progress,
    announce: Callable[[str], None] | None,
) -> Trained:
    """Train a network, or take the one in the folder if it is of the same pictures, options and versions.

    Args:
        folder: For all that belongs to it.
        here: Pictures in the look of FROM; a share of their patients is kept out.
        there: Pictures in the look of TO.
        config: Options.
        seed: Of the first values, the patches and the patients kept out.
        device: Where it is trained and applied.
        progress: Called with (what, done, total).
        announce: Called before the training, with a sentence about size, time and memory.

    Raises:
        DataError: If no picture of a set can be read.
    """
    train, held_out = split(here, share=config.held_out, seed=seed)
    own = _seen([s.image for s in train], config, lambda done, of: progress("read FROM", done, of))
    other = _seen(there, config, lambda done, of: progress("read TO", done, of))
    facts = {"options": config.model_dump(), "seed": seed, "images": [digest(own), digest(other)], "device": device}
    ensure_writable(folder)
    kept = Checkpoints(folder, facts)
    network = Cycle(config, seed=seed)
    found = kept.of("network").load()
    if found is None:
        fit(
            network,
            own,
            other,
            seed=seed,
            device=device,
            announce=announce,
            progress=lambda done, of: progress("train", done, of),
            checkpoint=kept.of("fit"),
        )
        kept.of("network").save(network.state_dict())
        remove(folder)
    else:
        network.load_state_dict(found)
        network.to(device)
    network.eval()
    scale, power, usual = _calibrate(network, folder, held_out, progress)
    return Trained(network, scale=scale, power=power, usual=usual, folder=folder)


def split(samples: Sequence[Sample], *, share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Samples to train on, and those of a share of the patients; an image without a patient is its own."""
    owners = [s.group or s.id for s in samples]
    names = sorted(set(owners))
    count = min(round(share * len(names)), len(names) - 1)
    out = {names[i] for i in seeded(seed, "cycle/held out").permutation(len(names))[:count]}
    return [s for s, o in zip(samples, owners, strict=True) if o not in out], [
        s for s, o in zip(samples, owners, strict=True) if o in out
    ]


def _seen(paths: Sequence[Path], config: CycleConfig, progress: Callable[[int, int], None]) -> list[NDArray[np.uint8]]:
    """Pictures as the network sees them, u8 (h w); those that cannot be read are left out, as they are named later."""
    found = []
    for i, path in enumerate(paths, start=1):
        try:
            grey = grey_of(read_image(path))
        except DataError:
            continue
        finally:
            progress(i, len(paths))
        found.append(seen_at(grey.astype(np.float32), config).round().clip(0, 255).astype(np.uint8))
    if not found:
        msg = f"none of {len(paths)} pictures can be read, so there is nothing to train on"
        raise DataError(msg)
    return found


def _calibrate(
    network: Cycle, folder: Path, held_out: Sequence[Sample], progress: Progress
) -> tuple[float, float, float]:
    """Scale, power and usual error; writes ``calibration.json`` and ``report.html``."""
    read: list[tuple[Sample, NDArray[np.uint8], There]] = []
    for i, sample in enumerate(held_out, start=1):
        try:
            picture = read_image(sample.image)
        except DataError:
            continue
        finally:
            progress("calibrate", i, len(held_out))
        there = network.apply_to(grey_of(picture).astype(np.float32))
        if len(there.tissue[0]):
            read.append((sample, picture, there))
    if len(read) < _FEWEST:
        usual = float(np.mean([t.tissue[1].mean() for _, _, t in read])) if read else 1.0
        why = f"{len(read)} held-out pictures, wanted {_FEWEST}: the spreads are not calibrated"
        write_json(folder / CALIBRATION, {"scale": 1.0, "power": 1.0, "usual": usual, "note": why})
        return 1.0, 1.0, usual
    owners = sorted({s.group or s.id for s, _, _ in read})
    first = set(owners[::2]) if len(owners) > 1 else {owners[0]}
    parts = [[t for s, _, t in read if ((s.group or s.id) in first) is side] for side in (True, False)]
    tuned, tested = parts if parts[1] else (parts[0], parts[0])
    scale, power = recalibration(*_pooled(tuned))
    errors, spreads = _pooled(tested)
    before, after = calibration(errors, spreads), calibration(errors, scale * spreads**power)
    means = np.array([[t.tissue[0].mean(), scale * (t.tissue[1] ** power).mean()] for _, _, t in read])
    usual = float(means[:, 1].mean())
    about: dict[str, Any] = {
        "scale": scale,
        "power": power,
        "usual": usual,
        "pictures": {"recalibrated on": len(tuned), "tested on": len(tested)},
        "patients apart": bool(parts[1]),
        "rank correlation of images": _rank_correlation(means),
        "before": _told(before),
        "after": _told(after),
    }
    write_json(folder / CALIBRATION, about)
    shown = [read[i] for i in np.linspace(0, len(read) - 1, min(SHOWN, len(read))).round().astype(int)]
    report = TranslationReport(before, after, about, tuple(_panels(s, p, t, scale, power) for s, p, t in shown))
    write_text(folder / REPORT, render(report))
    return scale, power, usual


def _pooled(parts: Sequence[There]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors and spreads of every seventh pixel of tissue; neighbours say the same."""
    return np.concatenate([t.tissue[0][::7] for t in parts]), np.concatenate([t.tissue[1][::7] for t in parts])


def _rank_correlation(means: NDArray[np.float64]) -> float:
    """Spearman's, of the mean observed and expected errors (n 2) of images."""
    from scipy.stats import spearmanr

    found = float(spearmanr(means[:, 0], means[:, 1]).statistic)
    return 0.0 if np.isnan(found) else found


def _told(c: SpreadCalibration) -> dict[str, Any]:
    return {
        "calibration_error": c.error,
        "ence": c.relative,
        "held": [float(v) for v in c.held],
        "predicted": [float(v) for v in c.predicted],
        "observed": [float(v) for v in c.observed],
    }


def _panels(sample: Sample, picture: NDArray[np.uint8], there: There, scale: float, power: float) -> Panels:
    made = moved(picture, there.change)
    return Panels(
        name=sample.id,
        before=picture,
        after=made,
        spread=np.where(grey_of(picture) > 0, scale * there.spread**power, 0),
        error=np.where(grey_of(picture) > 0, there.error, 0),
    )
