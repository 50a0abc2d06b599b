"""The data of a recipe: the images that support sets are drawn from, the test sets, and their digests."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from ultraad.bench.pictures import painted
from ultraad.bench.recipe import EACH, OTHERS, Adapt, DataSet, Recipe, Test
from ultraad.bench.row import TestSetFacts, TestSetSummary
from ultraad.data import sources
from ultraad.data.auxiliary import AuxiliarySet, join_auxiliary, load_auxiliary
from ultraad.data.fans import in_fans
from ultraad.data.support import content_hash, digest, draw_support
from ultraad.errors import ConfigError, DataError
from ultraad.io.files import sha256
from ultraad.types import Sample, SupportSet

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TestSet:
    """Images to evaluate on.

    Attributes:
        facts: What a row says about it.
        samples: In natural order of ids; empty if the data set is not public.
        hashes: Content hash of each sample; empty where a file cannot be read.
    """

    facts: TestSetFacts
    samples: tuple[Sample, ...] = ()
    hashes: tuple[str, ...] = ()

    @property
    def public(self) -> bool:
        """Whether the images are available."""
        return bool(self.samples)

    def summary(self) -> TestSetSummary:
        """What ``bench.json`` says about it."""
        s = self.samples
        return TestSetSummary(
            **dict(self.facts),
            lesions=sum(x.anomalous is True for x in s),
            normals=sum(x.anomalous is False for x in s),
            classes=dict(Counter(x.label for x in s if x.label)),
            patients=patients(s),
            devices=dict(Counter(x.device for x in s if x.device)),
            public=self.public,
            reason=None if self.public else "not public",
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """Where support sets are drawn from: one data set, or several together.

    Attributes:
        name: Names of the data sets, joined by ``+``.
        roots: (root, layout, data set of the recipe) of each.
        adapt: How to draw.
        classes: In label order.
        normal_class: The class without a lesion.
    """

    name: str
    roots: tuple[tuple[Path, str, DataSet], ...]
    adapt: Adapt
    classes: tuple[str, ...]
    normal_class: str

    @property
    def exclude_tags(self) -> tuple[str, ...]:
        """Images with any of these tags are not drawn."""
        own = (tag for _, _, about in self.roots for tag in about.exclude_tags)
        return tuple(dict.fromkeys((*self.adapt.exclude_tags, *own)))

    def draw(self, shots: int, seed: int, *, per_patient: bool) -> SupportSet:
        """A support set. Sets with fewer shots and the same seed are part of it.

        From several data sets, the images of a class are taken in turn: the first of each, then the second of each.

        Raises:
            DataError: If a data set has too few images.
        """
        drawn = [
            draw_support(
                root,
                layout=layout,
                shots=shots,
                seed=seed,
                per_patient=per_patient,
                exclude_tags=(*self.adapt.exclude_tags, *about.exclude_tags),
                split=self.adapt.split,
                classes=(self.normal_class,) if self.adapt.normal_only else about.classes,
                normal_class=about.normal_class,
                resize_masks=about.resize_masks,
                fan=about.fan,
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


class Data:
    """All data sets of a recipe, scanned and hashed.

    Args:
        recipe: The recipe.
        base: Folder for relative roots; None if all roots are absolute or given.
        roots: {data set: folder}, instead of the recipe's roots.
        work: Folder for images whose overlays are painted out.

    Attributes:
        roots: {data set: folder} of the available data sets.
        splits: Pairs of a pool to adapt on and the test sets for it.
        auxiliary: The auxiliary set; None if the recipe has none, or another for each test set.
        images: The files of all data sets.

    Raises:
        ConfigError: If ``roots`` names a data set that is not in the recipe.
        DataError: If a data set is missing or does not fit the recipe, or too few are available to take turns.
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
                elif recipe.adapt.on == EACH:
                    _log.warning("%s is not in %s: it is not tested", name, root)
                elif not recipe.by_turns:
                    msg = f"data set {name!r} is not in {root}; say where it is with --root {name}=DIR or --data DIR"
                    raise DataError(msg)
        self._scanned = {name: self._scan(name) for name in self.roots}
        self.images = {s.image for _, samples in self._scanned.values() for s in samples}
        self.splits = self._turns() if recipe.by_turns else self._each() or [self._split()]
        self.auxiliary = self._auxiliary(recipe.auxiliary) if recipe.auxiliary not in (None, OTHERS) else None
        self._parts: dict[str, AuxiliarySet] = {}
        if recipe.auxiliary == OTHERS:
            self._parts = {name: self._auxiliary(name, masks=False) for name in self.roots}
            if len(self._parts) < 2:
                msg = f"auxiliary: {OTHERS} needs two data sets that are available; found {', '.join(self.roots)}"
                raise DataError(msg)

    def _auxiliary(self, name: str | None, *, masks: bool = True) -> AuxiliarySet:
        assert name is not None  # asked for by name only
        resize = self._recipe.data[name].resize_masks
        return load_auxiliary(self.roots[name], layout=self._scanned[name][0], resize_masks=resize, masks=masks)

    def auxiliary_for(self, pool: Pool, shots: int) -> AuxiliarySet | None:
        """The auxiliary set of a row; with ``auxiliary: others``, rows with shots have none.

        Raises:
            DataError: If none of the others has a lesion mask.
        """
        if shots or not self._parts:
            return self.auxiliary
        return join_auxiliary({name: part for name, part in self._parts.items() if name != pool.name})

    def _scan(self, name: str) -> tuple[str, list[Sample]]:
        """Layout and samples."""
        root, about = self.roots[name], self._recipe.data[name]
        layout = sources.detect(root) if about.layout == "auto" else about.layout
        samples = sources.scan(root, layout=layout, resize_masks=about.resize_masks)
        if unknown := set(about.exclude_tags) - {t for s in samples for t in s.tags}:
            _log.warning("%s: no image has the excluded tag(s) %s", name, ", ".join(sorted(unknown)))
        return layout, in_fans([s for s in samples if not s.tags & set(about.exclude_tags)], about.fan)

    def _split(self) -> tuple[Pool, list[TestSet]]:
        on = self._recipe.adapt.on
        assert on is not None  # checked by Recipe
        return self._pool([on]), [self._test(test) for test in self._recipe.test]

    def _each(self) -> list[tuple[Pool, list[TestSet]]]:
        """Each test set with its own data set; empty if the recipe adapts on one data set."""
        if self._recipe.adapt.on != EACH:
            return []
        tests = [test for test in self._recipe.test if test.on in self.roots]
        if not tests:
            names = ", ".join(self._recipe.data)
            msg = f"none of {names} is available; say where they are with --data DIR or --root NAME=DIR"
            raise DataError(msg)
        return [(self._pool([test.on]), [self._test(test)]) for test in tests]

    def _turns(self) -> list[tuple[Pool, list[TestSet]]]:
        """Each data set tested, adapted on all others together, or on each other one alone."""
        with_normals = [name for name in self.roots if self._classes(name)[1] is not None]
        tests = {name: self._test(Test(on=name)) for name in self.roots}
        if self._recipe.pairs:
            splits = [(self._pool([n]), [t for name, t in tests.items() if name != n]) for n in with_normals]
        else:
            others = {name: [n for n in with_normals if n != name] for name in self.roots}
            splits = [(self._pool(names), [tests[name]]) for name, names in others.items() if names]
        if len(self.roots) < 2 or not splits:
            key = "pairs" if self._recipe.pairs else "leave_one_out"
            msg = (
                f"{key} needs two data sets that are available, one of them with a known normal class; found "
                f"{', '.join(self.roots) or 'none'} of {', '.join(self._recipe.data)}. Skip this recipe, or say where "
                "other data sets are with --root NAME=DIR"
            )
            raise DataError(msg)
        return splits

    def _classes(self, name: str) -> tuple[tuple[str, ...], str | None]:
        about = self._recipe.data[name]
        found, normal = sources.class_order(self._scanned[name][1])
        return about.classes or found, about.normal_class or normal

    def _pool(self, names: Sequence[str]) -> Pool:
        orders, normals = zip(*map(self._classes, names), strict=True)
        normal = normals[0]
        if len(set(normals)) > 1 or normal is None:
            msg = f"{', '.join(names)}: no single class is known to mean 'no lesion'; name it with normal_class"
            raise DataError(msg)
        classes = dict.fromkeys(c for order in orders for c in order)
        order = tuple(sorted(classes, key=lambda c: c != normal))  # stable: the normal class first
        roots = tuple((self.roots[n], self._scanned[n][0], self._recipe.data[n]) for n in names)
        return Pool("+".join(names), roots, self._recipe.adapt, order, normal)

    def _test(self, test: Test) -> TestSet:
        about = self._recipe.data[test.on]
        title = about.title or test.on
        if not about.public:
            return TestSet(TestSetFacts(name=test.name, set=test.on, title=title))
        layout, samples = self._scanned[test.on]
        with_all, without = set(test.include_tags), set(test.exclude_tags)
        known = {t for s in samples for t in s.tags}
        if with_all - known:
            msg = f"{test.name}: no image of {test.on} has the tag(s) {', '.join(sorted(with_all - known))}"
            raise DataError(msg)
        if without - known:
            _log.warning("%s: no image has the excluded tag(s) %s", test.name, ", ".join(sorted(without - known)))
        kept = [s for s in samples if test.split in (None, s.split) and with_all <= s.tags and not without & s.tags]
        if not kept:
            msg = f"test set {test.name!r} is empty: its filters leave none of the {len(samples)} images of {test.on}"
            raise DataError(msg)
        chosen = painted(kept, self._work) if test.transform == "paint_overlays" else tuple(kept)
        hashes = tuple(map(_hash, chosen))
        code = _digest(chosen, hashes)
        facts = TestSetFacts(
            **{**dict(test), "exclude_tags": (*test.exclude_tags, *about.exclude_tags)},
            set=test.on,
            title=title,
            layout=layout,
            digest=code,
            key=code[:16],
            images=len(chosen),
        )
        return TestSet(facts, chosen, hashes)


def patients(samples: Sequence[Sample]) -> int:
    """Number of known patients."""
    return len({s.group for s in samples if s.group})


def duplicates(support: SupportSet, tests: Sequence[TestSet]) -> dict[str, tuple[tuple[str, str], ...]]:
    """{test name: ((support id, test id), ...)} of images with equal bytes."""
    known = {content_hash(s): s.id for s in support.samples}
    return {
        t.facts.name: tuple((known[h], s.id) for s, h in zip(t.samples, t.hashes, strict=True) if h in known)
        for t in tests
    }


def _below(base: Path | None, root: Path | None, name: str) -> Path:
    assert root is not None  # checked by DataSet
    if base is None and not root.is_absolute():
        msg = f"data set {name!r} has the relative root {root}; say where it is with --data DIR or --root {name}=DIR"
        raise ConfigError(msg)
    return root if base is None else base / root  # an absolute root stays as it is


def _hash(sample: Sample) -> str:
    try:
        return content_hash(sample)
    except DataError:
        return ""


def _digest(samples: Sequence[Sample], hashes: Sequence[str]) -> str:
    """sha256 over everything that evaluation reads: pictures, truth, patients."""
    code = hashlib.sha256()
    for s, hash_ in zip(samples, hashes, strict=True):
        masks = [sha256(m) if isinstance(m, Path) else str(m) for m in s.masks]
        facts = (s.id, hash_, s.label, s.anomalous, s.group, sorted(s.tags), s.mask_aligned, masks)
        code.update(f"{facts if s.fan is None else (*facts, s.fan)}\n".encode())
    return code.hexdigest()
