"""How long ``import ultraad`` and ``ultraad --help`` take, against ``import torch``.

    python -m perf.startup

Each call is its own process. Calls alternate, after one call of each that is not timed, so that all files are in the
disk cache. Seconds are processor seconds, so other jobs on the machine do not count. All of them include the start of
Python; the details say how long that takes.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import partial

from perf.timing import arguments, compared, finish, in_turns

PEER = "import torch"
OURS = {
    "import ultraad": ["-c", "import ultraad"],
    "ultraad --help": ["-m", "ultraad.cli", "--help"],
    "ultraad predict --help": ["-m", "ultraad.cli", "predict", "--help"],
}


def call(arguments: list[str]) -> None:
    """Run Python with these arguments and wait for it."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def children() -> float:
    """Processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    torch, rows = partial(call, ["-c", "import torch"]), []
    empty = min(seconds for seconds, _ in in_turns(partial(call, ["-c", ""]), torch, turns=3, clock=children))
    for what, words in OURS.items():
        seconds = in_turns(partial(call, words), torch, turns=args.turns, clock=children)
        must = None if "predict" in what else 0.1
        rows.append(compared(what, PEER, seconds, kind="overhead", must=must, empty_process_ms=round(1000 * empty)))
    finish(rows, args.output)


if __name__ == "__main__":
    main()
