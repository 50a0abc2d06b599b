"""What a benchmark compares, as a YAML file: data, backbones, methods, shots, seeds, protocols.

Strict: a misspelt key is an error. docs/bench.md explains every key. The recipes in ``recipes/`` ship with the package.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ultraad.backbones import DEFAULT
from ultraad.config import read_yaml, resolve
from ultraad.errors import ConfigError
from ultraad.fan import FanChoice
from ultraad.registry import did_you_mean

_log = logging.getLogger(__name__)

Protocol = Literal["honest", "published"]
Transform = Literal["none", "paint_overlays"]
ALL = "all"
"""Means every method of the package, in a recipe's list."""
EACH = "each"
"""As ``adapt.on``: every test set is adapted on its own data set."""
OTHERS = "others"
"""As ``auxiliary``: for zero-shot rows, all data sets but the tested one, together."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _short(key: str) -> Callable[[Any], Any]:
    """``- word`` in a list means ``- {key: word}``."""
    return lambda value: {key: value} if isinstance(value, str) else value


def _fill(key: str, source: str) -> Callable[[Any], Any]:
    """Where ``key`` is not given, it is what ``source`` is."""
    return lambda value: {**value, key: value.get(key) or value.get(source, "")} if isinstance(value, dict) else value


class DataSet(_Strict):
    """A data set of the recipe."""

    root: Path | None = Field(None, description="folder; a relative one is below --data")
    layout: str = Field("auto", description="see 'ultraad data list'")
    title: str = Field("", description="name in reports")
    public: bool = Field(default=True, description="false: not available to others; its rows say so and are not run")
    classes: tuple[str, ...] | None = Field(None, description="classes in label order; if not given, as found")
    normal_class: str | None = Field(None, description="the class without a lesion, if its name does not say so")
    exclude_tags: tuple[str, ...] = Field((), description="images with any of these tags are used for nothing")
    fan: FanChoice = Field("off", description="as --fan of 'ultraad predict'")
    resize_masks: bool = Field(
        default=False, description="resize masks of another size but the same aspect; otherwise they are not used"
    )

    @model_validator(mode="after")
    def _has_root(self) -> DataSet:
        if self.public and self.root is None:
            msg = "a public data set needs a root"
            raise ValueError(msg)
        return self


class Adapt(_Strict):
    """Where support sets are drawn from."""

    on: str | None = Field(
        None, description="a data set, or each: every test set on its own data set; not with leave_one_out"
    )
    split: str | None = Field("train", description="published split to draw from; null: all images")
    exclude_tags: tuple[str, ...] = Field((), description="images with any of these tags are not drawn")
    normal_only: bool = Field(default=False, description="draw images of the normal class only")
    per_patient: bool = Field(default=False, description="draw patient by patient instead of image by image")


class Test(_Strict):
    """A test set: a data set, or a part of it."""

    on: str = Field(description="a data set")
    name: str = Field("", description="unique in the recipe; if not given, the name of the data set")
    split: str | None = Field(None, description="only this published split")
    include_tags: tuple[str, ...] = Field((), description="only images with all of these tags")
    exclude_tags: tuple[str, ...] = Field((), description="no image with any of these tags")
    transform: Transform = Field("none", description="paint_overlays: coloured overlays are painted out")

    _named = model_validator(mode="before")(_fill("name", "on"))


class BackboneSpec(_Strict):
    """Which backbone to load."""

    name: str = DEFAULT
    size: int | None = Field(None, description="input side in pixels; if not given, the one of the weights")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Variant(_Strict):
    """A method with options: one row of a table."""

    name: str = Field(description="a method, or 'all'")
    label: str = Field("", description="name in tables; if not given, the name of the method")
    options: dict[str, Any] = Field({}, description="options of the method, nested or dotted")
    size: int | None = Field(None, description="input side in pixels, instead of the backbone's")
    per_patient: bool | None = Field(None, description="how to draw, instead of adapt.per_patient")
    shots: tuple[int, ...] | None = Field(None, description="shots, instead of the recipe's")

    _labelled = model_validator(mode="before")(_fill("label", "name"))


class Recipe(_Strict):
    """A benchmark."""

    name: str = Field(description="name of the results; a results folder belongs to one recipe")
    title: str = Field("", description="title of the report")
    data: dict[str, DataSet] = Field(min_length=1, description="{name: data set}")
    adapt: Adapt = Adapt()
    test: tuple[Annotated[Test, BeforeValidator(_short("on"))], ...] = Field((), description="test sets")
    leave_one_out: bool = Field(
        default=False, description="test on each available data set, adapted on all others together"
    )
    pairs: bool = Field(default=False, description="test on each available data set, adapted on each other one alone")
    auxiliary: str | None = Field(
        None,
        description="a data set for methods that can be trained on one, or others: all but the tested one, for 0 shots",
    )
    backbones: tuple[Annotated[BackboneSpec, BeforeValidator(_short("name"))], ...] = Field(
        (BackboneSpec(),), min_length=1
    )
    methods: tuple[Annotated[Variant, BeforeValidator(_short("name"))], ...] = Field(min_length=1)
    reference: str = Field("", description="label that the others are compared with; if not given, the first")
    shots: tuple[Annotated[int, Field(ge=0)], ...] = Field((4, 8, 16), min_length=1, description="0: zero-shot")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
    protocols: tuple[Protocol, ...] = Field(("honest",), min_length=1)
    checkpoints: int = Field(5, ge=2, description="published protocol: training states that are tried on the test set")
    calibrate: bool = Field(
        default=False, description="find thresholds by cross-validation on the support set instead of 0.5; more fits"
    )
    bootstrap: int = Field(1000, ge=0, description="resamples for the 95 % intervals")
    batch_size: int = Field(8, ge=1, description="images per forward pass")
    threads: int = Field(1, ge=1, description="threads of each job; another number may change the last bits")
    maps: Literal["first_seed", "all", "none"] = Field("first_seed", description="which rows keep small maps")

    @property
    def by_turns(self) -> bool:
        """Whether data sets take turns at being the test set."""
        return self.leave_one_out or self.pairs

    @model_validator(mode="after")
    def _is_consistent(self) -> Recipe:
        if self.auxiliary == OTHERS and self.adapt.on != EACH:
            msg = f"auxiliary: {OTHERS} needs adapt.on: {EACH}; name one auxiliary data set instead"
            raise ValueError(msg)
        named = [n for n in (self.adapt.on, self.auxiliary) if n not in (None, EACH, OTHERS)]
        used = [t.on for t in self.test] + named
        unknown = sorted(set(used) - set(self.data))
        if unknown:
            msg = f"data does not name {', '.join(unknown)}; it names {', '.join(self.data)}"
            raise ValueError(msg)
        turns = self.by_turns
        if turns in (bool(self.test), bool(self.adapt.on)) or (self.leave_one_out and self.pairs):
            msg = "give adapt.on and test, or only leave_one_out: true, or only pairs: true"
            raise ValueError(msg)
        private = [n for n in (used if self.adapt.on == EACH else named) if not self.data[n].public]
        if private:
            msg = f"cannot adapt on {', '.join(private)}: not public; name a public data set"
            raise ValueError(msg)
        _unique("test", [t.name for t in self.test])
        _unique("methods", [v.label for v in self.methods])
        _unique("backbones", [str(b) for b in self.backbones])
        for key in ("shots", "seeds", "protocols"):
            _unique(key, [str(v) for v in getattr(self, key)])
        return self


def shipped() -> dict[str, Path]:
    """{name: file} of the recipes in the package, sorted."""
    return {p.stem: p for p in sorted((Path(__file__).parent / "recipes").glob("*.yaml"))}


def read_recipe(recipe: Path | str, *, changes: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        recipe: A YAML file, or the name of a recipe that ships with the package, such as ``"quick"``.
        changes: Top-level keys that replace the file's, such as ``{"seeds": [0]}``.

    Raises:
        ConfigError: If there is no such recipe, the file cannot be read, or a key or value is wrong.

    Examples:
        >>> read_recipe("quick").shots
        (0, 4)
    """
    return resolve(Recipe, {**read_yaml(_find(Path(recipe))), **(changes or {})}, where=str(recipe))


def _find(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        return path
    known = shipped()
    if str(path) in known:
        return known[str(path)]
    if path.parent.name == "recipes" and path.suffix == ".yaml" and path.stem in known:
        _log.warning("%s is now part of the package; write %r instead", path, path.stem)
        return known[path.stem]
    hint = did_you_mean(path.stem, known) or ";"
    msg = f"there is no recipe {str(path)!r}{hint} wanted a YAML file or one of {', '.join(known)}"
    raise ConfigError(msg)


def _unique(key: str, names: Iterable[str]) -> None:
    names = list(names)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        msg = f"{key}: {', '.join(twice)} is given twice; give each its own label or name"
        raise ValueError(msg)
