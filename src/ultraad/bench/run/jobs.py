"""From a recipe to independent jobs: one job is one fitted model, and gives one row for each test set."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ultraad import __version__, methods
from ultraad.backbones import load_backbone
from ultraad.bench.recipe import ALL
from ultraad.bench.row import FORMAT
from ultraad.bench.run.protocol import HABITS
from ultraad.config import dump, resolve

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ultraad.backbones._door import DType
    from ultraad.bench.recipe import BackboneSpec, Protocol, Recipe, Variant
    from ultraad.bench.run.data import Data, Pool, Split, TestSet
    from ultraad.data.auxiliary import AuxiliarySet
    from ultraad.types import SupportSet


@dataclass(frozen=True, slots=True)
class TowerSpec:
    """What to load.

    Attributes:
        name: Of the backbone.
        size: Input side; None for the weights' own.
        dtype: Of the image tower.
        device: Where it runs.
    """

    name: str
    size: int | None
    dtype: DType
    device: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A row that is to come.

    Attributes:
        id: Hash of all that fixes the result.
        test: What it is evaluated on.
        keep_maps: Whether small maps are kept.
    """

    id: str
    test: TestSet
    keep_maps: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One fit and its evaluations; can be sent to another process.

    Attributes:
        id: Of the job.
        method: Name.
        given: Options as the recipe gives them.
        tower: The backbone.
        support: None for zero-shot.
        auxiliary: For methods that are trained on one.
        classes: In label order.
        normal_class: The class without lesion.
        seed: Of everything random.
        protocol: ``"honest"`` or ``"published"``.
        recipe: Its numbers: calibrate, bootstrap, batch_size, threads, checkpoints.
        facts: Keys of a row that are known before anything runs.
        rows: One for each test set.
    """

    id: str
    method: str
    given: dict[str, Any]
    tower: TowerSpec
    support: SupportSet | None
    auxiliary: AuxiliarySet | None
    classes: tuple[str, ...]
    normal_class: str
    seed: int
    protocol: Protocol
    recipe: Recipe
    facts: dict[str, Any]
    rows: tuple[Planned, ...]

    def without(self, done: Collection[str]) -> Job:
        """The job without the rows that are there already."""
        return replace(self, rows=tuple(r for r in self.rows if r.id not in done))


class Plan:
    """All jobs of a recipe, in the order they are run.

    Args:
        recipe: The recipe.
        data: Its data.
        device: For the backbones.

    Attributes:
        entries: The recipe's methods, with ``all`` spelt out.
        supports: {digest: support set}.
        jobs: Cheap to hold: images are named, not loaded.

    Raises:
        ConfigError: If a method, an option or a backbone is unknown: before any work.
        DataError: If a support set cannot be drawn.
        WeightsError: If weights are missing.
    """

    def __init__(self, recipe: Recipe, data: Data, *, device: str) -> None:
        self.recipe = recipe
        self.data = data
        self.entries = tuple(_spelt_out(recipe))
        self.supports: dict[str, SupportSet] = {}
        self._device = device
        self._draws: dict[tuple[str, int, int, bool], SupportSet] = {}
        self._backbones: dict[TowerSpec, dict[str, Any]] = {}
        self._options = {e.label: _resolved(e) for e in self.entries}
        self.jobs = tuple(self._all())

    def _all(self) -> Iterator[Job]:
        r = self.recipe
        for tower in r.backbones:
            for split in self.data.splits:
                for seed in r.seeds:
                    for shots in sorted({k for e in self.entries for k in (r.shots if e.shots is None else e.shots)}):
                        for entry in self.entries:
                            for protocol in r.protocols:
                                if self._wanted(entry, shots, seed, protocol):
                                    yield self._job(tower, split, seed, shots, entry, protocol)

    def _wanted(self, entry: Variant, shots: int, seed: int, protocol: Protocol) -> bool:
        r, info = self.recipe, methods.get(entry.name).info
        if shots not in (r.shots if entry.shots is None else entry.shots):
            return False
        if protocol == "published" and entry.name not in HABITS:
            return False  # its published result is the honest one
        auxiliary = self.data.auxiliary is not None and info.auxiliary
        if shots == 0 and not (info.zero_shot or auxiliary):
            return False
        return shots > 0 or auxiliary or seed == r.seeds[0]  # without images nothing depends on the seed

    def _job(self, tower: BackboneSpec, split: Split, seed: int, shots: int, entry: Variant, protocol: Protocol) -> Job:
        r, pool = self.recipe, split.pool
        info = methods.get(entry.name).info
        spec = TowerSpec(tower.name, entry.size or tower.size, tower.dtype, self._device)
        per_patient = pool.adapt.per_patient if entry.per_patient is None else entry.per_patient
        support = self._draw(pool, shots, seed, per_patient=per_patient) if shots else None
        auxiliary = self.data.auxiliary if info.auxiliary else None
        facts = {
            "recipe": r.name,
            "method": entry.name,
            "label": entry.label,
            "title": info.title,
            "given": entry.options,
            "options": self._options[entry.label],
            "outputs": sorted(info.outputs),
            "shots": shots,
            "seed": seed,
            "protocol": protocol,
            "transductive": protocol == "published",
            "habits": HABITS[entry.name].sentences(r.checkpoints) if protocol == "published" else [],
            "backbone": self._backbone(spec),
            "adapt": _adapt_facts(pool, support, per_patient=per_patient),
            "auxiliary": None if auxiliary is None else {"set": r.auxiliary, "images": len(auxiliary.samples)},
        }
        names = list(pool.classes) if support is None else list(support.classes)
        fixed = {
            "format": FORMAT,
            "version": __version__,
            **{key: facts[key] for key in ("method", "options", "shots", "seed", "protocol", "backbone")},
            "calibration": _calibration(entry) if r.calibrate else None,
            "checkpoints": r.checkpoints if protocol == "published" else None,
            "support": None if support is None else support.digest,
            "classes": [names, pool.normal_class],
            "auxiliary": None if auxiliary is None else [s.id for s in auxiliary.samples],
            "batch_size": r.batch_size,
            "bootstrap": r.bootstrap,
        }
        keep = r.maps == "all" or (r.maps == "first_seed" and seed == r.seeds[0])
        same = ("name", "set", "transform", "digest")
        rows = tuple(
            Planned(_code({**fixed, "test": [t.facts[key] for key in same]}), t, keep_maps=keep) for t in split.tests
        )
        return Job(
            id=_code(fixed),
            method=entry.name,
            given=entry.options,
            tower=spec,
            support=support,
            auxiliary=auxiliary,
            classes=tuple(names),
            normal_class=pool.normal_class,
            seed=seed,
            protocol=protocol,
            recipe=r,
            facts=facts,
            rows=rows,
        )

    def _draw(self, pool: Pool, shots: int, seed: int, *, per_patient: bool) -> SupportSet:
        key = (pool.name, shots, seed, per_patient)
        if key not in self._draws:
            drawn = pool.draw(shots, seed, per_patient=per_patient)
            self._draws[key] = self.supports.setdefault(drawn.digest, drawn)
        return self._draws[key]

    def _backbone(self, spec: TowerSpec) -> dict[str, Any]:
        if spec not in self._backbones:
            tower = load_backbone(spec.name, dtype=spec.dtype, size=spec.size)
            self._backbones[spec] = {
                "name": tower.name,
                "fingerprint": tower.fingerprint,
                "size": tower.size,
                "dtype": spec.dtype,
                "parameters": tower.parameters,
            }
        return self._backbones[spec]


def _spelt_out(recipe: Recipe) -> Iterator[Variant]:
    """``all`` stands for every method that no other line of the recipe calls by its own name."""
    named = {e.label for e in recipe.methods}
    for entry in recipe.methods:
        if entry.name != ALL:
            yield entry
            continue
        for name in methods.available():
            if name not in named:
                yield entry.model_copy(update={"name": name, "label": name})


def _resolved(entry: Variant) -> dict[str, Any]:
    chosen = methods.get(entry.name)
    own = {key: value for key, value in entry.options.items() if key.partition(".")[0] != "calibration"}
    return dump(resolve(chosen.Config, own, where=f"options of {entry.label}"))


def _calibration(entry: Variant) -> dict[str, Any]:
    return {key: value for key, value in entry.options.items() if key.partition(".")[0] == "calibration"}


def _adapt_facts(pool: Pool, support: SupportSet | None, *, per_patient: bool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "layouts": [layout for _, layout, _ in pool.roots],
        "classes": list(pool.classes if support is None else support.classes),
        "normal_class": pool.normal_class,
        "per_patient": per_patient,
        "exclude_tags": list(pool.adapt.exclude_tags),
        "images": 0 if support is None else len(support.samples),
        "patients": 0 if support is None else len({s.group for s in support.samples if s.group}),
        "support": None if support is None else support.digest,
    }


def _code(facts: dict[str, Any]) -> str:
    """16 hex digits over facts of JSON types."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
