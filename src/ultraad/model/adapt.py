"""Make a model: adapt a frozen CLIP to a few labelled images, or use it with text alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ultraad import methods
from ultraad.backbones import DEFAULT, load_backbone
from ultraad.backbones._door import Backbone, DTypeChoice
from ultraad.config import names_of, resolve
from ultraad.data.auxiliary import AuxiliaryBatches, AuxiliarySet, load_auxiliary
from ultraad.data.fans import checked_fan, fan_choice
from ultraad.data.loader import load_batch
from ultraad.data.preprocess import Preprocess
from ultraad.data.sources import is_normal
from ultraad.data.support import Fingerprint, digest, fingerprints, fingerprints_of, load_support
from ultraad.errors import ConfigError, DataError
from ultraad.fan import FanChoice
from ultraad.io.faults import one_run
from ultraad.methods._base import Method, MethodInfo
from ultraad.methods._needs import Holding
from ultraad.model.calibration import LONG_FOLDS, CalibrationConfig, cross_validate, fixed
from ultraad.model.checkpoint import Checkpoints
from ultraad.model.model import Model, scope_of
from ultraad.model.organ import with_sentences
from ultraad.model.record import Auxiliary, Origin, Setting
from ultraad.nn.loop import Plan, duration
from ultraad.texts.bank import breast_texts
from ultraad.types import Batch, FitReport, SupportSet

_AUXILIARY_BATCH = 8
"""Images per step for methods without an option for it (APRIL-GAN and AnomalyCLIP use 8)."""


@one_run()
def adapt(
    support: SupportSet | str | Path | None = None,
    *,
    auxiliary: AuxiliarySet | str | Path | None = None,
    auxiliary_layout: str = "auto",
    resize_masks: bool = False,
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
    loaded: Batch | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    announce: Callable[[str], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Model:
    """Adapt a frozen CLIP to a few labelled images, to a larger auxiliary set, or to both.

    Args:
        support: A support set, or its JSON file. None for methods that need only an auxiliary set.
        auxiliary: A second data set with lesion masks, or its folder, for methods that train on one; see
            ``ultraad methods``. Its images are never evaluated. Those of a folder are seen in their fans if those of
            the support set are.
        auxiliary_layout: Layout of that folder.
        resize_masks: For the masks of that folder, as in :func:`ultraad.scan`.
        method: A name from ``ultraad methods``, or ``"package.module:NAME"``.
        backbone: A name as in :func:`ultraad.load_backbone`, or a loaded backbone, which keeps its own device, dtype
            and size.
        options: Options of the method, nested or dotted, plus ``calibration.folds`` and ``calibration.rule``. If
            ``texts`` is not given, the sentences are about the organ that the layout of the images names, else about
            the breast.
        classes: Without a support set: class names in label order; those of the text bank if None.
        normal_class: Without a support set: the class that means "no lesion"; if None, it is recognised by its name.
        seed: The same seed and support set give the same model.
        device: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``.
        dtype: Number type of the image tower. ``"auto"`` chooses bfloat16 where it is measurably faster;
            ``model.describe()`` says which was chosen.
        size: Input side in pixels; the default of the weights if None.
        calibrate: Fit thresholds by cross-validation (one more fit for each fold); otherwise they are 0.5. They are
            also 0.5 with an auxiliary set, because every fold would train on all of it again.
        loaded: The images of the support set as :func:`ultraad.data.loader.load_batch` gives them for this backbone,
            if they are in memory already; None reads the files.
        progress: Called with (step, done, total).
        announce: Called before a training of minutes, with a sentence about its size, time and memory.
        checkpoint: Folder where a method that trains for minutes keeps its state. The same call goes on from there
            after an interruption, and gives the same bits. It is for you to remove once the model is saved.

    Raises:
        ConfigError: If a name or an option is unknown, no images are given, or the method cannot use an auxiliary set.
        DataError: If the support or the auxiliary set lacks something the method needs, or a file cannot be read.
        WeightsError: If the backbone's weights are missing.

    Examples:
        >>> import ultraad
        >>> from ultraad.simulate import write_dataset
        >>> folder = write_dataset("simulated", n=6, size=64)
        >>> support = ultraad.draw_support("simulated", shots=1)
        >>> model = ultraad.adapt(support, backbone="tiny", options={"train.epochs": 1})
        >>> model.classes
        ('normal', 'benign', 'malignant')
    """
    chosen = methods.get(method)
    config, folds = _split_options(chosen, options)
    _check_sources(chosen, support, auxiliary, named=bool(classes or normal_class))
    if isinstance(support, (str, Path)):
        support = load_support(support)
    if support is not None:
        _check_needs(chosen, config, support, auxiliary=auxiliary is not None)
    fan, mixed = fan_choice(support.samples if support else ())
    if isinstance(auxiliary, (str, Path)):
        auxiliary = load_auxiliary(auxiliary, layout=auxiliary_layout, resize_masks=resize_masks, fan=fan)
    if images := support or auxiliary:
        config = with_sentences(config, images.source)
    names, normal = (support.classes, support.normal_class) if support else _class_names(config, classes, normal_class)
    used = _loaded(backbone, device=device, dtype=dtype, size=size)
    preprocess = Preprocess(used.preprocess)
    samples = support.samples if support else ()
    batch = loaded
    if batch is None:
        batch = load_batch(samples, preprocess, classes=names, normal_class=normal)
    others = None
    if auxiliary is not None:
        others = AuxiliaryBatches(auxiliary, preprocess, batch_size=_batch_size(config), seed=seed)

    def make() -> Method:
        return chosen(used, config, classes=names, normal_class=normal)

    def tell(step: str, done: int, total: int) -> None:
        if progress is not None:
            progress(step, done, total)

    fitted = make()
    kept = None
    if checkpoint is not None and chosen.long:
        kept = Checkpoints(Path(checkpoint), _run(fitted, batch, seed=seed))
        fitted.checkpoint = kept.of("fit")
    if announce is not None:
        fitted.announce = lambda plan: announce(_in_words(plan, folds.folds if calibrate else 0))
    fitted.progress = lambda done, total: tell("adapt", done, total)
    report = fitted.fit(batch, auxiliary=others, seed=seed)
    fitted.progress = fitted.announce = fitted.checkpoint = None
    if calibrate and others is None:
        found = cross_validate(
            make,
            batch,
            samples,
            config=folds,
            seed=seed,
            progress=lambda done, total: tell("cross-validate", done, total),
            checkpoints=kept,
        )
    else:
        why = "calibration was turned off" if others is None else "trained on an auxiliary set, so no fold was held out"
        found = fixed(has_map="map" in chosen.info.outputs, note=why)
    if isinstance(backbone, str):  # loaded here, so nothing else uses it
        used.cache.clear()
    learned_from = fingerprints_of(others.samples, auxiliary.source) if auxiliary and others else ()
    return Model(
        fitted,
        calibration=found,
        origin=_origin(report, seed=seed, support=support, others=learned_from, notes=mixed),
        support=[(p, s.label or "") for p, s in zip(fingerprints(support), samples, strict=True)] if support else (),
        auxiliary=[(p, s.label or "") for p, s in zip(learned_from, others.samples if others else (), strict=True)],
        scope=scope_of(used, batch.images),
        fan=fan,
    )


def with_thresholds(
    model: Model,
    support: SupportSet,
    *,
    options: Mapping[str, Any] | None = None,
    loaded: Batch | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """The same model with thresholds from cross-validation, for one that was adapted with ``calibrate=False``.

    Args:
        model: Adapted to ``support`` alone.
        support: Its support set.
        options: Those that :func:`adapt` got; only ``calibration`` counts here.
        loaded: As in :func:`adapt`.
        progress: Called with (folds done, folds).

    Raises:
        ConfigError: If an option is unknown.
        DataError: If a file cannot be read.
    """
    method = model.method
    _, folds = _split_options(type(method), options)
    batch = loaded
    if batch is None:
        batch = load_batch(support.samples, model.preprocess, classes=method.classes, normal_class=method.normal_class)

    def make() -> Method:
        return type(method)(method.backbone, method.config, classes=method.classes, normal_class=method.normal_class)

    found = cross_validate(make, batch, support.samples, config=folds, seed=model.origin.seed, progress=progress)
    return Model(
        method,
        calibration=found,
        origin=model.origin,
        support=model.support,
        auxiliary=model.auxiliary,
        scope=model.scope,
        fan=model.fan,
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
    fan: FanChoice = "off",
) -> Model:
    """Make a model from text alone: no image is used, and thresholds are 0.5.

    Args:
        backbone: As in :func:`adapt`.
        classes: Class names in label order; those of the text bank if None (normal, benign, malignant).
        normal_class: The class that means "no lesion"; if None, it is recognised by its name.
        method: As in :func:`adapt`; it must work without images.
        options: Options of the method, e.g. other sentences.
        seed: Of the method's initial values.
        device: As in :func:`adapt`.
        dtype: As in :func:`adapt`.
        size: As in :func:`adapt`.
        fan: How it sees pictures unless it is told otherwise, as in :func:`ultraad.predict`.

    Raises:
        ConfigError: If a name or an option is unknown, or the method needs images.
        WeightsError: If the backbone's weights are missing.

    Examples:
        >>> import ultraad
        >>> model = ultraad.zero_shot(backbone="tiny", classes=["normal", "cyst"])
        >>> model.classes, model.calibration.image_threshold
        (('normal', 'cyst'), 0.5)
    """
    chosen = methods.get(method)
    if not chosen.info.zero_shot:
        able = _names_of(lambda info: info.zero_shot)
        msg = f"{method} learns from images and has no zero-shot form; adapt it, or use one of: {able}"
        raise ConfigError(msg)
    config, _ = _split_options(chosen, options)
    names, normal = _class_names(config, classes, normal_class)
    used = _loaded(backbone, device=device, dtype=dtype, size=size)
    fitted = chosen(used, config, classes=names, normal_class=normal)
    empty = load_batch([], Preprocess(used.preprocess), classes=names, normal_class=normal)
    report = fitted.fit(empty, seed=seed)
    note = "zero-shot: no images to fit a threshold on; expect to move it for your scanner"
    return Model(
        fitted,
        calibration=fixed(has_map="map" in chosen.info.outputs, note=note),
        origin=_origin(report, seed=seed),
        scope=scope_of(used, empty.images),
        fan=checked_fan(fan),
    )


def _run(method: Method, batch: Batch, *, seed: int) -> dict[str, Any]:
    """What decides about every bit of a training."""
    backbone = method.backbone
    pixels = hashlib.sha256(batch.images.numpy().tobytes()).hexdigest()
    return {
        "method": method.info.name,
        "options": method.config.model_dump(mode="json"),
        "classes": method.classes,
        "images": [batch.ids, pixels, [] if batch.labels is None else batch.labels.tolist()],
        "seed": seed,
        "backbone": [backbone.fingerprint, backbone.size, str(backbone.dtype), str(backbone.device)],
    }


def _in_words(plan: Plan, folds: int) -> str:
    """A sentence about a training, and about those of the cross-validation."""
    if not folds:
        return str(plan)
    return (
        f"{plan}; with {folds} folds of the cross-validation about {duration((1 + folds) * plan.seconds)} "
        "(--no-calibrate leaves them out)"
    )


def _check_sources(method: type[Method], support: object | None, auxiliary: object | None, *, named: bool) -> None:
    """Check, before any work, that the method can learn from the given data."""
    name = method.info.name
    if support is None and auxiliary is None:
        msg = (
            f"no images to adapt {name} to: give a support set, an auxiliary set, or both; without images use zero_shot"
        )
        raise ConfigError(msg)
    if auxiliary is not None and not method.info.auxiliary:
        able = _names_of(lambda info: info.auxiliary)
        msg = f"{name} learns from the support set alone and cannot use an auxiliary set; methods that can: {able}"
        raise ConfigError(msg)
    if support is not None and named:
        msg = "the support set has its own classes; leave out classes and normal_class, or draw the set with them"
        raise ConfigError(msg)


def _check_needs(method: type[Method], config: Any, support: SupportSet, *, auxiliary: bool) -> None:  # noqa: ANN401
    """Check, before any work, that a support set has what the method needs; if not, name methods it is enough for."""
    held = Holding.of_support(support)
    alone = method.info.auxiliary_alone and auxiliary  # then the support set is not used
    if not alone and (lack := method.missing(held, config, auxiliary=auxiliary)):
        able = [n for n in methods.available() if not (m := methods.get(n)).missing(held, m.Config(), auxiliary=False)]
        hint = f". This support set is enough for: {', '.join(able)}" if able else ""
        msg = f"{method.info.name} {lack}{hint}"
        raise DataError(msg)


def _names_of(wanted: Callable[[MethodInfo], bool]) -> str:
    found = [name for name in methods.available() if wanted(methods.get(name).info)]
    return ", ".join(found) or "none"


def _class_names(config: Any, classes: Sequence[str] | None, normal: str | None) -> tuple[tuple[str, ...], str]:  # noqa: ANN401
    """(classes, normal class) without a support set: as given, or from the text bank."""
    bank = getattr(config, "texts", None) or breast_texts()
    names = tuple(names_of(classes or bank.classes))
    normal = normal or next(filter(is_normal, names), None)
    if normal is None:
        msg = f"none of the classes {', '.join(names)} is known to mean 'no lesion'; name one with normal_class="
        raise ConfigError(msg)
    return names, normal


def _batch_size(config: Any) -> int:  # noqa: ANN401
    """The method's batch size, so that steps on the auxiliary set are as large as on the support set."""
    return int(getattr(getattr(config, "train", config), "batch_size", _AUXILIARY_BATCH))


def _split_options(method: type[Method], given: Mapping[str, Any] | None) -> tuple[Any, CalibrationConfig]:
    """The options of the method, and those of the thresholds, whose keys begin with ``calibration``."""
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
    if method.long:
        thresholds = {"folds": LONG_FOLDS, **thresholds}
    return (
        resolve(method.Config, own, where=f"options of {method.info.name}"),
        resolve(CalibrationConfig, thresholds, where="options under calibration"),
    )


def _loaded(backbone: str | Backbone, *, device: str, dtype: DTypeChoice, size: int | None) -> Backbone:
    if isinstance(backbone, Backbone):
        return backbone
    return load_backbone(backbone, device=device, dtype=dtype, size=size)


def _origin(
    report: FitReport,
    *,
    seed: int,
    support: SupportSet | None = None,
    others: Sequence[Fingerprint] = (),
    notes: Sequence[str] = (),
) -> Origin:
    setting: Setting = "few-shot" if support else "auxiliary" if others else "zero-shot"
    auxiliary = None
    if others:
        code = digest((p.id for p in others), (p.sha256 for p in others))
        auxiliary = Auxiliary(source=others[0].source, images=len(others), digest=code)
    return Origin(
        setting=setting,
        seed=seed,
        shots=support.shots if support else 0,
        support_classes=tuple(c for c, n in Holding.of_support(support).counts.items() if n) if support else (),
        source=support.source if support else None,
        support_digest=support.digest if support else None,
        auxiliary=auxiliary,
        selection=report.selection,
        loss=report.loss,
        seconds=round(report.seconds, 2),
        learned=dict(report.learned),
        notes=(*report.notes, *notes),
    )
