"""Keeps the trainings of one ``adapt`` in a folder, so that an interrupted one goes on where it was.

Each training has its own file: the fit, and each fold of the cross-validation. Files are replaced in one step. Only a
run with the same method, options, images, seed, backbone and versions uses them; then the model is the same bit for bit
as without the interruption.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from ultraad.errors import Caught
from ultraad.io.files import write_bytes

_log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two writes; what an interruption costs at most, besides one epoch."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Made with the first file.
        facts: What must be the same to go on, anything that JSON takes; the versions of the packages are added.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._folder = folder
        packages = {name: version(name) for name in ("ultraad", "torch")}
        text = json.dumps({**facts, **packages, "machine": platform.machine()}, sort_keys=True, default=str)
        self._key = hashlib.sha256(text.encode()).hexdigest()

    def of(self, part: str) -> File:
        """The checkpoint of one training, e.g. ``"fit"``."""
        return File(self._folder / f"{part}.safetensors", self._key)


class File:
    """One training's checkpoint; a :class:`ultraad.nn.loop.Checkpoint`."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._saved = time.monotonic()

    def load(self) -> dict[str, torch.Tensor] | None:
        """What was saved, if the same run saved it; a warning says if another did, or if the file is damaged."""
        if not self._path.is_file():
            return None
        with Caught() as caught, safe_open(self._path, "pt") as file:  # safetensors raises errors of several kinds
            if (file.metadata() or {}).get("run") == self._key:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
        why = "cannot be read" if caught.error else "is of a run with other options, images or versions"
        _log.warning("%s %s; this training starts at the beginning", self._path, why)
        return None

    def due(self) -> bool:
        """Whether the last write was a while ago."""
        return time.monotonic() - self._saved >= EVERY

    def save(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace the file in one step."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.cpu().contiguous() for name, value in state.items()}
        write_bytes(self._path, save(tensors, metadata={"run": self._key}))
        self._saved = time.monotonic()


def remove(folder: Path) -> None:
    """Remove the checkpoints in a folder, after the model was saved; and the folder, if nothing else is in it."""
    for path in [folder / "fit.safetensors", *folder.glob("fold-*.safetensors")]:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
