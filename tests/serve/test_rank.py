"""What to mark next: the reasons, the random share, and what is left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from ultraad.serve.rank import AGREED, Candidate, Known, Marked, offers, worth

CLASSES = ("normal", "benign", "malignant")


def candidate(image: str, **more: Any) -> Candidate:
    facts: dict[str, Any] = {
        "frame": 0, "patient": None, "score": 0.1, "class_": "normal", "probs": None, "uncertainty": 0.2,
        "vector": None, "skipped": False,
    }  # fmt: skip
    return Candidate(image=image, **{**facts, **more})


def marked(image: str, label: str = "normal", **more: Any) -> Marked:
    return Marked(**{"image": image, "patient": None, "label": label, "held_out": False, "vector": None, **more})


def known(*marks: Marked, **more: Any) -> Known:
    facts: dict[str, Any] = {
        "classes": CLASSES,
        "normal": "normal",
        "alike": [],
        "aside": (),
        "share": 0.0,
    }
    return Known(marked=marks, **{**facts, **more})


ENOUGH = [marked(f"m{i}{c}", c) for c in CLASSES for i in range(4)]


def test_the_least_certain_image_comes_first_with_its_score() -> None:
    found = offers(
        [candidate("a", uncertainty=0.3), candidate("b", uncertainty=0.9, score=0.48)], known(*ENOUGH), limit=5
    )
    assert next((p.candidate.image, p.kind, p.text) for p in found) == ("b", "unsure", "unsure: 0.48")


def test_an_image_unlike_the_marked_ones_says_how_many_they_are() -> None:
    like, unlike = np.array([1.0, 0.0, 0.0], np.float32), np.array([0.0, 1.0, 0.0], np.float32)
    marks = [marked(f"m{i}{c}", c, vector=like) for c in CLASSES for i in range(4)]
    some = [candidate("same", vector=like), candidate("new", vector=unlike)]
    (first, *_) = offers(some, known(*marks), limit=5)
    assert (first.candidate.image, first.kind, first.text) == ("new", "unlike", "unlike your 12 images")


def test_an_image_whose_marked_neighbours_say_otherwise_disagrees() -> None:
    rng = np.random.default_rng(0)
    here, there = np.array([4.0, 0, 0, 0], np.float32), np.array([0, 4.0, 0, 0], np.float32)

    def near(point: np.ndarray) -> np.ndarray:
        return (point + rng.normal(0, 0.1, 4)).astype(np.float32)

    marks = [marked(f"a{i}", "benign", vector=near(here)) for i in range(6)]
    marks += [marked(f"b{i}", "normal", vector=near(there)) for i in range(6)]
    marks += [marked(f"c{i}", "malignant", vector=near(-here)) for i in range(4)]
    some = [candidate("odd", vector=here, uncertainty=0.0), candidate("fine", vector=there, uncertainty=0.0)]
    found = {p.candidate.image: p for p in offers(some, known(*marks), limit=5)}
    assert (found["odd"].kind, found["odd"].text) == ("disagrees", "disagrees: its nearest marked images are benign")
    assert found["fine"].kind != "disagrees"


def test_a_class_with_few_marks_is_looked_for() -> None:
    some = [candidate("x", class_="malignant", probs={"malignant": 0.95}, score=0.9, uncertainty=0.1)]
    (found,) = offers(some, known(marked("m", "malignant")), limit=5)
    assert (found.kind, found.text) == ("class", "may be malignant, of which you have 1")


def names(numbers: Iterable[int]) -> list[str]:
    return [f"{n:03d}" for n in numbers]


def test_one_in_five_is_of_the_images_set_aside_and_never_twice_in_a_row() -> None:
    some = [candidate(name) for name in names(range(200))]
    aside = names(range(199, 0, -5))
    found = offers(some, known(share=0.2, aside=aside), limit=50)
    random = [p.kind == "random" for p in found]
    assert sum(random) == 10
    assert not any(a and b for a, b in itertools.pairwise(random))
    assert [p.candidate.image for p in found if p.kind == "random"] == aside[:10], "in their order"


def drawn_by(rng: np.random.Generator) -> list[str]:
    """The images drawn in forty rounds of marking what is offered, with a model that says anything."""
    patients = [f"p{n // 3}" for n in range(300)]
    aside = [name for name in names(np.random.default_rng(7).permutation(300)) if int(name) // 3 % 5 == 2]
    alike = [frozenset(names((n, n + 2))) for n in range(1, 201, 4)]
    marks, drawn = list[Marked](), []
    for _ in range(40):
        done = {m.image for m in marks}
        some = [
            candidate(
                name,
                patient=patient,
                score=(score := float(rng.random())),
                uncertainty=float(rng.random()),
                class_=CLASSES[int(score * 3)],
                vector=rng.normal(size=4).astype(np.float32),
            )
            for name, patient in zip(names(range(300)), patients, strict=True)
            if name not in done
        ]
        (pick,) = offers(some, known(*marks, share=0.2, aside=aside, alike=alike), limit=1)
        random = pick.kind == "random"
        drawn += [pick.candidate.image] if random else []
        marks.append(marked(pick.candidate.image, patient=pick.candidate.patient, held_out=random))
    return drawn


def test_which_images_are_drawn_does_not_depend_on_any_model() -> None:
    """Through the whole loop: what the model picks, marks and crosses off never changes what is drawn."""
    found = [drawn_by(np.random.default_rng(seed)) for seed in range(4)]
    assert len(found[0]) == 8
    assert found[1:] == found[:1] * 3


def test_a_model_never_picks_an_image_set_aside_nor_its_near_duplicate() -> None:
    some = [candidate(n, uncertainty=1.0) for n in ("kept", "twin", "mate")] + [candidate("free", uncertainty=0.0)]
    facts = known(*ENOUGH, aside=["kept"], share=0.01, alike=[frozenset({"kept", "twin"})])
    assert [p.candidate.image for p in offers(some, facts, limit=2)] == ["mate", "free"]


def test_nothing_is_drawn_before_there_are_examples_enough_but_what_is_set_aside_is_not_picked_either() -> None:
    some = [candidate(n, uncertainty=1.0) for n in ("kept", "twin", "mate")] + [candidate("free", uncertainty=0.0)]
    facts: dict[str, Any] = {"aside": ["kept"], "share": 0.5, "alike": [frozenset({"kept", "twin"})]}
    assert [p.kind for p in offers(some, known(**facts, ready=True), limit=4)].count("random") == 1
    assert [p.candidate.image for p in offers(some, known(**facts, ready=False), limit=4)] == ["mate", "free"]
    only = offers(some[:1], known(**facts, ready=False), limit=4)
    assert [p.kind for p in only] == ["random"], "where nothing else is left, it is offered"


def test_no_patient_of_the_support_is_drawn_at_random() -> None:
    some = [candidate("a", patient="p"), candidate("b", patient="q")]
    found = offers(some, known(marked("m", patient="p"), share=0.5, aside=["a", "b"]), limit=5)
    assert [p.candidate.image for p in found if p.kind == "random"] == ["b"]


def test_near_duplicates_of_marked_and_offered_images_are_left_out() -> None:
    alike = [frozenset({"m", "twin"}), frozenset({"a", "b"})]
    some = [candidate("twin", uncertainty=1.0), candidate("a", uncertainty=0.9), candidate("b", uncertainty=0.8)]
    assert [p.candidate.image for p in offers(some, known(marked("m"), alike=alike), limit=5)] == ["a"]


def test_no_patient_comes_twice_in_a_row_while_there_are_others() -> None:
    some = [candidate(str(i), patient="p" if i < 3 else "q", uncertainty=1 - i / 10) for i in range(6)]
    patients = [p.candidate.patient for p in offers(some, known(*ENOUGH), limit=6)]
    assert patients == ["p", "q", "p", "q", "p", "q"]


def test_a_skipped_image_comes_again_only_when_nothing_else_is_left() -> None:
    some = [candidate("a", skipped=True, uncertainty=1.0), candidate("b")]
    assert [p.candidate.image for p in offers(some, known(), limit=5)] == ["b"]
    assert [p.candidate.image for p in offers(some[:1], known(), limit=5)] == ["a"]


def test_without_a_share_nothing_is_random() -> None:
    some = [candidate(name) for name in names(range(30))]
    found = offers(some, known(share=0.0, aside=names(range(6))), limit=30)
    assert len(found) == 30
    assert "random" not in {p.kind for p in found}


@pytest.mark.parametrize(
    ("agreed", "counts", "found", "words"),
    [
        ([], {"normal": 0, "benign": 4}, True, "at least 4"),
        ([True] * AGREED, {"normal": 4, "benign": 4}, False, "not likely to help"),
        ([True] * AGREED, {"normal": 4, "benign": 1}, True, "benign"),
        ([True] * 7 + [False], {"normal": 4, "benign": 4}, True, "wrong on 1 of your last 8"),
    ],
)
def test_whether_marking_more_is_worth_it(agreed: list[bool], counts: dict[str, int], found: bool, words: str) -> None:
    picks = offers([candidate("a")], known(), limit=1)
    assert worth(agreed, picks, counts=counts)[0] is found
    assert words in worth(agreed, picks, counts=counts)[1]


def test_when_everything_is_marked_there_is_nothing_to_do() -> None:
    assert worth([], [], counts={"normal": 4}) == (False, "every image is marked")
