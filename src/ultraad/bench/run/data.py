"""The data of a recipe: which images are tested on, which are drawn, and their digests."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultraad.bench.pictures import painted
from ultraad.data import sources
from ultraad.data.auxiliary import AuxiliarySet, load_auxiliary
from ultraad.data.support import content_hash, digest, draw_support
from ultraad.errors import ConfigError, DataError
from ultraad.io.files import sha256
from ultraad.types import SupportSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultraad.bench.recipe import Adapt, DataSet, Recipe, Test
    from ultraad.types import Sample

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TestSet:
    """Images to evaluate on.

    Attributes:
        name: Unique in the recipe.
        facts: What a row says about it; JSON types.
        layout: Of the data set.
        samples: In natural order of ids; empty if the data set is not public.
        hashes: Content hash of each; empty where a file cannot be read.
    """

    name: str
    facts: Mapping[str, Any]
    layout: str
    samples: tuple[Sample, ...]
    hashes: tuple[str, ...]

    @property
    def public(self) -> bool:
        """Whether there is anything to run."""
        return bool(self.samples)


@dataclass(frozen=True, slots=True)
class Pool:
    """Where support sets come from: one data set, or several together.

    Attributes:
        name: The data sets' names, joined by ``+``.
        roots: (root, layout, the data set) of each.
        adapt: How to draw.
        classes: In label order.
        normal_class: The class without lesion.
    """

    name: str
    roots: tuple[tuple[Path, str, DataSet], ...]
    adapt: Adapt
    classes: tuple[str, ...]
    normal_class: str

    def draw(self, shots: int, seed: int, *, per_patient: bool) -> SupportSet:
        """The support set of these shots and seed; k-shot sets nest.

        From several data sets the images of a class are taken in turn: the first of each, the second of each.

        Raises:
            DataError: If a data set cannot give that many images.
        """
        drawn = [
            draw_support(
                root,
                layout=layout,
                shots=shots,
                seed=seed,
                per_patient=per_patient,
                exclude_tags=self.adapt.exclude_tags,
                split=self.adapt.split,
                classes=about.classes,
                normal_class=about.normal_class,
            )
            for root, layout, about in self.roots
        ]
        if len(drawn) == 1:
            return drawn[0]
        queues = [[[s for s in d.samples if s.label == c] for d in drawn] for c in self.classes]
        chosen = [[s for turn in zip_longest(*q) for s in turn if s is not None][:shots] for q in queues]
        samples = tuple(s for part in chosen for s in part)
        return SupportSet(
            samples=samples,
            classes=self.classes,
            normal_class=self.normal_class,
            shots=shots,
            seed=seed,
            source=f"pool:{self.name}",
            digest=digest((s.id for s in samples), map(content_hash, samples)),
        )


@dataclass(frozen=True, slots=True)
class Split:
    """Adapt on a pool, test on these sets."""

    pool: Pool
    tests: tuple[TestSet, ...]


class Data:
    """Everything a recipe names, found and hashed.

    Args:
        recipe: The recipe.
        base: Folder that relative roots are below; None if all are absolute or given.
        roots: {data set: folder} that replace the recipe's.
        work: Folder for pictures whose overlays are painted out.

    Attributes:
        roots: {data set: folder} of those that are there.
        splits: What is adapted on what.
        auxiliary: The auxiliary set; None if the recipe has none.

    Raises:
        ConfigError: If ``roots`` names a data set that the recipe does not.
        DataError: If a data set is missing or not what the recipe wants, or ``leave_one_out`` has fewer than two.
    """

    def __init__(self, recipe: Recipe, *, base: Path | None, roots: Mapping[str, Path], work: Path) -> None:
        unknown = sorted(set(roots) - set(recipe.data))
        if unknown:
            msg = f"the recipe has no data set {', '.join(unknown)}; it has {', '.join(sorted(recipe.data))}"
            raise ConfigError(msg)
        self._recipe = recipe
        self._work = work
        self.roots: dict[str, Path] = {}
        for name, about in recipe.data.items():
            if about.public:
                root = roots.get(name) or _below(base, about.root, name)
                if root.exists():
                    self.roots[name] = root.resolve()
                elif not recipe.leave_one_out:
                    msg = f"data set {name!r} is not in {root}; say where it is with --root {name}=DIR or --data DIR"
                    raise DataError(msg)
        self._scanned = {name: self._scan(name) for name in self.roots}
        self.splits = self._left_out() if recipe.leave_one_out else (self._split(),)
        self.auxiliary: AuxiliarySet | None = None
        if recipe.auxiliary:
            layout, _ = self._scanned[recipe.auxiliary]
            self.auxiliary = load_auxiliary(self.roots[recipe.auxiliary], layout=layout)

    def _scan(self, name: str) -> tuple[str, list[Sample]]:
        root, layout = self.roots[name], self._recipe.data[name].layout
        layout = sources.detect(root) if layout == "auto" else layout
        return layout, sources.scan(root, layout=layout)

    def _split(self) -> Split:
        on = self._recipe.adapt.on
        assert on is not None  # Recipe
        return Split(self._pool([on]), tuple(map(self._test, self._recipe.test)))

    def _left_out(self) -> tuple[Split, ...]:
        from ultraad.bench.recipe import Test

        able = [name for name in self.roots if self._classes(name)[1] is not None]
        splits = []
        for name in self.roots:
            others = [n for n in able if n != name]
            if others:
                splits.append(Split(self._pool(others), (self._test(Test(on=name)),)))
        if len(self.roots) < 2 or not splits:
            msg = (
                f"leave_one_out needs two data sets that are there, one of them with normal images; found "
                f"{', '.join(self.roots) or 'none'} of {', '.join(self._recipe.data)}. Skip it, or say where more are "
                "with --root NAME=DIR"
            )
            raise DataError(msg)
        return tuple(splits)

    def _classes(self, name: str) -> tuple[tuple[str, ...], str | None]:
        about = self._recipe.data[name]
        found, normal = sources.class_order(self._scanned[name][1])
        return about.classes or found, about.normal_class or normal

    def _pool(self, names: Sequence[str]) -> Pool:
        classes: dict[str, None] = {}
        normals = set()
        for name in names:
            order, normal = self._classes(name)
            normals.add(normal)
            classes |= dict.fromkeys(order)
        normal = normals.pop()
        if normals or normal is None:
            msg = f"{', '.join(names)}: no single class is known to mean 'no lesion'; name it with normal_class"
            raise DataError(msg)
        order = tuple(sorted(classes, key=lambda c: c != normal))  # stable
        roots = tuple((self.roots[n], self._scanned[n][0], self._recipe.data[n]) for n in names)
        return Pool("+".join(names), roots, self._recipe.adapt, order, normal)

    def _test(self, test: Test) -> TestSet:
        about = self._recipe.data[test.on]
        named = {"name": test.name, "set": test.on, "title": about.title or test.on}
        if not about.public:
            empty = dict.fromkeys(("layout", "split", "digest", "key", "images"))
            empty |= {"include_tags": [], "exclude_tags": [], "transform": "none"}
            return TestSet(test.name, {**named, **empty}, "", (), ())
        layout, samples = self._scanned[test.on]
        with_all, without = set(test.include_tags), set(test.exclude_tags)
        known = {t for s in samples for t in s.tags}
        if with_all - known:
            msg = f"{test.name}: no image of {test.on} has the tag(s) {', '.join(sorted(with_all - known))}"
            raise DataError(msg)
        if without - known:
            _log.warning("%s: leaving out %s leaves out nothing", test.name, ", ".join(sorted(without - known)))
        kept = [s for s in samples if test.split in (None, s.split) and with_all <= s.tags and not without & s.tags]
        if not kept:
            msg = f"test set {test.name!r} is empty: of {len(samples)} images of {test.on} none is left by its filters"
            raise DataError(msg)
        chosen = painted(kept, self._work) if test.transform == "paint_overlays" else tuple(kept)
        hashes = tuple(map(_hash, chosen))
        code = _digest(chosen, hashes)
        facts = {
            **named,
            "layout": layout,
            "split": test.split,
            "include_tags": list(test.include_tags),
            "exclude_tags": list(test.exclude_tags),
            "transform": test.transform,
            "digest": code,
            "key": code[:16],
            "images": len(chosen),
        }
        return TestSet(test.name, facts, layout, chosen, hashes)


def summary(test: TestSet) -> dict[str, Any]:
    """What ``bench.json`` says about a test set."""
    s = test.samples
    return {
        **test.facts,
        "lesions": sum(x.anomalous is True for x in s),
        "normals": sum(x.anomalous is False for x in s),
        "classes": dict(Counter(x.label for x in s if x.label)),
        "patients": len({x.group for x in s if x.group}),
        "devices": dict(Counter(x.device for x in s if x.device)),
        "public": test.public,
        "reason": None if test.public else "not public",
    }


def duplicates(support: SupportSet, tests: Sequence[TestSet]) -> dict[str, list[list[str]]]:
    """{test name: [[support id, test id], ...]} of images with equal bytes."""
    known = {content_hash(s): s.id for s in support.samples}
    return {t.name: [[known[h], s.id] for s, h in zip(t.samples, t.hashes, strict=True) if h in known] for t in tests}


def _below(base: Path | None, root: Path | None, name: str) -> Path:
    assert root is not None  # DataSet
    if root.is_absolute():
        return root
    if base is None:
        msg = f"data set {name!r} is in {root}, below a folder that is not given; use --data DIR or --root {name}=DIR"
        raise ConfigError(msg)
    return base / root


def _hash(sample: Sample) -> str:
    try:
        return content_hash(sample)
    except DataError:
        return ""


def _digest(samples: Sequence[Sample], hashes: Sequence[str]) -> str:
    """sha256 over all that evaluation reads: pictures, truth, patients."""
    code = hashlib.sha256()
    for s, hash_ in zip(samples, hashes, strict=True):
        masks = [sha256(m) if isinstance(m, Path) else str(m) for m in s.masks]
        facts = (s.id, hash_, s.label, s.anomalous, s.group, sorted(s.tags), s.mask_aligned, masks)
        code.update(f"{facts}\n".encode())
    return code.hexdigest()
