"""One measured value with its uncertainty."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A value with its interval. An undefined value is None with a reason, never 0.

    Attributes:
        value: The metric; None if it is undefined on these data.
        low: Lower end of the bootstrap interval; None if there is none.
        high: Upper end of the bootstrap interval; None if there is none.
        n: Images the value is computed on.
        reason: Why the value or the interval is missing, or what was left out; None if nothing is.
        error: The exact value is within ``value +- error``; 0.0 if the value is exact. It is positive only if the
            streaming sketch had to merge different scores.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None
    error: float | None = None

    def as_dict(self) -> dict[str, float | int | str | None]:
        """The fields by name, for JSON."""
        return asdict(self)
