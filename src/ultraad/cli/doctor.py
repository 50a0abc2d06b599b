"""Checks of the installation. Each says what it found and, if something is wrong, what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

from ultraad.cli.predictor import torch_is_missing
from ultraad.errors import UltraadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ultraad.model.predictor import Predictor

Status = Literal["ok", "warning", "broken"]

_OF_TORCH = ("torch", "torchvision", "open_clip_torch", "timm", "safetensors")
_PACKAGES = (*_OF_TORCH, "numpy", "scipy", "pillow", "pydicom")
CPU_TORCH = "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu"
_DISK = 2 << 30  # bytes: the paper's backbone and a few thousand overlays


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was checked.
        status: ``"warning"`` if it works with limits, ``"broken"`` if it does not work.
        detail: What was found, and what to do.
    """

    name: str
    status: Status
    detail: str


def checks() -> Iterator[Check]:
    """All checks in turn. A check that raises is reported as broken."""
    of_torch = {"devices", "weights"} if torch_is_missing() else set()
    for name, check in _CHECKS.items():
        if name in of_torch:
            continue
        try:
            status, detail = check()
        except (UltraadError, ImportError, OSError, RuntimeError) as e:
            status, detail = "broken", str(e) or type(e).__name__
        yield Check(name, status, detail)


def _system() -> tuple[Status, str]:
    python = ".".join(map(str, sys.version_info[:3]))
    return "ok", f"Python {python}, {platform.system()} {platform.machine()}, ultraad {version('ultraad')}"


def _packages() -> tuple[Status, str]:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if "torch" in missing and set(missing) <= set(_OF_TORCH):
        able = "'predict' and 'evaluate' work, with an exported model or zero-shot as it ships"
        return (
            "warning",
            f"{', '.join(found)}; without {', '.join(missing)} only {able}. For the rest: pip install ultraad",
        )
    if missing:
        return "broken", f"missing: {', '.join(missing)}; install ultraad again with pip"
    return "ok", ", ".join(found)


def _devices() -> tuple[Status, str]:
    import torch

    found = []
    if torch.cuda.is_available():
        found += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    detail = f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads){''.join(f', {f}' for f in found)}"
    if torch.version.cuda and not found:
        detail += f"; torch is the build for GPUs, which is 5 GB larger than the one for the CPU: {CPU_TORCH}"
    return "ok", detail


def _weights() -> tuple[Status, str]:
    from ultraad.backbones._towers import ABOUT, TOWERS
    from ultraad.backbones._weights import PAPER, listing, verify

    shipped = {name: verify(name) for name in TOWERS}
    others = [w.name for w in listing() if w.path and w.name not in ABOUT]
    detail = "; ".join(
        f"{name} {one.path.stat().st_size / 1e6:.0f} MB, sha256 {one.sha256[:16]}" for name, one in shipped.items()
    )
    if PAPER not in others:
        detail += f"; the paper's backbone is not on this machine (get it with: ultraad backbones fetch {PAPER})"
    return "ok", detail + "".join(f"; {name}" for name in others)


def _disk() -> tuple[Status, str]:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    status: Status = "ok" if free >= _DISK else "warning"
    return status, f"{free / 2**30:.1f} GiB free for temporary files" + (
        "" if status == "ok" else "; at least 2 GiB are recommended"
    )


def _self_test() -> tuple[Status, str]:
    import numpy as np

    from ultraad.rng import seeded

    started = time.perf_counter()
    image = seeded(0, "doctor").integers(0, 255, size=(48, 64), dtype=np.uint8)
    what, model = _tested()
    prediction = model.predict(image)
    found = prediction.map
    if found is None or found.shape != image.shape or not np.isfinite(found).all() or not 0 <= prediction.score <= 1:
        return "broken", f"{what} gave no valid map for a test image; install ultraad again"
    return "ok", f"{what} predicted an image in {time.perf_counter() - started:.1f} s"


def _tested() -> tuple[str, Predictor]:
    """The smallest model that this installation can run, and what to call it."""
    if torch_is_missing():
        from ultraad.model import exported

        return "zero-shot on ONNX Runtime", exported.zero_shot()
    from ultraad.model.adapt import zero_shot

    return "a backbone with random weights", zero_shot(backbone="tiny")


_CHECKS: dict[str, Callable[[], tuple[Status, str]]] = {
    "system": _system,
    "packages": _packages,
    "devices": _devices,
    "weights": _weights,
    "disk": _disk,
    "self-test": _self_test,
}
