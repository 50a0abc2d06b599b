"""Spoken words for tests, made by espeak-ng while they run; no recording ships."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
import pytest
from scipy.signal import resample_poly

RATE = 16_000
MISSING = "tests of labels by voice need espeak-ng (apt-get install espeak-ng) and: pip install 'ultraad[voice]'"


def available() -> None:
    """Skips where speech can neither be made nor recognised; in CI nothing is skipped."""
    try:
        import pocketsphinx  # noqa: F401
    except ImportError:
        found = False
    else:
        found = shutil.which("espeak-ng") is not None
    if not found:
        pytest.fail(MISSING) if os.environ.get("CI") else pytest.skip(MISSING)


def say(text: str, voice: str = "en-us", *, before: float = 0.3, after: float = 0.3) -> np.ndarray:
    """Samples at 16 kHz (n,) float64 of a quiet room in which a word is said, peak 8000 of 32768."""
    made = subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "--stdout", text], capture_output=True, check=True)
    word = resample_poly(np.frombuffer(made.stdout[44:], "<i2").astype(np.float64), 320, 441)
    word = np.pad(word * (8000 / np.abs(word).max()), (int(before * RATE), int(after * RATE)))
    return word + np.random.default_rng(0).normal(0, 15, len(word))


def clip(samples: np.ndarray) -> bytes:
    """Samples as the page sends them."""
    return np.clip(samples, -32768, 32767).astype("<i2").tobytes()
