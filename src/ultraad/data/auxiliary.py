"""The auxiliary set: a larger labelled data set that some detectors are trained on, read batch by batch."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ultraad.data import sources
from ultraad.data.loader import iterate
from ultraad.errors import DataError
from ultraad.rng import seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultraad.data.preprocess import Preprocess
    from ultraad.types import Batch, Sample

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AuxiliarySet:
    """Images that are known to be normal or abnormal.

    Attributes:
        samples: In natural order of ids; ``anomalous`` is known for all.
        source: ``"<layout>:<root>"``.
    """

    samples: tuple[Sample, ...]
    source: str


def load_auxiliary(root: Path | str, *, layout: str = "auto") -> AuxiliarySet:
    """Every image of a data set that is known to be normal or abnormal.

    Masks that do not lie on their image are left out; an abnormal image then counts for detection only.

    Args:
        root: Data set, in any layout; its class names need not be those of the support.
        layout: Name of the layout, or ``"auto"``.

    Raises:
        DataError: If nothing is found there, or no abnormal image has a usable mask.
    """
    root = Path(root).resolve()
    layout = sources.detect(root) if layout == "auto" else layout
    found = sources.scan(root, layout=layout)
    known = [s for s in found if s.anomalous is not None]
    misaligned = [s for s in known if s.anomalous and s.masks and not s.mask_aligned]
    usable = [s for s in known if s.anomalous and s.masks and s.mask_aligned]
    if not usable:
        msg = (
            f"{root} cannot serve as auxiliary set: of {len(found)} images, {len(known)} are known to be normal or "
            "abnormal, and no abnormal one has a mask of its own size. Give a data set with lesion masks"
        )
        raise DataError(msg)
    if len(known) < len(found):
        _log.warning("auxiliary set: %d image(s) are left out, not known to be normal or not", len(found) - len(known))
    if misaligned:
        _log.warning("auxiliary set: %d mask(s) are left out, they do not lie on their image", len(misaligned))
    samples = tuple(s if s.mask_aligned else replace(s, masks=(), mask_aligned=True) for s in known)
    return AuxiliarySet(samples=samples, source=f"{layout}:{root}")


class AuxiliaryBatches:
    """An auxiliary set as a method sees it: iterate as often as you like, every pass has a new order.

    Images are decoded anew at every pass, a little ahead, so memory stays flat. A file that cannot be read is passed
    over with one warning. A method may use images, ``anomalous``, ``masks`` and ``mask_known``; labels are those of
    another data set.

    Args:
        auxiliary: The images.
        preprocess: The backbone's.
        batch_size: Images per batch; the last may be smaller.
        seed: Of the orders.

    Attributes:
        samples: Those that could be read so far.
    """

    def __init__(self, auxiliary: AuxiliarySet, preprocess: Preprocess, *, batch_size: int, seed: int) -> None:
        self.samples = list(auxiliary.samples)
        self._preprocess = preprocess
        self._batch_size = batch_size
        self._rng = seeded(seed, "auxiliary")
        self._classes, normal = sources.class_order(auxiliary.samples)
        self._normal_class = normal or ""

    def __len__(self) -> int:
        """Batches of the next pass."""
        return math.ceil(len(self.samples) / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """One pass.

        Raises:
            DataError: If no image can be read.
        """
        failed: set[str] = set()

        def pass_over(sample: Sample, error: DataError) -> None:
            _log.warning("auxiliary set: %s is passed over: %s", sample.id, error)
            failed.add(sample.id)

        order = self._rng.permutation(len(self.samples))
        batches = iterate(
            [self.samples[i] for i in order],
            self._preprocess,
            classes=self._classes,
            normal_class=self._normal_class,
            batch_size=self._batch_size,
            on_error=pass_over,
        )
        for _, batch in batches:
            yield batch
        self.samples = [s for s in self.samples if s.id not in failed]
        if not self.samples:
            msg = f"none of the {len(failed)} auxiliary images can be read; look at them with 'ultraad data check'"
            raise DataError(msg)
