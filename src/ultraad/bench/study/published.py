"""The numbers printed in papers, for comparison with ours: published.yaml, typed."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from ultraad.bench.row import Row


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PaperRow(_Strict):
    """The paper's numbers for one method: {test set: {metric: {shots: percent}}}."""

    method: str
    label: str
    values: dict[str, dict[str, dict[int, float]]]


class PaperVariant(_Strict):
    """A line of the paper's ablation, in percent; None where the paper prints no number."""

    name: str
    class_auroc_macro: float | None
    pixel_auroc: float | None


class OtherPaper(_Strict):
    """Numbers of another paper: {test set of the recipe: {metric: {shots: percent}}}."""

    recipe: str
    source: str
    backbone: str
    method: str
    why_different: str
    remarks: tuple[str, ...]
    values: dict[str, dict[str, dict[int, float]]]


class Paper(_Strict):
    """The content of published.yaml; a test set is recognised by its layout or by its name in the recipe."""

    source: str
    backbone: str
    adapted_on: str
    test_sets: dict[str, dict[str, str]]
    rows: tuple[PaperRow, ...]
    ablation: tuple[PaperVariant, ...]
    remarks: tuple[str, ...]
    others: tuple[OtherPaper, ...]


@cache
def paper() -> Paper:
    """What the paper prints."""
    text = resources.files("ultraad.bench.study").joinpath("published.yaml").read_text("utf-8")
    return Paper.model_validate(yaml.safe_load(text))


def of_recipe(recipe: str) -> OtherPaper | None:
    """The other paper that a recipe repeats; None for the UltraAD paper and recipes of one's own."""
    return next((other for other in paper().others if other.recipe == recipe), None)


def test_set(row: Row) -> str | None:
    """The paper's test set that a row is tested on, if it is the whole set, unaltered; else None."""
    test, layouts = row.test, row.adapt.layouts
    part = test.split or test.include_tags or test.exclude_tags or test.transform != "none"
    if part or layouts != (paper().adapted_on,):
        return None
    facts = {"layout": test.layout, "set": test.set.casefold()}
    return next((name for name, wanted in paper().test_sets.items() if wanted.items() <= facts.items()), None)


def value(row: Row, metric: str) -> float | None:
    """What the paper prints for the method, test set and shots of a row, in 0..1; None if it does not.

    Only rows with the method's defaults or one of its presets are compared with the paper.
    """
    if other := of_recipe(row.recipe):
        same = row.method == other.method and not row.given.keys() - {"texts"}
        percent = other.values.get(row.test.name, {}).get(metric, {}).get(row.shots) if same else None
        return None if percent is None else percent / 100
    found = test_set(row)
    for printed in paper().rows:
        if printed.method == row.method and row.given.keys() <= {"preset"} and found is not None:
            percent = printed.values.get(found, {}).get(metric, {}).get(row.shots)
            return None if percent is None else percent / 100
    return None


def why_different(backbone: str, recipe: str = "") -> str:
    """Why our numbers may differ from the printed ones."""
    other = of_recipe(recipe)
    theirs = other.backbone if other else paper().backbone
    reasons = [
        other.why_different
        if other
        else "the paper leaves choices open, its code is not public, and its support sets are not known"
    ]
    if "ViT-L-14-336" not in backbone:
        reasons.insert(0, f"the paper uses {theirs}, these rows use {backbone}")
    return f"Reasons for differences from the printed numbers: {'; '.join(reasons)}."


def reading(recipe: str) -> tuple[str, tuple[str, ...]]:
    """The source of the printed numbers beside a recipe's, and remarks about them."""
    other = of_recipe(recipe)
    return (other.source, other.remarks) if other else (paper().source, paper().remarks)
