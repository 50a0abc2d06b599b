"""ONNX Runtime and OpenVINO behind one call, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import BundleError, Caught, MissingExtraError, one_line

Runtime = Literal["onnx", "openvino"]
GRAPHS: dict[Runtime, str] = {"onnx": "model.onnx", "openvino": "model.xml"}
INPUT = "images"
Outputs = dict[str, "NDArray[np.float32]"]
Session = Callable[["NDArray[np.uint8]"], Outputs]
"""Pictures uint8 (b s s 3) to score (b,) and, if the model has them, map (b mh mw) and probs (b c)."""


def open_session(runtime: Runtime, folder: Path, *, threads: int | None = None) -> Session:
    """Load the graph of an exported folder.

    Args:
        runtime: The runtime of the graph.
        folder: The folder with the graph, see :data:`GRAPHS`.
        threads: Number of threads; the runtime chooses if None.

    Raises:
        MissingExtraError: If the runtime is not installed.
        BundleError: If it cannot read the graph, or open the folder.
    """
    check_path(folder)
    return {"onnx": _onnx, "openvino": _openvino}[runtime](folder / GRAPHS[runtime], threads)


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_path(folder: Path) -> None:
    """Refuse a folder that no runtime can open.

    Raises:
        BundleError: If its path holds bytes that are no UTF-8.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError as e:
        msg = f"{folder} has a name that is no valid text (UTF-8), and runtimes cannot open it; rename the folder"
        raise BundleError(msg) from e


def _onnx(path: Path, threads: int | None) -> Session:
    onnxruntime = require("onnxruntime", extra="onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal ones; all others are raised, too
    if threads is not None:
        options.intra_op_num_threads = threads
    with _unreadable(path, "onnxruntime"):
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )  # falling back prints to the screen
        names = [output.name for output in session.get_outputs()]

    def run(pictures: NDArray[np.uint8]) -> Outputs:
        with _unreadable(path, "onnxruntime"):
            return dict(zip(names, session.run(names, {INPUT: pictures}), strict=True))

    return run


def _openvino(path: Path, threads: int | None) -> Session:
    openvino = require("openvino", extra="openvino")
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32"
    }  # by default it uses bfloat16 where it can, which loses precision
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    with _unreadable(path, "openvino"):
        model = openvino.Core().compile_model(path, "CPU", options)
        names = [output.any_name for output in model.outputs]

    def run(pictures: NDArray[np.uint8]) -> Outputs:
        with _unreadable(path, "openvino"):
            found = model(pictures)  # the next call overwrites these arrays
            return {name: np.array(found[i], dtype=np.float32) for i, name in enumerate(names)}

    return run


def require(package: str, *, extra: str) -> Any:  # noqa: ANN401  a module
    """Import a package of an extra.

    Raises:
        MissingExtraError: If it is not installed; the message gives the pip command.
    """
    try:
        return import_module(package)
    except ImportError as e:
        msg = f"{package} is not installed; get it with: pip install {package} (or 'ultraad[{extra}]')"
        raise MissingExtraError(msg) from e


@contextmanager
def _unreadable(path: Path, package: str) -> Iterator[None]:
    """Runtimes raise almost anything on a graph that they cannot read or run; here it becomes a BundleError."""
    with Caught() as caught:
        yield
    if caught.error is not None:
        why = one_line(caught.error)
        msg = f"{package} cannot read {path}: {why}. Export the model again with the versions installed here"
        raise BundleError(msg) from caught.error
