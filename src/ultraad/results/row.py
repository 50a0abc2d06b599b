"""What one run leaves on disk, typed: a line of ``predictions.jsonl``, and ``run.json``.

Reading is lenient: a key of another version is ignored, one that is missing has its default.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ultraad.model.record import Description, Setting


class Facts(BaseModel):
    """Frozen facts that were read from a file or are written to one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> str:
        """One line of strict JSON: no NaN, keys in the order of the fields, unset ones left out."""
        return json.dumps(self.model_dump(mode="json", exclude_unset=True), ensure_ascii=False, allow_nan=False)


class ImageRow(Facts):
    """A line of ``predictions.jsonl``: one predicted image."""

    id: str = Field(description="sample id: unique within a run")
    image: str = Field(description="path of the file when it was predicted")
    frame: int = Field(0, description="0-based frame of a file with several")
    score: float = Field(description="anomaly score, higher is more anomalous; in [0, 1]")
    abnormal: bool = Field(description="whether `score` reaches the stored image threshold")
    probs: dict[str, float] | None = Field(
        None, description="`{class: probability}`; null if the method does not grade"
    )
    label: str | None = Field(None, description="true class; null if unknown")
    anomalous: bool | None = Field(None, description="true for lesion, false for normal, null if unknown")
    group: str | None = Field(None, description="patient; null if unknown")
    tags: tuple[str, ...] = Field((), description="facts such as `marks` or `doppler`, sorted")
    map: str | None = Field(None, description="path of the 16-bit map below the folder; null if not written")
    overlay: str | None = Field(None, description="path of the overlay below the folder; null if not written")
    mask_known: bool = Field(default=False, description="whether the map can be compared with a mask")

    @property
    def name(self) -> str:
        """The last two parts of the id: enough to find the image, and no home folder in a page that is sent around."""
        return "/".join(self.id.split("/")[-2:])

    @property
    def guess(self) -> str | None:
        """The most probable class."""
        return max(self.probs, key=self.probs.__getitem__) if self.probs else None

    @property
    def verdict(self) -> str | None:
        """``"missed"``, ``"false alarm"`` or ``"right"`` at the stored threshold; None if the truth is unknown."""
        if self.anomalous is None:
            return None
        if self.anomalous == self.abnormal:
            return "right"
        return "missed" if self.anomalous else "false alarm"


class Thresholds(Facts):
    """Thresholds in use."""

    image: float | None = Field(None, description="an image is abnormal if its score is at least this")
    pixel: float | None = Field(
        None, description="a pixel is lesion if its map value is at least this; null without maps"
    )


class ModelFacts(Description):
    """The model of a run: its digest and what it is."""

    model_config = ConfigDict(extra="ignore")

    digest: str


class DataFacts(Facts):
    """The images of a run."""

    paths: tuple[str, ...] | None = Field(None, description="predict: files, folders and patterns as given")
    root: str | None = Field(None, description="evaluate: folder of the data set; null for samples given in Python")
    layout: str | None = Field(None, description="evaluate: its layout")
    split: str | None = Field(None, description="evaluate: only this published split")
    images: int = Field(0, description="images found")


class LeakageFacts(Facts):
    """The check that nothing was evaluated that the model has learned from."""

    checked: bool = Field(default=False, description="whether it was done")
    leaks: int = Field(0, description="images of the support or auxiliary set, or of their patients")
    dropped: int = Field(0, description="of these, left out")


class Run(Facts):
    """``run.json``: what was run, on what, with which model."""

    command: Literal["predict", "evaluate"] = Field(description="what was run")
    started: str | None = Field(None, description="ISO time, UTC")
    model: ModelFacts | None = Field(None, description="the model's `digest` and the content of its `config.json`")
    thresholds: Thresholds = Field(Thresholds(), description="`image` and `pixel`, in use")
    protocol: Setting | None = Field(None, description="few-shot, zero-shot, or auxiliary")
    support_digest: str | None = Field(None, description="of the support set; null without one")
    versions: dict[str, str] = Field({}, description="of the packages that results depend on")
    data: DataFacts | None = Field(None, description="which images: `paths`, or `root`, `layout` and `split`; `images`")
    leakage: LeakageFacts | None = Field(None, description="evaluate: `checked`, `leaks` found, `dropped`")
    status: Literal["running", "complete", "interrupted", "failed"] | None = Field(None, description="how it ended")
    images: int | None = Field(None, description="images in the folder")
    failed: int | None = Field(None, description="images that could not be used")
    seconds: float | None = Field(None, description="wall time")
    images_per_second: float | None = Field(None, description="of this run")
