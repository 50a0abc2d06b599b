"""A model that predicts, whether torch or another runtime computes it; importing this loads nothing heavy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ultraad.data.fans import FanWatch
    from ultraad.data.loader import Decoded, Readable
    from ultraad.data.preprocess import Preprocess
    from ultraad.data.regions import RegionChoice
    from ultraad.data.support import Fingerprint
    from ultraad.errors import DataError
    from ultraad.fan import Fan, FanChoice
    from ultraad.model.calibration import Calibration
    from ultraad.model.operating_point import OperatingPoint
    from ultraad.model.prediction_sets import PredictionSets
    from ultraad.model.probabilities import Prevalence
    from ultraad.model.reasons import Why
    from ultraad.model.record import Description, Origin
    from ultraad.model.stream import Live
    from ultraad.types import Box, Geometry, Prediction, Result, Sample


def _nothing() -> None:
    """What a thread does first that needs nothing."""


class Predictor(ABC):
    """What :class:`~ultraad.model.model.Model` and :class:`~ultraad.model.exported.ExportedModel` have in common.

    Attributes:
        calibration: Its thresholds.
        origin: Its history.
        support: (fingerprint, label) of each support image.
        auxiliary: The same of each auxiliary image.
        preprocess: How pixels become the model's input.
        prevalence: Share of images with a lesion, or of each class, that class probabilities take for granted; None:
            that of the support set, or equal classes without one.
        sets: How prediction sets are made; None: not at all.
        fan: How it sees a picture unless it is told otherwise, as :class:`~ultraad.model.record.Description` says.
    """

    calibration: Calibration
    origin: Origin
    support: tuple[tuple[Fingerprint, str], ...]
    auxiliary: tuple[tuple[Fingerprint, str], ...]
    preprocess: Preprocess
    prevalence: Prevalence | None = None
    sets: PredictionSets | None = None
    fan: FanChoice = "off"

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""

    @property
    @abstractmethod
    def normal_class(self) -> str:
        """The class that means "no lesion"."""

    @property
    @abstractmethod
    def grades(self) -> bool:
        """Whether predictions have class probabilities."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """sha256 over everything that determines the results: models with one digest give the same results."""

    @abstractmethod
    def describe(self) -> Description:
        """What the model is and where it comes from."""

    @abstractmethod
    def _prepare(self, image: NDArray[np.uint8], region: Box | None, fan: Fan | None) -> tuple[Any, Geometry]:
        """The model's input of an image uint8 (h w 3), or of a region and a fan of it, made in a thread."""

    @abstractmethod
    def _predict(self, inputs: Sequence[tuple[Any, Geometry]], ids: Sequence[str]) -> list[Prediction]:
        """Predictions on the original pixel grid. Called by several threads at a time."""

    @contextmanager
    def _lanes(self) -> Iterator[tuple[int, Callable[[], object]]]:
        """Inside, how many batches are computed at a time, and what each thread for that does first."""
        yield 1, _nothing

    def predict(
        self,
        x: Readable,
        *,
        frame: int = 0,
        depth: int | None = None,
        region: RegionChoice = "auto",
        fan: FanChoice | None = None,
    ) -> Prediction:
        """Predict one image.

        Args:
            x: A path, a sample, the bytes of an image file or the open file; or pixels: an array, a torch tensor or a
                Pillow image. Arrays are uint8, uint16 or float in 0..1 of shape (h w), (h w 1), (h w 3) or (h w 4),
                red first; :func:`ultraad.io.arrays.as_rgb8` has the rules.
            frame: 0-based frame, for files with several.
            depth: Bits of integer pixels in memory, e.g. 12 for a camera of 12 bits in uint16; None takes them from
                the pixels, which differ from frame to frame.
            region: ``"auto"`` shows the model only the part of a DICOM picture that its header calls B-mode, or the
                ``region`` of a sample; ``"off"`` shows it the whole picture.
            fan: As in :func:`ultraad.predict`; None: as the model saw its support images.

        Returns:
            Score, map on the original pixel grid, and class probabilities.

        Raises:
            ConfigError: If a depth is given for a file, or is no number of bits, or a region or fan is no choice.
            DataError: If the file or the pixels cannot be used.

        Examples:
            >>> import numpy as np, ultraad
            >>> model = ultraad.zero_shot(backbone="tiny")
            >>> model.predict(np.zeros((120, 160), np.uint8)).map.shape
            (120, 160)
        """
        from ultraad.data.fans import checked_fan, find_in
        from ultraad.data.loader import read_any
        from ultraad.data.regions import checked_region

        whole, fan = checked_region(region) == "off", checked_fan(self.fan if fan is None else fan)
        image, name, part = read_any(x, frame=frame, depth=depth)
        part = None if whole else part
        tissue = find_in(image, part) if fan == "auto" else None
        return self._predict([self._prepare(image, part, tissue)], [name])[0]

    def predict_many(
        self,
        items: Iterable[str | Path | Sample],
        *,
        frame: int | None = None,
        region: RegionChoice = "auto",
        fan: FanChoice | None = None,
        batch_size: int = 8,
        on_error: Callable[[Sample, DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Predict many images in a stream. Images are decoded in advance, by threads; memory use stays constant.

        On a CPU, as many batches are computed at a time as PyTorch has threads (``OMP_NUM_THREADS``,
        ``torch.set_num_threads``), each by one thread: that takes less time than all threads on one batch, and the
        numbers do not depend on how many there are. With 16 or more, each batch has several.

        Args:
            items: Samples, or files, folders and patterns (see :func:`~ultraad.data.samples.samples_of`).
            frame: Only this 0-based frame of multi-frame files; None takes all.
            region: As in :meth:`predict`.
            fan: As in :meth:`predict`. With ``"auto"``, a fan that a sample names is taken; with ``"off"``, none is.
            batch_size: Images per forward pass; changes speed, and results in the seventh digit at most.
            on_error: Called for each sample that cannot be read or scored, which is then skipped. If None, the error is
                raised.

        Yields:
            Results in the order of the items.

        Raises:
            ConfigError: If a region or fan is no choice.
            DataError: If a file cannot be read and there is no ``on_error``.
        """
        from functools import partial

        from ultraad.data.fans import in_fans
        from ultraad.data.loader import decode
        from ultraad.data.regions import in_regions
        from ultraad.data.samples import samples_of

        read = partial(decode, normal_class=self.normal_class)
        found = in_regions(samples_of(items, frame=frame), region)
        samples = ((sample, read) for sample in in_fans(found, self.fan if fan is None else fan))
        yield from self._many(samples, batch_size=batch_size, on_error=on_error)

    def predict_frames(
        self,
        frames: Iterable[tuple[Sample, NDArray[np.uint8]]],
        *,
        batch_size: int = 8,
        on_error: Callable[[Sample, DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Predict pictures that are in memory already, such as the frames of a video; memory use stays constant.

        Args:
            frames: What is known about each, and its pixels, uint8 (h w 3). At most two batches are taken in advance.
            batch_size: As in :meth:`predict_many`.
            on_error: As in :meth:`predict_many`.

        Yields:
            Results in the order of the frames.
        """
        from ultraad.data.loader import Decoded

        def known(image: NDArray[np.uint8]) -> Callable[[Sample], Decoded]:
            return lambda sample: Decoded(sample, image, mask=None, misaligned=False)

        samples = ((sample, known(image)) for sample, image in frames)
        yield from self._many(samples, batch_size=batch_size, on_error=on_error)

    def _many(
        self,
        samples: Iterable[tuple[Sample, Callable[[Sample], Decoded]]],
        *,
        batch_size: int,
        on_error: Callable[[Sample, DataError], None] | None,
    ) -> Iterator[Result]:
        """The results of samples, each with the function that reads it."""
        from ultraad.model.many import predicted

        return predicted(
            samples,
            prepare=self._prepare,
            predict=self._predict,
            lanes=self._lanes,
            batch_size=batch_size,
            on_error=on_error,
        )

    def stream(
        self,
        frames: Iterable[Readable | tuple[Readable, Any]],
        *,
        depth: int | None = None,
        fan: FanChoice | FanWatch | None = None,
        newest: bool = False,
        prefetch: int = 1,
        on_error: Callable[[int, DataError], None] | None = None,
        ahead: int | None = None,
    ) -> Generator[Live, None, None]:
        """Predict frames from a scanner or a camera as they arrive, with a bounded delay.

        The source is iterated in a separate thread, so the model never blocks the grabber. A frame waits for at most
        ``prefetch`` predictions and the current one before its own.

        Args:
            frames: Pictures as in :meth:`predict`, or pairs of a picture and any value to be returned with it, such as
                the time of the frame. A generator around a grabber's "next frame" call works; if the grabber fills one
                buffer again and again, yield copies.
            depth: Bits of integer pixels, as in :meth:`predict`. Without it each frame is scaled by the bits that it
                uses itself.
            fan: As in :meth:`predict`, looked for in what was brightest in all frames so far; or what looks for it.
            newest: If frames arrive faster than they are predicted, replace the oldest waiting frame by the newest, as
                a live display does. Otherwise every frame is predicted, and the source has to wait.
            prefetch: Most frames that wait for the model.
            on_error: Called with the number of each frame that cannot be used or scored, which is then skipped. If
                None, the error is raised.
            ahead: The former name of ``prefetch``; deprecated.

        Returns:
            A generator of the predicted frames, in order. An error of the source is raised here, after the frames
            before it. Leaving the loop ends the thread at the next frame of the source.

        Raises:
            ConfigError: If ``prefetch`` is below 1, or a fan is no choice.

        Examples:
            >>> import numpy as np, ultraad
            >>> model = ultraad.zero_shot(backbone="tiny")
            >>> camera = ((np.zeros((120, 160), np.uint8), 0.04 * i) for i in range(3))
            >>> [(live.number, live.stamp) for live in model.stream(camera)]
            [(0, 0.0), (1, 0.04), (2, 0.08)]
        """
        import warnings
        from functools import partial

        from ultraad.data.fans import FanWatch
        from ultraad.io.faults import in_this_run
        from ultraad.model.stream import stream

        watch = fan if isinstance(fan, FanWatch) else FanWatch(self.fan if fan is None else fan)
        if ahead is not None:
            warnings.warn("stream(ahead=) is now called prefetch=", DeprecationWarning, stacklevel=2)
        return stream(
            in_this_run(partial(self._predict_next, watch, depth)),
            frames,
            newest=newest,
            prefetch=prefetch if ahead is None else ahead,
            on_error=on_error,
        )

    def _predict_next(self, watch: FanWatch, depth: int | None, x: Readable) -> Prediction:
        """The prediction of the next frame of a stream."""
        from ultraad.data.loader import read_any

        image, name, part = read_any(x, depth=depth)
        return self._predict([self._prepare(image, part, watch.see(image))], [name])[0]

    def chosen_fan(self, fan: FanChoice | None) -> FanChoice:
        """How many images are seen: as asked for, or as the support images were (:func:`ultraad.data.fans.chosen`)."""
        from ultraad.data.fans import chosen

        return chosen(fan, self.fan, learned=self.origin.setting != "zero-shot")

    def at_prevalence(self, prevalence: Prevalence | None) -> Self:
        """The same model for a place where lesions, or classes, are more or less frequent than in its support set.

        Class probabilities are moved to it (:func:`ultraad.model.probabilities.at_prevalence`); scores, thresholds and
        maps stay.

        Args:
            prevalence: Share of images that show a lesion, in (0, 1), or {class: share}, of which one may be left out;
                None: as in the support set, or equal classes without one.

        Raises:
            ConfigError: If it is no share, or shares do not fit the classes.
        """
        from copy import copy

        from ultraad.model.probabilities import check_prevalence

        check_prevalence(prevalence, self.classes)
        other = copy(self)
        other.prevalence = prevalence
        return other

    def with_sets(self, wanted: str | None) -> Self:
        """The same model, whose predictions have a set of classes that holds the true one with a stated probability.

        Args:
            wanted: ``"0.9"`` of all images, ``"class=0.9"`` of those of each class or ``"shift=0.9"`` of those of
                another scanner; see :mod:`ultraad.model.prediction_sets`. None: no sets.

        Raises:
            ConfigError: If it is no level, or the held-out support images cannot promise it.
        """
        from copy import copy

        from ultraad.model.prediction_sets import sets_of

        other = copy(self)
        other.sets = None if wanted is None else sets_of(self.calibration, wanted, classes=self.classes)
        return other

    def graded(
        self, probs: dict[str, float] | None, distance: float | None = None
    ) -> tuple[dict[str, float] | None, tuple[str, ...] | None]:
        """(class probabilities, prediction set) of an image as the model gives them, from those of its method.

        Args:
            probs: As the method gives them.
            distance: ``InScope.distance`` of the image, for sets under shift.
        """
        from ultraad.model.probabilities import at_prevalence

        scaling = self.calibration.scaling
        if probs is None:
            return None, None
        found = probs if scaling is None else scaling(probs)
        if self.prevalence is not None:
            shares = None if scaling is None else scaling.shares
            found = at_prevalence(found, self.prevalence, normal_class=self.normal_class, shares=shares)
        return found, None if self.sets is None else self.sets(probs, distance=distance)

    def explain(self, image: NDArray[np.uint8], region: Box | None = None, fan: Fan | None = None) -> Why:  # noqa: ARG002
        """Why pixels uint8 (h w 3), or a region and a fan of them, get their prediction; see :meth:`Model.why`.

        Raises:
            ConfigError: If this is an exported model.
        """
        from ultraad.errors import ConfigError
        from ultraad.model.reasons import EXPORTED

        raise ConfigError(EXPORTED)

    def is_abnormal(self, prediction: Prediction) -> bool:
        """Whether the score reaches the stored threshold."""
        return prediction.score >= self.calibration.image_threshold

    def operating_point(self, wanted: str) -> OperatingPoint:
        """Another image threshold, fitted on the held-out scores of the support set; the model is not changed.

        Args:
            wanted: ``"sens=0.95"``, ``"spec=0.90"`` or ``"youden"``; see
                :func:`ultraad.model.operating_point.operating_point`.

        Returns:
            The threshold, with what the few support images promise about it.

        Raises:
            ConfigError: If ``wanted`` is none of these, or the model has no held-out scores.
        """
        from ultraad.model.operating_point import operating_point

        return operating_point(self.calibration, wanted)
