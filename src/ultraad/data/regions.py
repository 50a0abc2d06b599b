"""The part of a picture that a model gets to see: the B-mode region, where the header of a DICOM file says which it is.

The rest of a scanner's picture is text, scales and pictograms. A model sees the region only, and its map comes back on
the whole picture, 0 outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ultraad.config import one_of
from ultraad.errors import DataError
from ultraad.io.image import is_dicom
from ultraad.types import Sample

if TYPE_CHECKING:
    from ultraad.io.dicom import Metadata

RegionChoice = Literal["auto", "off"]
"""``"auto"``: the region of each sample; ``"off"``: the whole picture."""


def checked_region(choice: RegionChoice) -> RegionChoice:
    """The choice.

    Raises:
        ConfigError: If it is none of :data:`RegionChoice`.
    """
    return one_of("region", choice, get_args(RegionChoice))


def in_regions(samples: Sequence[Sample], choice: RegionChoice) -> list[Sample]:
    """The samples with their regions, or without.

    Raises:
        ConfigError: If the choice is none of :data:`RegionChoice`.
    """
    auto = checked_region(choice) == "auto"
    return list(samples) if auto else [replace(sample, region=None) for sample in samples]


def with_regions(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with the views, the region and, if it is not known yet, the spacing from their DICOM headers."""
    facts = lru_cache(maxsize=16)(_facts)  # neighbours share a file when it has many frames

    def placed(sample: Sample) -> Sample:
        found = facts(sample.image)
        if found is None or sample.views or sample.region:
            return sample
        return replace(
            sample, views=found["views"], region=found["region"], spacing_mm=sample.spacing_mm or found["spacing_mm"]
        )

    return [placed(sample) for sample in samples]


def _facts(path: Path) -> Metadata | None:
    try:
        if not is_dicom(path):
            return None
        from ultraad.io import dicom

        return dicom.metadata(path)
    except DataError:
        return None  # reading the pixels raises
