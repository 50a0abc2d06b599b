"""One line of ``results.jsonl`` and ``bench.json``, typed. docs/bench-format.md shows the fields.

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

    name: str = Field(description="as in the recipe")
    fingerprint: str = Field(description="sha256 over its weights")
    size: int = Field(description="input side in pixels")
    dtype: str = Field(description="number type of the image tower")
    parameters: int | None = Field(None, description="frozen values")


class AdaptFacts(Facts):
    """What the method was adapted on."""

    name: str = Field(description="data set, or several joined by `+`")
    layouts: tuple[str, ...] = Field(description="layout of each")
    classes: tuple[str, ...] = Field(description="in label order")
    normal_class: str = Field(description='the class that means "no lesion"')
    per_patient: bool = Field(description="drawn patient by patient")
    exclude_tags: tuple[str, ...] = Field(description="images with these tags are not drawn")
    images: int = Field(description="images in the support set")
    patients: int = Field(description="patients in the support set, as far as known")
    support: str | None = Field(description="digest of the support set; null for zero-shot")


class AuxiliaryFacts(Facts):
    """The auxiliary set."""

    set: str = Field(description="data set")
    images: int = Field(description="its images")


class TestSetFacts(Facts):
    """What the method was tested on."""

    name: str = Field(description="unique in the recipe")
    set: str = Field(description="data set")
    title: str = Field(description="for reports")
    layout: str | None = Field(None, description="of the data set")
    split: str | None = Field(None, description="published split; null for all")
    include_tags: tuple[str, ...] = Field((), description="only images with all of these tags")
    exclude_tags: tuple[str, ...] = Field((), description="no image with any of these tags")
    transform: str = Field("none", description="`paint_overlays`: coloured overlays are painted out")
    digest: str | None = Field(None, description="sha256 over pictures, truth and patients")
    key: str | None = Field(None, description="file in `pictures/`")
    images: int | None = Field(None, description="images of the test set")


class TestedFacts(TestSetFacts):
    """A test set, and what became of it in one row."""

    left_out: int | None = Field(None, description="images of the support or its patients; null until evaluated")
    failed: dict[str, str] = Field({}, description="`{id: reason}` of images that could not be used")


class ThresholdFacts(Facts):
    """Thresholds, and where they come from."""

    calibrated: bool = Field(description="false: thresholds are 0.5, and metrics at a threshold must be flagged")
    rule: str = Field(description="how they came about")
    folds: int = Field(description="of the cross-validation")
    image_threshold: float = Field(description="for images")
    pixel_threshold: float | None = Field(description="for pixels; null without maps")


class FitFacts(Facts):
    """What `fit` did."""

    selection: str = Field(description="the rule that chose the state")
    epoch: int | None = Field(description="null unless one was chosen")
    loss: tuple[float, ...] = Field(description="mean per epoch")
    learned: dict[str, int] = Field(description="`{parameter: number of values}`")
    parameters: int = Field(description="values learned")
    notes: tuple[str, ...] = Field(description="what the method wants a user to read")


class Timings(Facts):
    """Wall times, given as if the row were alone."""

    adapt_seconds: float = Field(description="fit, the cross-validation included")
    predict_ms: float = Field(description="per image")
    encode_ms: float = Field(description="of it, for frozen features")
    evaluate_seconds: float = Field(description="reading, predicting, measuring")


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
    processor: str | None = Field(None, description="its name")
    cores: int | None = Field(None, description="of the machine")
    threads: int | None = Field(None, description="of the job")
    device: str | None = Field(None, description="of the backbone")


class Confusion(Facts):
    """Counts of images by true and most probable class."""

    classes: tuple[str, ...] = Field(description="in label order")
    matrix: tuple[tuple[int, ...], ...] = Field(description="true classes in rows")


class Bootstrap(Facts):
    """How intervals were made."""

    unit: Literal["patient", "image"] = Field(description="what is drawn as a whole")
    resamples: int = Field(description="0: no intervals")
    seed: int = Field(description="of the draws")


class Row(Facts):
    """A line of ``results.jsonl``."""

    format: str = Field(FORMAT, description=f'`"{FORMAT}"`')
    id: str = Field(description="16 hex digits over all that fixes the result")
    job: str = Field(description="16 hex digits; rows of one job share one fitted model")
    status: Status = Field(description='`"ok"`, `"error"` or `"not_public"` (the test set cannot be had)')
    reason: str | None = Field(None, description="why there is no result; null if `ok`")
    recipe: str = Field(description="name of the recipe")
    method: str = Field(description='module name, such as `"tip_adapter"`')
    label: str = Field(description="name in tables; unique for each line under `methods`")
    title: str = Field(description="the method's one-line title")
    given: dict[str, Any] = Field(description="options as the recipe gives them")
    options: dict[str, Any] = Field(description="all options, resolved")
    outputs: tuple[str, ...] = Field(description='subset of `["classes", "map", "score"]`')
    shots: int = Field(description="images per class; 0 is zero-shot")
    seed: int = Field(description="of the draw and of everything random")
    protocol: Protocol = Field(description='`"honest"` or `"published"`')
    transductive: bool = Field(description="whether statistics of the test set went into the result")
    habits: tuple[str, ...] = Field((), description="published: what of the reference's habit was reproduced")
    backbone: BackboneFacts = Field(description="the frozen backbone")
    adapt: AdaptFacts = Field(description="what it was adapted on")
    auxiliary: AuxiliaryFacts | None = Field(None, description="the auxiliary set; null without one")
    test: TestedFacts = Field(description="what it was tested on")
    calibration: ThresholdFacts | None = Field(None, description="thresholds; null unless `ok`")
    fit: FitFacts | None = Field(None, description="null unless `ok`")
    timings: Timings | None = Field(None, description="null unless `ok`")
    metrics: Metrics | None = Field(None, description="`{name: metric}`; null unless `ok`")
    subsets: dict[str, Metrics] | None = Field(None, description="`{without_<tag>: metrics}`")
    curves: dict[str, Any] | None = Field(None, description="points of ROC, precision-recall and reliability")
    confusion: Confusion | None = Field(None, description="true classes in rows")
    n: dict[str, int] | None = Field(None, description="counts of images, lesions, patients ...")
    bootstrap: Bootstrap | None = Field(None, description="behind the intervals")
    peak_memory_mb: float | None = Field(None, description="largest memory of the process, 10^6 bytes")
    peak_device_mb: float | None = Field(None, description="the same on the GPU; null without one")
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
    tags: tuple[str, ...] = Field((), description="sorted")
    pixels: ImagePixels | None = Field(None, description="this image's own; null without map or usable mask")

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
    normals: int = Field(0, description="images without")
    classes: dict[str, int] = Field({}, description="`{name: images}`")
    patients: int = Field(0, description="as far as known")
    devices: dict[str, int] = Field({}, description="`{name: images}`")
    public: bool = Field(default=True, description="whether anybody can have it")
    reason: str | None = Field(None, description="why not")


class SupportSummary(Facts):
    """A support set in ``bench.json``."""

    digest: str = Field(description="of the support set")
    file: str = Field(description="in this folder")
    source: str = Field(description="layout it was drawn from")
    shots: int = Field(description="images per class")
    seed: int = Field(description="of the draw")
    images: int = Field(description="images")
    patients: int = Field(0, description="as far as known")
    ids: tuple[str, ...] = Field((), description="of its images")
    duplicates: dict[str, tuple[tuple[str, str], ...]] = Field(
        {}, description="`{test name: [[support id, test id], ...]}` of images with equal bytes"
    )


class MethodSummary(Facts):
    """A method in ``bench.json``."""

    label: str = Field(description="name in tables")
    method: str = Field(description="module name")
    title: str = Field("", description="one line")
    paper: str = Field("", description="authors, venue, year")
    url: str = Field("", description="of the paper")
    reference: str = Field("", description="reference implementation")
    licence: str = Field("", description="of the reference implementation")
    outputs: tuple[str, ...] = Field((), description='subset of `["classes", "map", "score"]`')
    deviations: tuple[str, ...] = Field((), description="differences from the reference")


class PlannedRows(Facts):
    """The rows that a recipe asks for."""

    planned: int = Field(0, description="number of jobs")
    rows: tuple[str, ...] = Field((), description="ids of all rows")
    labels: tuple[str, ...] = Field((), description="the recipe's name for each; two labels may share an id")


class Bench(Facts):
    """``bench.json``."""

    format: str = Field(FORMAT, description=f'`"{FORMAT}"`')
    status: str = Field("running", description="`running` (or killed), `complete`, `interrupted`, `failed`")
    recipe: Recipe = Field(description="the recipe with every default")
    path: str | None = Field(None, description="the file it came from")
    reference: str = Field("", description="label that the others are compared with")
    roots: dict[str, str] = Field({}, description="`{data set: folder}` of those that were there")
    tests: tuple[TestSetSummary, ...] = Field((), description="for each test set")
    supports: tuple[SupportSummary, ...] = Field((), description="for each support set")
    methods: tuple[MethodSummary, ...] = Field((), description="for each label, in the order of the recipe")
    jobs: PlannedRows = Field(PlannedRows(), description="the rows that the recipe asks for")
    versions: dict[str, str] = Field({}, description="of the last run: `{package: version}`")
    machine: MachineFacts | None = Field(None, description="of the last run: `system`, `cores`")
    started: str | None = Field(None, description="ISO time, UTC, of the last run")
    finished: str | None = Field(None, description="the same")
    seconds: float | None = Field(None, description="wall time of the last run")
