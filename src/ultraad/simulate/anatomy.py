"""Healthy breast: skin, fat lobules, Cooper ligaments, fibroglandular tissue, ducts, vessels, muscle, ribs, pleura.

Echogenicity is in dB relative to fibroglandular tissue. Nothing here depends on whether a lesion is added later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ultraad.simulate.fields import bump, facing, line, noise, step, uniform

if TYPE_CHECKING:
    from ultraad.simulate.fields import Field, Grid

# One-way attenuation in dB / (cm MHz): Culjat et al., Ultrasound Med Biol 36:861 (2010), table 1.
FAT, BREAST, MUSCLE, BONE = 0.48, 0.75, 1.09, 6.9
SKIN = 1.0
REFERENCE = 0.65  # compensated by the console's time gain; a value between fat and breast


@dataclass(frozen=True, slots=True)
class Style:
    """A patient: what all images of one breast have in common. Lengths in mm, levels in dB.

    Attributes:
        density: 0 almost entirely fatty, 1 scattered, 2 heterogeneously dense, 3 extremely dense (BI-RADS a to d).
        skin_mm, fat_mm, gland_mm, retro_mm, muscle_mm: Thickness of the layers, from the skin down.
        fat_db: Level of fat.
        muscle_db: Level of muscle.
        lobule_mm: Size of fat lobules.
        septa_db: Contrast of ligaments and septa.
        septa_mm: Thickness scale of septa.
        texture_db: Coarse variation of the gland.
        streaks_db: Short specular echoes in all tissue.
        waviness: Height of the layers' waves relative to their depth.
        edge_mm: Softness of the borders between layers.
    """

    density: int
    skin_mm: float
    fat_mm: float
    gland_mm: float
    retro_mm: float
    muscle_mm: float
    fat_db: float
    muscle_db: float
    lobule_mm: float
    septa_db: float
    septa_mm: float
    texture_db: float
    streaks_db: float
    waviness: float
    edge_mm: float


@dataclass(frozen=True, slots=True)
class Tissue:
    """The tissue that the beams travel through.

    Attributes:
        echo: Echogenicity (h w) in dB.
        loss: Two-way loss (h w) in dB per mm and MHz beyond the console's compensation.
        fat_db: Level of subcutaneous fat, the reference of BI-RADS echo patterns; None: the lesion's surroundings.
        chest_mm: Mean depth of the pectoral muscle.
        skin_mm: Thickness of the skin.
    """

    echo: Field
    loss: Field
    fat_db: float | None
    chest_mm: float
    skin_mm: float


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a patient. The ranges enclose anatomy: skin 0.5 to 3 mm, breast 1.5 to 5 cm thick under compression."""
    density = int(rng.choice(4, p=(0.10, 0.40, 0.40, 0.10)))  # shares among screened women, BI-RADS 5th edition
    return Style(
        density=density,
        skin_mm=uniform(rng, (0.6, 2.8)),
        fat_mm=float(np.exp(rng.normal(np.log((11, 8, 6, 3.5)[density]), 0.4))),
        gland_mm=float(np.exp(rng.normal(np.log((9, 13, 16, 20)[density]), 0.35))),
        retro_mm=uniform(rng, (0.5, 6)),
        muscle_mm=uniform(rng, (5, 13)),
        fat_db=uniform(rng, (-16, -6)),
        muscle_db=uniform(rng, (-16, -6)),
        lobule_mm=uniform(rng, (3.5, 12)),
        septa_db=uniform(rng, (5, 22)),
        septa_mm=uniform(rng, (0.25, 0.9)),
        texture_db=uniform(rng, (0.5, 4)),
        streaks_db=uniform(rng, (0.5, 9)),
        waviness=uniform(rng, (0.03, 0.22)),
        edge_mm=uniform(rng, (0.5, 3)),
    )


def loss_rate(attenuation: float) -> np.float32:
    """Two-way loss of a tissue in dB per mm and MHz beyond the console's compensation."""
    return np.float32((attenuation - REFERENCE) * 2 / 10)


def _septa(rng: np.random.Generator, grid: Grid, style: Style) -> Field:
    """Connective tissue between lobules (h w) in dB: level lines of noise, brightest where they face the probe."""
    total = np.zeros((grid.size, grid.size), np.float32)
    warp = noise(rng, grid, (12, 12))
    for scale, share in ((1.0, 1.0), (0.5, uniform(rng, (0.1, 0.8))), (0.28, uniform(rng, (0, 0.5)))):
        cell = style.lobule_mm * scale
        sheet = noise(rng, grid, (cell * 0.75, cell * uniform(rng, (1.0, 2.4)))) + np.float32(0.3) * warp
        total += bump(sheet, style.septa_mm / cell) * (0.25 + 0.75 * facing(sheet)) * np.float32(share)
    patchy = np.clip(0.5 + 0.5 * noise(rng, grid, (7, 9)), 0, 1.6)
    return np.asarray(total * patchy * np.float32(style.septa_db), dtype=np.float32)


def _streaks(rng: np.random.Generator, grid: Grid, style: Style) -> Field:
    """Short horizontal specular echoes in patches (h w) in dB."""
    cell = uniform(rng, (0.35, 1.0))
    short = noise(rng, grid, (cell, cell * uniform(rng, (3, 8))))
    long = noise(rng, grid, (2 * cell, 2 * cell * uniform(rng, (4, 10))))
    patchy = noise(rng, grid, (5, 7))
    bright = np.clip(short + uniform(rng, (0.3, 1)) * long - 0.5 + 0.4 * patchy, 0, 3)
    return np.asarray(bright * np.float32(style.streaks_db), dtype=np.float32)


def add_tubes(echo: Field, rng: np.random.Generator, grid: Grid) -> None:
    """Draw ducts and vessels, thin dark tubes with bright walls, into ``echo``."""
    for _ in range(int(rng.poisson(0.2))):
        steps = np.arange(10)
        length, slope = uniform(rng, (5, 18)), rng.normal(0, 0.35)
        x = uniform(rng, (-0.5, 0.5)) * grid.width_mm + steps / 9 * length
        y = uniform(rng, (0.12, 0.6)) * grid.depth_mm + steps / 9 * length * slope + np.cumsum(rng.normal(0, 0.35, 10))
        points = np.array([grid.locate(a, b) for a, b in zip(x, y, strict=True)], np.int32)
        width = max(1, round(uniform(rng, (0.4, 1.8)) / grid.dy))
        lumen = np.zeros_like(echo)
        cv2.polylines(lumen, [points], isClosed=False, color=1.0, thickness=width, lineType=cv2.LINE_AA)
        wall = cv2.dilate(lumen, np.ones((3, 1), np.uint8)) - lumen
        echo += wall * np.float32(uniform(rng, (0, 8))) - lumen * np.float32(uniform(rng, (5, 18)))


def add_lobules(echo: Field, rng: np.random.Generator, grid: Grid, *, texture: Field, fat_db: float) -> None:
    """Draw single fat lobules, which can mimic an isoechoic mass, into the gland in ``echo``."""
    x, y = grid.position
    for _ in range(int(rng.poisson(1.1))):
        half_w = uniform(rng, (1.5, 7))
        half_h, tilt = half_w / uniform(rng, (1.4, 4)), rng.normal(0, 0.25)
        dx = x - np.float32(uniform(rng, (-0.5, 0.5)) * grid.width_mm)
        dy = y - np.float32(uniform(rng, (0.1, 0.75)) * grid.depth_mm)
        c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        q = np.hypot((dx * c + dy * s) / np.float32(half_w), (dy * c - dx * s) / np.float32(half_h)) + 0.1 * texture
        weight = step(1 - q, 0.35) * np.float32(uniform(rng, (0.4, 0.9)))
        echo += weight * (np.float32(fat_db + uniform(rng, (-3, 4))) - echo)
        echo += bump(q - 1.05, 0.08) * facing(q) * np.float32(uniform(rng, (0, 9)))


def add_ribs(echo: Field, loss: Field, rng: np.random.Generator, grid: Grid, *, chest_mm: float) -> None:
    """Draw ribs under the muscle: a bright arc with a shadow behind it."""
    x, y = grid.position
    for _ in range(int(rng.integers(1, 3))):
        half = uniform(rng, (3, 8))
        across = (x - np.float32(uniform(rng, (-0.5, 0.5)) * grid.width_mm)) / np.float32(half)
        below = y - np.float32(chest_mm + uniform(rng, (3, 10))) - np.square(across) * np.float32(half * 0.2)
        inside = step(1 - np.abs(across), 0.2)
        echo += inside * bump(below, 0.5) * np.float32(uniform(rng, (10, 22)))
        echo -= inside * step(below - 0.6, 0.6) * np.float32(uniform(rng, (6, 16)))
        loss += inside * step(below, 0.3) * bump(np.maximum(below, 0), 2.0) * loss_rate(BONE) * np.float32(0.5)


def _bend(echo: Field, loss: Field, rng: np.random.Generator, grid: Grid, style: Style) -> tuple[Field, Field]:
    """Shift all structures up and down together, more at depth, as pressure and the chest wall do."""
    rows, columns = np.indices((grid.size, grid.size), dtype=np.float32)
    height = noise(rng, grid, (14, 15)) * np.float32(style.waviness * uniform(rng, (0.2, 1.2)) * 7 / grid.dy)
    rows += height * np.clip(grid.depth / 10, 0, 1)
    bent = cv2.remap(np.dstack([echo, loss]), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(bent[..., 0]), np.ascontiguousarray(bent[..., 1])


@dataclass(frozen=True, slots=True)
class _Depths:
    """Depth (h w) in mm below the upper border of each layer, negative above it; mean depth of the chest wall."""

    skin: Field
    fat: Field
    gland: Field
    chest: Field
    muscle: Field
    chest_mm: float


def _depths(rng: np.random.Generator, grid: Grid, style: Style) -> _Depths:
    """The layers of this view: their thickness varies from view to view, and their borders wave and tilt."""
    y = grid.position[1]
    tilt = grid.beam / grid.width_mm * np.float32(rng.normal(0, 3))
    wave = style.waviness
    skin = np.float32(style.skin_mm) + line(rng, grid, cell_mm=10, amplitude=0.15)
    fat = style.skin_mm + style.fat_mm * uniform(rng, (0.7, 1.4))
    chest = fat + style.gland_mm * uniform(rng, (0.7, 1.4)) + style.retro_mm
    below_fat = y - (fat + tilt + line(rng, grid, cell_mm=uniform(rng, (4, 12)), amplitude=wave * fat))
    below_gland = y - (chest - style.retro_mm + tilt + line(rng, grid, cell_mm=9, amplitude=0.5 * wave * chest))
    below_chest = y - (chest + tilt + line(rng, grid, cell_mm=14, amplitude=0.3 * wave * chest))
    below_muscle = below_chest - (style.muscle_mm + line(rng, grid, cell_mm=12, amplitude=0.6))
    return _Depths(y - skin, below_fat, below_gland, below_chest, below_muscle, chest)


@dataclass(frozen=True, slots=True)
class _Textures:
    """Noise and connective tissue (h w) shared by the layers of one view."""

    coarse: Field
    fine: Field
    septa: Field
    streaks: Field


def _gland(rng: np.random.Generator, grid: Grid, style: Style, shared: _Textures, fat: Field) -> tuple[Field, Field]:
    """Level of fibroglandular tissue (h w) in dB, and the share of fat in it (h w)."""
    coarse, fine = shared.coarse, shared.fine
    gland = np.float32(uniform(rng, (-2, 2))) + np.float32(style.texture_db) * coarse + uniform(rng, (0, 2.5)) * fine
    gland += uniform(rng, (0, 0.8)) * shared.streaks + uniform(rng, (0, 0.6)) * shared.septa
    rarity = np.float32((-0.6, 0.1, 0.8, 1.8)[style.density])  # the denser the breast, the fewer fatty islands
    islands = step(noise(rng, grid, (4, 8)) + np.float32(0.3) * fine - rarity, 0.8)
    gland += islands * (fat - gland)
    if rng.random() < 0.45:  # dark lobules and ducts
        depth, rarity = uniform(rng, (3, 10)), np.float32(uniform(rng, (0.5, 1.5)))
        gland -= depth * step(fine + np.float32(0.5) * coarse - rarity, 0.8)
    return gland, islands


def _muscle(rng: np.random.Generator, grid: Grid, style: Style, streaks: Field) -> Field:
    """Level of muscle (h w) in dB: dark, with long bright fibres."""
    fibres = noise(rng, grid, (uniform(rng, (0.7, 1.6)), uniform(rng, (6, 16))))
    muscle = np.float32(style.muscle_db) + 1.5 * fibres + bump(fibres, 0.25) * np.float32(uniform(rng, (3, 12)))
    muscle += uniform(rng, (0.2, 0.8)) * streaks
    return np.asarray(muscle, dtype=np.float32)


def draw_tissue(style: Style, grid: Grid, rng: np.random.Generator) -> Tissue:
    """One view of a patient's breast, layer by layer."""
    below = _depths(rng, grid, style)
    coarse, fine = noise(rng, grid, (5, 7)), noise(rng, grid, (1.4, 2.2))
    shared = _Textures(coarse, fine, _septa(rng, grid, style), _streaks(rng, grid, style))
    septa, streaks = shared.septa, shared.streaks
    fat = np.float32(style.fat_db) + septa + uniform(rng, (0, 2)) * coarse + uniform(rng, (0.2, 1)) * streaks
    gland, islands = _gland(rng, grid, style, shared, fat)
    muscle = _muscle(rng, grid, style, streaks)
    deep = np.float32(uniform(rng, (-28, -10))) + uniform(rng, (1, 3)) * coarse + uniform(rng, (0, 0.8)) * streaks

    edge = style.edge_mm
    in_gland = step(below.fat, edge) - step(below.gland, edge)
    in_muscle, in_deep = step(below.chest, 0.7 * edge), step(below.muscle, edge)
    echo = fat + in_gland * (gland - fat)
    loss = loss_rate(FAT) + in_gland * (1 - islands) * (loss_rate(BREAST) - loss_rate(FAT)) + septa * np.float32(1e-3)
    add_lobules(echo, rng, grid, texture=coarse, fat_db=style.fat_db)
    add_tubes(echo, rng, grid)
    echo += in_muscle * (muscle - echo)
    loss += in_muscle * (loss_rate(MUSCLE) - loss)
    echo += in_deep * (deep - echo)
    loss += in_deep * (loss_rate(REFERENCE) - loss)
    patchy = np.clip(0.6 + 0.4 * coarse, 0, 2)
    echo += bump(below.chest, 0.5) * np.float32(uniform(rng, (0, 12))) * patchy  # fascia
    echo += bump(below.muscle, 0.6) * np.float32(uniform(rng, (0, 14))) * patchy  # pleura
    if rng.random() < 0.2:
        add_ribs(echo, loss, rng, grid, chest_mm=below.chest_mm)

    echo, loss = _bend(echo, loss, rng, grid, style)
    in_skin = step(-below.skin, 0.25)
    echo += in_skin * (np.float32(uniform(rng, (-4, 8))) - echo)
    echo += (bump(below.skin, 0.25) + bump(grid.position[1], 0.3)) * np.float32(uniform(rng, (2, 9)))
    loss += in_skin * (loss_rate(SKIN) - loss)
    return Tissue(echo, loss, style.fat_db, below.chest_mm, style.skin_mm)
