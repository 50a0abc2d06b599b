"""Lesions with given BI-RADS attributes, drawn into healthy tissue.

Each attribute acts where it does in the body: shape, orientation and margin on the outline, echo pattern on the
echogenicity, posterior features on the attenuation, which is integrated along the beams later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ultraad.simulate.attributes import FAMILIES
from ultraad.simulate.fields import bump, facing, noise, step, uniform

if TYPE_CHECKING:
    from ultraad.simulate.anatomy import Tissue
    from ultraad.simulate.attributes import Attributes
    from ultraad.simulate.fields import Field, Grid

SURROUNDINGS_DB = (-11.0, -3.0)  # range of the reference level taken from a lesion's surroundings: no shadows, no skin
_ANGLES = 256  # samples of an outline


@dataclass(frozen=True, slots=True)
class Outline:
    """Position and border of a lesion. Lengths in mm.

    Attributes:
        x, y: Centre; x from the middle of the aperture, y from the skin.
        major, minor: Half axes.
        tilt: Angle of the major axis against the skin in rad.
        border: Border radius over angle relative to the ellipse, (256,).
    """

    x: float
    y: float
    major: float
    minor: float
    tilt: float
    border: Field

    @property
    def radius(self) -> float:
        """Radius of the circle of the same area."""
        return float(np.sqrt(self.major * self.minor))

    @property
    def half_extent(self) -> tuple[float, float]:
        """Half width and half height of the ellipse's bounding box."""
        return _half_extent(self.major, self.minor, self.tilt)

    def radial(self, grid: Grid) -> Field:
        """Distance from the centre relative to the border (h w): 0 at the centre, 1 on the border."""
        x, y = grid.position
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        c, s = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        u, v = (dx * c + dy * s) * np.float32(1 / self.major), (dy * c - dx * s) * np.float32(1 / self.minor)
        rho, angle = cv2.cartToPolar(u, v)
        closed = np.append(self.border, self.border[:1])[None, :]
        at = angle * np.float32(_ANGLES / (2 * np.pi))
        border = cv2.remap(closed, at, np.zeros_like(at), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(rho / border, dtype=np.float32)


def _half_extent(major: float, minor: float, tilt: float) -> tuple[float, float]:
    c, s = np.cos(tilt), np.sin(tilt)
    return float(np.hypot(major * c, minor * s)), float(np.hypot(major * s, minor * c))


def _waves(rng: np.random.Generator, low: int, high: int, amplitude: float) -> Field:
    """Random harmonics ``low`` .. ``high`` of an outline (256,) with the given standard deviation."""
    angle = np.arange(_ANGLES) / _ANGLES * 2 * np.pi
    k = np.arange(low, high + 1)[:, None]
    wave = (rng.standard_normal((len(k), 1)) * np.cos(k * angle + rng.uniform(0, 2 * np.pi, (len(k), 1)))).sum(0)
    return np.asarray(wave * amplitude / (wave.std() + 1e-6), dtype=np.float32)


def _border(attributes: Attributes, radius_mm: float, rng: np.random.Generator) -> Field:
    """Border radius over angle (256,) relative to the ellipse, with the same area as the ellipse."""
    angle = np.arange(_ANGLES) / _ANGLES * 2 * np.pi
    if attributes.shape == "irregular":
        border = 1 + _waves(rng, 2, 5, uniform(rng, (0.06, 0.14))) + _waves(rng, 4, 9, uniform(rng, (0.02, 0.06)))
    else:
        border = 1 + _waves(rng, 2, 4, 0.02)
        if attributes.shape == "oval" and rng.random() < 0.3:  # two or three gentle lobulations: still oval
            border += _waves(rng, 3, 4, uniform(rng, (0.03, 0.07)))
    if attributes.margin == "microlobulated":  # 1 to 3 mm lobules
        k = int(np.clip(2 * np.pi * radius_mm / uniform(rng, (1.8, 4)), 7, 24))
        lobules = np.abs(np.sin(k / 2 * angle + np.cumsum(rng.normal(0, 0.05, _ANGLES))))
        border += lobules.astype(np.float32) * np.float32(np.clip(uniform(rng, (0.5, 1.1)) / radius_mm, 0.06, 0.22))
    elif attributes.margin == "angular":
        k = int(rng.integers(5, 10))
        corner = np.sort((np.arange(k) + rng.uniform(-0.3, 0.3, k)) / k * 2 * np.pi)
        length = rng.uniform(0.78, 1.25, k)
        border *= np.interp(angle, corner, length, period=2 * np.pi).astype(np.float32)
    elif attributes.margin == "spiculated":
        for at in rng.uniform(0, 2 * np.pi, int(rng.integers(6, 14))):
            away = np.angle(np.exp(1j * (angle - at)))
            peak = np.maximum(1 - np.abs(away) / uniform(rng, (0.1, 0.22)), 0)
            border += peak.astype(np.float32) * np.float32(uniform(rng, (0.12, 0.4)))
    elif attributes.margin == "indistinct":
        border += _waves(rng, 3, 10, 0.04)
    border = np.clip(border, 0.4, 1.8)
    return np.asarray(border / np.sqrt(np.mean(np.square(border))), dtype=np.float32)


def draw_outline(attributes: Attributes, tissue: Tissue, grid: Grid, rng: np.random.Generator) -> Outline:
    """Draw position and border: between skin and muscle if there is room, near the middle of the view."""
    family = FAMILIES[attributes.family]
    longest = float(np.exp(rng.normal(np.log(family.width_mm), family.spread)))
    longest = float(np.clip(longest, 3, 0.85 * min(grid.width_mm, grid.depth_mm)))
    # long over short axis; Rahbar 1999 separates round from oval at 1.4
    ratio = uniform(rng, {"round": (1.0, 1.15), "oval": (1.3, 2.4), "irregular": (1.05, 1.9)}[attributes.shape])
    major, minor = longest / 2, longest / 2 / ratio
    tilt = rng.normal(0, 0.2) + (np.pi / 2 if attributes.orientation == "not parallel" else 0)
    half_w, half_h = _half_extent(major, minor, tilt)
    room = max(grid.width_mm / 2 - 0.8 * half_w, 0)
    x = float(np.clip(rng.normal(0, 0.2 * grid.width_mm), -room, room))
    top = tissue.skin_mm + half_h + 0.5
    bottom = max(min(tissue.chest_mm - 0.5 * half_h, grid.depth_mm - 0.8 * half_h), top)
    y = top + (bottom - top) * float(rng.beta(1.3, 1.6))
    return Outline(
        x, min(y, 0.85 * grid.depth_mm), major, minor, float(tilt), _border(attributes, np.sqrt(major * minor), rng)
    )


def _interior(attributes: Attributes, fat_db: float, outline: Outline, grid: Grid, rng: np.random.Generator) -> Field:
    """Echogenicity inside the lesion (h w) in dB."""
    cell = float(np.clip(outline.radius * 0.5, 0.8, 4))
    coarse, fine = noise(rng, grid, (cell * 1.6, cell * 1.6)), noise(rng, grid, (cell * 0.6, cell * 0.8))
    malignant = attributes.label == "malignant"
    rough = uniform(rng, (0.8, 3.0) if malignant else (0.2, 1.5))
    grain = rough * coarse + 0.6 * rough * fine
    echo = attributes.echo
    if echo == "anechoic":
        return np.asarray(fat_db - uniform(rng, (20, 36)) + 0.3 * coarse, dtype=np.float32)
    if echo == "hyperechoic":
        level = fat_db + uniform(rng, (7, 16)) + grain
    elif echo == "isoechoic":
        level = fat_db + uniform(rng, (-1.5, 2.5)) + grain
    elif echo == "heterogeneous":
        level = fat_db + uniform(rng, (-7, 2)) + grain + uniform(rng, (3, 7)) * np.tanh(2 * coarse + fine)
    else:
        level = fat_db - uniform(rng, (4, 14) if malignant else (4, 12)) + grain
        if echo == "complex cystic and solid":
            cyst = step(coarse + 0.3 * fine - np.float32(uniform(rng, (-0.4, 0.5))), 0.25)
            level = level + 5 - cyst * np.float32(uniform(rng, (16, 30)))
    return np.asarray(level, dtype=np.float32)


def _spicules(echo: Field, inside: Field, outline: Outline, grid: Grid, rng: np.random.Generator) -> None:
    """Draw dark or bright lines that radiate from the lesion into ``echo``."""
    lines, r = np.zeros_like(echo), outline.radius
    for at in rng.uniform(0, 2 * np.pi, int(rng.integers(7, 18))):
        near, far = 0.8 * r, r + uniform(rng, (1.5, 8))
        a, b = (grid.locate(outline.x + d * np.cos(at), outline.y + d * np.sin(at)) for d in (near, far))
        cv2.line(lines, a, b, 1.0, max(1, round(uniform(rng, (0.2, 0.7)) / grid.dx)), cv2.LINE_AA)
    lift = uniform(rng, (-13, -4)) if rng.random() < 0.6 else uniform(rng, (3, 9))
    echo += lines * (1 - inside) * np.float32(lift)


def _calcifications(echo: Field, outline: Outline, grid: Grid, rng: np.random.Generator) -> None:
    """Draw bright points in the lesion into ``echo``."""
    size = max(1, round(uniform(rng, (0.2, 0.5)) / grid.dy / 2))
    for _ in range(int(rng.integers(3, 18))):
        at, d = rng.uniform(0, 2 * np.pi), outline.minor * 0.85 * np.sqrt(rng.random())
        column, row = grid.locate(outline.x + d * np.cos(at), outline.y + d * np.sin(at))
        if 0 <= row < grid.size and 0 <= column < grid.size:
            echo[row : row + size, column : column + size] += np.float32(uniform(rng, (14, 30)))


def _details(
    echo: Field, q: Field, inside: Field, attributes: Attributes, outline: Outline, grid: Grid, rng: np.random.Generator
) -> None:
    """Draw capsule, halo, septum, sediment, spicules and calcifications into ``echo``."""
    r = outline.radius
    y = grid.position[1]
    if attributes.margin == "circumscribed" and (attributes.echo == "isoechoic" or rng.random() < 0.6):
        capsule = bump(q - 1.03, uniform(rng, (0.2, 0.5)) / r)
        echo += capsule * (0.25 + 0.75 * facing(q)) * np.float32(uniform(rng, (3, 11)))
    if attributes.halo:
        thick = uniform(rng, (0.8, 3)) / r
        echo += step(q - 1, 0.3 / r) * step(1 + thick - q, thick) * np.float32(uniform(rng, (4, 10)))
    if attributes.family in {"simple cyst", "complicated cyst"} and rng.random() < 0.2:  # thin septum
        echo += inside * bump(noise(rng, grid, (2 * r, 2 * r)), 0.12) * np.float32(uniform(rng, (8, 18)))
    if attributes.family == "complicated cyst" and rng.random() < 0.3:  # fluid-debris level
        sediment = step(y - np.float32(outline.y + uniform(rng, (-0.4, 0.5)) * r), 0.4)
        echo += inside * sediment * np.float32(uniform(rng, (4, 10)))
    if attributes.margin == "spiculated":
        _spicules(echo, inside, outline, grid, rng)
    if attributes.calcifications:
        _calcifications(echo, outline, grid, rng)


def _attenuation(
    loss: Field,
    inside: Field,
    attributes: Attributes,
    outline: Outline,
    grid: Grid,
    rng: np.random.Generator,
    mhz: float,
) -> None:
    """Posterior features: draw the two-way loss in dB through the lesion's middle and spread it over its height."""
    x, y = grid.position
    half_w, half_h = outline.half_extent
    shadow, enhancement = uniform(rng, (9, 26)), -uniform(rng, (6, 15))
    total: Field | float
    if attributes.posterior == "combined pattern":
        side = np.float32(1 if rng.random() < 0.5 else -1)
        aside = step((x - np.float32(outline.x)) * side, 1.5)
        total = enhancement + aside * np.float32(shadow - enhancement)
    else:
        total = {"shadowing": shadow, "enhancement": enhancement}.get(attributes.posterior, uniform(rng, (-1.5, 1.5)))
    lower = 0.5 + step(y - np.float32(outline.y), half_h)  # mostly in the deeper half, so that the lesion stays visible
    loss += inside * lower * (total / np.float32(2 * half_h * mhz))
    if attributes.margin == "circumscribed" and attributes.shape != "irregular" and rng.random() < 0.4:
        # refraction at the flanks; the bump over depth integrates to 1.77 mm
        dark = np.float32(uniform(rng, (3, 10)) / (1.77 * mhz))
        for edge in (outline.x - half_w, outline.x + half_w):
            flank = bump(x - np.float32(edge), uniform(rng, (0.3, 0.8)))
            loss += flank * bump(y - np.float32(outline.y), 1.0) * dark


def add_lesion(
    tissue: Tissue, attributes: Attributes, grid: Grid, rng: np.random.Generator, *, mhz: float
) -> NDArray[np.bool_]:
    """Draw one lesion into the tissue, in place.

    Args:
        tissue: Healthy tissue; its ``echo`` and ``loss`` are changed.
        attributes: Appearance of the lesion.
        grid: The beam grid of the tissue.
        rng: Random generator.
        mhz: Effective frequency, which relates a shadow to the attenuation of tissue.

    Returns:
        bool (h w) on the beam grid: the outline a radiologist would draw.
    """
    outline = draw_outline(attributes, tissue, grid, rng)
    q = outline.radial(grid)
    soft = {"circumscribed": (0.15, 0.35), "microlobulated": (0.2, 0.5), "angular": (0.3, 0.8)}
    edge = uniform(rng, soft.get(attributes.margin, (0.3, 1.0)))
    ragged = 0.03 if attributes.margin == "circumscribed" else 0.06
    if attributes.margin == "indistinct":
        edge, ragged = uniform(rng, (1.2, 4.0)), 0.15
    rough = q + np.float32(ragged * min(1.0, 3 / outline.radius)) * noise(rng, grid, (1.2, 1.5))
    inside = step(1 - rough, min(edge / outline.radius, 0.7))
    echo = tissue.echo
    reference = tissue.fat_db
    if reference is None:
        reference = float(np.clip((echo * inside).sum() / (inside.sum() + 1e-6), *SURROUNDINGS_DB))
    echo += inside * (_interior(attributes, reference, outline, grid, rng) - echo)
    _details(echo, rough, inside, attributes, outline, grid, rng)
    _attenuation(tissue.loss, inside, attributes, outline, grid, rng, mhz)
    return np.asarray(q < 1, dtype=np.bool_)
