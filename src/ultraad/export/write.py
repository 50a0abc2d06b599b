"""Export a model as an ONNX or OpenVINO graph that is checked against PyTorch; see :mod:`ultraad.model.exported`.

The graph is normalisation, ``Method.score`` and softmax. Its input are pictures uint8 (b s s 3) resized by Pillow, so
preparing them needs no torch. Every method with a traceable ``score`` can be exported.
"""

from __future__ import annotations

import copy
import logging
import signal
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ultraad.backbones._gist import listening
from ultraad.data.support import write_fingerprints
from ultraad.errors import BundleError, ConfigError, ExportError
from ultraad.io.files import sha256, whole_folder, write_json, write_text
from ultraad.metrics.catalogue import METRICS
from ultraad.model.exported import (
    AUXILIARY,
    CONFIG,
    GIST,
    SCOPE,
    SUPPORT,
    Config,
    ExportedModel,
    ExportFacts,
    digest_of,
    is_exported,
    load,
)
from ultraad.model.record import facts_of, versions
from ultraad.model.runtimes import GRAPHS, INPUT, Outputs, Runtime, Session, check_path, open_session, require
from ultraad.runs.evaluate import evaluate
from ultraad.simulate import simulate
from ultraad.types import Sample

if TYPE_CHECKING:
    from ultraad.methods._base import Method
    from ultraad.model.model import Model

_log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest allowed difference from PyTorch in score, map and probabilities."""
INT8_TOLERANCE = {"score": 0.01, "map": 0.02, "probs": 0.01, GIST: 0.02}
"""The same for int8 without labelled images to measure its accuracy on."""
INT8_POINTS = 0.5
"""Most points of a metric (of 100) that int8 may lose on labelled images."""
_BATCHES = (1, 2, 5, 8)  # batch sizes of the parity check
_TURNS = 5  # most turns of the timing
_PATIENCE = 20.0  # seconds after which no other turn begins
_METRICS = [spec.key for spec in METRICS.values() if spec.main]


def export(
    model: Model,
    folder: str | Path,
    *,
    runtime: Runtime = "onnx",
    int8: bool = False,
    check: str | Path | Sequence[Sample] | None = None,
    layout: str = "auto",
) -> ExportedModel:
    """Write a model for another runtime, completely or not at all. An older export in the folder is replaced.

    Args:
        model: A model on the CPU in float32.
        folder: Made if needed.
        runtime: The runtime of the graph.
        int8: Use int8 for matrix products (ONNX Runtime only). The results must stay within :data:`INT8_TOLERANCE` of
            PyTorch on simulated images, or within :data:`INT8_POINTS` of its metrics on ``check``.
        check: Labelled images to measure int8 on; the model's support images are left out.
        layout: Layout of ``check``.

    Returns:
        The exported model, loaded.

    Raises:
        ConfigError: If the method cannot be traced, or the model or the options do not fit.
        ExportError: If the graph differs from PyTorch by more than :data:`TOLERANCE`, or int8 loses too much.
        BundleError: If the folder exists and is not an exported model.
        DataError: If the folder cannot be written, or ``check`` cannot be read.
        MissingExtraError: If a package is missing.
    """
    folder = Path(folder)
    _check(model, folder, runtime=runtime, int8=int8, check=check)
    names = _require(runtime, int8=int8)
    model.method.eval()
    with whole_folder(folder) as fresh:
        _trace(model, fresh / GRAPHS["onnx"])
        if runtime == "openvino":
            _to_openvino(fresh)
        session = open_session(runtime, fresh / GRAPHS[runtime], threads=torch.get_num_threads())
        pictures, wanted = _reference(model, sum(_BATCHES))
        parity = _differences(session, pictures, wanted)
        _check_within(parity, dict.fromkeys(parity, TOLERANCE), f"the {runtime} graph differs from PyTorch")
        if int8:
            _to_int8(fresh)
        if model.scope.arrays:
            np.savez(fresh / SCOPE, allow_pickle=False, **model.scope.arrays)
        write_text(fresh / SUPPORT, write_fingerprints(model.support))
        if model.auxiliary:
            write_text(fresh / AUXILIARY, write_fingerprints(model.auxiliary))
        files = {path.name: sha256(path) for path in sorted(fresh.iterdir())}
        about = ExportFacts(
            runtime=runtime,
            int8=int8,
            versions={**versions(), **{name: version(name) for name in names}},
            source=model.digest,
            parity={},
            speed={},
            check={},
        )
        described = model.describe()
        digest = digest_of(model.digest, files, facts_of(described.model_dump(mode="json")))
        config = Config(digest=digest, files=files, exported=about, **described.model_dump())
        made = ExportedModel(fresh, config, threads=torch.get_num_threads())
        facts: dict[str, Any] = {"parity": {**parity, "tolerance": TOLERANCE, "images": len(pictures)}}
        if int8:
            facts |= _check_int8(model, made, pictures, wanted, check=check, layout=layout)
        facts["speed"] = _speed(model, made, pictures)
        config = config.model_copy(update={"exported": about.model_copy(update=facts)})
        write_json(fresh / CONFIG, config.model_dump(mode="json"))
    return load(folder)


class Graph(nn.Module):
    """Normalisation, ``Method.score`` and softmax as one module.

    Args:
        model: Any model.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        config = model.preprocess.config
        self.method = _decided(model.method)
        self.scope = bool(model.scope.arrays)
        self.tower = model.backbone.model  # outside the method's module tree, but the graph needs its weights
        # (3 1 1) each; a plain "mean" would collide with the name of an operation
        self.register_buffer("pixel_mean", torch.tensor(config.mean)[:, None, None])
        self.register_buffer("pixel_std", torch.tensor(config.std)[:, None, None])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Pictures uint8 (b s s 3) to score (b,), and map (b mh mw), probs (b c), gist (b k) if the model has them."""
        x = images.permute(0, 3, 1, 2)  # (b 3 s s)
        x = (x.float() / 255 - self.pixel_mean) / self.pixel_std
        return tuple(_outputs(self.method, x, scope=self.scope).values())


def _outputs(method: Method, images: torch.Tensor, *, scope: bool) -> dict[str, torch.Tensor]:
    """What a graph gives for images (b 3 s s); with ``scope`` also their gist (b k), unless the method hides it."""
    with listening(method.backbone) as gists:
        scores = method.score(images)
    probs = None if scores.logits is None else scores.logits.softmax(-1)
    gist = gists[0] if scope and gists else None  # no comparison of lengths: it would fix the batch of the graph
    found = {"score": scores.score, "map": scores.map, "probs": probs, GIST: gist}
    return {name: value.float() for name, value in found.items() if value is not None}


def _decided(method: Method) -> Method:
    """A copy whose scalar integer buffers, set by ``fit``, are Python values, because a graph has no branches."""
    twin = copy.copy(method)
    twin._buffers = dict(method._buffers)
    for name, value in method._buffers.items():
        if value is not None and not value.is_floating_point() and value.ndim == 0:
            del twin._buffers[name]
            setattr(twin, name, value.item())
    return twin


def _check(model: Model, folder: Path, *, runtime: Runtime, int8: bool, check: object) -> None:
    """Check, before any work, that the model can be exported."""
    method, backbone = model.method, model.backbone
    if method.untraceable:
        msg = f"{method.info.name} cannot be exported: {method.untraceable}"
        raise ConfigError(msg)
    if backbone.dtype != torch.float32 or backbone.device.type != "cpu":
        msg = (
            f"the image tower is {backbone.dtype} on {backbone.device}, but export needs float32 on the CPU; "
            "load the model with device='cpu' and dtype='float32'"
        )
        raise ConfigError(msg)
    if int8 and runtime != "onnx":
        msg = f"int8 works with ONNX Runtime only, not with {runtime}; export to 'onnx', or without int8"
        raise ConfigError(msg)
    if check is not None and not int8:
        msg = "labelled images are used only to check int8; ask for int8 too, or leave them out"
        raise ConfigError(msg)
    check_path(folder)
    if folder.exists() and not is_exported(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        msg = f"{folder} exists and is not an exported model; choose another folder, or move that one"
        raise BundleError(msg)


def _require(runtime: Runtime, *, int8: bool) -> list[str]:
    """The packages that the export needs. All are imported, so a missing one is reported first."""
    extras = {"onnx": "export", "onnxscript": "export"}
    if runtime == "onnx" or int8:
        extras["onnxruntime"] = "onnx"
    if runtime == "openvino":
        extras["openvino"] = "openvino"
    for package, extra in extras.items():
        require(package, extra=extra)
    return list(extras)


def _trace(model: Model, path: Path) -> None:
    """Write the ONNX graph, for any batch size."""
    graph = Graph(model).eval()
    side = model.preprocess.config.size
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)  # a batch of one could become a constant
    with torch.no_grad(), _ending_at_ctrl_c(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        names = list(_outputs(model.method, torch.zeros(1, 3, side, side), scope=graph.scope))
        try:
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("b")},),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as e:
            reason = str(e.__cause__ or e).strip().splitlines()[0]
            msg = f"{model.method.info.name} cannot be exported: torch cannot make a graph of its score ({reason})"
            raise ExportError(msg) from e
    for warning in said:  # the exporter's own
        _log.debug("%s", warning.message)
    assert program is not None  # with dynamo=True
    program.save(path)


@contextmanager
def _ending_at_ctrl_c() -> Iterator[None]:
    """KeyboardInterrupt after Ctrl-C or SIGTERM in the block, also if the exporter calls it a fault of the graph."""
    came: list[int] = []
    before: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}
    if threading.current_thread() is threading.main_thread():  # other threads get no signals
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in found.items() if callable(handler)}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before[signal.Signals(number)](number, frame)

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            raise KeyboardInterrupt


def _to_openvino(folder: Path) -> None:
    """Replace the ONNX graph by its OpenVINO form, in float32."""
    openvino = require("openvino", extra="openvino")
    source = folder / GRAPHS["onnx"]
    openvino.save_model(openvino.Core().read_model(source), folder / GRAPHS["openvino"], compress_to_fp16=False)
    for path in folder.glob(f"{source.name}*"):  # large weights are in separate files
        path.unlink()


def _to_int8(folder: Path) -> None:
    """Replace the graph by one with int8 matrix products: weights per channel, inputs scaled dynamically.

    Convolutions stay in float32: with EfficientNet's depthwise convolutions in int8, the maps lose whole points.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = folder / GRAPHS["onnx"]
    prepared, small = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_dynamic(
        prepared, small, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"]
    )
    for old in [*folder.glob(f"{path.name}*"), *folder.glob(f"{prepared.name}*")]:
        old.unlink()
    small.rename(path)


def _reference(model: Model, count: int) -> tuple[NDArray[np.uint8], Outputs]:
    """Simulated pictures uint8 (b s s 3), and PyTorch's outputs for them, computed as in ``Method.predict``."""
    images = [simulate(seed, size=256).image for seed in range(count)]
    images = [np.ascontiguousarray(image[: 256 - 8 * i]) for i, image in enumerate(images)]  # some are not square
    pictures = np.stack([model.preprocess.picture(image)[0] for image in images])
    with torch.no_grad():
        inputs = torch.stack([model.preprocess.image(image)[0] for image in images])
        found = _outputs(model.method, inputs, scope=bool(model.scope.arrays))
    return pictures, {name: value.numpy() for name, value in found.items()}


def _differences(run: Session, pictures: NDArray[np.uint8], wanted: Outputs) -> dict[str, float]:
    """{output: largest difference}, over batches of several sizes."""
    parts = [run(part) for part in np.split(pictures, np.cumsum(_BATCHES)[:-1])]
    found = {name: np.concatenate([part[name] for part in parts]) for name in wanted}
    return {name: float(np.abs(found[name] - value).max()) for name, value in wanted.items()}


def _check_within(found: dict[str, float], allowed: dict[str, float], what: str) -> None:
    over = [f"{name} by {d:.2g} (at most {allowed[name]:g})" for name, d in found.items() if not d <= allowed[name]]
    if over:  # also when NaN
        msg = f"{what}: {', '.join(over)}. Nothing was written"
        raise ExportError(msg)


def _check_int8(
    model: Model,
    made: ExportedModel,
    pictures: NDArray[np.uint8],
    wanted: Outputs,
    *,
    check: str | Path | Sequence[Sample] | None,
    layout: str,
) -> dict[str, Any]:
    """Check int8 against its limits; returns the measured differences."""
    parity = _differences(made.run, pictures, wanted)
    facts: dict[str, Any] = {"parity": {**parity, "images": len(pictures)}}
    if check is None:
        _check_within(parity, INT8_TOLERANCE, "int8 is not accurate enough; it differs from PyTorch")
        return facts
    before, after = (evaluate(m, check, layout=layout, leaks="drop", bootstrap=0)["metrics"] for m in (model, made))
    values = {
        key: (100 * before[key]["value"], 100 * after[key]["value"])
        for key in _METRICS
        if key in before and before[key]["value"] is not None
    }
    lost = {key: a - b for key, (a, b) in values.items()}
    _check_within(lost, dict.fromkeys(lost, INT8_POINTS), "int8 is not accurate enough; it loses points of")
    return facts | {"check": {key: {"float32": round(a, 3), "int8": round(b, 3)} for key, (a, b) in values.items()}}


def _speed(model: Model, made: ExportedModel, pictures: NDArray[np.uint8]) -> dict[str, dict[str, float]]:
    """Milliseconds per image of the runtime and of PyTorch, measured in turns with the same threads; medians."""
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255).contiguous()  # values do not matter here
    found = {}
    for batch in (1, 8):
        calls: dict[str, Callable[[], object]] = {
            made.config.exported.runtime: lambda n=batch: made.run(pictures[:n]),  # type: ignore[misc]
            "torch": lambda n=batch: model.method.score(x[:n]),  # type: ignore[misc]
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        begun = time.perf_counter()
        with torch.no_grad():
            for turn in range(_TURNS + 1):
                if turn > 1 and time.perf_counter() - begun > _PATIENCE:
                    break
                for name, call in calls.items():
                    start = time.perf_counter()
                    call()
                    if turn:  # the first warms up
                        times[name].append(1000 * (time.perf_counter() - start) / batch)
        found[str(batch)] = {name: round(statistics.median(ms), 3) for name, ms in times.items()}
    return found
