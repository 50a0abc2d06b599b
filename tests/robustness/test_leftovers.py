"""What a killed process leaves on the disk is removed by the next one, and nothing that a living one needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ultraad.errors import DataError
from ultraad.io.files import append_line, remove_leftovers, whole_folder, write_text

HOLD = """
import sys, time
from pathlib import Path
from ultraad.io import files

target, step = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename

def stop(*_):
    print("there", flush=True)
    time.sleep(60)

def rename_once(path, to):
    found = rename(path, to)
    stop()
    return found

if step == "in a file":
    Path.replace = stop
    files.write_text(target, "new")
if step == "between the renames":
    Path.rename = rename_once
with files.whole_folder(target) as fresh:
    (fresh / "x").write_text("new")
    if step == "while filling":
        stop()
"""


def started(target: Path, step: str) -> subprocess.Popen[str]:
    """A process that writes the target and waits at a step."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(target), step], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def killed(target: Path, step: str) -> None:
    process = started(target, step)
    process.kill()
    process.communicate()


def rewrite(target: Path, text: str) -> None:
    with whole_folder(target) as fresh:
        (fresh / "x").write_text(text)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    rewrite(tmp_path / "model", "old")
    return tmp_path / "model"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("step", ["while filling", "between the renames"])
def test_the_next_write_removes_the_temporary_folder_of_a_killed_one(target: Path, step: str) -> None:
    killed(target, step)
    assert len([n for n in names(target.parent) if n.endswith(".new")]) == 1
    rewrite(target, "next")
    assert names(target.parent) == ["model"]
    assert names(target) == ["x"]
    assert (target / "x").read_text() == "next"


def test_a_folder_that_was_being_replaced_comes_back_even_if_the_next_write_fails(target: Path) -> None:
    killed(target, "between the renames")
    assert not target.exists()
    with pytest.raises(ZeroDivisionError), whole_folder(target):
        raise ZeroDivisionError
    assert (target / "x").read_text() == "old"
    assert names(target.parent) == ["model"]


def test_the_temporary_folder_of_a_living_process_stays(target: Path) -> None:
    process = started(target, "while filling")
    try:
        (before,) = (n for n in names(target.parent) if n.endswith(".new"))
        rewrite(target, "mine")
        assert before in names(target.parent)
        assert (target.parent / before / "new" / "x").read_text() == "new"
    finally:
        process.kill()
        process.communicate()
    rewrite(target, "next")
    assert names(target.parent) == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be told from an abandoned one there")
def test_the_temporary_file_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "old")
    (tmp_path / ".a.json.mine.tmp").write_text("not ours")
    mine = [".a.json.mine.tmp", "a.json"]
    killed(tmp_path / "a.json", "in a file")
    assert len(names(tmp_path)) == 3
    write_text(tmp_path / "a.json", "next")
    assert names(tmp_path) == mine
    left = tmp_path / ".a.json.0a1b2c3d.tmp"
    left.write_text("being written")
    with left.open("rb") as file:
        from ultraad.io.lock import hold

        assert hold(file)
        write_text(tmp_path / "a.json", "next")
        assert left.exists()
    write_text(tmp_path / "a.json", "next")
    assert names(tmp_path) == mine


def test_leftovers_of_a_locked_folder_go_from_all_its_folders(tmp_path: Path) -> None:
    for name in (".run.json.0a1b2c3d.tmp", "maps/.a.png.0a1b2c3d.tmp", "features/.k.0a1b2c3d.tmp", "maps/.x.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.rglob("*.tmp")] == [".x.tmp"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "lines").symlink_to("/dev/full")
    with pytest.raises(DataError, match="cannot be appended to: No space left on device"):
        append_line(tmp_path / "lines", "x")
