"""Maps side by side, and the images a method fails on: chosen by rule, on one colour scale."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ultraad.io.overlay import TRUTH_COLOUR, overlay
from ultraad.report.kit.pictures import Picture, inline
from ultraad.report.kit.words import count, short_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ultraad.bench.pictures import Pictures, SmallMaps
    from ultraad.bench.row import ImageLine, MeasuredRow
    from ultraad.bench.study.content import View

EACH = 2  # ours: cases for each of best, middle and worst
MISTAKES = 4  # ours: images for each kind of failure
LOW = 0.8  # ours: share of pixels that gets no colour; lesions fill about a tenth of the picture
SIDE = 128  # ours: longer side of a small picture, in pixels


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture with a number below it."""

    picture: Picture | None
    alt: str
    below: str


@dataclass(frozen=True, slots=True)
class Case:
    """One image with what every method says about it."""

    kind: str
    name: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """The picture's columns and rows."""

    heads: tuple[str, ...]
    cases: tuple[Case, ...]
    rule: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image that the reference method fails on."""

    plain: Picture
    overlay: Picture | None
    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Failures of one kind, the worst first."""

    title: str
    shown: tuple[Mistake, ...]


class Levels:
    """Maps of one method on the scale that all methods share: the share of pixels of the test set it rates lower.

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


def grid(view: View, test: str, shots: int) -> Grid | str:
    """The methods' maps of a few lesions, or why there are none."""
    rows = {label: row for label in view.labels if (row := _first(view, label, test, shots)) is not None}
    drawn = {label: row for label, row in rows.items() if row.files.maps is not None}
    pictures = next((p for row in drawn.values() if (p := view.study.folder.pictures(row)) is not None), None)
    if pictures is None:
        return "no method drew a map, or none was kept"
    own = {label: _own(view, row) for label, row in drawn.items()}
    at = {id_: i for i, id_ in enumerate(pictures.ids)}
    ids = [i for i in at if all(i in found for found in own.values()) and pictures.known[at[i]]]
    if not ids:
        return "no lesion has both a known outline and a map of every method"
    ranked = sorted(ids, key=lambda i: (-fmean(found[i] for found in own.values()), i))
    chosen = _extremes(ranked)
    tiles: dict[str, list[Tile]] = {id_: _truth(pictures, at[id_]) for _, id_ in chosen}
    for label, row in drawn.items():
        maps = view.study.folder.maps(row)
        assert maps is not None  # the row names the file
        levels = Levels(maps)
        for id_ in tiles:
            level = levels.of(id_)
            made = None if level is None else _overlay(pictures, at[id_], level)
            tiles[id_].append(Tile(made, f"{label} on {short_id(id_)}", f"AP {100 * own[label][id_]:.0f}"))
    seed = next(iter(drawn.values())).seed
    return Grid(
        heads=("image", "lesion", *drawn),
        cases=tuple(Case(kind, short_id(id_), tuple(tiles[id_])) for kind, id_ in chosen),
        rule=(
            f"Of the {count(len(ids), 'lesion image')} with a known outline, ranked by the mean over methods of the "
            f"image's own pixel average precision (AP, seed {seed}): the {EACH} first, the {EACH} in the middle and "
            f"the {EACH} last, ties by file name. Nobody picked."
        ),
    )


def mistakes(view: View, test: str, shots: int) -> tuple[str, list[Mistakes]]:
    """The reference method's worst failures on a test set: (which fit, kinds); no kinds if nothing was stored."""
    row = _first(view, view.study.reference, test, shots)
    pictures = None if row is None else view.study.folder.pictures(row)
    if row is None or pictures is None:
        return "", []
    lines = view.study.folder.predictions(row)
    maps = view.study.folder.maps(row)
    levels = None if maps is None else Levels(maps)
    album = _Album(pictures, levels, _others(view, test, shots), lines)
    normal = [x for x in lines if x.anomalous is False]
    lesion = [x for x in lines if x.anomalous is True]
    misnamed = [
        (-max(x.probs.values()), x.id, x) for x in lesion if x.probs and x.label in x.probs and x.guess != x.label
    ]
    found = [(x.own_ap, x.id, x) for x in lesion if x.own_ap is not None]
    kinds = [
        ("Lesions with the lowest scores", sorted(lesion, key=lambda x: (x.score, x.id))),
        ("Normal images with the highest scores", sorted(normal, key=lambda x: (-x.score, x.id))),
        ("Lesions most surely given the wrong class", [x for _, _, x in sorted(misnamed, key=lambda m: m[:2])]),
        ("Lesions that the map finds worst", [x for _, _, x in sorted(found, key=lambda m: m[:2])]),
    ]
    shown = [Mistakes(title, tuple(filter(None, map(album.mistake, some[:MISTAKES])))) for title, some in kinds]
    return f"{row.label}, seed {row.seed}", [m for m in shown if m.shown]


def ramp(steps: int = 32) -> str:
    """CSS colours of the scale, as laid over mid-grey tissue."""
    grey = np.full((1, steps, 3), 110, dtype=np.uint8)
    colours = overlay(grey, np.linspace(LOW, 1.0, steps)[None], low=LOW, high=1.0)[0]
    return ", ".join("#{:02x}{:02x}{:02x}".format(*c) for c in colours.tolist())


def outline() -> str:
    """CSS colour of the true outline."""
    return "#{:02x}{:02x}{:02x}".format(*TRUTH_COLOUR)


# --- pieces ----------------------------------------------------------------------------------------------------------


class _Album:
    """Failures as pictures with words."""

    def __init__(
        self,
        pictures: Pictures,
        levels: Levels | None,
        others: Sequence[Mapping[str, float]],
        lines: Sequence[ImageLine],
    ) -> None:
        self._pictures = pictures
        self._levels = levels
        self._others = others
        self._at = {id_: i for i, id_ in enumerate(pictures.ids)}
        self._normal = {x.id for x in lines if x.anomalous is False}
        self._scores = {x.id: x.score for x in lines}

    def mistake(self, line: ImageLine) -> Mistake | None:
        """None if the picture could not be read when the benchmark ran."""
        at = self._at.get(line.id)
        if at is None:
            return None
        level = None if self._levels is None else self._levels.of(line.id)
        words = [f"{line.label or 'class unknown'}, score {line.score:.3f}", self._rank(line.id)]
        if line.probs and line.guess is not None:
            words.append(f"graded {line.guess}, {100 * line.probs[line.guess]:.0f} %")
        if line.own_ap is not None:
            words.append(f"map AP {100 * line.own_ap:.0f}")
        return Mistake(
            plain=_plain(self._pictures, at),
            overlay=None if level is None else _overlay(self._pictures, at, level, outline=True),
            name=short_id(line.id),
            lines=tuple(filter(None, words)),
        )

    def _rank(self, id_: str) -> str:
        """Where the score lies among the normal images, here and for the other methods."""
        place = _above_normals(self._scores, self._normal, id_)
        if place is None:
            return ""
        told = f"above {100 * place:.0f} % of the normal images"
        if not self._others or id_ in self._normal:
            return told
        below = sum((_above_normals(o, self._normal, id_) or 0) < 0.5 for o in self._others)
        return f"{told}; {below} of {len(self._others)} other methods score it below most of them"


def _above_normals(scores: Mapping[str, float], normal: set[str], id_: str) -> float | None:
    others = [scores[i] for i in normal if i in scores and i != id_]
    return sum(s < scores[id_] for s in others) / len(others) if others and id_ in scores else None


def _others(view: View, test: str, shots: int) -> list[Mapping[str, float]]:
    rows = [_first(view, x, test, shots) for x in view.labels if x != view.study.reference]
    return [view.study.scored(r).scores for r in rows if r is not None]


def _first(view: View, label: str, test: str, shots: int) -> MeasuredRow | None:
    """The fit of the first seed that has a result; maps are kept of the first seed."""
    return next(iter(dict(sorted(view.study.ok(view.key(label, test, shots)).items())).values()), None)


def _own(view: View, row: MeasuredRow) -> dict[str, float]:
    """{id: the image's own pixel average precision} of lesion images."""
    return {x.id: x.own_ap for x in view.study.folder.predictions(row) if x.own_ap is not None}


def _extremes(ranked: Sequence[str]) -> list[tuple[str, str]]:
    if len(ranked) <= 3 * EACH:
        return [("all", id_) for id_ in ranked]
    middle = (len(ranked) - EACH) // 2
    parts = {"best": ranked[:EACH], "median": ranked[middle : middle + EACH], "worst": ranked[-EACH:]}
    return [(kind, id_) for kind, some in parts.items() for id_ in some]


def _truth(pictures: Pictures, at: int) -> list[Tile]:
    mask = np.repeat(pictures.masks[at][..., None] * np.uint8(255), 3, axis=-1)
    name, part = short_id(pictures.ids[at]), pictures.masks[at].mean()
    return [
        Tile(_plain(pictures, at), f"Image {name}", ""),
        Tile(_sized(mask, pictures.sizes[at]), f"True lesion of {name}", f"{100 * part:.0f} % area"),
    ]


def _plain(pictures: Pictures, at: int) -> Picture:
    return _sized(pictures.images[at], pictures.sizes[at])


def _overlay(pictures: Pictures, at: int, level: NDArray[np.float64], *, outline: bool = False) -> Picture:
    mask = pictures.masks[at] if outline and pictures.known[at] else None
    return _sized(overlay(pictures.images[at], level, low=LOW, high=1.0, mask=mask), pictures.sizes[at])


def _sized(pixels: NDArray[np.uint8], size: NDArray[np.int64]) -> Picture:
    """A square picture in the shape of the original."""
    scale = SIDE / max(size)
    wanted = (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
    resized = np.asarray(Image.fromarray(pixels).resize(wanted, Image.Resampling.BILINEAR))
    return inline(resized, side=SIDE, alt="")
