"""The data types of ultraad. Read this file first.

    Sample (a file on disk)  ->  Batch (the input of a method)  ->  Prediction (the output for one image)

Letters in shape comments, the same in every file:
    b batch   n patches (gh * gw, row-major)   t prompts   d joint image-text dim   w tower width   c classes
    k shots   l layer (1-based)   h w pixels   gh gw patch grid   s model input side   H W original pixels
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ultraad.fan import Fan
from ultraad.geometry import Box, Geometry, MapGrid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

__all__ = [
    "Batch",
    "Box",
    "Features",
    "FitReport",
    "Geometry",
    "InScope",
    "Interpolation",
    "MapGrid",
    "Prediction",
    "PreprocessConfig",
    "Region",
    "ResizeMode",
    "Result",
    "Sample",
    "Scores",
    "Spacing",
    "Stored",
    "SupportSet",
    "View",
]

ResizeMode = Literal["squash", "pad"]
Interpolation = Literal["bicubic", "bilinear"]
Spacing = tuple[float, float]
"""Pixel spacing (row, col) in mm."""


@dataclass(frozen=True, slots=True)
class Region:
    """A lesion outline from an annotation file (COCO) instead of a mask image.

    Attributes:
        size: (height, width) in pixels of the image the outline was drawn on.
        polygons: Each a flat tuple x0, y0, x1, y1, ... in pixels, x to the right, y down.
        rle: COCO run lengths, column-major, starting with background; empty if polygons are used.
    """

    size: tuple[int, int]
    polygons: tuple[tuple[float, ...], ...] = ()
    rle: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A B-mode region of a frame, from the header of its DICOM file.

    Attributes:
        box: Its pixels.
        spacing_mm: Its pixel spacing; None if unknown.
    """

    box: Box
    spacing_mm: Spacing | None

    def holds(self, box: Box) -> bool:
        """Whether a box lies in it completely."""
        (x, y, w, h), (left, top, width, height) = box, self.box
        return left <= x and top <= y and x + w <= left + width and y + h <= top + height


@dataclass(frozen=True, slots=True)
class Stored:
    """An object on a store, of which a sample's file is a copy for the time of a run.

    Attributes:
        url: Without credentials and query.
        fault: Why there is no copy; None if there is one.
    """

    url: str
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One image on disk and the known facts about it; holds no pixels.

    Attributes:
        id: Stable and unique within its source: the path relative to the source's root (plus ``#frame``).
        image: Path of the image or DICOM file.
        frame: 0-based frame of a multi-frame file.
        masks: Mask images or outlines, OR-ed together; empty means "no mask is known".
        label: Class name, e.g. ``"benign"``; None if unknown.
        anomalous: True for lesion, False for normal, None if unknown.
        group: Patient (or cine) the image belongs to; None if unknown.
        split: Split published with the data (``"train"``, ``"test"`` ...); None if there is none.
        spacing_mm: Pixel spacing (row, col) in mm; None if unknown, or if it differs between the views.
        views: The B-mode regions of the frame; empty if the file describes none that can be trusted.
        region: The part of the image that a model gets to see; None for the whole. Its map is 0 elsewhere.
        fan: Its pixels that show tissue: the others are black for the model. ``"auto"``: looked for later. None: all.
        site: Hospital; None if unknown.
        device: Scanner; None if unknown.
        tags: Facts that evaluation can filter by, e.g. ``"doppler"``, ``"marks"``, ``"combined"``.
        depth: Bits that the 16-bit pictures of its set use (:func:`ultraad.io.set_depth`); None if they have 8 bits.
        mask_aligned: False if the masks are known not to fit this image's pixel grid; such a sample is never used for
            mask supervision or pixel metrics.
        resize_masks: True if masks of another size but the same aspect are resized.
        seconds: Of a frame of a video or camera: time since its first frame; None for everything else.
        stored: The object that ``image`` is a copy of, which rows and messages name; None for a file of its own.

    Examples:
        >>> import ultraad
        >>> from pathlib import Path
        >>> sample = ultraad.Sample("a.png", Path("a.png"), label="benign", anomalous=True, group="patient 7")
        >>> sample.masks, sample.frame
        ((), 0)
    """

    id: str
    image: Path
    frame: int = 0
    masks: tuple[Path | Region, ...] = ()
    label: str | None = None
    anomalous: bool | None = None
    group: str | None = None
    split: str | None = None
    spacing_mm: Spacing | None = None
    views: tuple[View, ...] = ()
    region: Box | None = None
    fan: Fan | Literal["auto"] | None = None
    site: str | None = None
    device: str | None = None
    tags: frozenset[str] = frozenset()
    depth: int | None = None
    mask_aligned: bool = True
    resize_masks: bool = False
    seconds: float | None = None
    stored: Stored | None = None

    def spacing_at(self, box: Box) -> Spacing | None:
        """Pixel spacing of a part of the image; None if unknown, or if no view holds all of it.

        If several views hold it, they must agree.
        """
        if not self.views:
            return self.spacing_mm
        found = {view.spacing_mm for view in self.views if view.holds(box)}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class SupportSet:
    """The few labelled images that a model is adapted to. It stores ids, not indices, so the data can be scanned again.

    Attributes:
        samples: Ordered by class, then by draw order: the first k of a class are its k-shot set.
        classes: Class names; the order fixes label numbers. The normal class, or all others, may have no images.
        normal_class: The member of ``classes`` that means "no lesion".
        shots: Images per class that has any.
        seed: Seed of the draw.
        source: ``"<layout>:<root>"`` of the folder it was drawn from.
        digest: sha256 over ids and image bytes; support sets with the same digest hold the same images.

    Examples:
        >>> import ultraad
        >>> from ultraad.simulate import write_dataset
        >>> folder = write_dataset("simulated", n=6, size=64)
        >>> support = ultraad.draw_support("simulated", shots=1)
        >>> support.classes, support.normal_class, len(support.samples)
        (('normal', 'benign', 'malignant'), 'normal', 3)
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    normal_class: str
    shots: int
    seed: int
    source: str
    digest: str


@dataclass(frozen=True, slots=True)
class PreprocessConfig:
    """How pixels become the backbone's input. It comes with the weights and is stored with every model.

    Attributes:
        size: Side s of the square input in pixels.
        mean: Per channel, on the 0..1 scale.
        std: Per channel, on the 0..1 scale.
        interpolation: Resampling of images (masks are always nearest).
        mode: ``"squash"`` (both sides to s, as the reference implementations do) or ``"pad"`` (letterbox).
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    mode: ResizeMode = "squash"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The input of a method: tensors on the model grid, without paths.

    Attributes:
        ids: Sample ids, length b.
        images: float32 (b 3 s s), preprocessed and normalised.
        geometry: Length b.
        classes: Class names, in label order.
        labels: int64 (b,), index into ``classes``; -1 where unknown; None if unlabelled.
        anomalous: bool (b,); None if unlabelled.
        masks: bool (b s s), True on lesion; None if unlabelled.
        mask_known: bool (b,), False where no usable mask exists (then ``masks`` is all False there).
        groups: Patient per image, None where unknown; empty if unlabelled.
    """

    ids: tuple[str, ...]
    images: torch.Tensor
    geometry: tuple[Geometry, ...]
    classes: tuple[str, ...] = ()
    labels: torch.Tensor | None = None
    anomalous: torch.Tensor | None = None
    masks: torch.Tensor | None = None
    mask_known: torch.Tensor | None = None
    groups: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def unlabelled(self) -> Batch:
        """The same images without labels, masks and patients, which a method must not see at test time."""
        return replace(self, labels=None, anomalous=None, masks=None, mask_known=None, groups=())

    def select(self, index: list[int]) -> Batch:
        """The sub-batch at these positions, in this order."""
        tensors = ("images", "labels", "anomalous", "masks", "mask_known")
        picked: dict[str, Any] = {name: t[index] for name in tensors if (t := getattr(self, name)) is not None}
        for name in ("ids", "geometry", "groups"):
            known = getattr(self, name)
            picked[name] = tuple(known[i] for i in index) if known else ()
        return replace(self, **picked)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The raw outputs of the image tower; nothing is normalised.

    Attributes:
        image: float32 (b d), class token after ln_post and projection.
        patches: {layer: float32 (b n w)}, residual stream after that block, class token cut off.
        cls: {layer: float32 (b w)}, its class token.
        grid: (gh, gw) with n == gh * gw, row-major.
        detail: (b k 2gh 2gw), what ``Backbone.finer`` makes finer patches from; None if the backbone has none.
    """

    image: torch.Tensor
    patches: Mapping[int, torch.Tensor]
    cls: Mapping[int, torch.Tensor]
    grid: tuple[int, int]
    detail: torch.Tensor | None = None

    def select(self, index: list[int] | torch.Tensor) -> Features:
        """The features of these images, in this order."""
        return Features(
            image=self.image[index],
            patches={layer: x[index] for layer, x in self.patches.items()},
            cls={layer: x[index] for layer, x in self.cls.items()},
            grid=self.grid,
            detail=None if self.detail is None else self.detail[index],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The outputs of a method, on the model grid.

    Attributes:
        score: float32 (b,), higher is more anomalous.
        map: float32 (b mh mw) covering the whole model input, higher is more anomalous; None if the method has no map.
        logits: float32 (b c); softmax gives class probabilities; None if the method does not grade.
    """

    score: torch.Tensor
    map: torch.Tensor | None = None
    logits: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class InScope:
    """Whether the model can judge an image (:mod:`ultraad.model.scope`); ``ok`` is None if that is not known.

    ``reference`` and ``support`` are p-values: like the ultrasound the backbone knows, and like the support images.
    """

    ok: bool | None
    reference: float | None
    support: float | None
    words: str
    distance: float | None = None  # logarithm of the distance to the support images


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The output for one image.

    Attributes:
        id: Sample id.
        score: Anomaly score, higher is more anomalous; a probability in [0, 1] for methods that say so.
        map: float32 (H W) on the ORIGINAL pixel grid of the file; None if the method has no map.
        probs: {class name: probability}, sums to 1; None if the method does not grade.
        method: Name of the method.
        in_scope: Whether the model can judge this image; None if not asked.
        prediction_set: Every class that it may be (:mod:`ultraad.model.prediction_sets`); None if not asked.
        grid: The map as the method drew it; None without a map, or if the map was changed on the pixels.

    Examples:
        >>> import numpy as np, ultraad
        >>> prediction = ultraad.zero_shot(backbone="tiny").predict(np.zeros((120, 160), np.uint8))
        >>> prediction.map.shape, list(prediction.probs), prediction.method
        ((120, 160), ['normal', 'benign', 'malignant'], 'ultraad')
    """

    id: str
    score: float
    map: NDArray[np.float32] | None
    probs: dict[str, float] | None
    method: str
    in_scope: InScope | None = None
    prediction_set: tuple[str, ...] | None = None
    grid: MapGrid | None = None

    @property
    def out_of_scope(self) -> bool:
        """Whether the model cannot judge the image; False if that is not known."""
        return self.in_scope is not None and self.in_scope.ok is False


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One predicted sample of a stream.

    Attributes:
        sample: The sample.
        image: uint8 (H W 3), the file's pixels.
        prediction: The model's output.
        mask: bool (H W), True on lesion; None if no usable mask is known. All False for a normal image.
    """

    sample: Sample
    image: NDArray[np.uint8]
    prediction: Prediction
    mask: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class FitReport:
    """The record of ``fit``.

    Attributes:
        selection: The rule that chose the returned state, e.g. ``"last epoch"``; it never uses the test set.
        loss: Mean training loss per epoch; empty if nothing was trained.
        seconds: Wall time of ``fit``.
        learned: {parameter name: number of values}.
        notes: Notes for users, e.g. "no masks: classification only".
    """

    selection: str
    loss: tuple[float, ...] = ()
    seconds: float = 0.0
    learned: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
