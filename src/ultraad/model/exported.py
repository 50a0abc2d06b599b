"""An exported model: predicts like :class:`ultraad.Model`, without torch.

The folder::

    exported.json    what the model is, its thresholds, its history, the parity test, and the sha256 of the other files
    model.onnx       the graph; or model.xml and model.bin for OpenVINO
    support.csv      id, label, patient and sha256 of each support image
    auxiliary.csv    the same of each auxiliary image, if there was an auxiliary set
    scope.npz        statistics of the images that the model can judge (:mod:`.scope`), if it carries them
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ultraad.config import Strict
from ultraad.data.preprocess import Preprocess
from ultraad.errors import BundleError, ConfigError
from ultraad.fan import Fan
from ultraad.model.many import MOST_LANES
from ultraad.model.predictor import Predictor
from ultraad.model.record import Description, Record, check_files, learned_from, read_record
from ultraad.model.runtimes import GRAPHS, GraphType, Runtime, Session, available_processors, open_session
from ultraad.model.scope import NO_RECORD, Scope
from ultraad.types import Box, Geometry, InScope, MapGrid, Prediction

_log = logging.getLogger(__name__)

CONFIG = "exported.json"
FORMAT: Final = "ultraad.exported/1"
SUPPORT, AUXILIARY = "support.csv", "auxiliary.csv"
SCOPE, GIST = "scope.npz", "gist"
_WHAT = "exported model"
_TOGETHER = 2  # images in a run of the graph
SHIPPED = Path(str(files("ultraad"))) / "backbones" / "pretrained" / "zero-shot"
"""``ultraad.zero_shot()`` as a graph for ONNX Runtime; made by ``python -m pretraining.zero_shot_graph``."""


def is_exported(folder: str | Path) -> bool:
    """Whether ``ultraad export`` wrote this folder."""
    return (Path(folder) / CONFIG).is_file()


class ExportFacts(Strict):
    """Facts about the export.

    Attributes:
        runtime: The runtime of the graph.
        int8: Whether its matrix products are int8.
        versions: Packages that made it.
        source: Digest of the model it was made from.
        parity: {output: largest difference from PyTorch on ``images`` pictures}, and the tolerance.
        speed: Milliseconds per image, of the runtime and of PyTorch, by batch size.
        check: The accuracy of the int8 graph on labelled images; empty if there were none.
    """

    runtime: Literal["onnx", "openvino"]
    int8: bool
    versions: dict[str, str]
    source: str
    parity: dict[str, float]
    speed: dict[str, dict[str, float]]
    check: dict[str, Any]


class Config(Record):
    """``exported.json``."""

    format: Literal["ultraad.exported/1"] = FORMAT
    note: str = "For research only; no medical device."
    exported: ExportFacts


class ExportedModel(Predictor):
    """A model whose graph runs in ONNX Runtime or OpenVINO. Made by :func:`load`.

    Args:
        folder: A folder written by ``ultraad export``.
        config: Its ``exported.json``.
        threads: Threads of the runtime; the runtime chooses if None.
        runtime: What runs the graph; the one it was written for if None.

    Attributes:
        threads: The same for many images; None for all processors. It may be changed between runs.
        runtime: What runs the graph.
    """

    def __init__(
        self, folder: Path, config: Config, *, threads: int | None = None, runtime: Runtime | None = None
    ) -> None:
        self._graph = folder / GRAPHS[config.exported.runtime]
        self.runtime: Runtime = runtime or config.exported.runtime
        self.config = config
        self.calibration = config.calibration
        self.origin = config.origin
        self.fan = config.fan
        self.support, self.auxiliary = learned_from(
            folder, config.origin, support=SUPPORT, auxiliary=AUXILIARY, what=_WHAT
        )
        self.preprocess = Preprocess(config.backbone.preprocess)
        self.scope = Scope(_read_scope(folder / SCOPE) if SCOPE in config.files else {})
        self.threads = threads
        self._session = self._open(threads)
        self._for_many: tuple[tuple[int, int], Session] | None = None

    def _open(self, threads: int | None, lanes: int = 1) -> Session:
        dtype: GraphType = "bfloat16" if self.config.backbone.dtype == "bfloat16" else "float32"
        return open_session(self.runtime, self._graph, threads=threads, lanes=lanes, dtype=dtype)

    def __repr__(self) -> str:
        about = self.config.exported
        return f"ExportedModel({self.config.method!r}, {self.runtime}{', int8' * about.int8}, classes={self.classes})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.config.classes

    @property
    def normal_class(self) -> str:
        """The class that means "no lesion"."""
        return self.config.normal_class

    @property
    def grades(self) -> bool:
        """Whether predictions have class probabilities."""
        return "probs" in self.config.exported.parity  # which has every output of the graph

    @property
    def digest(self) -> str:
        """sha256 over the graph and the model it was made from."""
        return self.config.digest

    def describe(self) -> Description:
        """What the model is and where it comes from, including the export."""
        return self.config

    def _prepare(self, image: NDArray[np.uint8], region: Box | None, fan: Fan | None) -> tuple[Any, Geometry]:
        return self.preprocess.picture(image, region, fan)

    @contextmanager
    def _lanes(self) -> Iterator[tuple[int, Callable[[], object]]]:
        """Several batches at a time, each by one thread."""
        threads = self.threads or available_processors()
        lanes = min(threads, MOST_LANES)
        shares = threads // lanes, lanes
        if self._for_many is None or self._for_many[0] != shares:
            self._for_many = shares, self._open(*shares)
        for_one, self._session = self._session, self._for_many[1]
        try:
            yield lanes, available_processors
        finally:
            self._session = for_one

    def _predict(self, inputs: Sequence[tuple[Any, Geometry]], ids: Sequence[str]) -> list[Prediction]:
        found = self.run(np.stack([picture for picture, _ in inputs]))
        records = self.scope.judge(found[GIST]) if GIST in found else [InScope(None, None, None, NO_RECORD)] * len(ids)
        out = []
        for i, (id_, (_, geometry)) in enumerate(zip(ids, inputs, strict=True)):
            grid = MapGrid(found["map"][i], geometry) if "map" in found else None
            own = dict(zip(self.classes, found["probs"][i].tolist(), strict=True)) if "probs" in found else None
            probs, classes = self.graded(own, records[i].distance)
            method, score = self.config.method, float(found["score"][i])
            out.append(
                Prediction(
                    id_,
                    score,
                    map=None if grid is None else grid.on_pixels(),
                    probs=probs,
                    method=method,
                    in_scope=records[i],
                    prediction_set=classes,
                    grid=grid,
                )
            )
        return out

    def run(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the graph.

        Args:
            pictures: uint8 (b s s 3), from :meth:`Preprocess.picture`.

        Returns:
            score (b,) and, if the model has them, map (b mh mw) on the model grid, probs (b c) and gist (b k).
        """
        # int8 scales its inputs by the largest value in the batch, so each image needs a batch of its own. Of float32,
        # ONNX Runtime takes an eighth less time for two than for eight, as they fit the processor's cache; the numbers
        # are the same. OpenVINO takes a little more for two
        size = 1 if self.config.exported.int8 else _TOGETHER if self.runtime == "onnx" else len(pictures)
        batches = [pictures[i : i + size] for i in range(0, len(pictures), size)]
        parts = [self._checked(self._session(batch), len(batch)) for batch in batches]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _checked(self, found: dict[str, NDArray[np.float32]], images: int) -> dict[str, NDArray[np.float32]]:
        """The outputs of the graph, if they are those of a model with these classes."""
        shapes = {name: value.shape for name, value in found.items()}
        size = shapes.get("map", (images, 1, 1))[1:]
        wanted = {"score": (images,), "map": (images, *size), "probs": (images, len(self.classes))}
        if (mean := self.scope.arrays.get("reference.mean", self.scope.arrays.get("support.mean"))) is not None:
            wanted[GIST] = (images, len(mean))
        if "score" not in shapes or len(size) != 2 or any(shapes[name] != wanted.get(name) for name in shapes):
            msg = f"the graph {self._graph} gives {shapes} for {images} image(s); export the model again"
            raise BundleError(msg)
        return found


def load(
    folder: str | Path,
    *,
    threads: int | None = None,
    runtime: Runtime | None = None,
    dtype: GraphType = "float32",
) -> ExportedModel:
    """Load an exported model and check its files.

    Args:
        folder: A folder written by ``ultraad export``.
        threads: Threads of the runtime; the runtime chooses if None.
        runtime: What runs the graph; the one it was written for if None. OpenVINO also runs graphs for ONNX Runtime.
        dtype: What it is computed in. With bfloat16, which only OpenVINO has, the digest is another one.

    Raises:
        BundleError: If a file is missing, damaged or from another format.
        ConfigError: If the graph does not run on that runtime, or in that type on this processor.
        MissingExtraError: If the runtime is not installed.
    """
    folder = Path(folder)
    config, facts = _read(folder / CONFIG)
    config.check_thresholds(folder / CONFIG, _WHAT)
    required = {GRAPHS[config.exported.runtime], SUPPORT, *([AUXILIARY] if config.origin.auxiliary else [])}
    check_files(folder, config.files, required=required, what=_WHAT)
    made_from = config.exported.source
    if config.digest == digest_of(made_from, config.files):
        _log.warning(
            "the exported model %s is of an earlier version, which does not notice changed thresholds and classes; "
            "export the model again",
            folder,
        )
    elif config.digest != digest_of(made_from, config.files, facts):
        msg = (
            f"the exported model {folder} was changed after it was made: its digest is not {config.digest[:16]}. "
            "Copy it again, or export the model again"
        )
        raise BundleError(msg)
    if runtime not in (None, config.exported.runtime) and (runtime == "onnx" or config.exported.int8):
        kind = f"{config.exported.runtime}{', int8' * config.exported.int8}"
        msg = f"{folder} is for {kind} and does not run on {runtime}; export the model again with --format {runtime}"
        raise ConfigError(msg)
    if dtype != "float32":
        digest = hashlib.sha256(f"{config.digest}{dtype}".encode()).hexdigest()
        backbone = config.backbone.model_copy(update={"dtype": dtype})
        config = config.model_copy(update={"digest": digest, "backbone": backbone})
    return ExportedModel(folder, config, threads=threads, runtime=runtime)


def zero_shot(*, threads: int | None = None, runtime: Runtime = "onnx", dtype: GraphType = "float32") -> ExportedModel:
    """The model of :func:`ultraad.zero_shot` with its defaults, as the graph that ships with the package.

    It needs ONNX Runtime or OpenVINO, and no torch. In float32, scores, maps and probabilities differ from those in
    PyTorch by less than 0.001.

    Args:
        threads: Threads of the runtime; the runtime chooses if None.
        runtime: What runs the graph.
        dtype: What it is computed in; see :func:`load`.

    Raises:
        ConfigError: If this processor does not compute in that type.
        MissingExtraError: If the runtime is not installed.
    """
    return load(SHIPPED, threads=threads, runtime=runtime, dtype=dtype)


def digest_of(source: str, files: Mapping[str, str], facts: Mapping[str, Any] | None = None) -> str:
    """sha256 over everything that determines the results of an export.

    Args:
        source: Digest of the model it was made from.
        files: {name: sha256}.
        facts: :func:`ultraad.model.record.facts_of` the model; None as exports of earlier versions have it.
    """
    told = "" if facts is None else json.dumps(facts, sort_keys=True)
    return hashlib.sha256(f"{source}{sorted(files.items())}{told}".encode()).hexdigest()


def _read_scope(path: Path) -> dict[str, NDArray[Any]]:
    """Its arrays; the sha256 of the file was checked."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read(path: Path) -> tuple[Config, dict[str, Any]]:
    if not path.is_file():
        msg = f"{path.parent} is not an exported model: it has no {CONFIG}. Make one with 'ultraad export'"
        raise BundleError(msg)
    return read_record(path, Config, wanted=FORMAT, what=_WHAT, remedy="export the model again")
