"""The public face: pictures in, predictions out.

    model = ultraad.adapt(support)        # or zero_shot(), or load("my-model")
    model.predict("image.png").map        # float32 (H W), on the file's own pixels

A model is a fitted method with the thresholds found by cross-validation on its support set and the record of where it
comes from. Thresholds are never fitted on evaluated data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultraad import methods
from ultraad.backbones import load_backbone
from ultraad.backbones._door import Backbone
from ultraad.config import dump, resolve
from ultraad.data.loader import array_batch, iterate, read_any
from ultraad.data.preprocess import Preprocess
from ultraad.data.samples import samples_of
from ultraad.errors import BundleError
from ultraad.model import bundle
from ultraad.model.record import BackboneRecord, Description
from ultraad.types import Result, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ultraad.backbones._door import DTypeChoice
    from ultraad.data.support import Fingerprint
    from ultraad.errors import DataError
    from ultraad.methods._base import Method
    from ultraad.model.calibration import Calibration
    from ultraad.model.record import Origin
    from ultraad.model.stream import Live
    from ultraad.types import Prediction


class Model:
    """A fitted method with thresholds and a history. Made by :func:`adapt`, :func:`zero_shot` and :func:`load`.

    Args:
        method: Fitted.
        calibration: Its thresholds.
        origin: Its history.
        support: Fingerprints and labels of the support images, so that leakage is noticed without the images.
        auxiliary: The same of the auxiliary images.
    """

    def __init__(
        self,
        method: Method,
        *,
        calibration: Calibration,
        origin: Origin,
        support: Sequence[tuple[Fingerprint, str]] = (),
        auxiliary: Sequence[tuple[Fingerprint, str]] = (),
    ) -> None:
        self.method = method
        self.calibration = calibration
        self.origin = origin
        self.support = tuple(support)
        self.auxiliary = tuple(auxiliary)
        self.preprocess = Preprocess(method.backbone.preprocess)

    def __repr__(self) -> str:
        return (
            f"Model({self.method.info.name!r}, backbone={self.backbone.name!r}, classes={self.classes}, "
            f"{self.origin.setting}, shots={self.origin.shots})"
        )

    @property
    def backbone(self) -> Backbone:
        """The frozen tower."""
        return self.method.backbone

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.method.classes

    @property
    def normal_class(self) -> str:
        """The class that means "no lesion"."""
        return self.method.normal_class

    def describe(self) -> Description:
        """What the model is and where it comes from: all of a model's folder but the learned values."""
        dtype: Any = str(self.backbone.dtype).removeprefix("torch.")
        return Description(
            method=self.method.info.name,
            options=dump(self.method.config),
            classes=self.classes,
            normal_class=self.normal_class,
            backbone=BackboneRecord(
                name=self.backbone.name,
                fingerprint=self.backbone.fingerprint,
                size=self.backbone.size,
                dtype=dtype,
                preprocess=self.preprocess.config,
            ),
            calibration=self.calibration,
            origin=self.origin,
        )

    @property
    def digest(self) -> str:
        """sha256 over all that fixes the results, learned values included: one digest, one set of results."""
        facts = self.describe().model_dump(mode="json", exclude={"origin"})
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for key, value in sorted(self.method.state_dict().items()):
            digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    # ---- prediction

    def predict(self, x: str | Path | Sample | NDArray[Any], *, frame: int = 0) -> Prediction:
        """One image, whatever it is.

        Args:
            x: A file, a sample, or an array: uint8 (h w) or (h w 3), or float of these shapes in 0..1.
            frame: 0-based frame, for files with several.

        Returns:
            Score, map on the original pixel grid, and class probabilities.

        Raises:
            DataError: If the file or array cannot be used.

        Example:
            >>> model = zero_shot(backbone="tiny")
            >>> p = model.predict(np.zeros((120, 160), np.uint8))
            >>> p.map.shape
            (120, 160)
        """
        image, name = read_any(x, frame=frame)
        return self.method.predict(array_batch([image], [name], self.preprocess))[0]

    def predict_many(
        self,
        items: Iterable[str | Path | Sample],
        *,
        frame: int | None = None,
        batch_size: int = 8,
        on_error: Callable[[Sample, DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Many images in a stream; decoding runs ahead, memory stays flat.

        Args:
            items: Samples, or files, folders and patterns (see :func:`samples_of`).
            frame: Only this 0-based frame of multi-frame files; None takes all.
            batch_size: Images per forward pass; changes speed, not results.
            on_error: Called for each sample that cannot be read, which is then left out. None raises.

        Yields:
            Results in the order of the items.

        Raises:
            DataError: If a file cannot be read and there is no ``on_error``.
        """
        batches = iterate(
            samples_of(items, frame=frame),
            self.preprocess,
            classes=self.classes,
            normal_class=self.normal_class,
            batch_size=batch_size,
            on_error=on_error,
        )
        for decoded, batch in batches:
            predictions = self.method.predict(batch.unlabelled())
            for item, prediction in zip(decoded, predictions, strict=True):
                yield Result(item.sample, item.image, prediction, item.mask)

    def stream(
        self,
        frames: Iterable[NDArray[Any] | tuple[NDArray[Any], Any]],
        *,
        newest: bool = False,
        ahead: int = 1,
    ) -> Iterator[Live]:
        """Frames from a scanner or a camera, predicted as they come; the delay is bounded.

        The source is iterated in a thread of its own, so that it is never kept from grabbing while the model works. A
        frame waits for at most ``ahead`` predictions and the one under way, then takes its own.

        Args:
            frames: Arrays as in :meth:`predict`, or pairs of an array and anything that is to come back with it, such
                as the time of the frame. A generator around a grabber's "next frame" does.
            newest: If frames come faster than they are predicted, drop the oldest waiting one for the newest, as a
                live display does. Otherwise every frame is predicted, and the source has to wait.
            ahead: Most frames that wait for the model.

        Returns:
            An iterator over the predicted frames, in order. What the source raises is raised here, after the frames
            before it. Leaving the loop ends the thread with the next frame of the source.

        Raises:
            ConfigError: If ``ahead`` is below 1.

        Example:
            >>> model = zero_shot(backbone="tiny")
            >>> camera = ((np.zeros((120, 160), np.uint8), 0.04 * i) for i in range(3))
            >>> [(live.number, live.stamp) for live in model.stream(camera)]
            [(0, 0.0), (1, 0.04), (2, 0.08)]
        """
        from ultraad.model.stream import stream

        return stream(self.predict, frames, newest=newest, ahead=ahead)

    def is_abnormal(self, prediction: Prediction) -> bool:
        """Whether the score reaches the stored threshold."""
        return prediction.score >= self.calibration.image_threshold

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder; see :mod:`ultraad.model.bundle`.

        Raises:
            BundleError: If the folder exists and is no model.
            DataError: If the place cannot be written to.
        """
        state = self.method.state_dict()
        return bundle.write(bundle.Parts(self.describe(), self.digest, state, self.support, self.auxiliary), folder)


def load(
    folder: str | Path,
    *,
    device: str = "cpu",
    dtype: DTypeChoice | None = None,
    backbone: str | Backbone | None = None,
) -> Model:
    """A saved model.

    Args:
        folder: What :meth:`Model.save` wrote.
        device: As in :func:`adapt`.
        dtype: As in :func:`adapt`; None for the one the model was adapted in. What was learned stays float32 and is not
            changed, and the thresholds stay those that were found then.
        backbone: Where to take the weights from instead of the name in the folder; they must be the same weights. One
            that is loaded keeps its own device and dtype.

    Raises:
        BundleError: If the folder is incomplete or damaged, or the backbone is another one.
        WeightsError: If the backbone's weights are missing.
    """
    folder = Path(folder)
    parts = bundle.read(folder)
    about = parts.about
    used = _backbone_of(about, folder, device=device, dtype=dtype, backbone=backbone)
    chosen = methods.get(about.method)
    options = resolve(chosen.Config, about.options, where=f"options in {folder / bundle.CONFIG}")
    method = chosen(used, options, classes=about.classes, normal_class=about.normal_class)
    try:
        method.load_state_dict(parts.state)
    except RuntimeError as e:
        msg = (
            f"{folder / bundle.ADAPTER} does not hold the values of {about.method} with these options; "
            f"if another version of ultraad wrote it, adapt again: {e}"
        )
        raise BundleError(msg) from e
    method.fitted = True
    return Model(
        method.to(used.device),
        calibration=about.calibration,
        origin=about.origin,
        support=parts.support,
        auxiliary=parts.auxiliary,
    )


def _backbone_of(
    about: Description, folder: Path, *, device: str, dtype: DTypeChoice | None, backbone: str | Backbone | None
) -> Backbone:
    """The backbone that a saved model was adapted on; any other one is refused."""
    stored = about.backbone
    if isinstance(backbone, Backbone):
        used = backbone
    else:
        used = load_backbone(backbone or stored.name, device=device, dtype=dtype or stored.dtype, size=stored.size)
    if used.fingerprint != stored.fingerprint:
        msg = (
            f"the model {folder} was adapted on {stored.name} with weights {stored.fingerprint[:16]}, but "
            f"{used.name} has weights {used.fingerprint[:16]}; use the same weights, or adapt again on these"
        )
        raise BundleError(msg)
    if used.preprocess != stored.preprocess:
        msg = (
            f"the model {folder} was adapted on images prepared as {stored.preprocess}, but {used.name} wants "
            f"{used.preprocess}; use the same weights with the same preprocessing, or adapt again"
        )
        raise BundleError(msg)
    return used
