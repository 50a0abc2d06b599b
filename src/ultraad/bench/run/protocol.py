"""Two protocols: ``honest``, and ``published``, which does what the references' own scripts do to the test set.

Honest: the state after the last step, thresholds from the support alone (or 0.5), no statistics of the test set. In
neither protocol does a method see the test set in ``fit``: what is done here is done around the method.

Published, as far as a method's reference does it:

- **Best epoch on the test set.** The training is repeated and stopped after each of a few checkpoints; fits are
  deterministic, so each is a state that the whole training passes through. Every state is evaluated on the test set and
  the one that the reference's own criterion likes best is reported. References look at every epoch, so they can be more
  optimistic still.
- **Min-max over the test set.** Scores and maps are moved to [0, 1] by the lowest and highest value of the whole test
  set. No ranking changes, only metrics at a threshold do.

Not reproduced: min-max of the parts of a score before they are added (that is inside a method's ``score``), and
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
    """What a reference's script does with the test set.

    Attributes:
        criterion: Metrics whose mean chooses the epoch; empty: the last one.
        min_max: Whether scores and maps are moved to [0, 1] by test-set statistics.
        missing: What it does that is not reproduced; sentences.
    """

    criterion: tuple[str, ...] = ()
    min_max: bool = False
    missing: tuple[str, ...] = ()

    def sentences(self, checkpoints: int) -> list[str]:
        """What a published row must say."""
        best = (
            f"best of {checkpoints} states of the training by {' and '.join(self.criterion)} on the test set; "
            "the reference looks at every epoch"
        )
        moved = "scores and maps moved to [0, 1] by their lowest and highest value on the test set"
        return [*([best] if self.criterion else []), *([moved] if self.min_max else []), *self.missing]


_FUSED = "not reproduced: min-max over the test set of the parts of the image score before they are added"

HABITS: Mapping[str, Habit] = MappingProxyType(
    {
        "ada_clip": Habit(("pixel_f1_oracle",)),  # train.py keeps the epoch with the best pixel F1-max of the test set
        "april_gan": Habit(min_max=True, missing=(_FUSED,)),  # few-shot test.py
        "medi_clip": Habit(("image_auroc", "pixel_auroc")),  # train.py
        "mvfa": Habit(("image_auroc", "pixel_auroc"), min_max=True, missing=(_FUSED,)),  # train_few.py
        "tip_adapter": Habit(
            ("balanced_accuracy",),  # main.py: accuracy on the test set; ours: balanced, as classes differ in size
            missing=("not reproduced: the search of alpha and beta on the test set",),
        ),
        "vcp_clip": Habit(min_max=True, missing=(_FUSED,)),  # test.py
    }
)
"""By method; a method that is not here has no habit, and its published result is its honest one."""


def stop_at(share: float, reached: list[int]) -> Callable[[str, int, int], None]:
    """A ``progress`` for :func:`ultraad.adapt` that ends the training after this share of its epochs.

    Args:
        share: In (0, 1].
        reached: Gets the epochs done, at the end of each.
    """

    def progress(what: str, done: int, total: int) -> None:
        if what == "adapt":
            reached.append(done)
            if done >= math.ceil(share * total):
                raise EnoughEpochs

    return progress


def likes(habit: Habit, metrics: Mapping[str, Mapping[str, Any]]) -> float:
    """The reference's criterion; metrics that are not defined do not count, and -1 if none is."""
    values = [metrics[name]["value"] for name in habit.criterion if metrics[name]["value"] is not None]
    return sum(values) / len(values) if values else -1.0
