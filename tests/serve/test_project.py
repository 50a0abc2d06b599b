"""The folder of a project: private, one server at a time, the same after it is opened again, and deletable."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ultraad.errors import ConfigError, DataError
from ultraad.serve.database import FILE
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
