"""A second way to draw a breast: the same layers by other rules, with lengths relative to the picture.

A network that learns from one simulator also learns its peculiarities. With two simulators that only agree on what a
lesion is, it learns fewer of them (domain randomisation: Tobin et al., IROS 2017). Here nothing has a scale and every
range is far wider than in anatomy: connective tissue is bright in any direction, lobules have any size, tissue does not
attenuate. Lesions, imaging and console are those of the other modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ultraad.simulate.anatomy import Tissue, add_lobules, add_ribs, add_tubes
from ultraad.simulate.fields import bump, line, noise, step, uniform

if TYPE_CHECKING:
    from ultraad.simulate.fields import Field, Grid


@dataclass(frozen=True, slots=True)
class _Textures:
    """Noise, connective tissue and specular echoes (h w) shared by the layers of one picture."""

    middle: Field
    fine: Field
    sheets: Field
    streaks: Field


def _noise(rng: np.random.Generator, grid: Grid, rows: float, columns: float) -> Field:
    """Smooth noise (h w) with about this many blobs down and across the picture."""
    return noise(rng, grid, (grid.depth_mm / rows, grid.width_mm / columns))


def _level(rng: np.random.Generator, interval: tuple[float, float]) -> np.float32:
    return np.float32(uniform(rng, interval))


def _textures(rng: np.random.Generator, grid: Grid) -> _Textures:
    stretch = uniform(rng, (1.2, 3.5))
    few, some, many = uniform(rng, (5, 12)), uniform(rng, (10, 26)), uniform(rng, (18, 44))
    coarse = _noise(rng, grid, few, few / stretch)
    coarse += np.float32(0.35) * _noise(rng, grid, 4, 4)
    middle, fine = _noise(rng, grid, some, some / stretch), _noise(rng, grid, many, many / stretch)

    sheets = bump(coarse, uniform(rng, (0.04, 0.13))) * _level(rng, (6, 22))  # level lines at three scales
    sheets += bump(middle + np.float32(0.3) * coarse, uniform(rng, (0.06, 0.18))) * _level(rng, (2, 15))
    sheets += bump(fine + np.float32(0.5) * middle, uniform(rng, (0.06, 0.16))) * _level(rng, (0, 9))
    sheets *= np.clip(np.float32(0.45) + np.float32(0.55) * _noise(rng, grid, 9, 7), 0, 1.8)

    rows = uniform(rng, (30, 75))
    streaks = _noise(rng, grid, rows, rows / uniform(rng, (3, 8))) + np.float32(0.4) * _noise(rng, grid, 6, 6)
    streaks = np.clip(streaks - np.float32(0.4), 0, 3) * _level(rng, (1.5, 7))
    return _Textures(middle, fine, sheets, streaks)


def _gland(rng: np.random.Generator, shared: _Textures, fat: Field) -> Field:
    """Level of fibroglandular tissue (h w) in dB; a third of the breasts have hardly any."""
    gland = _level(rng, (-7, 2)) + _level(rng, (0.5, 3)) * shared.middle + _level(rng, (0, 3)) * shared.fine
    gland += _level(rng, (0, 0.8)) * shared.streaks
    if rng.random() < 0.45:  # dark lobules and ducts
        depth, rarity = _level(rng, (5, 14)), _level(rng, (0.4, 1.4))
        gland -= depth * step(shared.fine + np.float32(0.5) * shared.middle - rarity, 0.7)
    if rng.random() < 0.7:
        gland += _level(rng, (0.2, 0.9)) * shared.sheets
    return fat + _level(rng, (0, 5)) if rng.random() < 0.35 else gland


def _muscle(rng: np.random.Generator, grid: Grid, shared: _Textures) -> Field:
    """Level of muscle (h w) in dB, with fibres of any length."""
    grain = _noise(rng, grid, uniform(rng, (20, 50)), uniform(rng, (2, 6)))
    fibres = _noise(rng, grid, uniform(rng, (10, 24)), uniform(rng, (2, 5)))
    muscle = _level(rng, (-18, -8)) + _level(rng, (1, 4)) * grain
    muscle += bump(fibres, uniform(rng, (0.1, 0.25))) * _level(rng, (4, 14))
    return np.asarray(muscle + _level(rng, (0.3, 1.2)) * shared.streaks, dtype=np.float32)


def draw_tissue(grid: Grid, rng: np.random.Generator) -> Tissue:
    """The breast of one picture, without a scale; the level of a lesion follows its surroundings."""
    shared = _textures(rng, grid)
    fat = _level(rng, (-17, -8)) + _level(rng, (0, 3)) * shared.middle + _level(rng, (0.2, 1.1)) * shared.streaks
    fat += shared.sheets
    gland, muscle = _gland(rng, shared, fat), _muscle(rng, grid, shared)
    deep = _level(rng, (-30, -12)) + _level(rng, (1, 3)) * _noise(rng, grid, 8, 4)
    deep += _level(rng, (0, 1)) * shared.streaks

    wave, edge = uniform(rng, (0.01, 0.07)), float(np.exp(rng.uniform(-3.9, -1.8)))
    tilt = grid.beam / np.float32(grid.width_mm) * np.float32(rng.normal(0, 0.1))
    depth = grid.position[1] / np.float32(grid.depth_mm)

    def below(border: float, cells: float, amplitude: float, slope: float = 1.0) -> Field:
        """Depth (h w) below a wavy border, as a share of the picture."""
        curve = line(rng, grid, cell_mm=grid.width_mm / cells, amplitude=amplitude)
        return np.asarray(depth - border - np.float32(slope) * tilt - curve, dtype=np.float32)

    skin = uniform(rng, (0.008, 0.05))
    first = skin + uniform(rng, (0.03, 0.28))
    second = first + uniform(rng, (0.15, 0.55))
    third = second + uniform(rng, (0.08, 0.25))
    below_skin, below_fat = below(skin, 5, 0.006, 0.2), below(first, uniform(rng, (4, 12)), wave)
    below_gland, below_muscle = below(second, 6, wave), below(third, 5, 0.7 * wave)
    echo = fat + step(below_fat, edge) * (gland - fat)
    echo += step(below_gland, edge) * (muscle - echo)
    echo += step(below_muscle, edge) * (deep - echo)
    echo += bump(below_gland, uniform(rng, (0.006, 0.015))) * _level(rng, (0, 12))  # fascia
    pleura = bump(below_muscle, uniform(rng, (0.006, 0.02))) * _level(rng, (0, 14))
    echo += pleura * (np.float32(0.6) + np.float32(0.4) * np.tanh(_noise(rng, grid, 3, 5)))
    echo += step(-below_skin, 0.015) * (_level(rng, (-2, 8)) - echo)
    echo += bump(below_skin, 0.006) * _level(rng, (0, 8))

    loss = np.zeros_like(echo)
    add_lobules(echo, rng, grid, texture=shared.middle, fat_db=float(fat.mean()))
    add_tubes(echo, rng, grid)
    if rng.random() < 0.15:
        add_ribs(echo, loss, rng, grid, chest_mm=third * grid.depth_mm)
    return Tissue(echo, loss, None, min(second, 0.9) * grid.depth_mm, skin * grid.depth_mm)
