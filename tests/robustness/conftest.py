from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Keeps a figure of a test for the report of ``--junitxml``, of any family."""
    return lambda name, value: request.node.user_properties.append((name, value))


@pytest.fixture
def peak_of() -> Callable[[Path], int]:
    """Most bytes that reading a file adds to a process of its own."""

    def measured(path: Path) -> int:
        code = (
            "import resource, sys\nfrom ultraad.io import read_image\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "before = peak()\nread_image(sys.argv[1])\nprint(peak() - before)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)

    return measured
