"""When and where a row was made."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ultraad.bench.row import MachineFacts
from ultraad.model.record import versions


def stamp(threads: int, device: str) -> dict[str, Any]:
    """The fields ``versions``, ``machine`` and ``finished`` of a row.

    Args:
        threads: Threads of the job.
        device: Device of the backbone.
    """
    machine = MachineFacts(
        system=platform.platform(),
        processor=_processor(),
        cores=os.cpu_count(),
        threads=threads,
        device=_device_name(device),
    )
    return {"versions": versions(), "machine": machine, "finished": now()}


def now() -> str:
    """ISO time, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def _device_name(device: str) -> str:
    cuda = device != "cpu" and torch.cuda.is_available()
    return torch.cuda.get_device_name() if cuda else "cpu" if device == "auto" else device
