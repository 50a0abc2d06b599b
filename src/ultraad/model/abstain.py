"""When a model leaves the class of an image open.

cost=0.2    Not answering costs 0.2 of an error, so an answer is worth it if the most probable class is wrong with a
            probability below 0.2 (Chow, IEEE Transactions on Information Theory 16:41, 1970). The rule is as good as
            the probabilities: calibrated ones (:mod:`.probabilities`), at the prevalence of the clinic.
size=1      The prediction set (:mod:`.prediction_sets`) names more than one class, or none.
"""

from __future__ import annotations

import re
from typing import Literal

from ultraad.config import shortened
from ultraad.errors import ConfigError
from ultraad.types import Prediction


def parse(text: str) -> tuple[Literal["cost", "size"], float]:
    """(``"cost"``, that of not answering as a share of that of an error) or (``"size"``, most classes of an answer).

    Raises:
        ConfigError: If it is something else, the cost is not in (0, 1), or the size is not a whole number above 0.
    """
    if (found := re.fullmatch(r"cost=(\d*\.?\d+)", text)) and 0 < float(found[1]) < 1:
        return "cost", float(found[1])
    if found := re.fullmatch(r"size=([1-9]\d{0,3})", text):
        return "size", int(found[1])
    msg = (
        f"abstain {shortened(repr(text))}: wanted cost=C with a number above 0 and below 1, such as cost=0.2, or "
        "size=N with the most classes that a prediction set may name, such as size=1"
    )
    raise ConfigError(msg)


def check_abstain(rule: str | None, sets: str | None) -> None:
    """Refuse a rule that is none, or that needs prediction sets without them.

    Raises:
        ConfigError: In both cases.
    """
    if rule is not None and parse(rule)[0] == "size" and sets is None:
        msg = f"abstain {rule} looks at prediction sets, and there are none; choose their level, such as sets 0.9, too"
        raise ConfigError(msg)


def is_unsure(prediction: Prediction, rule: str | None) -> bool | None:
    """Whether the class is left open, as that of every image out of scope is; None without a rule, or what it needs.

    Args:
        prediction: Of any model.
        rule: As in :func:`parse`.
    """
    if rule is None:
        return None
    kind, most = parse(rule)
    if kind == "size":
        named = prediction.prediction_set
        return None if named is None else prediction.out_of_scope or not 1 <= len(named) <= most
    probs = prediction.probs
    return None if probs is None else prediction.out_of_scope or 1 - max(probs.values()) > most
