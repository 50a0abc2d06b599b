"""A model for other runtimes: one graph, pictures in, score, map and class probabilities out.

The parts::

    write.py      Model -> folder, with a parity test; needs torch
    runtimes.py   ONNX Runtime and OpenVINO, one call each
    exported.py   folder -> predictions; needs no torch
"""

from __future__ import annotations

from pathlib import Path

CONFIG = "exported.json"


def is_exported(folder: str | Path) -> bool:
    """Whether this is a folder that ``ultraad export`` wrote."""
    return (Path(folder) / CONFIG).is_file()
