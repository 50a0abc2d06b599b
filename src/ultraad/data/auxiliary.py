"""The auxiliary set: a larger labelled data set that some methods are trained on, read batch by batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ultraad.data import sources
from ultraad.data.fans import in_fans
from ultraad.data.loader import iterate
from ultraad.data.preprocess import Preprocess
from ultraad.errors import DataError
from ultraad.fan import FanChoice
from ultraad.io.faults import one_run
from ultraad.rng import seeded
from ultraad.types import Batch, Sample

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AuxiliarySet:
    """Images that are known to be normal or abnormal.

    Attributes:
        samples: In natural order of ids; ``anomalous`` is never None.
        source: ``"<layout>:<root>"``.
    """

    samples: tuple[Sample, ...]
    source: str


@one_run()
def load_auxiliary(
    root: Path | str,
    *,
    layout: str = "auto",
    resize_masks: bool = False,
    masks: bool = True,
    fan: FanChoice = "off",
) -> AuxiliarySet:
    """Every image of a data set that is known to be normal or abnormal.

    Masks that do not fit their image are ignored; such an abnormal image is used for detection only.

    Args:
        root: Data set in any layout; its class names may differ from those of the support.
        layout: Name of the layout, or ``"auto"``.
        resize_masks: As in :func:`ultraad.scan`.
        masks: Whether an abnormal image must have a usable mask.
        fan: As in :func:`ultraad.predict`.

    Raises:
        DataError: If nothing is found there, or no abnormal image has a usable mask.
    """
    root, layout = sources.locate(root, layout)
    found = sources.scan(root, layout=layout, resize_masks=resize_masks)
    known = [s for s in found if s.anomalous is not None]
    misaligned = [s for s in known if s.anomalous and s.masks and not s.mask_aligned]
    usable = [s for s in known if s.anomalous and s.masks and s.mask_aligned]
    if masks and not usable:
        msg = (
            f"{root} cannot be the auxiliary set: of {len(found)} images, {len(known)} are known to be normal or "
            "abnormal, and no abnormal one has a mask of the same size. Give a data set with lesion masks"
        )
        raise DataError(msg)
    if len(known) < len(found):
        _log.warning("auxiliary set: skipped %d image(s) not known to be normal or abnormal", len(found) - len(known))
    if misaligned:
        _log.warning("auxiliary set: ignored %d mask(s) that do not fit their image", len(misaligned))
    samples = tuple(s if s.mask_aligned else replace(s, masks=(), mask_aligned=True) for s in known)
    return AuxiliarySet(samples=tuple(in_fans(samples, fan)), source=f"{layout}:{root}")


def join_auxiliary(parts: Mapping[str, AuxiliarySet]) -> AuxiliarySet:
    """Several auxiliary sets as one; the name of each begins the ids of its images.

    Raises:
        DataError: If no abnormal image of any has a mask.
    """
    samples = tuple(replace(s, id=f"{name}/{s.id}") for name, part in parts.items() for s in part.samples)
    if not any(s.anomalous and s.masks for s in samples):
        msg = f"{', '.join(parts)} cannot be the auxiliary set: no abnormal image has a mask; add a set with masks"
        raise DataError(msg)
    return AuxiliarySet(samples=samples, source="+".join(part.source for part in parts.values()))


class AuxiliaryBatches:
    """An auxiliary set as a method sees it: can be iterated any number of times, each pass in a new order.

    Every pass decodes the images again, a few ahead, so that only two batches are in memory. A file that cannot be read
    is skipped with one warning. A method may use images, ``anomalous``, ``masks`` and ``mask_known``, but not the
    labels, which are those of another data set.

    Args:
        auxiliary: The images.
        preprocess: That of the backbone.
        batch_size: Images per batch; the last may be smaller.
        seed: Seed of the orders.

    Attributes:
        samples: All samples, without those that could not be read.
    """

    def __init__(self, auxiliary: AuxiliarySet, preprocess: Preprocess, *, batch_size: int, seed: int) -> None:
        self.samples = list(auxiliary.samples)
        self._preprocess = preprocess
        self._batch_size = batch_size
        self._rng = seeded(seed, "auxiliary")
        self._classes, normal = sources.class_order(auxiliary.samples)
        self._normal_class = normal or ""

    def __len__(self) -> int:
        """Number of batches of the next pass."""
        return math.ceil(len(self.samples) / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """One pass.

        Raises:
            DataError: If no image can be read.
        """
        failed: set[str] = set()

        def skip(sample: Sample, error: DataError) -> None:
            _log.warning("auxiliary set: skipped %s: %s", sample.id, error)
            failed.add(sample.id)

        order = self._rng.permutation(len(self.samples))
        batches = iterate(
            [self.samples[i] for i in order],
            self._preprocess,
            classes=self._classes,
            normal_class=self._normal_class,
            batch_size=self._batch_size,
            on_error=skip,
        )
        for _, batch in batches:
            yield batch
        self.samples = [s for s in self.samples if s.id not in failed]
        if not self.samples:
            msg = f"none of the {len(failed)} auxiliary images can be read; check them with 'ultraad data check'"
            raise DataError(msg)
