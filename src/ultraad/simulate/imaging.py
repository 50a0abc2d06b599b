"""From tissue to a grey picture: machines, beams, attenuation, speckle and log compression."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.errors import ConfigError
from ultraad.simulate.fields import Grid, bump, line, noise, uniform

if TYPE_CHECKING:
    from ultraad.simulate.anatomy import Tissue
    from ultraad.simulate.fields import Field

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of machine: the intervals from which the settings of one machine are drawn.

    Attributes:
        mhz: Centre frequency.
        width_mm: Aperture.
        depth_mm: Depth setting.
        axial_mm, lateral_mm: Full width at half maximum of the point spread function, at the focus.
        focus: Focal depth relative to the depth setting.
        defocus: Growth of the lateral width one focal depth away from the focus.
        range_db: Dynamic range.
        compounding: Speckle reduction from 0 (raw speckle) to 1 (no speckle).
        noise_db: Electronic noise relative to the brightest echo.
        clutter_db: Side lobes relative to the echo they come from.
        gamma: Exponent of the grey map.
        smoothing: Standard deviation of the picture filter in pixels of a 224-pixel picture.
        sharpening: Strength of edge enhancement.
        spread: Widening per mm of depth (virtual convex); 0 for a rectangle.
        radius_mm: Radius of a curved array; 0 for a flat one.
    """

    mhz: Range
    width_mm: Range
    depth_mm: Range
    axial_mm: Range
    lateral_mm: Range
    focus: Range = (0.3, 0.6)
    defocus: Range = (0.2, 0.9)
    range_db: Range = (40, 60)
    compounding: Range = (0.2, 0.6)
    noise_db: Range = (-55, -40)
    clutter_db: Range = (-45, -25)
    gamma: Range = (1.0, 1.9)
    smoothing: Range = (0, 0.5)
    sharpening: Range = (0, 0.3)
    spread: Range = (0, 0)
    radius_mm: Range = (0, 0)


PROFILES = {
    "premium-linear": Profile(
        (10, 14), (38, 50), (28, 50), (0.13, 0.22), (0.28, 0.50), range_db=(48, 68), compounding=(0.45, 0.75)
    ),
    "high-frequency": Profile(
        (13, 18), (30, 50), (20, 40), (0.10, 0.16), (0.22, 0.40), range_db=(48, 66), compounding=(0.3, 0.7)
    ),
    "despeckled": Profile(
        (9, 13), (38, 50), (30, 50), (0.16, 0.28), (0.35, 0.6), compounding=(0.7, 0.92), smoothing=(0.5, 1.1),
        sharpening=(0.3, 1.2),
    ),
    "midrange-linear": Profile((7, 12), (38, 42), (30, 55), (0.18, 0.32), (0.40, 0.80)),
    "portable": Profile(
        (6, 10), (36, 40), (30, 60), (0.22, 0.42), (0.5, 1.0), range_db=(36, 52), compounding=(0, 0.4),
        noise_db=(-45, -32), clutter_db=(-35, -20),
    ),
    "handheld": Profile(
        (5, 9), (34, 40), (30, 60), (0.26, 0.5), (0.6, 1.3), range_db=(35, 50), compounding=(0, 0.5),
        noise_db=(-42, -30), clutter_db=(-32, -18), smoothing=(0, 1.0),
    ),
    "old-console": Profile(
        (6, 9), (38, 42), (35, 60), (0.28, 0.5), (0.6, 1.2), range_db=(32, 46), compounding=(0, 0.15),
        gamma=(0.8, 1.5), noise_db=(-45, -34),
    ),
    "harmonic": Profile(
        (10, 14), (38, 50), (28, 48), (0.16, 0.28), (0.28, 0.5), range_db=(42, 56), compounding=(0.3, 0.7),
        clutter_db=(-55, -38), gamma=(1.2, 2.1),
    ),
    "soft-map": Profile(
        (8, 13), (38, 50), (30, 52), (0.16, 0.3), (0.35, 0.7), range_db=(56, 76), compounding=(0.4, 0.8),
        gamma=(1.0, 1.6), smoothing=(0.3, 0.9),
    ),
    "volume-scanner": Profile(
        (7, 12), (60, 150), (38, 60), (0.2, 0.36), (0.5, 1.0), compounding=(0.3, 0.7), smoothing=(0.2, 0.8)
    ),
    "virtual-convex": Profile(
        (8, 13), (38, 50), (32, 60), (0.18, 0.3), (0.4, 0.8), spread=(0.004, 0.014)
    ),
    "curved": Profile(
        (4, 9), (25, 60), (40, 80), (0.3, 0.5), (0.6, 1.2), radius_mm=(35, 60), clutter_db=(-35, -22)
    ),
}  # fmt: skip
"""More kinds of machines than are common in breast imaging, since models are used with machines they have not seen."""

ANY = Profile(
    (7, 15), (36, 64), (36, 64), (0.15, 0.45), (0.25, 0.7), defocus=(0, 1.2), range_db=(38, 62), compounding=(0, 0.8),
    noise_db=(-48, -34), gamma=(0.9, 1.9), smoothing=(0, 0.9), sharpening=(0, 0.6),
)  # fmt: skip
"""The settings of all kinds of machines, each drawn independently; for tissue without a scale."""


@dataclass(frozen=True, slots=True)
class Device:
    """One machine: values drawn from the intervals of a :class:`Profile`, which documents them."""

    name: str
    mhz: float
    width_mm: float
    depth_mm: float
    axial_mm: float
    lateral_mm: float
    focus: float
    defocus: float
    range_db: float
    compounding: float
    noise_db: float
    clutter_db: float
    gamma: float
    smoothing: float
    sharpening: float
    spread: float
    radius_mm: float

    @property
    def effective_mhz(self) -> float:
        """Frequency for attenuation: below the centre, since the spectrum falls with depth and compounding adds."""
        return 0.6 * self.mhz


_COMMONNESS = {"curved": 0.3, "virtual-convex": 0.6, "volume-scanner": 0.3}  # most breast probes are linear arrays


def draw_device(rng: np.random.Generator, name: str | None = None) -> Device:
    """Draw a machine.

    Args:
        rng: Random generator.
        name: Key of :data:`PROFILES`; None draws one.

    Raises:
        ConfigError: If there is no such profile.
    """
    if name is None:
        weights = np.array([_COMMONNESS.get(key, 1.0) for key in PROFILES])
        name = tuple(PROFILES)[int(rng.choice(len(weights), p=weights / weights.sum()))]
    if name not in PROFILES:
        msg = f"there is no device {name!r}; choose one of: {', '.join(sorted(PROFILES))}"
        raise ConfigError(msg)
    return _device(name, PROFILES[name], rng)


def any_device(rng: np.random.Generator) -> Device:
    """Draw a machine from :data:`ANY`."""
    return _device("any", ANY, rng)


def _device(name: str, profile: Profile, rng: np.random.Generator) -> Device:
    return Device(name, **{f.name: uniform(rng, getattr(profile, f.name)) for f in fields(profile)})


def view(device: Device, size: int, rng: np.random.Generator) -> Grid:
    """The view of one image: the machine's depth and aperture with small changes, sometimes zoomed."""
    zoom = uniform(rng, (0.55, 0.9)) if rng.random() < 0.2 else 1.0
    return Grid(
        size=size,
        depth_mm=device.depth_mm * uniform(rng, (0.85, 1.2)) * zoom,
        width_mm=device.width_mm * (zoom if device.radius_mm == 0 else 1.0),
        spread=device.spread,
        radius_mm=device.radius_mm,
    )


def _levels(tissue: Tissue, grid: Grid, device: Device, rng: np.random.Generator) -> Field:
    """Levels (h w) in dB of the echoes at the probe, after attenuation, shadows, contact and gain."""
    loss = np.cumsum(tissue.loss, axis=0, dtype=np.float32) * np.float32(grid.dy * device.effective_mhz)
    wide = cv2.GaussianBlur(
        loss, (0, 0), sigmaX=max(0.6 / grid.dx, 0.5), sigmaY=0.5
    )  # beams and compounding angles overlap
    depth = grid.depth / grid.depth_mm
    levels = tissue.echo - loss - depth * (wide - loss)
    contact = line(rng, grid, cell_mm=uniform(rng, (1, 6)), amplitude=uniform(rng, (0, 2)))
    for _ in range(int(rng.poisson(0.9))):  # poor contact, hair, superficial ligaments
        at, width = uniform(rng, (-0.5, 0.5)) * grid.width_mm, uniform(rng, (0.5, 4))
        contact = contact - uniform(rng, (2, 14)) * bump(grid.beam - at, width)
    if rng.random() < 0.15:  # nipple
        nipple = bump(grid.beam - uniform(rng, (-0.35, 0.35)) * grid.width_mm, uniform(rng, (3, 7)))
        levels = levels - nipple * np.float32(uniform(rng, (6, 22))) * np.clip(grid.depth / 6 - 0.4, 0, 1)
    gain = uniform(rng, (-24, 6)) * depth + uniform(rng, (-10, 10)) * np.square(depth - 0.5)
    drift = uniform(rng, (0, 2.5)) * noise(rng, grid, (15, 15))
    levels = levels + contact * np.clip(grid.depth / 4, 0, 1) + gain + drift
    return np.asarray(levels, dtype=np.float32)


def _speckle(levels: Field, grid: Grid, device: Device, rng: np.random.Generator) -> Field:
    """Envelope (h w) of diffuse scatterers under a point spread function that widens away from the focus."""
    amplitude: Field = np.asarray(np.power(np.float32(10), levels / 20), dtype=np.float32)
    scatterers = rng.standard_normal((grid.size, grid.size, 2), dtype=np.float32)
    scatterers *= np.repeat(amplitude, 2, axis=1).reshape(scatterers.shape)
    axial = max(device.axial_mm / 2.355 / grid.dy, 0.35)
    near = max(device.lateral_mm / 2.355 / grid.dx, 0.35)

    def image(lateral: float) -> Field:
        """(h 2w), real and imaginary parts side by side."""
        blurred = cv2.GaussianBlur(scatterers, (0, 0), sigmaX=lateral, sigmaY=axial).reshape(grid.size, -1)
        return np.asarray(blurred * np.float32(2 * np.sqrt(np.pi * lateral * axial)), dtype=np.float32)

    away = np.abs(grid.depth / grid.depth_mm - np.float32(device.focus)) / np.float32(max(device.focus, 0.2))
    blend = np.clip(away, 0, 1)
    echoes = image(near) * (1 - blend) + image(near * (1 + device.defocus)) * blend
    echoes = echoes.reshape(grid.size, grid.size, 2)
    envelope = cv2.magnitude(echoes[..., 0], echoes[..., 1])
    if device.compounding > 0:  # the limit of averaging many looks
        mean = cv2.GaussianBlur(amplitude, (0, 0), sigmaX=near, sigmaY=axial) * np.float32(1.25)
        envelope += np.float32(device.compounding) * (mean - envelope)
    return np.asarray(envelope, dtype=np.float32)


def _artefacts(envelope: Field, grid: Grid, device: Device, rng: np.random.Generator) -> Field:
    """Side lobes, reverberation of the superficial layers, and electronic noise that time gain raises with depth."""
    reach = uniform(rng, (1.5, 5)) / grid.dx
    lobes = cv2.blur(envelope, (2 * round(reach) + 1, 1))
    envelope = envelope + lobes * np.float32(10 ** (device.clutter_db / 20))
    shift = round(uniform(rng, (1.5, 6)) / grid.dy)
    if 0 < shift < grid.size // 2:
        echo = cv2.blur(envelope[: 2 * shift], (5, 1)) * np.float32(10 ** (uniform(rng, (-42, -20)) / 20))
        envelope[shift : 3 * shift] += echo[: len(envelope[shift : 3 * shift])]
    floor = 10 ** ((device.noise_db + uniform(rng, (0, 14)) * grid.depth / grid.depth_mm) / 20)
    thermal = np.abs(rng.standard_normal((grid.size, grid.size), dtype=np.float32))
    return np.asarray(envelope + thermal * floor.astype(np.float32), dtype=np.float32)


def _greys(envelope: Field, grid: Grid, device: Device, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Log compression, grey map and picture filters."""
    level = cv2.log(envelope + np.float32(1e-6)) * np.float32(20 / np.log(10))
    white = np.percentile(level[::4, ::4], uniform(rng, (97.5, 99.9)))
    grey = np.clip((level - np.float32(white)) / np.float32(device.range_db) + 1, 0, 1)
    if rng.random() < 0.3:  # S-shaped map
        grey = grey + np.float32(uniform(rng, (0, 1))) * (grey * grey * (3 - 2 * grey) - grey)
    grey = cv2.pow(grey.astype(np.float32), device.gamma * uniform(rng, (0.85, 1.2)))
    grey = grey * np.float32(uniform(rng, (0.65, 1))) + np.float32(uniform(rng, (0, 0.03)))
    scale = grid.size / 224
    if device.smoothing > 0.25:
        grey = cv2.GaussianBlur(grey, (0, 0), device.smoothing * scale)
    if device.sharpening > 0.05:
        grey = grey + np.float32(device.sharpening) * (grey - cv2.GaussianBlur(grey, (0, 0), 1.5 * scale))
    picture = np.clip(grey * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.medianBlur(picture, 3) if rng.random() < device.compounding * 0.25 else picture)


def acquire(tissue: Tissue, grid: Grid, device: Device, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A grey picture (h w) on the beam grid."""
    envelope = _speckle(_levels(tissue, grid, device, rng), grid, device, rng)
    return _greys(_artefacts(envelope, grid, device, rng), grid, device, rng)
