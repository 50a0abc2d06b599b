"""The public class for prediction: images in, predictions out.

    model = ultraad.adapt(support)        # or zero_shot(), or load("my-model")
    model.predict("image.png").map        # float32 (H W), on the file's own pixels

A model is a fitted method, the thresholds found by cross-validation on its support set, and a record of its origin.
Thresholds are never fitted on evaluated data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ultraad import methods
from ultraad.backbones import load_backbone
from ultraad.backbones._door import Backbone, DTypeChoice
from ultraad.backbones._gist import gist, heard, listening
from ultraad.backbones._towers import TOWERS
from ultraad.config import completed, dump, resolve
from ultraad.data.fans import checked_fan, find_in
from ultraad.data.loader import input_batch, read_any
from ultraad.data.preprocess import Preprocess
from ultraad.data.regions import RegionChoice, checked_region
from ultraad.data.support import Fingerprint
from ultraad.errors import BundleError, Caught, ConfigError, UltraadError
from ultraad.fan import Fan, FanChoice
from ultraad.methods._base import Method
from ultraad.model import bundle
from ultraad.model.calibration import Calibration
from ultraad.model.many import MOST_LANES
from ultraad.model.predictor import Predictor
from ultraad.model.reasons import Why
from ultraad.model.record import BackboneRecord, Description, Origin, facts_of
from ultraad.model.scope import NO_RECORD, Scope, shipped
from ultraad.model.why import Explainer
from ultraad.types import Batch, Box, Geometry, InScope, Prediction

if TYPE_CHECKING:
    from ultraad.data.loader import Readable

_log = logging.getLogger(__name__)
_SCOPE = "in_scope."  # names of the arrays of a scope among the learned values
_PART = 16  # images per pass of the tower


class Model(Predictor):
    """A fitted method with thresholds and a history. Made by :func:`adapt`, :func:`zero_shot` and :func:`load`.

    Args:
        method: Fitted.
        calibration: Its thresholds.
        origin: Its history.
        support: Fingerprints and labels of the support images, to detect leakage without the images.
        auxiliary: The same of the auxiliary images.
        scope: What is known about the images that it can judge; None for models of earlier versions.
        fan: How it sees pictures, as :class:`~ultraad.model.record.Description` says.

    Examples:
        >>> import ultraad
        >>> from ultraad.simulate import simulate
        >>> model = ultraad.zero_shot(backbone="tiny")
        >>> prediction = model.predict(simulate(0, size=128).image)
        >>> model.is_abnormal(prediction), prediction.map.shape, list(prediction.probs)
        (True, (128, 128), ['normal', 'benign', 'malignant'])
    """

    def __init__(
        self,
        method: Method,
        *,
        calibration: Calibration,
        origin: Origin,
        support: Sequence[tuple[Fingerprint, str]] = (),
        auxiliary: Sequence[tuple[Fingerprint, str]] = (),
        scope: Scope | None = None,
        fan: FanChoice = "off",
    ) -> None:
        self.method = method
        self.calibration = calibration
        self.origin = origin
        self.support = tuple(support)
        self.auxiliary = tuple(auxiliary)
        self.scope = scope or Scope({})
        self.fan = fan
        self.preprocess = Preprocess(method.backbone.preprocess)

    def __repr__(self) -> str:
        return (
            f"Model({self.method.info.name!r}, backbone={self.backbone.name!r}, classes={self.classes}, "
            f"{self.origin.setting}, shots={self.origin.shots})"
        )

    @property
    def backbone(self) -> Backbone:
        """The frozen backbone."""
        return self.method.backbone

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.method.classes

    @property
    def normal_class(self) -> str:
        """The class that means "no lesion"."""
        return self.method.normal_class

    @property
    def grades(self) -> bool:
        """Whether predictions have class probabilities."""
        return "classes" in self.method.info.outputs

    def describe(self) -> Description:
        """What the model is and where it comes from: everything in a model's folder except the learned values."""
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
            fan=self.fan,
            calibration=self.calibration,
            origin=self.origin,
        )

    @property
    def digest(self) -> str:
        """sha256 over everything that determines the results, learned values included."""
        return bundle.digest_of(facts_of(self.describe().model_dump(mode="json")), self._state())

    def _prepare(self, image: NDArray[np.uint8], region: Box | None, fan: Fan | None) -> tuple[Any, Geometry]:
        return self.preprocess.image(image, region, fan)

    def _predict(self, inputs: Sequence[tuple[Any, Geometry]], ids: Sequence[str]) -> list[Prediction]:
        return self.predict_batch(input_batch(inputs, ids, self.preprocess))

    @contextmanager
    def _lanes(self) -> Iterator[tuple[int, Callable[[], object]]]:
        threads = torch.get_num_threads()
        if self.backbone.device.type != "cpu" or threads == 1:
            yield 1, torch.get_num_threads
            return
        lanes = min(threads, MOST_LANES)
        try:
            yield lanes, partial(torch.set_num_threads, threads // lanes)  # of the thread that calls it
        finally:
            torch.set_num_threads(threads)  # of threads to come

    def predict_batch(self, batch: Batch) -> list[Prediction]:
        """The predictions of images that are loaded for this model's backbone already, in their order."""
        with listening(self.backbone) as batches:
            found = self.method.predict(batch.unlabelled())
        if not self.scope.arrays:
            records = [InScope(None, None, None, NO_RECORD)] * len(batch)
        else:
            records = self.scope.judge(heard(self.backbone, batches, batch.images).cpu().numpy())
        graded = [self.graded(p.probs, r.distance) for p, r in zip(found, records, strict=True)]
        return [
            replace(p, probs=probs, in_scope=r, prediction_set=classes)
            for p, (probs, classes), r in zip(found, graded, records, strict=True)
        ]

    def why(self, x: Readable, *, frame: int = 0, region: RegionChoice = "auto", fan: FanChoice | None = None) -> Why:
        """Why an image gets its prediction; takes about nine times as long as the prediction.

        Args:
            x: As in :meth:`predict`.
            frame: As in :meth:`predict`.
            region: As in :meth:`predict`.
            fan: As in :meth:`predict`.

        Returns:
            Shares of support images and sentences in the decision, the score without each support image, without
            marks, and with a little gain and crop (:mod:`ultraad.model.reasons`).

        Raises:
            ConfigError: If a region or fan is no choice.
            DataError: If the file or the pixels cannot be used.

        Examples:
            >>> import numpy as np, ultraad
            >>> why = ultraad.zero_shot(backbone="tiny").why(np.zeros((120, 160), np.uint8))
            >>> why.label in ("normal", "benign", "malignant"), why.marks.score
            (True, None)
        """
        whole, fan = checked_region(region) == "off", checked_fan(self.fan if fan is None else fan)
        image, _, part = read_any(x, frame=frame)
        part = None if whole else part
        return self.explain(image, part, find_in(image, part) if fan == "auto" else None)

    def explain(self, image: NDArray[np.uint8], region: Box | None = None, fan: Fan | None = None) -> Why:
        """Why pixels uint8 (h w 3), or a region and a fan of them, get their prediction; see :meth:`why`."""
        return self._explainer(image, region, fan)

    def __copy__(self) -> Self:
        """A copy explains itself anew: it may scale probabilities in another way."""
        other = object.__new__(type(self))
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name != "_explainer"})
        return other

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(
            self.method,
            self.preprocess,
            self.support,
            predict=lambda inputs: self._predict(inputs, ["image"] * len(inputs)),
            scaled=lambda probs: self.graded(dict(probs))[0] or probs,
            seconds=self.origin.seconds,
            fan=self.fan,
        )

    def _state(self) -> dict[str, torch.Tensor]:
        """The learned values, and what :class:`~ultraad.model.scope.Scope` knows under names of their own."""
        return {
            **self.method.state_dict(),
            **{f"{_SCOPE}{name}": torch.from_numpy(np.asarray(value)) for name, value in self.scope.arrays.items()},
        }

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder; see :mod:`ultraad.model.bundle`.

        Raises:
            BundleError: If the folder exists and is not a model.
            DataError: If the folder cannot be written.
        """
        state = self._state()
        return bundle.write(bundle.Parts(self.describe(), self.digest, state, self.support, self.auxiliary), folder)


def load(
    folder: str | Path,
    *,
    device: str = "cpu",
    dtype: DTypeChoice | None = None,
    backbone: str | Backbone | None = None,
) -> Model:
    """Load a saved model.

    Args:
        folder: A folder written by :meth:`Model.save`.
        device: As in :func:`adapt`.
        dtype: As in :func:`adapt`; None for the type the model was adapted with. The learned values stay float32, and
            the thresholds are not changed.
        backbone: Another place to load the weights from, or a loaded backbone, which keeps its own device and dtype.
            The weights must be the same.

    Raises:
        BundleError: If the folder is incomplete, damaged or was changed, or the backbone is a different one.
        WeightsError: If the backbone's weights are missing.

    Examples:
        >>> import ultraad
        >>> model = ultraad.zero_shot(backbone="tiny")
        >>> folder = model.save("my-model")
        >>> ultraad.load(folder).digest == model.digest
        True
    """
    folder = Path(folder)
    parts = bundle.read(folder)
    saved = parts.description
    used = _backbone_of(saved.backbone, folder, device=device, dtype=dtype, backbone=backbone)
    chosen = methods.get(saved.method)
    recorded = completed(saved.options, chosen.Config.earlier)
    try:
        options = resolve(chosen.Config, recorded, where=f"options in {folder / bundle.CONFIG}")
    except ConfigError as e:
        msg = f"{e}. If another version of ultraad wrote the model, adapt again"
        raise BundleError(msg) from e
    with Caught() as caught:
        method = chosen(used, options, classes=saved.classes, normal_class=saved.normal_class)
        method.load_state_dict({name: value for name, value in parts.state.items() if not name.startswith(_SCOPE)})
    if isinstance(caught.error, UltraadError):
        raise caught.error
    if caught.error is not None:
        msg = (
            f"{folder / bundle.ADAPTER} does not hold the values of {saved.method} with these options; "
            f"if another version of ultraad wrote it, adapt again: {' '.join(str(caught.error).split())}"
        )
        raise BundleError(msg) from caught.error
    if parts.computed != parts.digest:
        msg = (
            f"the model {folder} was changed after it was saved: its digest is {str(parts.computed)[:16]}, recorded is "
            f"{parts.digest[:16]}. Options, thresholds, classes or learned values differ; copy the model again"
        )
        raise BundleError(msg)
    method.fitted = True
    return Model(
        method.to(used.device),
        calibration=saved.calibration,
        origin=saved.origin,
        support=parts.support,
        auxiliary=parts.auxiliary,
        scope=Scope(
            {name.removeprefix(_SCOPE): x.numpy() for name, x in parts.state.items() if name.startswith(_SCOPE)}
        ),
        fan=saved.fan,
    )


def scope_of(backbone: Backbone, images: torch.Tensor) -> Scope:
    """What a model on this backbone can judge, adapted to images f32 (b 3 s s), of which there may be none."""
    lead = backbone.lead
    known = (shipped(tower.scope, weights=lead.weights, side=lead.size) for tower in TOWERS.values())
    reference: Mapping[str, NDArray[Any]] = next(filter(None, known), {})
    gists = [gist(backbone, part).cpu().numpy() for part in torch.split(images, _PART)] if len(images) else []
    return Scope.of(reference, np.concatenate(gists) if gists else None)


def _backbone_of(
    stored: BackboneRecord, folder: Path, *, device: str, dtype: DTypeChoice | None, backbone: str | Backbone | None
) -> Backbone:
    """The backbone that a saved model was adapted on; a different one is an error."""
    if isinstance(backbone, Backbone):
        used = backbone
    else:
        used = load_backbone(backbone or stored.name, device=device, dtype=dtype or stored.dtype, size=stored.size)
        if used.fingerprint != stored.fingerprint and backbone is None and stored.name.partition(":")[0] in TOWERS:
            used = _other_tower(stored, folder, device=device, dtype=dtype) or used
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


def _other_tower(stored: BackboneRecord, folder: Path, *, device: str, dtype: DTypeChoice | None) -> Backbone | None:
    """The shipped tower that a model was adapted on, if a newer one has its name now."""
    tower, colon, variant = stored.name.partition(":")
    for name in (f"{other}{colon}{variant}" for other in TOWERS if other != tower):
        other = load_backbone(name, device=device, dtype=dtype or stored.dtype, size=stored.size)
        if other.fingerprint == stored.fingerprint:
            _log.warning(
                "the model %s was adapted on an earlier %s, which is now called %s; it is loaded with that and "
                "predicts as before. To use the new %s, adapt again",
                folder, stored.name, name, stored.name,
            )  # fmt: skip
            return other
    return None
