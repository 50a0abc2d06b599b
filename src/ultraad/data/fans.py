"""The pixels of a picture that show tissue: found in the pixels themselves (:mod:`ultraad.io.fan`), once per file.

Outside the fan of a sector or curved array, a picture is black, or holds text and pictograms. A model sees it black
there, and its map is 0 there. With a region, the fan is looked for in it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ultraad.config import one_of
from ultraad.errors import DataError, first_names
from ultraad.fan import Fan, FanChoice
from ultraad.io.fan import find_fan, spread_frames
from ultraad.io.image import is_dicom, read_image
from ultraad.types import Box, Result, Sample

_log = logging.getLogger(__name__)
_NO_CINE = frozenset({".png", ".jpg", ".jpeg", ".bmp"})  # their header need not be read again


def checked_fan(choice: FanChoice) -> FanChoice:
    """The choice.

    Raises:
        ConfigError: If it is not one of :data:`ultraad.fan.FanChoice`.
    """
    return one_of("fan", choice, get_args(FanChoice))


def in_fans(samples: Sequence[Sample], choice: FanChoice) -> list[Sample]:
    """The samples with their fans to be looked for, unless they are known; or without.

    Raises:
        ConfigError: If the choice is not one of :data:`ultraad.fan.FanChoice`.
    """
    auto = checked_fan(choice) == "auto"
    return [replace(s, fan=(s.fan or "auto") if auto else None) for s in samples]


def chosen(wanted: FanChoice | None, own: FanChoice, *, learned: bool) -> FanChoice:
    """How a model sees new images; the log says if it learned from images that were seen otherwise.

    Args:
        wanted: What is asked for; None: as the model does by itself.
        own: How it does by itself.
        learned: Whether it learned from images.

    Raises:
        ConfigError: If it is no choice.
    """
    found = checked_fan(own if wanted is None else wanted)
    if found != own and learned:
        _log.warning(
            "the model saw the images it learned from with --fan %s, and these are seen with --fan %s: its thresholds "
            "and probabilities belong to the former",
            own,
            found,
        )
    return found


def fan_choice(samples: Sequence[Sample]) -> tuple[FanChoice, tuple[str, ...]]:
    """(how a model that learns from them sees pictures, notes for users): ``"auto"`` if all have a fan or none certain.

    Args:
        samples: Of a support set; there may be none.
    """
    fans = sum(sample.fan is not None for sample in samples)
    if fans in (0, len(samples)):
        return ("auto" if fans else "off"), ()
    note = (
        f"{fans} of {len(samples)} support images were seen in the fan of the probe, the others whole; new images are "
        "seen whole, unless --fan auto asks for their fans"
    )
    return "off", (note,)


def fan_of(sample: Sample) -> Fan | None:
    """The fan of a sample that was read; None for all pixels."""
    return sample.fan if isinstance(sample.fan, Fan) else None


def with_fan(sample: Sample, image: NDArray[np.uint8]) -> Sample:
    """The sample with its fan, if that is to be looked for.

    The frames of a DICOM cine share one, found in 16 of them, spread evenly. Pages of a TIFF may be anything.

    Args:
        sample: Any.
        image: uint8 (h w 3), its pixels.
    """
    if sample.fan != "auto":
        return sample
    if (frames := _frames_of_cine(sample.image)) > 1:
        facts = sample.image.stat()
        found = _of_cine(sample.image, sample.region, sample.depth, frames, (facts.st_size, facts.st_mtime_ns))
    else:
        found = find_in(image, sample.region)
    return replace(sample, fan=found)


def find_in(image: NDArray[np.uint8], region: Box | None) -> Fan:
    """The fan of one picture uint8 (h w 3), looked for in a region of it."""
    return _home(find_fan(_part(image, region)), region)


def _part(image: NDArray[np.uint8], region: Box | None) -> NDArray[np.uint8]:
    if region is None:
        return image
    x, y, w, h = region
    return image[y : y + h, x : x + w]


def _home(fan: Fan, region: Box | None) -> Fan:
    """A fan of a region as one of the whole picture."""
    if region is None or fan.box is None:
        return fan
    x, y, w, h = fan.box
    apex = None if fan.apex is None else (fan.apex[0] + region[0], fan.apex[1] + region[1])
    return replace(fan, box=(x + region[0], y + region[1], w, h), apex=apex)


def _frames_of_cine(path: Path) -> int:
    """Number of frames of a DICOM file that could be read; 1 for any other."""
    if path.suffix.lower() in _NO_CINE or not is_dicom(path):
        return 1
    from ultraad.io import dicom

    return dicom.metadata(path)["frames"]  # of a header that is cached


@lru_cache(maxsize=8)
def _of_cine(path: Path, region: Box | None, depth: int | None, frames: int, _: tuple[int, int]) -> Fan:
    """The fan of a file with several frames; those that cannot be read have no say."""

    def parts() -> Iterator[NDArray[np.uint8]]:
        for frame in spread_frames(frames):
            try:
                yield _part(read_image(path, frame=frame, depth=depth), region)
            except DataError:
                continue

    return _home(find_fan(parts()), region)


class FanWatch:
    """The fan of frames that arrive one by one: looked for in what was brightest at each pixel so far.

    It is looked for at frames 1, 2, 4, 8 and so on to 512, since tissue that moves lights up dark parts; one that was
    certain stays until another is.

    Args:
        choice: ``"off"``: there is none.

    Attributes:
        now: The fan of the last frame that was seen.
    """

    _LAST = 512

    def __init__(self, choice: FanChoice) -> None:
        self._on = checked_fan(choice) == "auto"
        self._seen = 0
        self._brightest: NDArray[np.uint8] | None = None
        self.now: Fan | None = None

    def see(self, image: NDArray[np.uint8]) -> Fan | None:
        """The fan of the next frame uint8 (h w 3)."""
        if not self._on or self._seen >= self._LAST:
            return self.now
        if self._brightest is None or self._brightest.shape != image.shape:
            self._brightest, self._seen, self.now = image.copy(), 0, None
        else:
            np.maximum(self._brightest, image, out=self._brightest)
        self._seen += 1
        if self._seen & (self._seen - 1) == 0:  # a power of two
            found = find_fan(self._brightest)
            self.now = found if found.masks or self.now is None else self.now
        return self.now


def telling(results: Iterable[Result]) -> Iterator[Result]:
    """The results; at their end, the log says once in which pictures no fan was certain."""
    ids: list[str] = []
    try:
        for result in results:
            fan = fan_of(result.sample)
            if fan is not None and fan.kind == "none":
                ids.append(result.sample.id)
            yield result
    finally:
        tell_unsure(ids)


def tell_unsure(ids: Sequence[str]) -> None:
    """Say that no fan was certain in these pictures or videos."""
    if ids:
        _log.warning(
            "no fan of the probe is certain in %d picture(s), so all of each counts as tissue: %s",
            len(ids),
            first_names(ids),
        )
