"""What a benchmark compares, as a YAML file: data, backbones, methods, shots, seeds, protocols.

Strict: a misspelt key is an error. docs/bench.md explains every key; recipes/ holds those that ship.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ultraad.backbones import DEFAULT
from ultraad.config import read_yaml, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ProtocolName = Literal["honest", "published"]
Transform = Literal["none", "paint_overlays"]
ALL = "all"
"""Stands for every method of the package, in a recipe's list."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _short(key: str) -> Callable[[Any], Any]:
    """``- word`` in a list means ``- {key: word}``."""
    return lambda value: {key: value} if isinstance(value, str) else value


class DataSet(_Strict):
    """A data set that the recipe names."""

    root: Path | None = Field(None, description="its folder, below the folder given with --data unless absolute")
    layout: str = Field("auto", description="see 'ultraad data list'")
    title: str = Field("", description="for reports")
    public: bool = Field(default=True, description="false: nobody else can have it; its rows say so and are not run")
    classes: tuple[str, ...] | None = Field(None, description="classes in label order; None: as found")
    normal_class: str | None = Field(None, description="the class without lesion, if its name does not say so")

    @model_validator(mode="after")
    def _has_a_place(self) -> DataSet:
        if self.public and self.root is None:
            msg = "a public data set needs a root"
            raise ValueError(msg)
        return self


class Adapt(_Strict):
    """Where support sets are drawn from."""

    on: str | None = Field(None, description="a data set; not given with leave_one_out")
    split: str | None = Field("train", description="published split to draw from; null: all")
    exclude_tags: tuple[str, ...] = Field((), description="images with these tags are not drawn")
    per_patient: bool = Field(default=False, description="draw patients in turn instead of images")


class Test(_Strict):
    """A test set: a data set, or a part of it."""

    on: str = Field(description="a data set")
    name: str = Field("", description="unique; the data set's if not given")
    split: str | None = Field(None, description="only this published split")
    include_tags: tuple[str, ...] = Field((), description="only images with all of these tags")
    exclude_tags: tuple[str, ...] = Field((), description="no image with any of these tags")
    transform: Transform = Field("none", description="paint_overlays: coloured overlays are painted out")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:  # noqa: ANN401
        return {**data, "name": data.get("name") or data.get("on", "")} if isinstance(data, dict) else data


class Tower(_Strict):
    """A backbone."""

    name: str = DEFAULT
    size: int | None = Field(None, description="input side in pixels; the weights' own if not given")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Entry(_Strict):
    """A method with options: one line of a table."""

    name: str = Field(description="a method, or 'all'")
    label: str = Field("", description="what tables print; the method's name if not given")
    options: dict[str, Any] = Field({}, description="of the method, nested or dotted")
    size: int | None = Field(None, description="another input side than the backbone's")
    per_patient: bool | None = Field(None, description="another way to draw than under adapt")
    shots: tuple[int, ...] | None = Field(None, description="other shots than the recipe's")

    @model_validator(mode="before")
    @classmethod
    def _labelled(cls, data: Any) -> Any:  # noqa: ANN401
        return {**data, "label": data.get("label") or data.get("name", "")} if isinstance(data, dict) else data


class Recipe(_Strict):
    """A benchmark."""

    name: str = Field(description="of the results; a folder holds one")
    title: str = Field("", description="for reports")
    data: dict[str, DataSet] = Field(min_length=1, description="{name: data set}")
    adapt: Adapt = Adapt()
    test: tuple[Annotated[Test, BeforeValidator(_short("on"))], ...] = Field((), description="test sets")
    leave_one_out: bool = Field(
        default=False, description="test on each data set that is there, adapt on the others together"
    )
    auxiliary: str | None = Field(None, description="a data set for the methods that can be trained on one")
    backbones: tuple[Annotated[Tower, BeforeValidator(_short("name"))], ...] = Field((Tower(),), min_length=1)
    methods: tuple[Annotated[Entry, BeforeValidator(_short("name"))], ...] = Field(min_length=1)
    reference: str = Field("", description="label that the others are compared with; the first if not given")
    shots: tuple[Annotated[int, Field(ge=0)], ...] = Field((4, 8, 16), min_length=1, description="0: zero-shot")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
    protocols: tuple[ProtocolName, ...] = Field(("honest",), min_length=1)
    checkpoints: int = Field(5, ge=2, description="published protocol: states of a training that are tried on the test")
    calibrate: bool = Field(
        default=False, description="thresholds from the support by cross-validation, instead of 0.5; costs more fits"
    )
    bootstrap: int = Field(1000, ge=0, description="resamples behind the 95 % intervals")
    batch_size: int = Field(8, ge=1, description="images per forward pass")
    threads: int = Field(1, ge=1, description="of each job; another number may change the last bits")
    maps: Literal["first_seed", "all", "none"] = Field("first_seed", description="which rows keep small maps")

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        used = [t.on for t in self.test] + [n for n in (self.adapt.on, self.auxiliary) if n]
        unknown = sorted(set(used) - set(self.data))
        if unknown:
            msg = f"data does not name {', '.join(unknown)}; it names {', '.join(self.data)}"
            raise ValueError(msg)
        if self.leave_one_out == bool(self.test) or self.leave_one_out == bool(self.adapt.on):
            msg = "give adapt.on and test, or leave_one_out: true alone"
            raise ValueError(msg)
        private = [n for n in (self.adapt.on, self.auxiliary) if n and not self.data[n].public]
        if private:
            msg = f"nothing can be adapted on {', '.join(private)}, which is not public"
            raise ValueError(msg)
        _unique("test", [t.name for t in self.test])
        _unique("methods", [e.label for e in self.methods])
        _unique("backbones", [str(b) for b in self.backbones])
        for key in ("shots", "seeds", "protocols"):
            _unique(key, [str(v) for v in getattr(self, key)])
        return self


def read_recipe(path: Path | str, *, changes: dict[str, Any] | None = None) -> Recipe:
    """A recipe from its file.

    Args:
        path: YAML.
        changes: Top-level keys that replace the file's, such as ``{"seeds": [0]}``.

    Raises:
        ConfigError: If the file cannot be read, or a key or value is wrong.
    """
    return resolve(Recipe, {**read_yaml(path), **(changes or {})}, where=str(path))


def _unique(key: str, names: Iterable[str]) -> None:
    names = list(names)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        msg = f"{key}: {', '.join(twice)} is there twice; give each its own label or name"
        raise ValueError(msg)
