"""ONNX Runtime and OpenVINO behind one call, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import local
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import BundleError, Caught, ConfigError, MissingExtraError, one_line

Runtime = Literal["onnx", "openvino"]
GraphType = Literal["float32", "bfloat16"]
"""What a graph is computed in."""
GRAPHS: dict[Runtime, str] = {"onnx": "model.onnx", "openvino": "model.xml"}
INPUT = "images"
Outputs = dict[str, "NDArray[np.float32]"]
Session = Callable[["NDArray[np.uint8]"], Outputs]
"""Pictures uint8 (b s s 3) to score (b,) and, if the model has them, map (b mh mw) and probs (b c)."""


def open_session(
    runtime: Runtime,
    path: Path,
    *,
    threads: int | None = None,
    lanes: int = 1,
    dtype: GraphType = "float32",
) -> Session:
    """Load a graph.

    Args:
        runtime: What runs it.
        path: The graph; OpenVINO reads those of both runtimes.
        threads: Number of threads for a call; the runtime chooses if None.
        lanes: Calls at the same time, each from a thread of its own.
        dtype: What it is computed in; bfloat16 by OpenVINO only.

    Raises:
        MissingExtraError: If the runtime is not installed.
        BundleError: If it cannot read the graph, or open the folder.
        ConfigError: If it, or this processor, does not compute in ``dtype``.
    """
    check_path(path.parent)
    if runtime == "openvino":
        return _openvino(path, threads, lanes, dtype)
    if dtype != "float32":
        msg = f"ONNX Runtime computes in float32 here, not in {dtype}; take OpenVINO (--runtime openvino)"
        raise ConfigError(msg)
    return _onnx(path, threads)


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


def _openvino(path: Path, threads: int | None, lanes: int, dtype: GraphType) -> Session:
    openvino = require("openvino", extra="openvino")
    core = openvino.Core()
    if dtype == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        msg = "this processor does not compute in bfloat16 (avx512_bf16 or amx_bf16); use float32"
        raise ConfigError(msg)
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],  # its own choice is bf16 if it can
        "NUM_STREAMS": lanes,
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads * lanes
    with _unreadable(path, "openvino"):
        model = core.compile_model(path, "CPU", options)
        names = [output.any_name for output in model.outputs]
    own = local()  # a request serves one call at a time

    def run(pictures: NDArray[np.uint8]) -> Outputs:
        with _unreadable(path, "openvino"):
            if not hasattr(own, "request"):
                own.request = model.create_infer_request()
            found = own.request.infer({0: pictures})  # the next call overwrites these arrays
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
