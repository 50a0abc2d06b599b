"""What the long jobs need of a model, whether torch or another runtime computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ultraad.data.support import Fingerprint
    from ultraad.errors import DataError
    from ultraad.model.calibration import Calibration
    from ultraad.model.record import Description, Origin
    from ultraad.types import Result, Sample


class Predictor(Protocol):
    """What :class:`~ultraad.model.model.Model` and :class:`~ultraad.model.exported.ExportedModel` have in common."""

    calibration: Calibration
    origin: Origin
    support: tuple[tuple[Fingerprint, str], ...]
    auxiliary: tuple[tuple[Fingerprint, str], ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""

    @property
    def normal_class(self) -> str:
        """The class that means "no lesion"."""

    @property
    def digest(self) -> str:
        """One digest, one set of results."""

    def describe(self) -> Description:
        """What the model is and where it comes from."""

    def predict_many(
        self,
        items: Iterable[str | Path | Sample],
        *,
        batch_size: int = 8,
        on_error: Callable[[Sample, DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Many images in a stream."""
