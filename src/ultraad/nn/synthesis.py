"""Synthetic anomalies for training on normal images only: parameters are drawn first, then applied.

    steps = draw("source", rng, shape=image.shape, sources=len(images));  changed, mask = apply(image, steps, images)

The families are those of MediCLIP (Zhang et al., MICCAI 2024; reference medsyn/tasks.py): a random patch of the image
is replaced by tissue of another image (``cutpaste``), made brighter or darker with a texture (``gauss_intensity``) or a
smooth rim (``smooth_intensity``), or warped outwards (``source``) or inwards (``sink``) from a point in it.
``identity`` changes nothing. Lengths that the reference gives in pixels of 224-pixel images scale with the image here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    Image = NDArray[np.float32]
    Mask = NDArray[np.bool_]

Family = Literal["cutpaste", "gauss_intensity", "smooth_intensity", "source", "sink", "identity"]
FAMILIES: tuple[Family, ...] = get_args(Family)

SIDES: dict[Family, tuple[float, float]] = {
    "cutpaste": (0.1, 0.6),
    "gauss_intensity": (0.3, 0.8),
    "smooth_intensity": (0.3, 0.8),
    "source": (0.2, 0.6),
    "sink": (0.2, 0.6),
}
"""Smallest and largest side of a patch, as a share of the image's (reference medsyn/tasks.py)."""
VISIBLE = 0.5 / 255
"""Half a grey level: a pasted pixel that changes less is not labelled."""
REFERENCE_SIDE = 224


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Position and shape: ``mask`` bool (h w) with its corner at row ``top``, column ``left`` of the image."""

    top: int
    left: int
    mask: Mask

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """The patch's box of an image, a view (h w)."""
        h, w = self.mask.shape
        return image[self.top : self.top + h, self.left : self.left + w]


class Change(Protocol):
    """A change inside a patch."""

    def new(self, image: Image, patch: Patch, sources: Sequence[Image]) -> Image:
        """The patch's box (h w) after the change; only pixels inside the mask are used."""


@dataclass(frozen=True, slots=True)
class CutPaste:
    """Tissue from another place.

    Attributes:
        source: Index of the image it is taken from.
        angle: Clockwise, in degrees.
        scale: Magnification.
        place: (row, col) of its centre, 0..1 over the places where it fits.
    """

    source: int
    angle: float
    scale: float
    place: tuple[float, float]

    def new(self, image: Image, patch: Patch, sources: Sequence[Image]) -> Image:  # noqa: ARG002
        """Cubic interpolation of the source, within its range."""
        source = sources[self.source]
        box, side = np.array(patch.mask.shape), np.array(source.shape)
        turn = _rotation(self.angle)
        extent = np.abs(turn) @ box / self.scale
        shrink = min(1.0, float((0.8 * side / extent).min()))  # the piece is at most 0.8 of its image
        extent = extent * shrink
        centre = extent / 2 + self.place * (side - extent)
        at = np.einsum("ij,jhw->ihw", turn * shrink / self.scale, _offsets(patch.mask.shape))  # (2 h w)
        return _sample(source, at + (centre - 0.5)[:, None, None])


@dataclass(frozen=True, slots=True, eq=False)
class GaussIntensity:
    """A blurred random texture (h w) in -1..1 is added, fading in over ``softness`` pixels."""

    texture: Image
    softness: float

    def new(self, image: Image, patch: Patch, sources: Sequence[Image]) -> Image:  # noqa: ARG002
        """Within 0..1."""
        weight = _blur(patch.mask.astype(np.float32), self.softness)
        return np.asarray(np.clip(patch.of(image) + self.texture * weight, 0, 1), np.float32)


@dataclass(frozen=True, slots=True)
class SmoothIntensity:
    """``change`` in -1..1 is added, rising linearly over ``ramp`` pixels from the patch's rim.

    Where the box cuts the shape off there is no rim, and the full change starts at once, as in the reference.
    """

    change: float
    ramp: float

    def new(self, image: Image, patch: Patch, sources: Sequence[Image]) -> Image:  # noqa: ARG002
        """Within the image's own range."""
        inside = ndimage.distance_transform_edt(patch.mask)
        added = patch.of(image) + self.change * np.minimum(inside / self.ramp, 1)
        return np.asarray(np.clip(added, image.min(), image.max()), np.float32)


@dataclass(frozen=True, slots=True)
class Deformation:
    """Radial warp about ``centre``, (row, col) in the patch.

    With d the distance to the centre and D that of the patch's rim in the same direction, a pixel takes the value at
    ``D (d / D)^k`` (``outwards``: what is at the centre grows) or ``D - D (1 - d / D)^k`` (it shrinks).
    """

    centre: tuple[int, int]
    exponent: float
    outwards: bool

    def new(self, image: Image, patch: Patch, sources: Sequence[Image]) -> Image:  # noqa: ARG002
        """Cubic interpolation within the patch's box and its range."""
        centre = np.array(self.centre, float)[:, None, None]
        offset = np.indices(patch.mask.shape) - centre  # (2 h w)
        distance = np.hypot(*offset)
        rim = np.maximum(rim_distance(patch.mask, self.centre, np.arctan2(*offset)), distance)
        share = distance / np.maximum(rim, 1e-6)  # 0 at the centre, 1 at the rim
        moved = share**self.exponent if self.outwards else 1 - (1 - share) ** self.exponent
        at = centre + offset * np.divide(moved, share, out=np.zeros_like(share), where=share > 0)
        return _sample(patch.of(image), at)


Steps = tuple[tuple[Patch, Change], ...]


def draw(family: Family, rng: np.random.Generator, *, shape: tuple[int, int], sources: int) -> Steps:
    """One anomaly of a family, or two with probability 1/2; none for ``identity``.

    Args:
        family: Kind of anomaly.
        rng: The only source of randomness.
        shape: (h, w) of the image in pixels.
        sources: Number of images that ``cutpaste`` may use.
    """
    if family == "identity":
        return ()
    return tuple(_draw_step(family, rng, shape, sources) for _ in range(1 + int(rng.random() < 0.5)))


def apply(image: Image, steps: Steps, sources: Sequence[Image]) -> tuple[Image, Mask]:
    """The image with its anomalies, and where they are.

    Args:
        image: f32 (h w), intensities in 0..1; not changed.
        steps: From :func:`draw`.
        sources: Images of the same shape, as many as were given to :func:`draw`; the image itself may be one of them.

    Returns:
        f32 (h w) in 0..1, and the mask bool (h w): all patches; for pasted tissue, only its visible pixels.
    """
    out, mask = image.copy(), np.zeros(image.shape, bool)
    for patch, change in steps:
        patch.of(out)[patch.mask] = change.new(out, patch, sources)[patch.mask]
    shows = np.abs(out - image) > VISIBLE
    for patch, change in steps:
        pasted = isinstance(change, CutPaste)
        patch.of(mask)[patch.mask & _closed(patch.mask & patch.of(shows)) if pasted else patch.mask] = True
    return out, mask


def _draw_step(family: Family, rng: np.random.Generator, shape: tuple[int, int], sources: int) -> tuple[Patch, Change]:
    sides = np.array(shape)
    low, high = (np.maximum(2, np.round(share * sides)).astype(int) for share in SIDES[family])
    if family in ("source", "sink"):
        mask = deformed_shape(rng, sides, low, high)
    else:
        mask = noise_shape(rng, rng.integers(low, high + 1))
    top, left = rng.integers(0, sides - mask.shape + 1).tolist()
    patch = Patch(top, left, mask)
    return patch, _draw_change(family, rng, patch, shape, sources)


def _draw_change(
    family: Family, rng: np.random.Generator, patch: Patch, shape: tuple[int, int], sources: int
) -> Change:
    """All ranges are those of the reference (medsyn/tasks.py)."""
    side = min(shape)
    if family == "cutpaste":
        scale = 1 + rng.exponential(0.1)
        return CutPaste(
            source=int(rng.integers(sources)),
            angle=float(rng.uniform(-45, 45)),
            scale=float(scale if rng.random() < 0.5 else 1 / scale),
            place=(float(rng.random()), float(rng.random())),
        )
    if family == "gauss_intensity":
        pixel = side / REFERENCE_SIDE
        field = (rng.standard_normal(shape) >= 0).astype(np.float32)
        field = _blur(field, pixel * rng.choice([4, 7]))
        field = (field - field.min()) / (field.max() - field.min())
        gain = rng.uniform(0.4, 0.6) * rng.choice([-1, 1])
        return GaussIntensity(np.float32(gain) * patch.of(field), float(pixel * rng.uniform(1, 4)))
    if family == "smooth_intensity":
        change = (15 + rng.gamma(3, 30)) / 255 * rng.choice([-1, 1])
        return SmoothIntensity(float(change), float(side * (0.02 + rng.gamma(3, 0.01))))
    centre = rng.choice(np.argwhere(patch.mask)).tolist()
    return Deformation((centre[0], centre[1]), float(2 ** rng.uniform(0.5, 2)), outwards=family == "source")


def noise_shape(rng: np.random.Generator, size: NDArray[np.integer]) -> Mask:
    """Where one cell of gradient noise (Perlin), rotated by up to 90 degrees, exceeds 0.3: bool (h w) = ``size``.

    Drawn again until it covers a fifth of its box.
    """
    h, w = (int(n) for n in size)
    y, x = np.arange(h)[:, None] / h, np.arange(w)[None] / w
    fade_y, fade_x = (t**3 * (t * (t * 6 - 15) + 10) for t in (y, x))
    while True:
        angles = rng.uniform(0, 2 * np.pi, (2, 2))  # of the gradient in each corner
        corner = [[np.sin(angles[i, j]) * (y - i) + np.cos(angles[i, j]) * (x - j) for j in (0, 1)] for i in (0, 1)]
        top, bottom = ((1 - fade_x) * left + fade_x * right for left, right in corner)
        noise = np.sqrt(2) * ((1 - fade_y) * top + fade_y * bottom)
        turn = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), float(rng.uniform(-90, 90)), 1)
        mask: Mask = cv2.warpAffine(noise, turn, (w, h)) > 0.3
        if mask.mean() >= 0.2:
            return mask


def deformed_shape(
    rng: np.random.Generator, sides: NDArray[np.integer], low: NDArray[np.integer], high: NDArray[np.integer]
) -> Mask:
    """A sheared and rotated rectangle or ellipse that fits into ``high`` pixels, bool (h w).

    Args:
        rng: The only source of randomness.
        sides: (h, w) of the image.
        low: Smallest sides before shear and rotation.
        high: Largest sides, before and after.
    """
    ellipse = rng.random() < 0.5
    size = np.clip((0.03 + rng.gamma(2, 0.1, 2)) * sides, low, high)
    shear = np.array([[1, rng.normal(0, 0.2)], [rng.normal(0, 0.2), 1]])
    form = _rotation(rng.uniform(-90, 90)) @ shear @ np.diag(size / 2)  # from the unit square or disc to the image
    extent = 2 * np.abs(form).sum(1)  # the rectangle's, for both
    shrink = min(1.0, float((high / extent).min()))
    box = np.clip(np.ceil(extent * shrink), 2, high).astype(int)
    unit = np.einsum("ij,jhw->ihw", np.linalg.inv(form * shrink), _offsets((int(box[0]), int(box[1]))))
    mask: Mask = np.hypot(*unit) <= 1 if ellipse else np.abs(unit).max(0) <= 1
    return mask


def rim_distance(mask: Mask, centre: tuple[int, int], direction: NDArray[np.floating]) -> NDArray[np.floating]:
    """Distance from a point of a convex mask to its rim, in pixels.

    Args:
        mask: bool (h w).
        centre: (row, col) inside it.
        direction: Angles atan2(row, col) in radians, any shape.
    """
    rays, reach = 360, int(np.ceil(np.hypot(*mask.shape))) + 1
    mode = cv2.WARP_POLAR_LINEAR | cv2.INTER_NEAREST | cv2.WARP_FILL_OUTLIERS
    inside = cv2.warpPolar(mask.astype(np.uint8), (2 * reach, rays), centre[::-1], reach, mode)  # (rays half pixels)
    rim = np.argmin(inside, axis=1) / 2  # the first radius outside
    angles = np.arange(rays + 1) * 2 * np.pi / rays
    return np.asarray(np.interp(direction % (2 * np.pi), angles, np.append(rim, rim[0])))


def _rotation(degrees: float) -> NDArray[np.floating]:
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def _offsets(shape: tuple[int, ...]) -> NDArray[np.floating]:
    """(row, col) of every pixel from the middle of its box, (2 h w)."""
    return np.indices(shape) - (np.array(shape) - 1)[:, None, None] / 2


def _sample(image: Image, at: NDArray[np.floating]) -> Image:
    """Cubic values at (2 h w) coordinates, clipped to the image's range, borders repeated."""
    values = ndimage.map_coordinates(image, at, order=3, mode="nearest", output=np.float32)
    return np.asarray(np.clip(values, image.min(), image.max()), np.float32)


def _blur(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def _closed(mask: Mask) -> Mask:
    """Gaps of a pixel closed and holes filled."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(closed, outlines, -1, 1, cv2.FILLED), bool)
