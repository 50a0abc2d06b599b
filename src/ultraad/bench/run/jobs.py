"""From a recipe to independent jobs. A job is one fitted model and its evaluations: one row for each test set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from ultraad import __version__, methods
from ultraad.backbones import load_backbone
from ultraad.bench.recipe import ALL, OTHERS, BackboneSpec, Protocol, Recipe, Variant
from ultraad.bench.row import FORMAT, AdaptFacts, AuxiliaryFacts, BackboneFacts, Files, Row, TestedFacts
from ultraad.bench.run.data import Data, Pool, TestSet, patients
from ultraad.bench.run.machine import stamp
from ultraad.bench.run.protocol import HABITS
from ultraad.config import dump, resolve
from ultraad.data.auxiliary import AuxiliarySet
from ultraad.types import SupportSet


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row before its job has run.

    Attributes:
        row: The row as far as it is known now; its status is ``"error"`` until there is a result.
        test: What to evaluate on.
        keep_maps: Whether to keep small maps.
    """

    row: Row
    test: TestSet
    keep_maps: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One fit and its evaluations. Can be sent to another process.

    Attributes:
        backbone: What to load.
        device: Where it runs.
        support: None for zero-shot.
        auxiliary: For methods that can train on one.
        recipe: For its numbers: calibrate, bootstrap, batch_size, threads, checkpoints.
        rows: One for each test set.
    """

    backbone: BackboneSpec
    device: str
    support: SupportSet | None
    auxiliary: AuxiliarySet | None
    recipe: Recipe
    rows: tuple[PlannedRow, ...]

    @property
    def about(self) -> Row:
        """A row of the job, for what all of them have in common: method, options, seed, protocol."""
        return self.rows[0].row

    def without(self, done: Collection[str]) -> Job:
        """The job without the rows of these ids."""
        return replace(self, rows=tuple(r for r in self.rows if r.row.id not in done))


class Plan:
    """All jobs of a recipe, in the order they are run.

    Args:
        recipe: The recipe.
        data: Its data.
        device: For the backbones.

    Attributes:
        variants: The methods of the recipe, with ``all`` expanded.
        supports: {digest: support set}.
        jobs: Small: images are named, not loaded.

    Raises:
        ConfigError: If a method, an option or a backbone is unknown.
        DataError: If a support set cannot be drawn.
        WeightsError: If weights are missing.
    """

    def __init__(self, recipe: Recipe, data: Data, *, device: str) -> None:
        self.recipe = recipe
        self.data = data
        self.variants = tuple(_expanded(recipe))
        self.supports: dict[str, SupportSet] = {}
        self._device = device
        self._stamp = stamp(recipe.threads, device)
        self._drawn: dict[tuple[str, int, int, bool], SupportSet] = {}
        self._backbones: dict[BackboneSpec, BackboneFacts] = {}
        self._options = {v.label: _resolved(v) for v in self.variants}
        self.jobs = tuple(self._all())

    def _all(self) -> Iterator[Job]:
        r = self.recipe
        all_shots = sorted({k for v in self.variants for k in self._shots(v)})
        for backbone, (pool, tests), seed, shots, variant, protocol in product(
            r.backbones, self.data.splits, r.seeds, all_shots, self.variants, r.protocols
        ):
            if self._wanted(variant, shots, seed, protocol):
                yield self._job(backbone, pool, tests, seed, shots, variant, protocol)

    def _shots(self, variant: Variant) -> tuple[int, ...]:
        return self.recipe.shots if variant.shots is None else variant.shots

    def _wanted(self, variant: Variant, shots: int, seed: int, protocol: Protocol) -> bool:
        info = methods.get(variant.name).info
        if shots not in self._shots(variant):
            return False
        if protocol == "published" and variant.name not in HABITS:
            return False  # its published result equals the honest one
        auxiliary = self.recipe.auxiliary is not None and info.auxiliary
        if shots == 0 and not (info.zero_shot or auxiliary):
            return False
        return shots > 0 or auxiliary or seed == self.recipe.seeds[0]  # without images nothing depends on the seed

    def _job(
        self,
        backbone: BackboneSpec,
        pool: Pool,
        tests: list[TestSet],
        seed: int,
        shots: int,
        variant: Variant,
        protocol: Protocol,
    ) -> Job:
        r, info = self.recipe, methods.get(variant.name).info
        spec = backbone.model_copy(update={"size": variant.size or backbone.size})
        per_patient = pool.adapt.per_patient if variant.per_patient is None else variant.per_patient
        support = self._draw(pool, shots, seed, per_patient=per_patient) if shots else None
        auxiliary = self.data.auxiliary_for(pool, shots) if info.auxiliary else None
        facts = self._backbone(spec)
        adapt = AdaptFacts(
            name=pool.name,
            layouts=tuple(layout for _, layout, _ in pool.roots),
            classes=support.classes if support else pool.classes,
            normal_class=pool.normal_class,
            per_patient=per_patient,
            exclude_tags=pool.exclude_tags,
            images=len(support.samples) if support else 0,
            patients=patients(support.samples) if support else 0,
            support=support.digest if support else None,
        )
        fixed = {
            "format": FORMAT,
            "version": __version__,
            "method": variant.name,
            "options": self._options[variant.label],
            "shots": shots,
            "seed": seed,
            "protocol": protocol,
            "backbone": dump(facts),
            "calibration": _calibration(variant) if r.calibrate else None,
            "checkpoints": r.checkpoints if protocol == "published" else None,
            "support": adapt.support,
            "classes": [adapt.classes, pool.normal_class],
            "auxiliary": [s.id for s in auxiliary.samples] if auxiliary else None,
            "batch_size": r.batch_size,
            "bootstrap": r.bootstrap,
        }
        second = [about for name, about in r.data.items() if r.auxiliary in (name, OTHERS)] if auxiliary else []
        used = [about for _, _, about in pool.roots] + second
        if any(about.resize_masks for about in used):  # the digest of a support set says nothing about its masks
            fixed["resize_masks"] = True
        job = _code(fixed)

        def planned(test: TestSet) -> PlannedRow:
            t = test.facts
            row = Row(
                id=_code({**fixed, "test": [t.name, t.set, t.transform, t.digest]}),
                job=job,
                status="error",
                recipe=r.name,
                method=variant.name,
                label=variant.label,
                title=info.title,
                given=variant.options,
                options=self._options[variant.label],
                outputs=tuple(sorted(info.outputs)),
                shots=shots,
                seed=seed,
                protocol=protocol,
                transductive=protocol == "published",
                habits=tuple(HABITS[variant.name].sentences(r.checkpoints)) if protocol == "published" else (),
                backbone=facts,
                adapt=adapt,
                auxiliary=AuxiliaryFacts(set=r.auxiliary, images=len(auxiliary.samples)) if auxiliary else None,
                test=TestedFacts(**dict(t), left_out=None, failed={}),
                files=Files(),
                **self._stamp,
            )
            return PlannedRow(row, test, r.maps == "all" or (r.maps == "first_seed" and seed == r.seeds[0]))

        return Job(spec, self._device, support, auxiliary, r, tuple(map(planned, tests)))

    def _draw(self, pool: Pool, shots: int, seed: int, *, per_patient: bool) -> SupportSet:
        key = (pool.name, shots, seed, per_patient)
        if key not in self._drawn:
            drawn = pool.draw(shots, seed, per_patient=per_patient)
            self._drawn[key] = self.supports.setdefault(drawn.digest, drawn)
        return self._drawn[key]

    def _backbone(self, spec: BackboneSpec) -> BackboneFacts:
        if spec not in self._backbones:
            b = load_backbone(spec.name, dtype=spec.dtype, size=spec.size)
            self._backbones[spec] = BackboneFacts(
                name=b.name, fingerprint=b.fingerprint, size=b.size, dtype=spec.dtype, parameters=b.parameters
            )
        return self._backbones[spec]


def _expanded(recipe: Recipe) -> Iterator[Variant]:
    """The methods of a recipe. ``all`` becomes every method whose name is not the label of another variant."""
    named = {v.label for v in recipe.methods}
    for variant in recipe.methods:
        if variant.name != ALL:
            yield variant
            continue
        for name in methods.available():
            if name not in named:
                yield variant.model_copy(update={"name": name, "label": name})


def _calibration(variant: Variant) -> dict[str, Any]:
    return {key: value for key, value in variant.options.items() if key.partition(".")[0] == "calibration"}


def _resolved(variant: Variant) -> dict[str, Any]:
    """All options of the method, without those of the calibration."""
    own = {key: value for key, value in variant.options.items() if key not in _calibration(variant)}
    return dump(resolve(methods.get(variant.name).Config, own, where=f"options of {variant.label}"))


def _code(facts: dict[str, Any]) -> str:
    """16 hex digits over facts of JSON types."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
