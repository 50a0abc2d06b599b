"""Lists of images: sorted, searched, in pages; and how good a model is on marks it has not learned from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import norm

from ultraad.serve.desk import Desk
from ultraad.serve.numbers import _wilson, changes
from ultraad.serve.outcomes import ModelFacts
from ultraad.serve.project import Picture, Summary, now

CLASSES = ("normal", "benign", "malignant")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path / "p", backbone="tiny")
    yield found
    found.close()


def id_of(number: int) -> str:
    return f"{number:016x}"


def fill(desk: Desk, count: int, *, labels: dict[int, str] | None = None, patients: int = 3) -> None:
    """Images ``img 0.png`` ... of some patients, with scores rising from 0 to 1 by model 0, falling by model 1."""
    facts = {"path": "/x", "source": "folder:/x", "size": (40, 60), "added": now()}
    pictures = [
        Picture.model_validate(
            {"id": id_of(n), "name": f"img {n}.png", "sample": f"{n}", "patient": f"p{n % patients}", **facts}
        )
        for n in range(count)
    ]
    desk.project.add([(p, b"") for p in pictures])
    for n, label in (labels or {}).items():
        with desk.project.database.write() as db:
            desk.project.put_summary(db, (id_of(n), 0), Summary(label=label, marked=f"t{n}", lesions=label != "normal"))
    for model in (0, 1):
        made = ModelFacts(
            number=model, made=now(), method="ultraad", backbone="tiny", classes=CLASSES, normal_class="normal"
        )
        desk.outcomes.folder(model).mkdir()  # as if it were saved
        desk.outcomes.put(made)
        desk.outcomes.use(model)
        scores = [n / max(1, count - 1) for n in range(count)]
        scores = scores if model == 0 else scores[::-1]
        found = [
            {"image": id_of(n), "frame": 0, "score": s, "map": False, "out_of_scope": False, "backbone": "b",
             "vector": b"", "probs": {"normal": 1 - s, "benign": s * 0.7, "malignant": s * 0.3}, "set": None}
            for n, s in enumerate(scores)
        ]  # fmt: skip
        desk.outcomes.add(model, found)


def page(desk: Desk, **more: Any) -> list[int]:
    asked: dict[str, Any] = {
        "sort": "added", "descending": False, "search": "", "class_": None, "patient": None, "device": None,
        "states": [], "offset": 0, "limit": 1000,
    }  # fmt: skip
    return [int(item.id, 16) for item in desk.listing.page(**{**asked, **more}).items]


def test_pages_are_cut_from_the_whole_list(desk: Desk) -> None:
    fill(desk, 10)
    assert page(desk, offset=3, limit=4) == [3, 4, 5, 6]
    assert page(desk, offset=8, limit=4) == [8, 9]
    assert page(desk, descending=True, limit=2) == [9, 8]


def test_the_order_of_all_images_comes_with_a_page_on_demand(desk: Desk) -> None:
    fill(desk, 10)
    asked = {"descending": True, "search": "", "class_": None, "patient": None, "device": None, "states": []}
    found = desk.listing.page(sort="name", offset=0, limit=2, with_order=True, **asked)  # type: ignore[arg-type]
    assert [int(i, 16) for i in found.order] == list(range(9, -1, -1))
    assert len(found.items) == 2
    assert desk.listing.page(sort="name", offset=0, limit=2, **asked).order == []  # type: ignore[arg-type]


def test_images_by_id_keep_the_order_asked_for_and_show_what_one_model_says(desk: Desk) -> None:
    fill(desk, 5, labels={3: "benign"})
    some = desk.listing.some([id_of(3), "ffff", id_of(0)], model=None)
    assert [int(item.id, 16) for item in some.items] == [3, 0], "one that is not there is left out"
    assert some.total == 2
    assert [item.pred.score for item in some.items if item.pred] == [0.25, 1.0], "of the newest model"
    former = desk.listing.some([id_of(3), id_of(0)], model=0).items
    assert [(item.pred.model, item.pred.score) for item in former if item.pred] == [(0, 0.75), (0, 0.0)]
    assert former[0].label == "benign"
    assert desk.listing.some([id_of(3)], model=7).items[0].pred is None


def test_names_are_sorted_as_people_count(desk: Desk) -> None:
    fill(desk, 12)
    assert page(desk, sort="name") == list(range(12))


def test_scores_are_those_of_the_model_in_use(desk: Desk) -> None:
    fill(desk, 5)
    assert page(desk, sort="score") == [4, 3, 2, 1, 0]
    assert page(desk, sort="uncertainty", descending=True, limit=1) == [2]
    desk.outcomes.use(0)
    assert page(desk, sort="score") == [0, 1, 2, 3, 4]


def test_images_without_a_value_come_last_in_both_directions(desk: Desk) -> None:
    fill(desk, 4, labels={2: "benign", 1: "normal"})
    assert page(desk, sort="marked")[:2] == [1, 2]
    assert page(desk, sort="marked", descending=True)[:2] == [2, 1]


def test_disagreement_puts_the_worst_judged_mark_first(desk: Desk) -> None:
    fill(desk, 5, labels={0: "normal", 4: "normal", 2: "benign"})  # model 1: image 0 has score 1, image 4 has 0
    assert page(desk, sort="disagreement", descending=True)[:3] == [0, 2, 4]


def test_search_finds_all_words_in_name_patient_and_class(desk: Desk) -> None:
    fill(desk, 12, labels={7: "malignant"})
    assert page(desk, search="IMG 1") == [1, 4, 7, 10, 11], "4 and 7 are of patient p1"
    assert page(desk, search="p1 img") == [1, 4, 7, 10]
    assert page(desk, search="malignant p1") == [7]
    assert page(desk, search="nothing") == []


def test_states_are_joined_by_and(desk: Desk) -> None:
    fill(desk, 6, labels={0: "benign", 5: "benign", 1: "normal"})
    assert page(desk, states=["marked"]) == [0, 1, 5]
    assert page(desk, states=["unmarked"]) == [2, 3, 4]
    assert page(desk, states=["missed"]) == [5], "model 1 gives it the score 0"
    assert page(desk, states=["flipped", "marked"]) == [0, 1, 5]
    assert page(desk, class_="normal") == [1, 3, 4], "a person's label counts before the model's"
    assert page(desk, patient="p2") == [2, 5]


def test_ten_thousand_images_are_listed_and_grouped(desk: Desk) -> None:
    fill(desk, 10_000, patients=50)
    assert page(desk, sort="score", offset=9_990, limit=100) == list(range(9, -1, -1))
    groups = desk.listing.groups("patient")
    assert len(groups) == 50
    assert sum(g.images for g in groups) == 10_000


def test_what_changed_names_flips_and_marks_that_are_now_missed(desk: Desk) -> None:
    fill(desk, 5, labels={4: "benign", 0: "normal", 3: "normal"})
    found = changes(desk.project, desk.outcomes, 1, 0)
    assert {int(f.image, 16) for f in found.flipped} == {0, 1, 3, 4}
    assert [int(f.image, 16) for f in found.missed] == [4]
    assert [int(f.image, 16) for f in found.false_alarms] == [0]
    assert found.compared == 5
    assert "1 marked and now missed" in found.text
    assert desk.history.changes(1, None).against == 0
    assert changes(desk.project, desk.outcomes, 0, None).text == "this is the first model"


def test_going_back_to_a_model_brings_its_scores_back(desk: Desk) -> None:
    fill(desk, 4)
    desk.history.use(0)
    assert desk.outcomes.current == 0
    assert desk.listing.detail(id_of(3)).pred is not None
    assert desk.listing.detail(id_of(3)).pred.score == 1.0  # type: ignore[union-attr]
    assert desk.listing.detail(id_of(3)).former.score == 0.0  # type: ignore[union-attr]


def test_numbers_are_those_of_held_out_marks(desk: Desk) -> None:
    fill(desk, 6, labels={n: "normal" if n > 2 else "benign" for n in range(6)}, patients=6)
    assert desk.history.numbers(1).source == "none"
    desk.project.drawn |= {id_of(n) for n in (0, 1, 4, 5)}
    with desk.project.database.write() as db:  # a row, so that the numbers are computed again
        values = ("row-1", id_of(0), 0, "seen", "a", now(), json.dumps({}))
        db.execute("INSERT INTO row (id, image, frame, kind, rater, saved, body) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    found = desk.history.numbers(1)  # model 1: scores 1, .8 for benign, .2, 0 for normal
    assert (found.source, found.images, found.abnormal, found.normal) == ("held-out marks", 4, 2, 2)
    assert found.at is not None
    assert found.at.sensitivity is not None
    assert found.at.sensitivity[0] == 1.0
    assert [p.threshold for p in found.curve] == pytest.approx([0.0, 0.2, 0.8, 1.0, 1.0])
    assert [p.specificity[0] for p in found.curve if p.specificity] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert found.text.startswith("sensitivity 2 of 2 (1.00, 0.34 to 1.00), specificity 2 of 2")
    assert found.caution is not None


def test_numbers_leave_out_what_the_model_has_learned_from(desk: Desk) -> None:
    fill(desk, 4, labels={0: "benign", 1: "benign", 3: "normal"}, patients=2)  # 1 and 3 are of one patient
    desk.project.drawn |= {id_of(n) for n in (0, 1, 3)}
    desk.outcomes.put(desk.outcomes.models[1].model_copy(update={"places": ((id_of(1), 0),)}))
    found = desk.history.numbers(1)
    assert (found.images, found.abnormal) == (1, 1)


def test_the_numbers_of_a_cross_validation_are_there_as_soon_as_it_is_done(desk: Desk) -> None:
    fill(desk, 4)
    assert desk.history.numbers(1).source == "none"
    facts = desk.outcomes.models[1]
    desk.outcomes.put(facts.model_copy(update={"estimates": {"image_auroc": (0.9, 0.8, 1.0, 12)}}))
    assert desk.history.numbers(1).source == "cross-validation on the support"
    assert desk.history.numbers(1).auroc == (0.9, 0.8, 1.0)


def test_adapted_models_count_from_one_and_a_starting_model_made_anew_is_still_zero(desk: Desk) -> None:
    assert desk.outcomes.new_number() == 1
    fill(desk, 3)
    assert desk.outcomes.new_number() == 2
    desk.outcomes.use(0)
    desk.outcomes.clear(0)
    assert desk.outcomes.said_by(0) == {}
    assert {said.model for said in desk.outcomes.newest.values()} == set()
    desk.outcomes.add(0, [{"image": id_of(1), "frame": 0, "score": 0.25, "map": False, "out_of_scope": False,
                           "backbone": "b", "vector": b"", "probs": None, "set": None}])  # fmt: skip
    assert desk.outcomes.newest[id_of(1), 0].score == 0.25


def test_intervals_of_proportions_are_wilsons() -> None:
    z = norm.ppf(0.975)
    for hits, n in ((0, 3), (5, 6), (9, 9), (50, 100)):
        p = hits / n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        found = _wilson(hits, n)
        assert found is not None
        assert found == pytest.approx((p, max(0, middle - half), min(1, middle + half)))
    assert _wilson(0, 0) is None


def test_maps_of_models_long_out_of_use_are_deleted(desk: Desk) -> None:
    fill(desk, 1)
    for model in (0, 1):
        (desk.project.folder / "maps" / str(model)).mkdir()
    desk.outcomes.put(desk.outcomes.models[1].model_copy(update={"number": 2}))
    desk.outcomes.use(2)
    assert sorted(p.name for p in (desk.project.folder / "maps").iterdir()) == ["1"]


def test_the_outcomes_are_the_same_when_the_project_is_opened_again(desk: Desk) -> None:
    fill(desk, 5)
    desk.outcomes.use(0)
    before = desk.outcomes.newest, desk.outcomes.former, desk.outcomes.current, desk.outcomes.before
    desk.outcomes.load()
    assert (desk.outcomes.newest, desk.outcomes.former, desk.outcomes.current, desk.outcomes.before) == before
