"""Batches from samples and arrays: a few at once, or many with threads that read ahead.

Reading needs no torch; only the functions that make a :class:`~ultraad.types.Batch` do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ultraad.data.fans import fan_of, with_fan
from ultraad.data.prefetch import prefetch
from ultraad.data.preprocess import Preprocess
from ultraad.errors import ConfigError, DataError, first_names
from ultraad.io import MaskSizeError, image_region, image_turn, read_image, read_mask
from ultraad.io.arrays import as_rgb8, content_of, read_content
from ultraad.io.faults import Faults, one_run
from ultraad.types import Batch, Box, Geometry, Sample

if TYPE_CHECKING:
    from typing import BinaryIO, TypeAlias

    import torch

    Readable: TypeAlias = str | os.PathLike[str] | Sample | bytes | BinaryIO | NDArray[Any] | torch.Tensor | Image.Image


_log = logging.getLogger(__name__)

_NAMED_IN_WARNING = 5  # ids


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """One sample's pixels.

    Attributes:
        sample: What was read, with its fan if that was looked for.
        image: uint8 (H W 3).
        mask: bool (H W); None if there is no usable one.
        misaligned: True if there is a mask that does not fit the image.
    """

    sample: Sample
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    misaligned: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """One decoded sample on the model grid; ``mask`` is bool (s s), None if there is no usable one."""

    decoded: Decoded
    pixels: torch.Tensor
    geometry: Geometry
    mask: torch.Tensor | None


def read_any(x: Readable, *, frame: int = 0, depth: int | None = None) -> tuple[NDArray[np.uint8], str, Box | None]:
    """The picture uint8 (h w 3), the id and the region of anything that shows one picture.

    Args:
        x: A path; a sample; the bytes of an image file, or the open file; or pixels: an array, a torch tensor or a
            Pillow image as in :func:`ultraad.io.arrays.as_rgb8`.
        frame: 0-based frame, for files with several.
        depth: Bits of integer pixels, as in :func:`ultraad.io.arrays.as_rgb8`; a file says its own.

    Raises:
        ConfigError: If a depth is given for a file, or is no number of bits.
        DataError: If the file or the pixels cannot be used.
    """
    content = content_of(x)
    if depth is not None and (content is not None or isinstance(x, (str, os.PathLike, Sample))):
        msg = f"depth={depth} is for pixels in memory; a file says its own. Leave it out"
        raise ConfigError(msg)
    if content is not None:
        pixels, region = read_content(content, frame=frame)
        return pixels, "bytes", region
    if isinstance(x, Sample):
        return read_image(x.image, frame=x.frame, depth=x.depth), x.id, x.region
    if isinstance(x, (str, os.PathLike)):
        return read_image(Path(x), frame=frame), str(x), image_region(Path(x))
    return as_rgb8(x, depth=depth), "picture" if isinstance(x, Image.Image) else "array", None


@one_run()
def load_batch(
    samples: Sequence[Sample], preprocess: Preprocess, *, classes: Sequence[str], normal_class: str
) -> Batch:
    """Decode a few labelled images into memory, e.g. a support set.

    A normal image without masks has a known, empty mask. The mask of any other image without masks is unknown
    (``mask_known`` is False), and so is a mask that does not fit its image; one warning in the log names these.

    Args:
        samples: What to load, in order.
        preprocess: That of the backbone.
        classes: Class names in label order; any other label becomes -1, with a warning.
        normal_class: The class that means "no lesion", for samples whose ``anomalous`` is None.

    Returns:
        A batch. ``labels`` is None if no sample has a label, ``anomalous`` is None if it is unknown for any sample.

    Raises:
        DataError: If a file cannot be read.
    """
    loaded = [_load(sample, preprocess, normal_class=normal_class) for sample in samples]
    warn_misaligned([item.decoded.sample.id for item in loaded if item.decoded.misaligned])
    _warn_unknown_labels({sample.label for sample in samples}, classes)
    return _pack(loaded, preprocess, classes=classes, normal_class=normal_class)


def array_batch(images: Sequence[NDArray[Any]], ids: Sequence[str], preprocess: Preprocess) -> Batch:
    """An unlabelled batch from arrays in memory.

    Args:
        images: Each as in :func:`ultraad.io.arrays.as_rgb8`; sizes may differ.
        ids: One per image.
        preprocess: That of the backbone.

    Returns:
        A batch without labels.

    Raises:
        DataError: If an array has a wrong shape, type or range, or the numbers of images and ids differ.
    """
    if len(images) != len(ids):
        msg = f"got {len(images)} images and {len(ids)} ids; give one id per image"
        raise DataError(msg)
    pairs = [preprocess.image(as_rgb8(image, name=f"the array {id_}")) for image, id_ in zip(images, ids, strict=True)]
    return input_batch(pairs, ids, preprocess)


def input_batch(inputs: Sequence[tuple[torch.Tensor, Geometry]], ids: Sequence[str], preprocess: Preprocess) -> Batch:
    """An unlabelled batch from images that ``preprocess`` has prepared, one id per image."""
    images = _stack([pixels for pixels, _ in inputs], preprocess)
    return Batch(ids=tuple(ids), images=images, geometry=tuple(geometry for _, geometry in inputs))


def iterate(
    samples: Iterable[Sample],
    preprocess: Preprocess,
    *,
    classes: Sequence[str],
    normal_class: str,
    batch_size: int,
    on_error: Callable[[Sample, DataError], None] | None = None,
    workers: int = 2,
) -> Generator[tuple[list[Decoded], Batch], None, None]:
    """Batches of any number of images, decoded ahead in threads; see :func:`~ultraad.data.prefetch.prefetch`.

    Args:
        samples: What to load; results keep this order.
        preprocess: That of the backbone.
        classes: As in :func:`load_batch`.
        normal_class: As in :func:`load_batch`.
        batch_size: Images per batch; the last may be smaller. A skipped file does not make a batch smaller.
        on_error: Called in the consumer's thread for each sample that cannot be read, which is then skipped; None
            raises.
        workers: Number of decoding threads.

    Yields:
        The decoded samples and their batch (see :func:`load_batch`).
    """
    misaligned: list[str] = []
    labels: set[str | None] = set()
    loading = prefetch(
        samples,
        lambda sample: _load(sample, preprocess, normal_class=normal_class),
        batch_size=batch_size,
        on_error=on_error,
        workers=workers,
    )
    try:
        for ready in loading:
            labels.update(item.decoded.sample.label for item in ready)
            misaligned += [item.decoded.sample.id for item in ready if item.decoded.misaligned]
            batch = _pack(ready, preprocess, classes=classes, normal_class=normal_class)
            yield [item.decoded for item in ready], batch
    finally:
        loading.close()
        warn_misaligned(misaligned)
        _warn_unknown_labels(labels, classes)


def decode(sample: Sample, *, normal_class: str) -> Decoded:
    """Read an image and its mask; see :func:`load_batch` for images without masks.

    Args:
        sample: What to read.
        normal_class: The class that means "no lesion", for a sample whose ``anomalous`` is None.

    Raises:
        DataError: If a file cannot be read.
    """
    image = _pixels_of(sample)
    sample = with_fan(sample, image)
    mask, misaligned = truth_of(sample, (image.shape[0], image.shape[1]), normal_class=normal_class)
    return Decoded(sample, image, mask, misaligned)


def _pixels_of(sample: Sample) -> NDArray[np.uint8]:
    """The picture of a sample; errors name the object that its file is a copy of."""
    if sample.stored is not None and sample.stored.fault is not None:
        raise DataError(sample.stored.fault)
    try:
        return read_image(sample.image, frame=sample.frame, depth=sample.depth)
    except DataError as e:
        if sample.stored is None:
            raise
        raise DataError(str(e).replace(str(sample.image), sample.stored.url)) from e


def truth_of(sample: Sample, shape: tuple[int, int], *, normal_class: str) -> tuple[NDArray[np.bool_] | None, bool]:
    """The mask of a sample, and whether it has one that does not fit the image; see :class:`Decoded`.

    Args:
        sample: Its image is not read.
        shape: (height, width) of its image.
        normal_class: As in :func:`decode`.

    Raises:
        DataError: If a mask cannot be read.
    """
    if sample.masks and not sample.mask_aligned:
        return None, True
    if sample.masks:
        try:
            return lesion_of(sample, shape), False
        except MaskSizeError:
            return None, True
    is_normal = _is_anomalous(sample, normal_class) is False
    return (np.zeros(shape, dtype=np.bool_) if is_normal else None), False


def lesion_of(sample: Sample, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The masks of a sample as one, on the pixels of its image of this (height, width).

    Raises:
        MaskSizeError: If a mask does not fit.
        DataError: If a mask cannot be read.
    """
    return read_mask(sample.masks, shape=shape, turn=image_turn(sample.image), resize=sample.resize_masks)


def _is_anomalous(sample: Sample, normal_class: str) -> bool | None:
    """Whether a sample shows a lesion; None if neither the sample nor its label says so."""
    if sample.anomalous is not None or sample.label is None:
        return sample.anomalous
    return sample.label != normal_class


def _load(sample: Sample, preprocess: Preprocess, *, normal_class: str) -> _Loaded:
    with Faults(f"{sample.id} cannot be prepared", about=sample.id):
        decoded = decode(sample, normal_class=normal_class)
        pixels, geometry = preprocess.image(decoded.image, sample.region, fan_of(decoded.sample))
        mask = None if decoded.mask is None else preprocess.mask(decoded.mask, sample.region)
        return _Loaded(decoded, pixels, geometry, mask)


def _pack(loaded: Sequence[_Loaded], preprocess: Preprocess, *, classes: Sequence[str], normal_class: str) -> Batch:
    import torch

    s = preprocess.config.size
    samples = [item.decoded.sample for item in loaded]
    number = {name: i for i, name in enumerate(classes)}
    anomalous = [_is_anomalous(sample, normal_class) for sample in samples]
    labelled = any(sample.label is not None for sample in samples)
    empty = torch.zeros(s, s, dtype=torch.bool)
    masks = [empty if item.mask is None else item.mask for item in loaded]
    return Batch(
        ids=tuple(sample.id for sample in samples),
        images=_stack([item.pixels for item in loaded], preprocess),
        geometry=tuple(item.geometry for item in loaded),
        classes=tuple(classes),
        labels=torch.tensor([number.get(sample.label or "", -1) for sample in samples]) if labelled else None,
        anomalous=None if None in anomalous else torch.tensor(anomalous, dtype=torch.bool),
        masks=torch.stack(masks) if masks else torch.zeros(0, s, s, dtype=torch.bool),
        mask_known=torch.tensor([item.mask is not None for item in loaded], dtype=torch.bool),
        groups=tuple(sample.group for sample in samples),
    )


def _stack(pixels: list[torch.Tensor], preprocess: Preprocess) -> torch.Tensor:
    import torch

    s = preprocess.config.size
    return torch.stack(pixels) if pixels else torch.zeros(0, 3, s, s)  # (b 3 s s)


def warn_misaligned(ids: Sequence[str]) -> None:
    """Log one warning that names the samples whose masks were refused."""
    if ids:
        named = first_names(ids, _NAMED_IN_WARNING)
        _log.warning(
            "%d mask(s) do not fit their image's pixel grid and count as unknown; 'ultraad data check' says whether "
            "--resize-masks helps: %s",
            len(ids),
            named,
        )


def _warn_unknown_labels(labels: set[str | None], classes: Sequence[str]) -> None:
    unknown = sorted({label for label in labels if label is not None} - set(classes))
    if unknown:
        named = first_names(unknown, _NAMED_IN_WARNING)
        _log.warning("label(s) %s are not among the classes %s and count as unknown", named, list(classes))
