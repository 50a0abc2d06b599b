"""Maps side by side, and the images a method fails on: chosen by rule, on one colour scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ultraad.bench.pictures import Pictures, SmallMaps
from ultraad.bench.row import ImageLine, MeasuredRow
from ultraad.bench.study.view import Scope
from ultraad.io.overlay import TRUTH_COLOUR, overlay
from ultraad.io.raster import MIN_SIDE
from ultraad.report.kit.pictures import Example, Picture, Strip, css, extremes, inline
from ultraad.report.kit.words import count, short_id

EACH = 2  # cases each of best, middle and worst
MISTAKES = 4  # images for each kind of failure
LOW = 0.8  # share of pixels that gets no colour; lesions fill about a tenth of an image
SIDE = 128  # longer side of a small picture, in pixels


@dataclass(frozen=True, slots=True)
class Case:
    """One image: what kind of case it is, its name, and a picture with a caption for each column."""

    kind: str
    name: str
    tiles: tuple[tuple[Picture | None, str], ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Columns and rows of pictures, and the rule that chose the rows."""

    heads: tuple[str, ...]
    cases: tuple[Case, ...]
    rule: str


class Levels:
    """Maps of one method on a scale that suits all methods: the share of the test set's pixels that it rates lower.

    Args:
        maps: All small maps of a row.
    """

    def __init__(self, maps: SmallMaps) -> None:
        self._sorted = np.sort(maps.maps, axis=None)
        self._maps = dict(zip(maps.ids, maps.maps, strict=True))

    def of(self, id_: str) -> NDArray[np.float64] | None:
        """The levels (96 96) of an image, in 0..1; equal values share the middle of their places."""
        found = self._maps.get(id_)
        if found is None:
            return None
        below, above = (np.searchsorted(self._sorted, found, side) for side in ("left", "right"))
        return np.asarray((below + above) / 2 / self._sorted.size, dtype=np.float64)


def grid(scope: Scope) -> Grid | str:
    """The methods' maps of a few lesions, or why there are none."""
    folder = scope.view.study.folder
    drawn = {x: row for x in scope.labels if (row := _first(scope, x)) is not None and row.files.maps is not None}
    pictures = next((p for row in drawn.values() if (p := folder.pictures(row)) is not None), None)
    if pictures is None:
        return "no method has a map, or no map was kept"
    own = {
        label: {x.id: x.own_ap for x in folder.predictions(row) if x.own_ap is not None} for label, row in drawn.items()
    }
    at = {id_: i for i, id_ in enumerate(pictures.ids)}
    ids = [i for i in at if all(i in found for found in own.values()) and pictures.known[at[i]]]
    if not ids:
        return "no lesion has both a known outline and a map of every method"
    ranked = sorted(ids, key=lambda i: (-fmean(found[i] for found in own.values()), i))
    parts = extremes(ranked, EACH)
    kinds = [("all", ranked)] if parts is None else list(zip(("best", "median", "worst"), parts, strict=True))
    tiles = {id_: _truth(pictures, at[id_]) for _, some in kinds for id_ in some}
    for label, row in drawn.items():
        maps = folder.maps(row)
        assert maps is not None  # the row names the file
        levels = Levels(maps)
        for id_ in tiles:
            made = _overlay(pictures, at[id_], levels.of(id_), f"{label} on {short_id(id_)}")
            tiles[id_].append((made, f"AP {100 * own[label][id_]:.0f}"))
    seed = next(iter(drawn.values())).seed
    return Grid(
        heads=("image", "lesion", *drawn),
        cases=tuple(Case(kind, short_id(id_), tuple(tiles[id_])) for kind, some in kinds for id_ in some),
        rule=(
            f"The {count(len(ids), 'lesion image')} with a known outline are ranked by the image's own pixel average "
            f"precision (AP), mean over methods, seed {seed}. Shown are the first {EACH}, the middle {EACH} and the "
            f"last {EACH}; ties are broken by file name, and the images are not hand-picked."
        ),
    )


def mistakes(scope: Scope) -> tuple[str, list[Strip]]:
    """The reference method's worst failures on a test set: (which fit, kinds); no kinds if nothing was stored."""
    study = scope.view.study
    row = _first(scope, scope.reference)
    pictures = None if row is None else study.folder.pictures(row)
    if row is None or pictures is None:
        return "", []
    maps = study.folder.maps(row)
    levels = None if maps is None else Levels(maps)
    lines = study.folder.predictions(row)
    lesion, normal = ([x for x in lines if x.anomalous is truth] for truth in (True, False))
    others = [study.scored(r).scores for x in scope.labels if x != scope.reference and (r := _first(scope, x))]
    rank = _ranker(lines, {x.id for x in normal}, others)
    at = {id_: i for i, id_ in enumerate(pictures.ids)}  # images that could not be read are missing

    def example(x: ImageLine) -> Example:
        said = [f"{x.label or 'class unknown'}, score {x.score:.3f}", rank(x.id)]
        said += [f"graded {x.guess}, {100 * x.probs[x.guess]:.0f} %"] if x.probs and x.guess else []
        said += [f"map AP {100 * x.own_ap:.0f}"] if x.own_ap is not None else []
        name = short_id(x.id)
        plain = _sized(pictures.images[at[x.id]], pictures.sizes[at[x.id]], f"Image {name}")
        level = None if levels is None else levels.of(x.id)
        made = _overlay(pictures, at[x.id], level, f"Map over {name} with the true outline", outline=True)
        return Example(name, plain, made, tuple(filter(None, said)))

    graded = [(-max(x.probs.values()), x) for x in lesion if x.probs and x.label in x.probs and x.guess != x.label]
    kinds = {
        "Lesions with the lowest scores": [(x.score, x) for x in lesion],
        "Normal images with the highest scores": [(-x.score, x) for x in normal],
        "Lesions with the most confident wrong class": graded,
        "Lesions with the worst map": [(x.own_ap, x) for x in lesion if x.own_ap is not None],
    }
    strips = []
    for title, ranked in kinds.items():
        some = [x for _, x in sorted(ranked, key=lambda r: (r[0], r[1].id))[:MISTAKES] if x.id in at]
        if some:
            strips.append(Strip(title, tuple(map(example, some))))
    return f"{row.label}, seed {row.seed}", strips


def ramp(steps: int = 32) -> str:
    """CSS colours of the scale, as laid over mid-grey tissue."""
    grey = np.full((MIN_SIDE, steps, 3), 110, dtype=np.uint8)
    levels = np.tile(np.linspace(LOW, 1.0, steps), (MIN_SIDE, 1))
    colours = overlay(grey, levels, low=LOW, high=1.0)[0]
    return ", ".join(map(css, colours.tolist()))


def outline() -> str:
    """CSS colour of the true outline."""
    return css(TRUTH_COLOUR)


def _ranker(
    lines: Sequence[ImageLine], normal: set[str], others: Sequence[Mapping[str, float]]
) -> Callable[[str], str]:
    """A function that says where an image's score lies among the normal images, here and for the other methods."""
    own = {x.id: x.score for x in lines}

    def place(scores: Mapping[str, float], id_: str) -> float | None:
        rest = [scores[i] for i in normal if i in scores and i != id_]
        return sum(s < scores[id_] for s in rest) / len(rest) if rest and id_ in scores else None

    def rank(id_: str) -> str:
        found = place(own, id_)
        if found is None:
            return ""
        told = f"above {100 * found:.0f} % of the normal images"
        if not others or id_ in normal:
            return told
        below = sum((place(o, id_) or 0) < 0.5 for o in others)
        return f"{told}; {below} of {len(others)} other methods score it below most of them"

    return rank


def _first(scope: Scope, label: str) -> MeasuredRow | None:
    """The fit of the first seed that has a result; only its maps are kept."""
    return next(iter(scope.rows(label)), None)


def _truth(pictures: Pictures, at: int) -> list[tuple[Picture | None, str]]:
    mask = np.repeat(pictures.masks[at][..., None] * np.uint8(255), 3, axis=-1)
    name, size = short_id(pictures.ids[at]), pictures.sizes[at]
    area = f"{100 * pictures.masks[at].mean():.0f} % area"
    plain = _sized(pictures.images[at], size, f"Image {name}")
    return [(plain, ""), (_sized(mask, size, f"True lesion of {name}"), area)]


def _overlay(
    pictures: Pictures, at: int, level: NDArray[np.float64] | None, alt: str, *, outline: bool = False
) -> Picture | None:
    if level is None:
        return None
    mask = pictures.masks[at] if outline and pictures.known[at] else None
    return _sized(overlay(pictures.images[at], level, low=LOW, high=1.0, mask=mask), pictures.sizes[at], alt)


def _sized(pixels: NDArray[np.uint8], size: NDArray[np.int64], alt: str) -> Picture:
    """A square picture in the shape of the original."""
    scale = SIDE / max(size)
    wanted = (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
    return inline(np.asarray(Image.fromarray(pixels).resize(wanted, Image.Resampling.BILINEAR)), side=SIDE, alt=alt)
