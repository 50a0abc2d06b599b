"""When a model leaves the class of an image open.

cost=0.2    Not answering costs 0.2 of an error, so an answer is worth it if the most probable class is wrong with a
            probability below 0.2 (Chow, IEEE Transactions on Information Theory 16:41, 1970). The rule is as good as
            the probabilities: calibrated ones (:mod:`.probabilities`), at the prevalence of the clinic.
"""

from __future__ import annotations

import re

from ultraad.config import shortened
from ultraad.errors import ConfigError
from ultraad.types import Prediction


def parse(text: str) -> float:
    """The cost of not answering, as a share of that of an error, from ``cost=0.2``.

    Raises:
        ConfigError: If it is something else, or the cost is not in (0, 1).
    """
    found = re.fullmatch(r"cost=(\d*\.?\d+)", text)
    if found is None or not 0 < float(found[1]) < 1:
        msg = f"abstain {shortened(repr(text))}: wanted cost=C with a number above 0 and below 1, such as cost=0.2"
        raise ConfigError(msg)
    return float(found[1])


def is_unsure(prediction: Prediction, rule: str | None) -> bool | None:
    """Whether the class is left open, as that of every image out of scope is; None without a rule or probabilities.

    Args:
        prediction: Of any model.
        rule: As in :func:`parse`.
    """
    if rule is None or prediction.probs is None:
        return None
    return prediction.out_of_scope or 1 - max(prediction.probs.values()) > parse(rule)
