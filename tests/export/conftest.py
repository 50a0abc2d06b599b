from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.adapted import QUICK
from ultraad.data.support import draw_support
from ultraad.export import write
from ultraad.model.adapt import adapt
from ultraad.model.model import Model

if TYPE_CHECKING:
    from tests.conftest import Once


@pytest.fixture(scope="session")
def model(busi_model: Model) -> Model:
    """UltraAD: score, map and classes."""
    return busi_model


@pytest.fixture(scope="session")
def other(busi_dir: Path) -> Model:
    """The same method, fitted with another seed and without zero-shot: a model that predicts something else."""
    options = QUICK | {"prior.map": 1.0}
    return adapt(draw_support(busi_dir, shots=2), backbone="tiny", options=options, seed=1, calibrate=False)


@pytest.fixture(scope="session")
def onnx(onnx_dir: Path) -> Path:
    """``model``, exported for ONNX Runtime. Tests must not change it; copy first."""
    return onnx_dir


@pytest.fixture(scope="session")
def openvino(model: Model, onnx: Path, once: Once) -> Path:
    """The same for OpenVINO, from the same graph."""
    with pytest.MonkeyPatch.context() as patch:
        traced(patch, onnx)
        return once("openvino", lambda folder: write.export(model, folder, runtime="openvino"))


def traced(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take the graph of an exported model instead of tracing, which takes seconds."""
    patch.setattr(write, "_trace", lambda _, path: path.write_bytes((folder / "model.onnx").read_bytes()))
