"""Whether an earlier run in a folder may be continued."""

from __future__ import annotations

from pathlib import Path

from ultraad.errors import DataError
from ultraad.results.row import Run

_SETTINGS = ("image", "pixel", "smooth", "prevalence", "abstain", "sets")  # of the thresholds; they decide about rows


def check_same(folder: Path, earlier: Run, now: Run) -> None:
    """Refuse to continue a run that decided about images in another way.

    Args:
        folder: The folder of both.
        earlier: The run that is there.
        now: The run that begins.

    Raises:
        DataError: If command, model or thresholds differ.
    """
    digests = [run.model.digest if run.model else None for run in (earlier, now)]
    for what, there, here in (("command", earlier.command, now.command), ("model", *digests)):
        if there != here:
            msg = (
                f"{folder} holds results of another {what} ({str(there)[:16]}, now {str(here)[:16]}); "
                "choose another output folder, or delete this one"
            )
            raise DataError(msg)
    cuts = [[getattr(run.thresholds, name) for name in _SETTINGS] for run in (earlier, now)]
    if cuts[0] != cuts[1]:
        there, here = (", ".join(f"{c}" for c in some if c is not None) for some in cuts)
        msg = (
            f"{folder} holds results at other thresholds ({there}; now {here}); choose another output folder, or "
            "delete this one"
        )
        raise DataError(msg)
