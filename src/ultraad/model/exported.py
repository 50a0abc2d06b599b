"""An exported model: reads and predicts like :class:`ultraad.Model`, without torch.

The folder::

    exported.json    what the model is, its thresholds, its history, the parity test, and the sha256 of the other files
    model.onnx       the graph; or model.xml and model.bin for OpenVINO
    support.csv      id, label, patient and sha256 of each support image
    auxiliary.csv    the same of each auxiliary image, if there was an auxiliary set
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from ultraad.data.loader import decode, read_any
from ultraad.data.prefetch import prefetch
from ultraad.data.preprocess import Preprocess
from ultraad.data.samples import samples_of
from ultraad.data.support import read_fingerprints
from ultraad.errors import BundleError
from ultraad.model.record import Description, Record, Strict, check_files, read_record
from ultraad.model.runtimes import open_session
from ultraad.types import Prediction, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ultraad.errors import DataError
    from ultraad.types import Sample

CONFIG = "exported.json"
FORMAT: Final = "ultraad.exported/1"
SUPPORT, AUXILIARY = "support.csv", "auxiliary.csv"


def is_exported(folder: str | Path) -> bool:
    """Whether this is a folder that ``ultraad export`` wrote."""
    return (Path(folder) / CONFIG).is_file()


class About(Strict):
    """The export itself.

    Attributes:
        runtime: What the graph is for.
        int8: Whether its matrix products are int8.
        versions: Packages that made it.
        source: Digest of the model it was made from.
        parity: {output: largest difference from PyTorch on ``images`` pictures}, and the tolerance it was held to.
        speed: Milliseconds per image, of the runtime and of PyTorch in turns, by batch size.
        check: What the int8 form was held to on labelled images; empty if there were none.
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
    exported: About


class ExportedModel:
    """A model whose graph runs in ONNX Runtime or OpenVINO. Made by :func:`load`.

    Args:
        folder: What ``ultraad export`` wrote.
        config: Its ``exported.json``.
        threads: Of the runtime; its own choice if None.
    """

    def __init__(self, folder: Path, config: Config, *, threads: int | None = None) -> None:
        self.config = config
        self.calibration = config.calibration
        self.origin = config.origin
        auxiliary = config.origin.auxiliary
        self.support = tuple(read_fingerprints(folder / SUPPORT, config.origin.source))
        self.auxiliary = tuple(read_fingerprints(folder / AUXILIARY, auxiliary.source)) if auxiliary else ()
        self.preprocess = Preprocess(config.backbone.preprocess)
        self._session = open_session(config.exported.runtime, folder, threads=threads)

    def __repr__(self) -> str:
        about = self.config.exported
        return f"ExportedModel({self.config.method!r}, {about.runtime}{', int8' * about.int8}, classes={self.classes})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.config.classes

    @property
    def normal_class(self) -> str:
        """The class that means "no lesion"."""
        return self.config.normal_class

    @property
    def digest(self) -> str:
        """sha256 over the graph and the model it was made from: one digest, one set of results."""
        return self.config.digest

    def describe(self) -> Description:
        """What the model is and where it comes from, the export included."""
        return self.config

    def predict(self, x: str | Path | Sample | NDArray[Any], *, frame: int = 0) -> Prediction:
        """One image; see :meth:`ultraad.model.model.Model.predict`.

        Raises:
            DataError: If the file or array cannot be used.
        """
        image, name = read_any(x, frame=frame)
        return self._predict([image], [name])[0]

    def predict_many(
        self,
        items: Iterable[str | Path | Sample],
        *,
        frame: int | None = None,
        batch_size: int = 8,
        on_error: Callable[[Sample, DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Many images in a stream; see :meth:`ultraad.model.model.Model.predict_many`.

        Raises:
            DataError: If a file cannot be read and there is no ``on_error``.
        """
        loaded = prefetch(
            samples_of(items, frame=frame),
            lambda sample: decode(sample, normal_class=self.normal_class),
            batch_size=batch_size,
            on_error=on_error,
        )
        for batch in loaded:
            predictions = self._predict([d.image for d in batch], [d.sample.id for d in batch])
            for d, prediction in zip(batch, predictions, strict=True):
                yield Result(d.sample, d.image, prediction, d.mask)

    def is_abnormal(self, prediction: Prediction) -> bool:
        """Whether the score reaches the stored threshold."""
        return prediction.score >= self.calibration.image_threshold

    def _predict(self, images: Sequence[NDArray[np.uint8]], ids: Sequence[str]) -> list[Prediction]:
        """Predictions on the original pixel grid, of images uint8 (h w 3) of any sizes."""
        pairs = [self.preprocess.picture(image) for image in images]
        found = self.run(np.stack([picture for picture, _ in pairs]))
        out = []
        for i, (id_, (_, geometry)) in enumerate(zip(ids, pairs, strict=True)):
            grid = geometry.invert(found["map"][i]) if "map" in found else None
            probs = dict(zip(self.classes, found["probs"][i].tolist(), strict=True)) if "probs" in found else None
            out.append(Prediction(id_, float(found["score"][i]), map=grid, probs=probs, method=self.config.method))
        return out

    def run(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """The graph itself.

        Args:
            pictures: uint8 (b s s 3), from :meth:`Preprocess.picture`.

        Returns:
            score (b,), map (b mh mw) on the model grid, and probs (b c), as far as the model has them.
        """
        if not self.config.exported.int8:
            return self._session(pictures)
        # int8 scales its inputs by the largest value in the batch, so an image must be alone in it
        parts = [self._session(pictures[i : i + 1]) for i in range(len(pictures))]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def load(folder: str | Path, *, threads: int | None = None) -> ExportedModel:
    """An exported model, checked against its own list of files.

    Args:
        folder: What ``ultraad export`` wrote.
        threads: Of the runtime; its own choice if None.

    Raises:
        BundleError: If a file is missing, damaged or from another format.
        MissingExtraError: If the runtime is not installed.
    """
    folder = Path(folder)
    config = _read(folder / CONFIG)
    check_files(folder, config.files, what="exported model")
    return ExportedModel(folder, config, threads=threads)


def _read(path: Path) -> Config:
    if not path.is_file():
        msg = f"{path.parent} is no exported model: {CONFIG} is missing there. 'ultraad export' makes one"
        raise BundleError(msg)
    return read_record(path, Config, wanted=FORMAT, what="exported model", remedy="export the model again")
