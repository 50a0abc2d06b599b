"""Adapting from 16 shots, against the way of the reference: the image tower run on every image in every epoch.

    python -m perf.adapt

The peer is the same code with one difference: a view goes through the tower whenever it is drawn, instead of once. Its
time excludes encoding before the first epoch (the keys of the memory). Ours runs in full, as ``ultraad adapt`` does: 50
epochs, then one fit for each of four folds. The peer runs for one and for three epochs; its time for 50 epochs is
extrapolated from these two.

The paper's backbone would take an hour. Its row is computed from parts that are linear in images and epochs: one pass
of the tower over a batch, one epoch over that batch from features, and one epoch with the tower.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from perf.timing import Row, arguments, compared, finish

import ultraad
from ultraad.backbones._door import Backbone
from ultraad.data.loader import load_batch
from ultraad.data.preprocess import Preprocess
from ultraad.methods.ultraad import METHOD
from ultraad.model.calibration import CalibrationConfig
from ultraad.nn.augment import apply_view, sample_views
from ultraad.nn.views import SupportViews
from ultraad.simulate import write_dataset
from ultraad.types import Batch, Features, SupportSet

SHOTS = 16
PAPER = "open_clip:ViT-L-14-336-quickgelu"
OPTIONS = METHOD.Config().train
FOLDS = CalibrationConfig().folds
FITS = 1 + FOLDS * (1 - 1 / FOLDS)  # the final fit, and one without each fold, in units of a fit on all images
HABIT = "the same code, the tower run on every image in every epoch"


class EveryEpoch(SupportViews):
    """Draws the same views as ours, but transforms and encodes them again at every draw."""

    def __init__(
        self,
        backbone: Backbone,
        support: Batch,
        *,
        layers: Sequence[int],
        count: int,
        seed: int,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(backbone, support, layers=layers, count=count, seed=seed, **options)
        self._tower, self._images, self._layers = backbone, support.images, layers
        self._views = [sample_views(id_, count, seed=seed) for id_ in support.ids]

    def draw(self, index: torch.Tensor, epoch: int) -> tuple[Features, torch.Tensor]:
        _, masks = super().draw(index, epoch)
        no_mask = torch.zeros(self._images.shape[-2:], dtype=torch.bool)
        moved = [
            apply_view(
                self._images[i], no_mask, self._views[i][self._choice[epoch, i]], preprocess=self._tower.preprocess
            )[0]
            for i in index.tolist()
        ]
        return self._tower.encode_image(torch.stack(moved), layers=self._layers), masks


@contextmanager
def every_epoch() -> Iterator[None]:
    """Train UltraAD inside the block as the reference does."""
    with patch("ultraad.methods.ultraad.method.SupportViews", EveryEpoch):
        yield


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def whole(support: SupportSet, tower: Backbone, *, turns: int) -> Row:
    """The row for ``ultraad adapt`` in full, calibration included."""
    losses = {}

    def adapt(epochs: int, name: str) -> None:
        found = ultraad.adapt(support, backbone=tower, options={"train.epochs": epochs})
        losses[name] = torch.tensor(found.origin.loss)

    taken = []
    for _ in range(turns):
        tower.cache.clear()
        ours = seconds(lambda: adapt(OPTIONS.epochs, "ours"))
        with every_epoch():
            one = seconds(lambda: adapt(1, "habit"))
            three = seconds(lambda: adapt(3, "habit"))
        taken.append((ours, one + (OPTIONS.epochs - 1) * (three - one) / 2))
    short = ultraad.adapt(support, backbone=tower, options={"train.epochs": 3}, calibrate=False).origin.loss
    return compared(
        f"adapt, {SHOTS} shots, {tower.name}, {OPTIONS.epochs} epochs and {FOLDS} folds",
        HABIT,
        taken,
        kind="speedup",
        must=10,
        aim=30,
        images=len(support.samples),
        views=OPTIONS.views,
        peer="scaled per epoch, from 1 and 3 epochs",
        loss_difference=float((losses["habit"] - torch.tensor(short)).abs().max()),
    )


def parts(batch: Batch, tower: Backbone, *, normal_class: str) -> dict[str, float]:
    """Seconds for one batch: its views through the tower, an epoch from features, an epoch of the peer."""
    config = METHOD.Config(train={"epochs": 3, "views": 1})
    method = METHOD(tower, config, classes=batch.classes, normal_class=normal_class)
    ends = [time.perf_counter()]
    method.progress = lambda _done, _epochs: ends.append(time.perf_counter())
    method.fit(batch, seed=0)
    epoch = (ends[-1] - ends[1]) / 2
    once = METHOD.Config(train={"epochs": 1, "views": 1})
    method = METHOD(tower, once, classes=batch.classes, normal_class=normal_class)
    with every_epoch():
        habit = seconds(lambda: method.fit(batch, seed=0))
    return {"tower": ends[1] - ends[0] - epoch, "epoch": epoch, "habit": habit}


def estimated(support: SupportSet, tower: Backbone) -> Row:
    """The row of a tower that is too slow to run in full."""
    some = load_batch(
        [support.samples[i] for i in range(0, len(support.samples), len(support.samples) // 4)][:4],
        Preprocess(tower.preprocess),
        classes=support.classes,
        normal_class=support.normal_class,
    )
    found = parts(some, tower, normal_class=support.normal_class)
    batches = len(support.samples) / len(some)
    epochs, scored = OPTIONS.epochs * FITS, found["tower"]  # after the fit of a fold, both sides score its images
    ours = batches * (OPTIONS.views * found["tower"] + epochs * found["epoch"] + scored)
    habit = batches * (epochs * found["habit"] + scored)
    alone = OPTIONS.views * found["tower"] + OPTIONS.epochs * found["epoch"]
    return Row(
        f"adapt, {SHOTS} shots, {tower.name}, {OPTIONS.epochs} epochs and {FOLDS} folds",
        HABIT,
        "speedup",
        habit / ours,
        must=10,
        aim=30,
        detail={
            "ours_s": round(ours, 1),
            "peer_s": round(habit, 1),
            "both": f"put together from one batch of {len(some)} images, random weights",
            "without_folds": round(OPTIONS.epochs * found["habit"] / alone, 2),
            **{f"{name}_ms_per_image": round(1000 * value / len(some), 1) for name, value in found.items()},
        },
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--no-large", action="store_true", help="skip the backbone of the paper")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), n=100, size=256, shares=(1, 1, 1))
        support = ultraad.draw_support(folder, shots=SHOTS, seed=0)
        rows = [whole(support, ultraad.load_backbone("embedded"), turns=args.turns)]
        if not args.no_large:
            rows.append(estimated(support, ultraad.load_backbone(PAPER)))
    finish(rows, args.output)


if __name__ == "__main__":
    main()
