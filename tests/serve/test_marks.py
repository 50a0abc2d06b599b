"""Rows to what a frame shows: undo, redo, erasing, accepting, deleting."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultraad.serve.marks import StoredRow, fold, problem
from ultraad.serve.schemas import Row

IMAGE = "0" * 16


def rows(*found: tuple[str, dict[str, Any]], raters: str = "") -> list[StoredRow]:
    return [
        StoredRow(n, f"row-{n:04d}", kind, raters[n - 1] if raters else "anna", f"t{n:04d}", body)
        for n, (kind, body) in enumerate(found, start=1)
    ]


def stroke(lesion: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "stroke", {"tool": "brush", "lesion": lesion, "points": [1.0, 1.0], "radius": 2.0, **more}


def undo(n: int) -> tuple[str, dict[str, Any]]:
    return "undo", {"target": f"row-{n:04d}"}


def redo(n: int) -> tuple[str, dict[str, Any]]:
    return "redo", {"target": f"row-{n:04d}"}


def test_strokes_of_one_id_are_one_lesion() -> None:
    now = fold(rows(stroke("a", **{"class": "benign"}), stroke("b"), stroke("a")))
    assert [(one.id, one.number, one.class_, len(one.shapes)) for one in now.lesions] == [
        ("a", 1, "benign", 2),
        ("b", 2, None, 1),
    ]


def test_undo_takes_back_one_step_and_redo_restores_it_at_its_place() -> None:
    found = [stroke("a"), stroke("b"), undo(2)]
    assert [one.id for one in fold(rows(*found)).lesions] == ["a"]
    assert fold(rows(*found)).undo("anna") == "row-0001"
    assert fold(rows(*found)).redo("anna") == "row-0002"
    found.append(redo(2))
    assert [one.id for one in fold(rows(*found)).lesions] == ["a", "b"]


def test_a_new_step_ends_what_can_be_redone() -> None:
    now = fold(rows(stroke("a"), undo(1), stroke("b"), redo(1)))
    assert [one.id for one in now.lesions] == ["b"]
    assert now.redo("anna") is None


def test_undo_is_per_rater() -> None:
    now = fold(rows(stroke("a"), stroke("b"), raters="AB"))
    assert (now.undo("A"), now.undo("B"), now.undo("C")) == ("row-0001", "row-0002", None)
    other = fold(rows(stroke("a"), stroke("b"), undo(1), raters="ABB"))
    assert len(other.lesions) == 2, "B cannot take back what A did"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["stroke", "label", "remove", "undo", "redo"]), max_size=14))
def test_undoing_everything_leaves_nothing_and_redoing_everything_brings_it_back(kinds: list[str]) -> None:
    history: list[tuple[str, dict[str, Any]]] = []
    for kind in kinds:
        now = fold(rows(*history))
        if kind == "stroke":
            history.append(stroke(f"lesion{len(history) % 3}"))
        elif kind == "label":
            history.append(("label", {"class": "normal"}))
        elif kind == "remove":
            history.append(("remove", {"lesion": "lesion0"}))
        elif (target := now.undo("anna") if kind == "undo" else now.redo("anna")) is not None:
            history.append((kind, {"target": target}))
    before = fold(rows(*history))
    steps = 0
    while (target := fold(rows(*history)).undo("anna")) is not None:
        history.append(("undo", {"target": target}))
        steps += 1
    empty = fold(rows(*history))
    assert (empty.lesions, empty.label, empty.marked) == ([], None, None)
    for _ in range(steps):
        history.append(("redo", {"target": fold(rows(*history)).redo("anna")}))
    after = fold(rows(*history))
    assert (after.lesions, after.label, after.role) == (before.lesions, before.label, before.role)


def test_undo_never_takes_back_a_skip() -> None:
    now = fold(rows(stroke("a"), ("skip", {})))
    assert now.undo("anna") == "row-0001"
    assert now.skipped
    assert fold(rows(("skip", {}))).marked is None


def test_the_eraser_without_a_lesion_erases_all_that_are_there() -> None:
    eraser = ("stroke", {"tool": "eraser", "points": [1.0, 1.0], "radius": 1.0})
    now = fold(rows(stroke("a"), stroke("b"), eraser, stroke("c")))
    assert [[s.erase for s in one.shapes] for one in now.lesions] == [[False, True], [False, True], [False]]


def test_accepted_copied_and_imported_lesions_are_told_from_drawn_ones() -> None:
    mask = {"runs": [3, 2, 7]}
    now = fold(
        rows(
            ("import", {"label": "benign", "lesions": [{"lesion": "i", "class": "benign", **mask}]}),
            ("accept", {"lesion": "a", "class": "malignant", **mask}),
            ("copy", {"lesion": "c", **mask}),
            stroke("d"),
        )
    )
    assert [(one.id, one.origin) for one in now.lesions] == [
        ("i", "imported"),
        ("a", "accepted"),
        ("c", "copied"),
        ("d", "drawn"),
    ]
    assert (now.label, now.label_from) == ("benign", "import")


def test_numbers_of_lesions_stay_when_one_is_deleted() -> None:
    now = fold(rows(stroke("a"), stroke("b"), ("remove", {"lesion": "a"})))
    assert [(one.id, one.number) for one in now.lesions] == [("b", 2)]
    assert now.kinds["row-0003"] == "deleting lesion 1"


def test_a_label_can_be_taken_back() -> None:
    assert fold(rows(("label", {"class": "normal"}), ("label", {}))).label is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"kind": "stroke", "points": [1, 1], "radius": 1, "lesion": "lesion-1"}, "needs 'tool'"),
        ({"kind": "stroke", "tool": "brush", "points": [1], "radius": 1, "lesion": "lesion-1"}, "x, y pairs"),
        ({"kind": "stroke", "tool": "brush", "points": [1, 1], "lesion": "lesion-1"}, "'radius' or 'radii'"),
        ({"kind": "stroke", "tool": "brush", "points": [1, 1], "radii": [1, 2], "lesion": "lesion-1"}, "1 got 2"),
        ({"kind": "stroke", "tool": "brush", "points": [1, 1], "radius": 1}, "needs the lesion"),
        ({"kind": "stroke", "tool": "polygon", "points": [1, 1, 2, 2], "lesion": "lesion-1"}, "at least 3"),
        ({"kind": "stroke", "tool": "box", "points": [1, 1, 2, 2, 3, 3], "lesion": "lesion-1"}, "two corners"),
        ({"kind": "label", "class": "cyst"}, "no class 'cyst'"),
        (
            {"kind": "stroke", "tool": "box", "points": [1, 1, 2, 2], "lesion": "lesion-1", "class": "normal"},
            "cannot be",
        ),
        ({"kind": "remove", "lesion": "lesion-9"}, "not there any more"),
        ({"kind": "undo", "target": "row-9999"}, "nothing to undo"),
        ({"kind": "accept", "lesion": "lesion-2"}, "needs 'outline'"),
        ({"kind": "copy", "lesion": "lesion-2"}, "needs 'from'"),
        ({"kind": "role"}, "needs 'role'"),
    ],
)
def test_a_row_that_means_nothing_is_refused_with_the_reason(row: dict[str, Any], reason: str) -> None:
    sent = Row.model_validate({"id": "row-00000001", "image": IMAGE, **row})
    found = problem(sent, fold([]), ["normal", "benign"], "normal")
    assert found is not None
    assert all(word in found for word in reason.split())
