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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultraad import methods
from ultraad.backbones import DEFAULT, load_backbone
from ultraad.backbones.base import Backbone
from ultraad.calibrate import CalibrationConfig, cross_validate, fixed
from ultraad.config import dump, resolve
from ultraad.data.ahead import raise_error
from ultraad.data.auxiliary import AuxiliaryBatches, AuxiliarySet, load_auxiliary
from ultraad.data.loader import array_batch, iterate, load_batch, read_any
from ultraad.data.preprocess import Preprocess
from ultraad.data.sources.base import is_normal, samples_of
from ultraad.data.support import digest, fingerprints, fingerprints_of, load_support
from ultraad.errors import ConfigError, DataError
from ultraad.nn.prompts import breast_texts
from ultraad.origin import Auxiliary, Origin
from ultraad.results import Result
from ultraad.types import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ultraad.backbones.base import DTypeChoice
    from ultraad.calibrate import Calibration
    from ultraad.data.support import Fingerprint
    from ultraad.live import Live
    from ultraad.methods.base import Method, MethodInfo
    from ultraad.origin import ProtocolName
    from ultraad.types import FitReport, Prediction, SupportSet

_AUXILIARY_BATCH = 8
"""Images per step for methods without a batch size of their own (APRIL-GAN, AnomalyCLIP: 8)."""


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
            f"{self.origin.protocol}, shots={self.origin.shots})"
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

    def describe(self) -> dict[str, Any]:
        """What the model is and where it comes from, as plain JSON types: the part of a bundle that is no number."""
        return {
            "method": self.method.info.name,
            "options": dump(self.method.config),
            "classes": list(self.classes),
            "normal_class": self.normal_class,
            "backbone": {
                "name": self.backbone.name,
                "fingerprint": self.backbone.fingerprint,
                "size": self.backbone.size,
                "dtype": str(self.backbone.dtype).removeprefix("torch."),
                "preprocess": asdict(self.preprocess.config),
            },
            "calibration": self.calibration.model_dump(mode="json"),
            "origin": self.origin.model_dump(mode="json"),
        }

    @property
    def digest(self) -> str:
        """sha256 over all that fixes the results, learned values included: one digest, one set of results."""
        facts = {key: value for key, value in self.describe().items() if key != "origin"}
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
            on_error=on_error or raise_error,
        )
        for samples, batch, images in batches:
            predictions = self.method.predict(batch.unlabelled())
            for i, (sample, image, prediction) in enumerate(zip(samples, images, predictions, strict=True)):
                known = batch.mask_known is not None and bool(batch.mask_known[i])
                yield Result(sample, image, prediction, mask_known=known)

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
        from ultraad.live import stream

        return stream(self.predict, frames, newest=newest, ahead=ahead)

    def is_abnormal(self, prediction: Prediction) -> bool:
        """Whether the score reaches the stored threshold."""
        return prediction.score >= self.calibration.image_threshold

    def evaluate(self, data: str | Path | Sequence[Sample], **options: Any) -> dict[str, Any]:  # noqa: ANN401
        """All metrics on a labelled data set; see :func:`ultraad.runs.evaluate` for the options."""
        from ultraad.runs import evaluate

        return evaluate(self, data, **options)

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder; see :mod:`ultraad.bundle`."""
        from ultraad.bundle import save

        return save(self, folder)


def adapt(
    support: SupportSet | str | Path | None = None,
    *,
    auxiliary: AuxiliarySet | str | Path | None = None,
    auxiliary_layout: str = "auto",
    method: str = "ultraad",
    backbone: str | Backbone = DEFAULT,
    options: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    normal_class: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtype: DTypeChoice = "float32",
    size: int | None = None,
    calibrate: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Model:
    """Adapt a frozen CLIP to a few labelled images, to a larger auxiliary set, or to both.

    Args:
        support: A support set, or the JSON file of one. None for methods that an auxiliary set is enough for.
        auxiliary: A second data set with lesion masks, or its folder, for methods that are trained on one; see
            ``ultraad methods``. Its images are never evaluated either.
        auxiliary_layout: Layout of that folder.
        method: A name from ``ultraad methods``.
        backbone: A name from ``ultraad backbones``, or one that is loaded (then device, dtype and size are its own).
        options: Of the method, nested or dotted, plus ``calibration.folds`` and ``calibration.rule``.
        classes: Without a support set: class names in label order; those of the text bank if None.
        normal_class: Without a support set: the class that means "no lesion"; None takes the one named so.
        seed: Same seed, same support, same model.
        device: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``.
        dtype: Of the image tower. ``"auto"`` takes bfloat16 where it is measurably faster; ``model.describe()`` says
            which it was.
        size: Input side in pixels; the weights' own if None.
        calibrate: Fit thresholds by cross-validation (one more fit for each fold); otherwise they are 0.5. With an
            auxiliary set they are 0.5, too: every fold would be trained on all of it again.
        progress: Called with (what is being done, done, total).

    Raises:
        ConfigError: If a name or an option is unknown, nothing is given to learn from, or the method cannot use an
            auxiliary set.
        DataError: If the support or the auxiliary set lacks something the method needs, or a file cannot be read.
        WeightsError: If the backbone's weights are missing.
    """
    chosen = methods.get(method)
    config, folds = _split_options(chosen, options)
    _check_sources(chosen, support, auxiliary, named=bool(classes or normal_class))
    if isinstance(support, (str, Path)):
        support = load_support(support)
    if isinstance(auxiliary, (str, Path)):
        auxiliary = load_auxiliary(auxiliary, layout=auxiliary_layout)
    names, normal = (support.classes, support.normal_class) if support else _class_names(config, classes, normal_class)
    tower = _tower(backbone, device=device, dtype=dtype, size=size)
    preprocess = Preprocess(tower.preprocess)
    samples = support.samples if support else ()
    batch = load_batch(samples, preprocess, classes=names, normal_class=normal)
    others = None
    if auxiliary is not None:
        others = AuxiliaryBatches(auxiliary, preprocess, batch_size=_batch_size(config), seed=seed)

    def make() -> Method:
        return chosen(tower, config, classes=names, normal_class=normal)

    tell = progress or _silent
    fitted = make()
    fitted.progress = lambda done, total: tell("adapt", done, total)
    report = fitted.fit(batch, auxiliary=others, seed=seed)
    fitted.progress = None
    if calibrate and others is None:
        found = cross_validate(
            make,
            batch,
            samples,
            config=folds,
            seed=seed,
            progress=lambda done, total: tell("cross-validate", done, total),
        )
    else:
        why = "calibration was turned off" if others is None else "trained on an auxiliary set, so no fold was held out"
        found = fixed(has_map="map" in chosen.info.outputs, note=why)
    if isinstance(backbone, str):  # nobody else uses this tower
        tower.cache.clear()
    learned_from = fingerprints_of(others.samples, auxiliary.source) if auxiliary and others else ()
    return Model(
        fitted,
        calibration=found,
        origin=_origin(report, "few-shot" if support else "auxiliary", seed=seed, support=support, others=learned_from),
        support=[(p, s.label or "") for p, s in zip(fingerprints(support), samples, strict=True)] if support else (),
        auxiliary=[(p, s.label or "") for p, s in zip(learned_from, others.samples if others else (), strict=True)],
    )


def zero_shot(
    *,
    backbone: str | Backbone = DEFAULT,
    classes: Sequence[str] | None = None,
    normal_class: str | None = None,
    method: str = "ultraad",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtype: DTypeChoice = "float32",
    size: int | None = None,
) -> Model:
    """A model from sentences alone: no image is seen, and thresholds are 0.5.

    Args:
        backbone: As in :func:`adapt`.
        classes: Class names in label order; those of the text bank if None (normal, benign, malignant).
        normal_class: The class that means "no lesion"; None takes the one named so.
        method: As in :func:`adapt`; it must accept an empty support set.
        options: Of the method, e.g. other sentences.
        seed: Of the method's random start.
        device: As in :func:`adapt`.
        dtype: As in :func:`adapt`.
        size: As in :func:`adapt`.

    Raises:
        ConfigError: If a name or an option is unknown, or the method needs images.
        WeightsError: If the backbone's weights are missing.
    """
    chosen = methods.get(method)
    if not chosen.info.zero_shot:
        able = _names_of(lambda info: info.zero_shot)
        msg = f"{method} learns from images and has no zero-shot form; adapt it, or take one of: {able}"
        raise ConfigError(msg)
    config, _ = _split_options(chosen, options)
    names, normal = _class_names(config, classes, normal_class)
    tower = _tower(backbone, device=device, dtype=dtype, size=size)
    fitted = chosen(tower, config, classes=names, normal_class=normal)
    empty = load_batch([], Preprocess(tower.preprocess), classes=names, normal_class=normal)
    report = fitted.fit(empty, seed=seed)
    note = "zero-shot: no images to fit a threshold on; expect to move it for your scanner"
    return Model(
        fitted,
        calibration=fixed(has_map="map" in chosen.info.outputs, note=note),
        origin=_origin(report, "zero-shot", seed=seed),
    )


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
    from ultraad.bundle import read

    return read(folder, device=device, dtype=dtype, backbone=backbone)


# --- pieces ----------------------------------------------------------------------------------------------------------


def _silent(what: str, done: int, total: int) -> None:
    """No progress wanted."""


def _check_sources(method: type[Method], support: object | None, auxiliary: object | None, *, named: bool) -> None:
    """Refuse, before any work, what cannot be learned from."""
    name = method.info.name
    if support is None and auxiliary is None:
        msg = f"nothing to adapt {name} to: give a support set, an auxiliary set, or both; without images use zero_shot"
        raise ConfigError(msg)
    if auxiliary is not None and not method.info.auxiliary:
        able = _names_of(lambda info: info.auxiliary)
        msg = f"{name} learns from the support set alone and cannot use an auxiliary set; those that can: {able}"
        raise ConfigError(msg)
    if support is not None and named:
        msg = "the support set brings its own classes; leave out classes and normal_class, or draw it with them"
        raise ConfigError(msg)


def _names_of(wanted: Callable[[MethodInfo], bool]) -> str:
    found = [name for name in methods.available() if wanted(methods.get(name).info)]
    return ", ".join(found) or "none"


def _class_names(config: Any, classes: Sequence[str] | None, normal: str | None) -> tuple[tuple[str, ...], str]:  # noqa: ANN401
    """(classes, normal class) where no support set says them: as given, or from the text bank."""
    bank = getattr(config, "texts", None) or breast_texts()
    names = tuple(classes or bank.classes)
    normal = normal or next(filter(is_normal, names), None)
    if normal is None:
        msg = f"none of the classes {', '.join(names)} is known to mean 'no lesion'; name it with normal_class="
        raise ConfigError(msg)
    return names, normal


def _batch_size(config: Any) -> int:  # noqa: ANN401
    """The method's own, so that a step on the auxiliary set is as large as one on the support."""
    return int(getattr(getattr(config, "train", config), "batch_size", _AUXILIARY_BATCH))


def _split_options(method: type[Method], given: Mapping[str, Any] | None) -> tuple[Any, CalibrationConfig]:
    """The method's options and, under ``calibration``, those of the thresholds."""
    own: dict[str, Any] = {}
    thresholds: dict[str, Any] = {}
    for key, value in (given or {}).items():
        head, _, rest = key.partition(".")
        if head != "calibration":
            own[key] = value
        elif rest:
            thresholds[rest] = value
        elif isinstance(value, dict):
            thresholds |= value
        else:
            msg = f"option 'calibration' wants a mapping such as {{folds: 4}}, found {value!r}"
            raise ConfigError(msg)
    return (
        resolve(method.Config, own, where=f"options of {method.info.name}"),
        resolve(CalibrationConfig, thresholds, where="options under calibration"),
    )


def _tower(backbone: str | Backbone, *, device: str, dtype: DTypeChoice, size: int | None) -> Backbone:
    if isinstance(backbone, Backbone):
        return backbone
    return load_backbone(backbone, device=device, dtype=dtype, size=size)


def _origin(
    report: FitReport,
    protocol: ProtocolName,
    *,
    seed: int,
    support: SupportSet | None = None,
    others: Sequence[Fingerprint] = (),
) -> Origin:
    auxiliary = None
    if others:
        code = digest((p.id for p in others), (p.sha256 for p in others))
        auxiliary = Auxiliary(source=others[0].source, images=len(others), digest=code)
    return Origin(
        protocol=protocol,
        seed=seed,
        shots=support.shots if support else 0,
        source=support.source if support else None,
        support_digest=support.digest if support else None,
        auxiliary=auxiliary,
        selection=report.selection,
        loss=report.loss,
        seconds=round(report.seconds, 2),
        learned=dict(report.learned),
        notes=report.notes,
    )
