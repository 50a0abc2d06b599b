"""Rows of docs/performance.md: ours against a peer, timed in turns in the same run.

Each part of ``make speed`` is a module here with ``main()``: it prints its rows and, with ``-o``, writes them as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["overhead", "speedup", "rate", "report"]
"""Meaning of a value: our time / the peer's (small is good), the peer's / ours, units per second, or without a goal."""


@dataclass(frozen=True)
class Row:
    """One measured comparison.

    Attributes:
        what: Ours, with the setting.
        against: The peer, in the same run.
        kind: What ``value`` means, see :data:`Kind`.
        value: The median over the turns.
        low: The smallest turn.
        high: The largest turn.
        must: The goal; None where there is none.
        aim: The stretch goal.
        detail: Milliseconds, differences, counts that explain the value.
    """

    what: str
    against: str
    kind: Kind
    value: float
    low: float | None = None
    high: float | None = None
    must: float | None = None
    aim: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.must is None:
            return None
        return self.value <= self.must if self.kind == "overhead" else self.value >= self.must


def in_turns(
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    turns: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[float, float]]:
    """Seconds of (ours, peer), called in turns after one call of each that is not timed.

    The order changes at every turn, so that neither profits from caches that the other filled, and a machine that slows
    down slows both.
    """
    ours()
    peer()
    seconds = []
    for turn in range(turns):
        taken = {}
        for call in (ours, peer) if turn % 2 == 0 else (peer, ours):
            start = clock()
            call()
            taken[call] = clock() - start
        seconds.append((taken[ours], taken[peer]))
    return seconds


def compared(
    what: str,
    against: str,
    seconds: Sequence[tuple[float, float]],
    *,
    kind: Literal["overhead", "speedup"],
    must: float | None = None,
    aim: float | None = None,
    **detail: Any,  # noqa: ANN401
) -> Row:
    """A row from the times of :func:`in_turns`: the median, smallest and largest ratio of a turn."""
    ratios = [a / b if kind == "overhead" else b / a for a, b in seconds]
    ms = {
        "ours_ms": round(1000 * statistics.median(a for a, _ in seconds), 3),
        "peer_ms": round(1000 * statistics.median(b for _, b in seconds), 3),
        "turns": len(seconds),
    }
    return Row(
        what, against, kind, statistics.median(ratios), min(ratios), max(ratios), must=must, aim=aim, detail=ms | detail
    )


def machine() -> dict[str, Any]:
    """The machine of the measurement."""
    import torch

    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The command-line options of every part."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the rows to this file, as JSON")
    parser.add_argument("--threads", type=int, default=None, help="threads of PyTorch; default: all cores")
    return parser


def finish(rows: Iterable[Row], output: Path | None) -> None:
    """Print the rows; write them with the machine's description if ``output`` is given."""
    rows = list(rows)
    for row in rows:
        spread = "" if row.low is None or row.high is None else f" [{row.low:.3g}, {row.high:.3g}]"
        goal = "" if row.must is None else f"  must {row.must:g}: {'met' if row.met else 'MISSED'}"
        print(f"{row.what}  |  {row.against}  |  {row.kind} {row.value:.3g}{spread}{goal}  {row.detail}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        kept = {"machine": machine(), "rows": [asdict(row) | {"met": row.met} for row in rows]}
        output.write_text(json.dumps(kept, indent=1) + "\n")
