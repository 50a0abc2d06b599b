"""The files of one run, typed: a line of ``predictions.jsonl``, and ``run.json``.

Reading is lenient: an unknown key is ignored, and a missing one has its default.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ultraad.config import Strict
from ultraad.fan import Fan
from ultraad.model.calibration import Estimate
from ultraad.model.exported import ExportFacts
from ultraad.model.reasons import Why
from ultraad.model.record import Description, Setting
from ultraad.types import Box

Status = Literal["running", "complete", "interrupted", "failed"]
GIVEN = "given"
"""The rule of a threshold that was chosen by hand."""


class Facts(BaseModel):
    """Frozen facts that are read from a file or written to one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, keys in the order of the fields, unset fields left out."""
        return self.model_dump(mode="json", exclude_unset=True)

    def to_json(self) -> str:
        """:meth:`to_dict` as one line of strict JSON, without NaN."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


class InputFile(Facts):
    """The file of an image when it was predicted, so that a replaced file is noticed."""

    size: int = Field(description="its size in bytes")
    sha256: str = Field(description="its sha256")


class LesionRow(Facts):
    """One lesion of an image (:mod:`ultraad.metrics.lesions`); points are x, y in pixels, (0, 0) the outer corner."""

    score: float = Field(description="highest map value inside")
    peak: tuple[int, int] = Field(description="pixel x, y of that value")
    box: tuple[int, int, int, int] = Field(description="x, y, width, height")
    area_px: int = Field(description="pixels, without holes")
    area_mm2: float | None = Field(None, description="the same in mm2; null if the pixel spacing is unknown")
    long_px: float = Field(description="long axis: the largest distance between two points of the outline, in pixels")
    short_px: float = Field(description="short axis: the longest diameter perpendicular to it, in pixels")
    long_mm: float | None = Field(None, description="long axis in mm; null if the pixel spacing is unknown")
    short_mm: float | None = Field(None, description="short axis in mm, likewise")
    long_axis: tuple[float, float, float, float] = Field(description="its ends, x0, y0, x1, y1")
    short_axis: tuple[float, float, float, float] = Field(description="its ends, likewise")
    outline: tuple[int, ...] = Field(description="corners along the edges of pixels, x0, y0, x1, y1, ..., clockwise")
    holes: tuple[tuple[int, ...], ...] = Field((), description="the same of each hole")


class ScopeRow(Facts):
    """Whether the model can judge an image (:mod:`ultraad.model.scope`)."""

    ok: bool | None = Field(description="false: out of scope; null: not known")
    reference: float | None = Field(
        None,
        description="p-value: share of images of an unseen scanner that are at least as unlike the ultrasound that the "
        "backbone knows; null without such a record",
    )
    support: float | None = Field(
        None, description="p-value of likeness to the support images; null without them, or with fewer than four"
    )
    words: str = Field("", description="the same in words")
    distance: float | None = Field(
        None, description="logarithm of the distance to the support images, likewise; for `--sets shift=0.9`"
    )


class ImageRow(Facts):
    """A line of ``predictions.jsonl``: one predicted image."""

    id: str = Field(description="sample id: unique within a run")
    image: str = Field(description="path of the file, or URL of the object on a store, when it was predicted")
    frame: int = Field(0, description="0-based frame of a file with several")
    seconds: float | None = Field(
        None, description="of a frame of a video or camera: time since its first frame, 6 digits; null for an image"
    )
    depth: int | None = Field(
        None, description="bits that the 16-bit pictures of the run's set use; null if they have 8 bits, or if unknown"
    )
    width: int | None = Field(None, description="of the image in pixels; null from an older version")
    height: int | None = Field(None, description="likewise")
    score: float = Field(description="anomaly score, higher is more anomalous; in [0, 1]")
    abnormal: bool = Field(description="whether `score` reaches the image threshold of the run")
    probs: dict[str, float] | None = Field(
        None, description="`{class: probability}`; null if the method does not grade"
    )
    unsure: bool | None = Field(
        None, description="with `--abstain`: whether the class is left open; null without, or if it does not grade"
    )
    prediction_set: tuple[str, ...] | None = Field(
        None, description="with `--sets`: every class that the image may be, possibly none; null without"
    )
    in_scope: ScopeRow | None = Field(
        None, description="whether the model can judge the image; null from an older version"
    )
    why: Why | None = Field(None, description="with `--why`: why it gets this prediction; null without")
    label: str | None = Field(None, description="true class; null if unknown")
    anomalous: bool | None = Field(None, description="true for lesion, false for normal, null if unknown")
    group: str | None = Field(None, description="patient; null if unknown")
    tags: tuple[str, ...] = Field((), description="facts such as `marks` or `doppler`, sorted")
    map: str | None = Field(
        None, description="path of the 16-bit map, or of its grid, below the folder; null if not written"
    )
    overlay: str | None = Field(None, description="path of the overlay below the folder; null if not written")
    mask: str | None = Field(None, description="path of the predicted mask, likewise")
    contours: str | None = Field(None, description="path of the picture with its outline, likewise")
    lesions: tuple[LesionRow, ...] | None = Field(
        None, description="lesions at the pixel threshold, highest score first; null if not saved (`--save boxes`)"
    )
    specks: int | None = Field(
        None, description="regions of less than 0.05 % of the image, which are no lesions; null if not saved"
    )
    region: Box | None = Field(
        None, description="x, y, width, height of the part that the model saw; null: the whole image"
    )
    fan: Fan | None = Field(
        None,
        description="the pixels that count as tissue: `kind` of array, `box`, `apex`, `radii` and `angles` of the fan; "
        "kind `whole` or `none`: all, because tissue fills the picture or no fan is certain; null: not looked for",
    )
    mask_known: bool = Field(default=False, description="whether the map can be compared with a mask")
    file: InputFile | None = Field(None, description="the file when it was predicted; null if unknown")

    @property
    def video(self) -> str | None:
        """The name of the video or camera that a frame is from; None for an image."""
        return None if self.seconds is None else self.id.rpartition("#")[0]

    @property
    def name(self) -> str:
        """The last two parts of the id: enough to find the image, and no home folder in a page that is shared."""
        return "/".join(self.id.split("/")[-2:])

    @property
    def out_of_scope(self) -> bool:
        """Whether the model cannot judge it; False if that is not known."""
        return self.in_scope is not None and self.in_scope.ok is False

    @property
    def guess(self) -> str | None:
        """The most probable class."""
        return max(self.probs, key=self.probs.__getitem__) if self.probs else None

    @property
    def verdict(self) -> str | None:
        """``"missed"``, ``"false alarm"`` or ``"right"`` at the threshold; None if the truth is unknown."""
        if self.anomalous is None:
            return None
        if self.anomalous == self.abnormal:
            return "right"
        return "missed" if self.anomalous else "false alarm"


class Thresholds(Facts):
    """The thresholds of a run."""

    image: float | None = Field(None, description="an image is abnormal if its score is at least this")
    pixel: float | None = Field(
        None, description="a pixel is lesion if its map value is at least this; null without maps"
    )
    smooth: float | None = Field(
        None, description="seconds of the time constant by which frames were smoothed before; null: they were not"
    )
    image_rule: str | None = Field(
        None, description="how `image` was found: `given`, or the rule of an operating point; null: stored in the model"
    )
    pixel_rule: str | None = Field(
        None, description="`given`, or the rule of an operating point of pixels; null: stored in the model"
    )
    prevalence: float | dict[str, float] | None = Field(
        None,
        description="share of images with a lesion, or of each class, that class probabilities take for granted; "
        "null: that of the support set, or equal classes without one",
    )
    abstain: str | None = Field(
        None, description="when an image is `unsure`, such as `cost=0.2` or `size=1`; null: never"
    )
    sets: str | None = Field(
        None,
        description="wanted share of prediction sets that hold the true class: `0.9` of all images, `class=0.9` of "
        "those of each class, `shift=0.9` of those of the scanner that the model was retuned to; null: no sets",
    )
    sensitivity: Estimate | None = Field(
        None,
        description="with `image_rule`: share of the held-out lesion images of the support set that reach `image`, "
        "with its 95 % interval and `n`; null if unknown",
    )
    specificity: Estimate | None = Field(None, description="the same for normal images that do not reach it")
    notes: tuple[str, ...] = Field((), description="what the support set cannot show about `image`, `pixel` and `sets`")


class _Digest(Strict):
    digest: str


class ModelFacts(Description, _Digest):  # in this order, the digest is the first key
    """The model of a run: its digest, its description and, for an exported model, facts about the export."""

    model_config = ConfigDict(extra="ignore")

    exported: ExportFacts | None = None


class DataFacts(Facts):
    """The images of a run."""

    paths: tuple[str, ...] | None = Field(
        None, description="predict: files, folders and patterns as given, of all runs in the folder"
    )
    root: str | None = Field(None, description="evaluate: folder of the data set; null for samples given in Python")
    layout: str | None = Field(None, description="evaluate: its layout")
    split: str | None = Field(None, description="evaluate: only this published split")
    images: int = Field(0, description="images found, by all runs in the folder")
    videos: int = Field(0, description="predict: videos and cameras found, likewise")
    resize_masks: bool = Field(
        default=False, description="evaluate: whether masks of another size but the same aspect were resized"
    )


class Peak(Facts):
    """The frame of a video with the highest score."""

    frame: int = Field(description="its number")
    seconds: float = Field(description="its time")
    score: float = Field(description="its score")
    overlay: str | None = Field(None, description="path of its overlay, a PNG, below the folder; null if not written")


class VideoFacts(Facts):
    """One video or camera of a run that was read to its end."""

    name: str = Field(description="path, or name of the camera; the ids of its frames are `<name>#<number>`")
    file: InputFile | None = Field(None, description="the file when it was predicted; null for a camera")
    frames: int = Field(description="predicted frames, as in `predictions.jsonl`")
    failed: int = Field(0, description="faults, as in `errors.jsonl`; neighbouring damaged frames are one")
    dropped: int = Field(0, description="frames of a camera that came faster than they could be predicted")
    abnormal: int = Field(0, description="frames whose score reaches the image threshold")
    first: float | None = Field(None, description="seconds of the first of these; null if there is none")
    last: float | None = Field(None, description="seconds of the last of these; null if there is none")
    peak: Peak | None = Field(None, description="the frame with the highest score")
    key_frames: tuple[int, ...] = Field(
        (), description="abnormal frames by falling score, each at least a second from those before, at most 5"
    )
    seconds: float | None = Field(None, description="time of the last predicted frame")
    every: int = Field(1, description="every how many frames one was predicted")
    frame: int | None = Field(None, description="the only frame that was to be predicted; null for all")
    limit: float | None = Field(None, description="seconds after which reading stopped; null for all")
    rate: float = Field(description="frames a second of the source, on average")
    overlay: str | None = Field(None, description="path of the overlay video below the folder; null if not written")


class LeakageFacts(Facts):
    """The check that the evaluated images were not used to make the model."""

    checked: bool = Field(default=False, description="whether the check was done")
    leaks: int = Field(0, description="images of the support or auxiliary set or of their patients")
    dropped: int = Field(0, description="number of these that were left out")


class Run(Facts):
    """``run.json``: what was run, on which images, with which model."""

    command: Literal["predict", "evaluate"] = Field(description="`predict` or `evaluate`")
    started: str | None = Field(None, description="ISO time, UTC")
    model: ModelFacts | None = Field(
        None, description="the model's `digest` and the content of its `config.json`, without the held-out scores"
    )
    thresholds: Thresholds = Field(Thresholds(), description="`image` and `pixel`, in use")
    protocol: Setting | None = Field(
        None, description="few-shot, zero-shot, or auxiliary (trained only on another data set)"
    )
    support_digest: str | None = Field(None, description="digest of the support set; null without one")
    versions: dict[str, str] = Field({}, description="of the packages that results depend on")
    data: DataFacts | None = Field(None, description="which images: `paths`, or `root`, `layout` and `split`; `images`")
    videos: tuple[VideoFacts, ...] = Field((), description="videos and cameras that were read to their end")
    keep_out_of_scope: bool = Field(
        default=False, description="predict: whether images out of scope count in the report and on the screen"
    )
    leakage: LeakageFacts | None = Field(None, description="evaluate: `checked`, `leaks` found, `dropped`")
    status: Status | None = Field(None, description="running, complete, interrupted or failed")
    images: int | None = Field(None, description="images in the folder")
    failed: int | None = Field(None, description="images that could not be used, as in `errors.jsonl`")
    seconds: float | None = Field(None, description="wall time")
    images_per_second: float | None = Field(None, description="of this run")

    def lost(self, rows: int) -> int:
        """How many results of a run that was complete cannot be read any more, if its folder has this many lines."""
        return max(0, (self.images or 0) - rows) if self.status == "complete" else 0
