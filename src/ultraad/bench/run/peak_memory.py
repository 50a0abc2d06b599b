"""The largest memory that a job used."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Largest resident memory since this object was made (Linux), or since the process started (other systems)."""

    def __init__(self) -> None:
        self._reset = False
        if _CLEAR.exists():
            try:
                _CLEAR.write_text("5")  # resets VmHWM, see proc(5)
                self._reset = True
            except OSError:  # not permitted, in some containers
                pass
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def megabytes(self) -> float:
        """Of the process, in 10^6 bytes."""
        if self._reset:
            line = next(row for row in _STATUS.read_text().splitlines() if row.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024 / 1e6
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6

    def device_megabytes(self) -> float | None:
        """Of the GPU, in 10^6 bytes; None without one."""
        return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None
