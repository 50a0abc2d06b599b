"""Two protocols: ``honest``, and ``published``, which uses the test set as the reference scripts do.

Honest: the state after the last step; thresholds from the support set, or 0.5; no statistics of the test set. Neither
protocol shows the test set to ``fit``: all of this happens around the method.

Published, as far as the reference script of a method does it:

- **Best epoch on the test set.** The training is repeated and stopped at a few checkpoints; fits are deterministic, so
  each is a state of the full training. Every state is evaluated on the test set, and the best one by the reference's
  criterion is reported. References try every epoch, so their numbers can be more optimistic still.
- **Min-max over the test set.** Scores and maps are rescaled to [0, 1] by the lowest and highest value of the whole
  test set. This changes no ranking, only metrics at a threshold.

Not reproduced: min-max of the parts of a score before they are added (this is inside a method's ``score``), and
searches over hyper-parameters on the test set. Each row says so in ``habits``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ultraad.nn.loop import EnoughEpochs


@dataclass(frozen=True, slots=True)
class Habit:
    """How the reference script of a method uses the test set.

    Attributes:
        criterion: Metrics whose mean chooses the epoch; empty for the last epoch.
        min_max: Whether scores and maps are rescaled to [0, 1] by test-set statistics.
        missing: Sentences about what is not reproduced.
    """

    criterion: tuple[str, ...] = ()
    min_max: bool = False
    missing: tuple[str, ...] = ()

    def sentences(self, checkpoints: int) -> list[str]:
        """What the row of a published result says."""
        best = (
            f"best of {checkpoints} states of the training by {' and '.join(self.criterion)} on the test set; "
            "the reference looks at every epoch"
        )
        moved = "scores and maps moved to [0, 1] by their lowest and highest value on the test set"
        return [*([best] if self.criterion else []), *([moved] if self.min_max else []), *self.missing]


_FUSED = "not reproduced: min-max over the test set of the parts of the image score before they are added"

HABITS: Mapping[str, Habit] = MappingProxyType(
    {
        "aa_clip": Habit(min_max=True),  # forward_utils.py
        "ada_clip": Habit(("pixel_f1_oracle",)),  # train.py: best pixel F1-max on the test set
        "april_gan": Habit(min_max=True, missing=(_FUSED,)),  # few-shot test.py
        "mad_clip": Habit(("image_auroc", "pixel_auroc"), min_max=True),  # train.py
        "medi_clip": Habit(("image_auroc", "pixel_auroc")),  # train.py
        "mvfa": Habit(("image_auroc", "pixel_auroc"), min_max=True, missing=(_FUSED,)),  # train_few.py
        "tip_adapter": Habit(
            ("balanced_accuracy",),  # main.py: accuracy on the test set; balanced here because class sizes differ
            missing=("not reproduced: the search of alpha and beta on the test set",),
        ),
        "vcp_clip": Habit(min_max=True, missing=(_FUSED,)),  # test.py
    }
)
"""By method. A method that is not listed has no habit: its published result equals its honest one."""


def stop_at(share: float, reached: list[int]) -> Callable[[str, int, int], None]:
    """A ``progress`` for :func:`ultraad.adapt` that ends the training after a share of its epochs.

    Args:
        share: In (0, 1].
        reached: The number of epochs done is appended after each epoch.
    """

    def progress(what: str, done: int, total: int) -> None:
        if what == "adapt":
            reached.append(done)
            if done >= math.ceil(share * total):
                raise EnoughEpochs

    return progress


def preference(habit: Habit, metrics: Mapping[str, Mapping[str, Any]]) -> float:
    """The reference's criterion: the mean of its metrics, without undefined ones; -1 if none is defined."""
    values = [metrics[name]["value"] for name in habit.criterion if metrics[name]["value"] is not None]
    return sum(values) / len(values) if values else -1.0
