"""What a method needs, what a support set holds, and in words what is missing. Nothing here reads a pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ultraad.types import Batch, SupportSet

_SHOWN = 5  # ids in a message


@dataclass(frozen=True, slots=True)
class Needs:
    """What ``fit`` requires; checked before any work.

    Attributes:
        normal_images: At least one image of the normal class.
        abnormal_images: At least one image of another class.
        class_labels: Every image has a class.
        masks: Every abnormal image has a usable mask.
        auxiliary: A second, larger data set.
    """

    normal_images: bool = False
    abnormal_images: bool = False
    class_labels: bool = False
    masks: bool = False
    auxiliary: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """What a support set holds.

    Attributes:
        counts: {class: number of images} of every class in label order, also of those without an image.
        normal_class: The one that means "no lesion".
        unlabelled: Ids of images without a class; they count as abnormal.
        unmasked: Ids of abnormal images without a usable mask.
    """

    counts: Mapping[str, int]
    normal_class: str
    unlabelled: tuple[str, ...] = ()
    unmasked: tuple[str, ...] = ()

    @classmethod
    def of_batch(cls, batch: Batch, classes: Sequence[str], normal_class: str) -> Holding:
        """What a labelled batch holds."""
        labels = [] if batch.labels is None else batch.labels.tolist()
        masked = [False] * len(labels) if batch.mask_known is None else batch.mask_known.tolist()
        names = [classes[y] if y >= 0 else None for y in labels]
        return cls._of(batch.ids, names, masked, classes, normal_class)

    @classmethod
    def of_support(cls, support: SupportSet) -> Holding:
        """What a support set holds, by its records."""
        s = support.samples
        masked = [bool(x.masks) and x.mask_aligned for x in s]
        return cls._of([x.id for x in s], [x.label for x in s], masked, support.classes, support.normal_class)

    @classmethod
    def _of(
        cls,
        ids: Sequence[str],
        labels: Sequence[str | None],
        masked: Sequence[bool],
        classes: Sequence[str],
        normal_class: str,
    ) -> Holding:
        counts = Counter(labels)
        rows = list(zip(ids, labels, masked, strict=True))
        return cls(
            counts={c: counts[c] for c in classes},
            normal_class=normal_class,
            unlabelled=tuple(i for i, label, _ in rows if label not in classes),
            unmasked=tuple(i for i, label, known in rows if label != normal_class and not known),
        )

    @property
    def normal(self) -> int:
        """Number of normal images."""
        return self.counts[self.normal_class]

    @property
    def abnormal(self) -> int:
        """Number of the others."""
        return sum(self.counts.values()) - self.normal + len(self.unlabelled)

    @property
    def masks(self) -> int:
        """Number of abnormal images with a usable mask."""
        return self.abnormal - len(self.unmasked)

    @property
    def lesion_classes(self) -> tuple[str, ...]:
        """The abnormal classes that have images."""
        return tuple(c for c, n in self.counts.items() if n and c != self.normal_class)

    @property
    def only(self) -> Literal["normal", "lesions"] | None:
        """``"normal"`` or ``"lesions"`` if all images are of that kind; None if there are both, or none at all."""
        if bool(self.normal) == bool(self.abnormal):
            return None
        return "normal" if self.normal else "lesions"

    def __str__(self) -> str:
        found = [f"{n} {c}" for c, n in self.counts.items() if n]
        return ", ".join([*found, *([f"{len(self.unlabelled)} without a class"] if self.unlabelled else [])])


def missing(needs: Needs, held: Holding, *, outputs: Collection[str]) -> str:
    """What a support set with images lacks, as the end of a sentence; empty if nothing.

    Args:
        needs: Of the method.
        held: What the support set holds.
        outputs: Of the method.
    """
    normal = held.normal_class
    if needs.class_labels and held.unlabelled:
        return f"needs a class for every support image; unknown for: {', '.join(held.unlabelled[:_SHOWN])}"
    if needs.normal_images and not held.normal:
        return f"needs normal images, and the support set has none ({held}); add images of the class {normal!r}"
    if needs.abnormal_images and not held.abnormal:
        return (
            f"needs images with a lesion, and the support set has none ({held}); "
            f"add images of a class other than {normal!r}"
        )
    if needs.masks and held.unmasked:
        return f"needs a mask for every abnormal support image; missing for: {', '.join(held.unmasked[:_SHOWN])}"
    if held.only == "lesions" and "classes" in outputs and not _graded(held) and not _mapped(held, outputs):
        more = "masks or images of a second class" if "map" in outputs else "images of a second class"
        return f"has nothing to learn from lesions of one class ({held}); add {more}"
    return ""


def notes(held: Holding, *, outputs: Collection[str]) -> tuple[str, ...]:
    """What a user must know about a model whose support set has no normal image; otherwise empty."""
    if held.only != "lesions":
        return ()
    if "classes" not in outputs:
        return (
            "no support image is normal: the map has learned from lesions and the tissue around them, and the image "
            "score, which is made from it, was never compared with a normal image",
        )
    adapted = ["grading"] * _graded(held) + ["the map"] * _mapped(held, outputs)
    verb = "are" if len(adapted) > 1 else "is"
    return (
        f"no support image is normal: {' and '.join(adapted)} {verb} adapted; detection (normal against lesion) stays "
        f"zero-shot, by the sentences about {held.normal_class!r}",
    )


def _graded(held: Holding) -> bool:
    """Whether lesions can be told apart."""
    return len(held.lesion_classes) > 1


def _mapped(held: Holding, outputs: Collection[str]) -> bool:
    """Whether masks can teach a map."""
    return "map" in outputs and held.masks > 0
