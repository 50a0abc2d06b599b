"""One simulated image from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.errors import ConfigError
from ultraad.rng import seeded
from ultraad.simulate import schematic
from ultraad.simulate.anatomy import draw_style, draw_tissue
from ultraad.simulate.attributes import FAMILIES, LABELS, draw_attributes
from ultraad.simulate.captions import caption
from ultraad.simulate.clutter import draw_clutter, draw_console, frame
from ultraad.simulate.fields import uniform
from ultraad.simulate.imaging import Device, acquire, any_device, draw_device, view
from ultraad.simulate.lesions import add_lesion

if TYPE_CHECKING:
    from ultraad.simulate.attributes import Attributes, Label

CLASS_SHARES = (0.40, 0.32, 0.28)  # in the order of LABELS
SECOND_LESION = 0.06  # probability of a second lesion
FINENESS = (0.8, 1.45)  # samples per pixel of schematic pictures: speckle of any grain size
MINIMUM_SIZE, MAXIMUM_SIZE = 32, 4096  # pixels; the largest takes 2 GB and half a minute
TissueKind = Literal["layered", "schematic"]
TISSUES: tuple[TissueKind, ...] = get_args(TissueKind)


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A simulated image with its ground truth.

    Attributes:
        image: uint8 (h w 3), RGB.
        mask: bool (h w), True on lesion; all False for normal.
        label: ``"normal"``, ``"benign"`` or ``"malignant"``.
        attributes: BI-RADS attributes of the lesion; None for normal.
        caption: A sentence about the image.
        device: Name of the machine's profile.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    label: Label
    attributes: Attributes | None
    caption: str
    device: str


def _check(label: str | None, size: int, attributes: Attributes | None, tissue: str) -> None:
    if label is not None and label not in LABELS:
        msg = f"there is no label {label!r}; choose one of: {', '.join(sorted(LABELS))}"
        raise ConfigError(msg)
    if tissue not in TISSUES:
        msg = f"there is no tissue {tissue!r}; choose one of: {', '.join(TISSUES)}"
        raise ConfigError(msg)
    check_size(size)
    if attributes is not None and label not in (None, attributes.label):
        msg = (
            f"got label={label!r} with the attributes of a {attributes.family}, which is {attributes.label}; "
            "leave label out"
        )
        raise ConfigError(msg)


def check_size(size: int) -> None:
    """Refuse a side of the square image that is too small to draw on, or too large for the memory."""
    if not MINIMUM_SIZE <= size <= MAXIMUM_SIZE:
        msg = f"size must be {MINIMUM_SIZE} to {MAXIMUM_SIZE} pixels, got {size}"
        raise ConfigError(msg)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Bounding box (x0, y0, x1, y1) of a mask with at least one pixel."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _decoy(size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box with the usual size and position of a lesion."""
    half_w, half_h = np.clip(np.exp(rng.normal(np.log((0.17, 0.13)), 0.4)), 0.03, 0.4) * size
    x, y = np.clip(rng.normal(0.5, 0.17), 0.15, 0.85) * size, (0.12 + 0.6 * rng.beta(1.5, 1.8)) * size
    box = np.clip(np.array([x - half_w, y - half_h, x + half_w, y + half_h]), 0, size - 1).round().astype(int)
    return cast("tuple[int, int, int, int]", tuple(box.tolist()))


def simulate(
    seed: int,
    *,
    label: str | None = None,
    size: int = 224,
    device: str | Device | None = None,
    clutter: bool = True,
    attributes: Attributes | None = None,
    family: str | None = None,
    patient: int | None = None,
    tissue: TissueKind = "layered",
) -> Phantom:
    """Draw a B-mode breast image.

    Anatomy, machine, lesion, image noise and clutter have separate random streams: two calls that differ only in
    ``label`` or ``attributes`` show the same breast, machine and clutter.

    Args:
        seed: Seed of everything random.
        label: ``"normal"``, ``"benign"`` or ``"malignant"``; None takes that of ``attributes`` or ``family``, or draws
            one (40, 32 and 28 %).
        size: Side of the square image in pixels, 32 to 4096.
        device: Name of a profile in ``imaging.PROFILES``, a machine, or None to draw one.
        clutter: Whether the console draws calipers, text, markers, borders and Doppler.
        attributes: Attributes of the lesion; None draws them.
        family: Pathology for the drawn attributes, a key of ``FAMILIES``.
        patient: Seed of the patient: images of one patient have the same machine and breast. None: a patient per image.
        tissue: ``"layered"`` (:mod:`.anatomy`, to scale) or ``"schematic"`` (:mod:`.schematic`, without a scale).
            Schematic tissue is seen by any machine, unless ``device`` names one, and images of one patient then have
            only the machine in common.

    Returns:
        The image with its mask, label, attributes and caption.

    Raises:
        ConfigError: If an argument is unknown or contradicts another.
    """
    _check(label, size, attributes, tissue)
    owner = seed if patient is None else patient
    if attributes is not None:
        label = attributes.label
    elif label is None and family is not None and family in FAMILIES:
        label = FAMILIES[family].label
    elif label is None:
        label = str(seeded(seed, "simulate/label").choice(LABELS, p=CLASS_SHARES))
    if attributes is None and (label != "normal" or family is not None):
        attributes = draw_attributes(seeded(seed, "simulate/attributes"), label, family=family)

    to_scale = tissue == "layered"
    if not isinstance(device, Device):
        machine = seeded(owner, "simulate/device")
        device = draw_device(machine, device) if to_scale or device is not None else any_device(machine)
    console = draw_console(seeded(owner, "simulate/console"))
    window, body = seeded(seed, "simulate/view"), seeded(seed, "simulate/tissue")
    if to_scale:
        grid = view(device, size, window)
        breast = draw_tissue(draw_style(seeded(owner, "simulate/style")), grid, body)
    else:
        grid = view(device, round(size * uniform(window, FINENESS)), window)
        breast = schematic.draw_tissue(grid, body)
    mask = np.zeros((grid.size, grid.size), np.bool_)
    if attributes is not None:
        lesions = seeded(seed, "simulate/lesion")
        for _ in range(2 if lesions.random() < SECOND_LESION else 1):
            mask |= add_lesion(breast, attributes, grid, lesions, mhz=device.effective_mhz)
    grey = acquire(breast, grid, device, seeded(seed, "simulate/acquire"))
    if (maps := grid.scan_conversion()) is not None:
        grey = np.asarray(cv2.remap(grey, *maps, cv2.INTER_LINEAR, borderValue=0), dtype=np.uint8)
        mask = cv2.remap(mask.astype(np.uint8), *maps, cv2.INTER_NEAREST, borderValue=0) > 0
    if grid.size != size:
        way = cv2.INTER_AREA if grid.size > size else cv2.INTER_LINEAR
        grey = np.asarray(cv2.resize(grey, (size, size), interpolation=way), dtype=np.uint8)
        mask = cv2.resize(mask.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) > 0

    image = np.repeat(grey[..., None], 3, axis=2)
    if clutter:
        image, mask = frame(image, mask, console)
        marks = seeded(seed, "simulate/clutter")
        decoys = _decoy(size, marks), _decoy(size, marks)
        targets = (_box(mask) if mask.any() else decoys[0], decoys[1])
        image = draw_clutter(image, console, marks, targets=targets)
    text = caption(label, attributes, seeded(seed, "simulate/caption"))
    return Phantom(image, mask, cast("Label", label), attributes, text, device.name)
