"""The folder of a project: private, one server at a time, the same after it is opened again, and deletable."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import helpers
from ultraad.errors import ConfigError, DataError
from ultraad.io.find import find_images
from ultraad.serve.aside import Aside
from ultraad.serve.database import FILE
from ultraad.serve.desk import Desk
from ultraad.serve.outcomes import Outcomes, Said
from ultraad.serve.project import Picture, Project, Summary, now
from ultraad.serve.schemas import ClassName


def picture(number: int, **more: object) -> Picture:
    facts = {"name": f"{number}.png", "path": f"/x/{number}.png", "sample": f"{number}.png", "source": "folder:/x"}
    return Picture.model_validate({"id": f"{number:016x}", "size": (40, 60), "added": now(), **facts, **more})


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    found = Project(tmp_path / "project")
    yield found
    found.close()


def mark(project: Project, image: str, label: str, **more: object) -> None:
    with project.database.write() as db:
        summary = Summary.model_validate({"label": label, "marked": now(), **more})
        project.put_summary(db, (image, 0), summary)


def test_the_folder_is_for_its_owner_only(project: Project) -> None:
    assert stat.S_IMODE(project.folder.stat().st_mode) == 0o700


def test_everything_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    project = Project(tmp_path / "p")
    project.add([(picture(1), b"x" * 1024)])
    mark(project, picture(1).id, "benign")
    project.database.set(title="liver")
    before = project.pictures, project.summaries, project.database.setting("id")
    project.close()
    again = Project(tmp_path / "p")
    assert (again.pictures, again.summaries, again.database.setting("id")) == before
    assert again.title == "liver"
    again.close()


def test_a_second_server_is_refused(project: Project) -> None:
    with pytest.raises(DataError, match="another run"):
        Project(project.folder)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(DataError, match="no ultraad project"):
        Project(tmp_path)


def test_a_project_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Project(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DataError, match="newer version"):
        Project(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_project_of_an_earlier_version_gets_the_columns_that_it_lacks(tmp_path: Path, version: int) -> None:
    Project(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("ALTER TABLE prediction DROP COLUMN classes")
        if version == 1:
            db.execute("ALTER TABLE prediction DROP COLUMN out_of_scope")
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("INSERT INTO prediction (model, image, frame, score, probs, map) VALUES (0, 'a', 0, 0.7, NULL, 1)")
    db.close()
    project = Project(tmp_path)
    assert Outcomes(project).said_by(0) == {("a", 0): Said(0, 0.7, None, has_map=True)}
    assert project.database.read("PRAGMA user_version") == [(3,)]
    project.close()


def test_a_damaged_database_is_one_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="cannot be used"):
        Project(tmp_path)


def test_a_full_disk_saves_nothing_and_says_so(project: Project) -> None:
    project.database.read("PRAGMA max_page_count = 40")
    with pytest.raises(DataError, match="free space"):
        project.add([(picture(n), b"x" * 100_000) for n in range(10)])
    assert project.pictures == {}
    assert project.database.read("SELECT count(*) FROM image") == [(0,)]


def test_delete_all_deletes_every_byte_of_the_data(project: Project) -> None:
    project.add([(picture(1, name="Doe^Jane.dcm", patient="SECRET-1"), b"")])
    for name in ("files/ab/cd", "thumbnails/ab/x.jpg", "models/1/config.json", "exports/1/x", "maps/1/y.png"):
        file = project.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("SECRET-1")
    project.database.set(title="mine", port=4242)
    project.delete_all()
    for file in project.folder.rglob("*"):
        assert not file.is_file() or b"SECRET-1" not in file.read_bytes(), file
        assert not file.is_file() or b"Doe^Jane" not in file.read_bytes(), file
    assert project.pictures == {}
    assert (project.title, project.database.setting("port")) == ("mine", 4242)
    project.add([(picture(2), b"")])


def test_removing_an_image_removes_its_rows_and_an_uploaded_file(project: Project) -> None:
    kept, gone = picture(1), picture(2, source=None, path="files/00/x")
    (project.folder / "files/00").mkdir()
    (project.folder / "files/00/x").write_bytes(b"image")
    project.add([(kept, b""), (gone, b"")])
    mark(project, gone.id, "benign")
    project.remove(gone.id)
    assert list(project.pictures) == [kept.id]
    assert project.summaries == {}
    assert not (project.folder / "files/00/x").exists()


def test_a_renamed_class_keeps_its_marks(project: Project) -> None:
    project.add([(picture(1), b"")])
    mark(project, picture(1).id, "malignant")
    names = [ClassName(name="normal", normal=True), ClassName(name="benign"), ClassName(name="cancer", was="malignant")]
    project.set_classes(names)
    assert project.summaries[picture(1).id, 0].label == "cancer"
    assert project.renamed("malignant") == "cancer"
    assert project.class_names == ("normal", "benign", "cancer")


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([ClassName(name="a"), ClassName(name="b")], "one of them normal"),
        ([ClassName(name="a", normal=True), ClassName(name="a")], "different classes"),
        ([ClassName(name="normal", normal=True), ClassName(name="benign")], r"malignant \(1 images\)"),
    ],
)
def test_classes_that_make_no_sense_are_refused(project: Project, classes: list[ClassName], reason: str) -> None:
    project.add([(picture(1), b"")])
    mark(project, picture(1).id, "malignant")
    with pytest.raises(ConfigError, match=reason):
        project.set_classes(classes)


def test_images_drawn_at_random_and_the_rest_of_their_patients_are_held_out(project: Project) -> None:
    project.add([(picture(n, patient=p), b"") for n, p in ((1, "p"), (2, "p"), (3, "q"), (4, None))])
    for n in (1, 2, 3, 4):
        mark(project, picture(n).id, "benign")
    assert set(project.roles().values()) == {"support"}
    project.drawn.add(picture(1).id)
    roles = {int(image, 16): role for (image, _), role in project.roles().items()}
    assert roles == {1: "held_out", 2: "held_out", 3: "support", 4: "support"}


def test_a_person_can_overrule_the_role(project: Project) -> None:
    project.add([(picture(n), b"") for n in (1, 2)])
    project.drawn.add(picture(1).id)
    mark(project, picture(1).id, "benign", role="support")
    mark(project, picture(2).id, "benign", role="held_out")
    assert {int(i, 16): r for (i, _), r in project.roles().items()} == {1: "support", 2: "held_out"}


def test_contradictory_marks_have_no_role(project: Project) -> None:
    project.add([(picture(1), b"")])
    mark(project, picture(1).id, "normal", conflict="called normal, but has 1 lesion")
    assert project.roles() == {}


def patients(count: int, start: int = 0) -> list[tuple[Picture, bytes]]:
    """Two images of each of some patients."""
    return [(picture(2 * n + k, patient=f"p{n}"), b"") for n in range(start, start + count) for k in (0, 1)]


def aside(project: Project) -> set[str | None]:
    return {project.pictures[image].patient for image in project.aside()}


def test_a_fifth_of_the_patients_is_set_aside_when_they_are_added(project: Project) -> None:
    project.add(patients(100))
    first = aside(project)
    assert 20 <= len(first) <= 21
    assert len(project.aside()) == 2 * len(first), "whole patients"
    project.add(patients(100, start=100))
    assert first <= aside(project), "later imports change nothing about earlier ones"
    assert 40 <= len(aside(project)) <= 41


def test_what_is_set_aside_stays_so_when_the_project_is_opened_again(tmp_path: Path) -> None:
    opened = Project(tmp_path / "q")
    opened.add(patients(30))
    order = opened.aside()
    opened.close()
    opened = Project(tmp_path / "q")
    assert opened.aside() == order
    opened.close()


def test_every_patient_is_set_aside_with_the_same_probability(tmp_path: Path) -> None:
    """400 projects of seven patients that come one by one: a fifth of the time each; 5 % is two and a half sigma."""
    counts = np.zeros(7)
    opened = Project(tmp_path / "q")
    for seed in range(400):
        units = Aside(opened.database)
        units._seed = str(seed)
        for number in range(7):
            units.units |= units.choose([picture(number)])
        counts += [units.units[f"image {picture(number).id}"] for number in range(7)]
    opened.close()
    assert np.abs(counts / 400 - 0.2).max() < 0.05


def test_marks_do_not_decide_what_is_set_aside(tmp_path: Path) -> None:
    """The second half is added after a model was used and marks were made."""
    found = []
    for marks in (False, True):
        opened = Project(tmp_path / str(marks))
        opened.database.set(id="seed")
        opened.add(patients(20))
        if marks:
            for n in range(0, 40, 3):
                mark(opened, picture(n).id, "benign")
        opened.add(patients(20, start=20))
        found.append(opened.aside())
        opened.close()
    assert found[0] == found[1] != []


def test_a_changed_share_leaves_alone_what_is_marked_or_was_offered(project: Project) -> None:
    project.add(patients(50))
    offered, *rest = project.aside()
    project.drawn.add(offered)
    free = next(p for p in project.pictures.values() if p.id not in {offered, *rest})
    mark(project, free.id, "benign")
    project.set_share(0.5)
    assert 25 <= len(aside(project)) <= 26
    assert free.patient not in aside(project)
    project.set_share(0.0)
    assert aside(project) == {project.pictures[offered].patient}


def test_removing_the_last_image_of_a_patient_forgets_the_patient(project: Project) -> None:
    project.add(patients(1))
    project.remove(picture(0).id)
    assert project.database.read("SELECT name FROM unit") == [("patient p0",)]
    project.remove(picture(1).id)
    assert project.database.read("SELECT name FROM unit") == []


def test_a_project_inside_a_data_set_is_no_part_of_it_while_it_is_open(tmp_path: Path) -> None:
    helpers.save(tmp_path / "benign" / "a.png", helpers.picture(1, lesion=True)[0])
    opened = Project(tmp_path / "project")
    helpers.save(tmp_path / "project" / "files" / "00" / "b.png", helpers.picture(2, lesion=True)[0])
    try:
        assert [p.name for p in find_images(tmp_path)] == ["a.png"]
    finally:
        opened.close()


def test_the_choice_of_fans_stays_with_the_project(tmp_path: Path) -> None:
    chosen = []
    for fan in (None, "auto", None, "off"):
        desk = Desk(tmp_path / "p", backbone="tiny", fan=fan)
        chosen.append((desk.orders.fan, desk.orders.first(0)["fan"]))
        desk.close()
    assert chosen == [("off", "off"), ("auto", "auto"), ("auto", "auto"), ("off", "off")]
