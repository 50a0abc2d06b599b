"""The fields of a typed record as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from docs.build._markdown import table

from ultraad.results.row import Facts


def fields(model: type[Facts]) -> str:
    """A row for each field, followed by the fields of the record that it holds: ``test.name``, ``tests[].name``."""
    return table(("key", "what"), _rows(model))


def _rows(model: type[Facts], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + name
        yield f"`{key}`", field.description or ""
        inner, several = _record(field.annotation)
        if inner is not None:
            yield from _rows(inner, f"{key}[]." if several else f"{key}.")


def _record(annotation: Any) -> tuple[type[Facts] | None, bool]:
    """The record that a field holds, if any, and whether it holds several."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Facts):
            return part, get_origin(annotation) is tuple
    return None, False
