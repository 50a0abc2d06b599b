"""The numbers that the UltraAD paper prints, to stand beside ours; published.yaml."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from ultraad.bench.results import Row


@cache
def paper() -> dict[str, Any]:
    """The file."""
    found: dict[str, Any] = yaml.safe_load(
        resources.files("ultraad.bench.study").joinpath("published.yaml").read_text("utf-8")
    )
    return found


def test_set(row: Row) -> str | None:
    """Which of the paper's test sets a row is tested on, whole and as it is; None if on none."""
    test = row["test"]
    part = test["split"] or test["include_tags"] or test["exclude_tags"] or test["transform"] != "none"
    if part or paper()["adapted_on"] not in row["adapt"]["layouts"] or len(row["adapt"]["layouts"]) > 1:
        return None
    facts = {"layout": test["layout"], "set": str(test["set"]).casefold()}
    return next((n for n, wanted in paper()["test_sets"].items() if wanted.items() <= facts.items()), None)


def value(row: Row, metric: str) -> float | None:
    """What the paper prints for the method, test set and shots of a row, in 0..1; None if it does not, or not to us.

    Only a row with the method's defaults or one of its presets is held against the paper.
    """
    found = test_set(row)
    for printed in paper()["rows"]:
        if printed["method"] == row["method"] and row["given"].keys() <= {"preset"} and found is not None:
            percent = printed["values"].get(found, {}).get(metric, {}).get(row["shots"])
            return None if percent is None else percent / 100
    return None


def why_different(backbone: str) -> str:
    """Why our numbers may differ from the printed ones."""
    choices = "the paper leaves choices open, its code is not public, and its sets of adaptation images are not known"
    if "ViT-L-14-336" in backbone:
        return f"Why they differ from the printed ones: {choices}."
    other = f"the paper runs on {paper()['backbone']}, these rows on {backbone}"
    return f"Why they differ from the printed ones: {other}. Besides, {choices}."
