"""A line of ``results.jsonl`` and the content of ``bench.json``, typed. docs/bench-format.md is made from it.

A row is one method with its options, on one backbone, adapted on one support set, tested on one test set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from ultraad.bench.recipe import Protocol, Recipe  # pydantic resolves annotations at run time
from ultraad.metrics.metric import Metric
from ultraad.results.row import Facts

FORMAT = "ultraad.bench/1"
Status = Literal["ok", "error", "not_public"]
Metrics = dict[str, Metric]


class BackboneFacts(Facts):
    """The frozen backbone."""

    name: str = Field(description="name in the recipe")
    fingerprint: str = Field(description="sha256 over its weights")
    size: int = Field(description="input side in pixels")
    dtype: str = Field(description="number format of the image tower")
    parameters: int | None = Field(None, description="number of frozen values")


class AdaptFacts(Facts):
    """What the method was adapted on."""

    name: str = Field(description="data set, or several joined by `+`")
    layouts: tuple[str, ...] = Field(description="layout of each")
    classes: tuple[str, ...] = Field(description="in label order")
    normal_class: str = Field(description='the class that means "no lesion"')
    per_patient: bool = Field(description="whether patients were drawn instead of images")
    exclude_tags: tuple[str, ...] = Field(description="images with these tags are not drawn")
    images: int = Field(description="size of the support set")
    patients: int = Field(description="patients in the support set, as far as known")
    support: str | None = Field(description="digest of the support set; null for zero-shot")


class AuxiliaryFacts(Facts):
    """The auxiliary set."""

    set: str = Field(description="data set")
    images: int = Field(description="number of images")


class TestSetFacts(Facts):
    """What the method was tested on."""

    name: str = Field(description="name, unique in the recipe")
    set: str = Field(description="data set")
    title: str = Field(description="name in reports")
    layout: str | None = Field(None, description="layout of the data set")
    split: str | None = Field(None, description="published split; null for the whole data set")
    include_tags: tuple[str, ...] = Field((), description="only images with all of these tags")
    exclude_tags: tuple[str, ...] = Field((), description="no image with any of these tags")
    transform: str = Field("none", description="`paint_overlays`: coloured overlays are painted out")
    digest: str | None = Field(None, description="sha256 over images, truth and patients")
    key: str | None = Field(None, description="stem of its file in `pictures/`")
    images: int | None = Field(None, description="size of the test set")


class TestedFacts(TestSetFacts):
    """A test set as one row used it."""

    left_out: int | None = Field(None, description="images of the support or its patients; null until evaluated")
    failed: dict[str, str] = Field({}, description="`{id: reason}` of images that could not be used")


class ThresholdFacts(Facts):
    """Thresholds and their source."""

    calibrated: bool = Field(description="false: thresholds are 0.5, and metrics at a threshold must be flagged")
    rule: str = Field(description="rule that chose them")
    folds: int = Field(description="folds of the cross-validation")
    image_threshold: float = Field(description="threshold of image scores")
    pixel_threshold: float | None = Field(description="threshold of map values; null without maps")


class FitFacts(Facts):
    """What `fit` did."""

    selection: str = Field(description="rule that chose the model state")
    epoch: int | None = Field(description="epoch that was chosen; null if none was")
    loss: tuple[float, ...] = Field(description="mean training loss per epoch")
    learned: dict[str, int] = Field(description="`{parameter: number of values}`")
    parameters: int = Field(description="number of learned values")
    notes: tuple[str, ...] = Field(description="remarks for the user")


class Timings(Facts):
    """Wall times, as if the row had been run alone."""

    adapt_seconds: float = Field(description="fitting, with the cross-validation")
    predict_ms: float = Field(description="prediction of one image")
    encode_ms: float = Field(description="part of `predict_ms` for frozen features")
    evaluate_seconds: float = Field(description="reading, predicting and computing metrics")


class Files(Facts):
    """Paths in the folder."""

    predictions: str | None = Field(None, description="one line per test image")
    pixels: str | None = Field(None, description="table for paired tests on pixel metrics")
    maps: str | None = Field(None, description="small maps")
    error: str | None = Field(None, description="traceback")
    pictures: str | None = Field(None, description="small pictures of the test set")


class MachineFacts(Facts):
    """Where it ran."""

    system: str = Field(description="operating system")
    processor: str | None = Field(None, description="name of the processor")
    cores: int | None = Field(None, description="cores of the machine")
    threads: int | None = Field(None, description="threads of the job")
    device: str | None = Field(None, description="device of the backbone")


class Confusion(Facts):
    """Counts of images by true and most probable class."""

    classes: tuple[str, ...] = Field(description="in label order")
    matrix: tuple[tuple[int, ...], ...] = Field(description="true classes in rows")


class Bootstrap(Facts):
    """How intervals were made."""

    unit: Literal["patient", "image"] = Field(description="what is drawn")
    resamples: int = Field(description="number of resamples; 0 for no intervals")
    seed: int = Field(description="seed of the resamples")


class Row(Facts):
    """A line of ``results.jsonl``."""

    format: str = Field(FORMAT, description=f'`"{FORMAT}"`')
    id: str = Field(description="16 hex digits of a hash over everything that determines the result")
    job: str = Field(description="16 hex digits; rows of one job share one fitted model")
    status: Status = Field(description='`"ok"`, `"error"` or `"not_public"` (the test set is not available)')
    reason: str | None = Field(None, description="why there is no result; null if `ok`")
    recipe: str = Field(description="name of the recipe")
    method: str = Field(description='module name, such as `"tip_adapter"`')
    label: str = Field(description="name in tables; unique for each line under `methods`")
    title: str = Field(description="the method's one-line title")
    given: dict[str, Any] = Field(description="options as the recipe gives them")
    options: dict[str, Any] = Field(description="all options, resolved")
    outputs: tuple[str, ...] = Field(description='subset of `["classes", "map", "score"]`')
    shots: int = Field(description="images per class; 0 is zero-shot")
    seed: int = Field(description="seed of the draw and of every random number")
    protocol: Protocol = Field(description='`"honest"` or `"published"`')
    transductive: bool = Field(description="whether statistics of the test set went into the result")
    habits: tuple[str, ...] = Field((), description="published rows: uses of the test set that were reproduced")
    backbone: BackboneFacts = Field(description="the frozen backbone")
    adapt: AdaptFacts = Field(description="what it was adapted on")
    auxiliary: AuxiliaryFacts | None = Field(None, description="the auxiliary set; null without one")
    test: TestedFacts = Field(description="what it was tested on")
    calibration: ThresholdFacts | None = Field(None, description="thresholds; null unless `ok`")
    fit: FitFacts | None = Field(None, description="null unless `ok`")
    timings: Timings | None = Field(None, description="null unless `ok`")
    metrics: Metrics | None = Field(None, description="`{name: metric}`; null unless `ok`")
    subsets: dict[str, Metrics] | None = Field(None, description="`{without_<tag>: metrics}`")
    curves: dict[str, Any] | None = Field(
        None, description="points of ROC, precision-recall, reliability and risk-coverage"
    )
    confusion: Confusion | None = Field(None, description="true classes in rows")
    n: dict[str, int] | None = Field(None, description="counts of images, lesions, patients ...")
    bootstrap: Bootstrap | None = Field(None, description="how the intervals were made")
    peak_memory_mb: float | None = Field(None, description="peak memory of the process in 10^6 bytes")
    peak_device_mb: float | None = Field(None, description="peak memory on the GPU in 10^6 bytes; null without one")
    files: Files = Field(description="paths in this folder, or null")
    versions: dict[str, str] = Field(description="`{package: version}`")
    machine: MachineFacts = Field(description="where it ran")
    finished: str = Field(description="ISO time, UTC")

    def value(self, metric: str, *, subset: str | None = None) -> float | None:
        """A metric's value on all images or on a subset; None if it was not measured or is not defined."""
        metrics = self.metrics if subset is None else (self.subsets or {}).get(subset)
        found = (metrics or {}).get(metric)
        return None if found is None else found.value


class MeasuredRow(Row):
    """A row with a result: ``status`` is ``"ok"``, and nothing that was measured is null."""

    calibration: ThresholdFacts
    fit: FitFacts
    timings: Timings
    metrics: Metrics
    n: dict[str, int]
    bootstrap: Bootstrap


def parse_row(facts: Mapping[str, Any]) -> Row:
    """A line of ``results.jsonl`` as a :class:`MeasuredRow` if it has a result, else as a :class:`Row`.

    Raises:
        pydantic.ValidationError: If a field is missing or has another type.
    """
    return (MeasuredRow if facts.get("status") == "ok" else Row).model_validate(facts)


class ImagePixels(Facts):
    """Pixel metrics of one image; all but ``lesion`` are null without a lesion."""

    lesion: float = Field(description="share of lesion pixels")
    auroc: float | None = Field(None, description="pixel AUROC")
    ap: float | None = Field(None, description="pixel average precision")
    dice_best: float | None = Field(None, description="largest Dice over all thresholds")
    peak: float | None = Field(None, description="1 if the highest map value is inside a lesion; the share if several")
    dice: float | None = Field(None, description="Dice at the stored threshold")
    iou: float | None = Field(None, description="intersection over union at the stored threshold")


class ImageLine(Facts):
    """A line of ``predictions/<id>.jsonl``: one test image of a row."""

    id: str = Field(description="sample id")
    score: float = Field(description="anomaly score, higher is more anomalous")
    probs: dict[str, float] | None = Field(None, description="`{class: probability}` or null")
    label: str | None = Field(None, description="true class; null if unknown")
    anomalous: bool | None = Field(None, description="the truth; null if unknown")
    group: str | None = Field(None, description="patient; null if unknown")
    device: str | None = Field(None, description="scanner; null if unknown")
    site: str | None = Field(None, description="hospital; null if unknown")
    tags: tuple[str, ...] = Field((), description="facts such as `marks` or `doppler`, sorted")
    pixels: ImagePixels | None = Field(None, description="metrics of this image alone; null without map or usable mask")

    @property
    def guess(self) -> str | None:
        """The most probable class; None if the method does not grade."""
        return max(self.probs, key=self.probs.__getitem__) if self.probs else None

    @property
    def own_ap(self) -> float | None:
        """The image's own pixel average precision; None without map, usable mask or lesion."""
        return None if self.pixels is None else self.pixels.ap


class TestSetSummary(TestSetFacts):
    """A test set in ``bench.json``."""

    lesions: int = Field(0, description="images with a lesion")
    normals: int = Field(0, description="images without a lesion")
    classes: dict[str, int] = Field({}, description="`{name: images}`")
    patients: int = Field(0, description="number of patients, as far as known")
    devices: dict[str, int] = Field({}, description="`{name: images}`")
    public: bool = Field(default=True, description="whether the data set is public")
    reason: str | None = Field(None, description="why it is not public")


class SupportSummary(Facts):
    """A support set in ``bench.json``."""

    digest: str = Field(description="digest of the support set")
    file: str = Field(description="path in this folder")
    source: str = Field(description="layout it was drawn from")
    shots: int = Field(description="images per class")
    seed: int = Field(description="seed of the draw")
    images: int = Field(description="number of images")
    patients: int = Field(0, description="number of patients, as far as known")
    ids: tuple[str, ...] = Field((), description="ids of its images")
    duplicates: dict[str, tuple[tuple[str, str], ...]] = Field(
        {}, description="`{test name: [[support id, test id], ...]}` of images with equal bytes"
    )


class MethodSummary(Facts):
    """A method in ``bench.json``."""

    label: str = Field(description="name in tables")
    method: str = Field(description="module name")
    title: str = Field("", description="title of the method")
    paper: str = Field("", description="authors, venue, year")
    url: str = Field("", description="address of the paper")
    reference: str = Field("", description="reference implementation")
    licence: str = Field("", description="licence of the reference implementation")
    outputs: tuple[str, ...] = Field((), description='subset of `["classes", "map", "score"]`')
    deviations: tuple[str, ...] = Field((), description="differences from the reference")


class PlannedRows(Facts):
    """The rows that a recipe asks for."""

    planned: int = Field(0, description="number of jobs that were planned")
    rows: tuple[str, ...] = Field((), description="ids of all rows")
    labels: tuple[str, ...] = Field((), description="the recipe's name for each; two labels may share an id")


class Bench(Facts):
    """``bench.json``."""

    format: str = Field(FORMAT, description=f'`"{FORMAT}"`')
    status: str = Field("running", description="`running` (or killed), `complete`, `interrupted`, `failed`")
    recipe: Recipe = Field(description="the recipe with every default")
    path: str | None = Field(None, description="file or name of the recipe, as given")
    reference: str = Field("", description="label that the others are compared with")
    roots: dict[str, str] = Field({}, description="`{data set: folder}` of the data sets that were found")
    tests: tuple[TestSetSummary, ...] = Field((), description="test sets")
    supports: tuple[SupportSummary, ...] = Field((), description="support sets")
    methods: tuple[MethodSummary, ...] = Field((), description="methods, in the order of the recipe")
    jobs: PlannedRows = Field(PlannedRows(), description="the rows that the recipe asks for")
    versions: dict[str, str] = Field({}, description="`{package: version}` of the last run")
    machine: MachineFacts | None = Field(None, description="machine of the last run: `system`, `cores`")
    started: str | None = Field(None, description="start of the last run, ISO time, UTC")
    finished: str | None = Field(None, description="end of the last run, likewise")
    seconds: float | None = Field(None, description="wall time of the last run")
