"""CONTRIBUTING.md is true: its examples, put into a copy of the repository as written, pass the repository's checks."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Once

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CACHES = {"__pycache__", "node_modules", ".ruff_cache", ".pytest_cache", ".mypy_cache", ".hypothesis"}
DOCS = ("tests/test_docs.py", "tests/test_architecture.py")


@dataclass(frozen=True)
class Example:
    """One section of the page.

    Attributes:
        title: Its heading.
        name: What the example is called; selects its cases in ``tests``.
        tests: What checks every entry of this kind.
    """

    title: str
    name: str
    tests: tuple[str, ...]

    @property
    def text(self) -> str:
        return PAGE.partition(f"\n## {self.title}\n")[2].partition("\n## ")[0]

    def files(self, start: str) -> set[str]:
        """The files that the list entry beginning with these words names."""
        (line,) = re.findall(rf"^- {start}(.*?)\.\n(?:- |\n)", self.text, flags=re.M | re.S)
        return set(re.findall(r"`([\w./-]+\.\w+)`", line))

    def write(self, tree: Path) -> None:
        """Write the section's blocks to their files and apply its diffs."""
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", self.text, flags=re.M | re.S):
            if language == "python":
                label, _, code = block.partition("\n")
                file = tree / label.removeprefix("# ")
                before = f"{file.read_text(encoding='utf-8')}\n\n" if file.exists() else ""
                file.write_text(before + code, encoding="utf-8")
            elif language == "diff":
                patch(tree, block)


EXAMPLES = {
    "method": Example("Add a method", "nearest", ("tests/methods/test_contract.py",)),
    "layout": Example("Add a layout", "flat", ("tests/data/test_sources.py", "tests/data/test_support.py")),
    "metric": Example("Add a metric", "npv", ("tests/metrics",)),
    "backbone": Example("Add a backbone", "wide", ("tests/backbones/test_every_backbone.py",)),
    "command": Example("Add a command", "papers", ("tests/cli/test_cli.py",)),
}


def patch(tree: Path, diff: str) -> None:
    """Apply a diff by its text; line numbers are ignored, so that they need not be current."""
    for file, hunks in re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^--- |\Z)", diff, flags=re.M | re.S):
        text = (tree / file).read_text(encoding="utf-8") if (tree / file).exists() else ""
        for hunk in re.split(r"^@@.*\n", hunks, flags=re.M)[1:]:
            lines = hunk.splitlines(keepends=True)
            old, new = ("".join(line[1:] for line in lines if line[0] in kinds) for kinds in (" -", " +"))
            assert text.count(old) == 1 if old else not text, f"{file} does not have once:\n{old}"
            text = text.replace(old, new) if old else new
        (tree / file).write_text(text, encoding="utf-8")


def run(tree: Path, *words: str) -> str:
    """Run Python in a tree; its output, which must be that of a success."""
    environment = os.environ | {"PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}", "MYPYPATH": str(tree / "src")}
    done = subprocess.run([sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-5000:]}{done.stderr[-2000:]}"
    return done.stdout


def digests(tree: Path) -> dict[str, str]:
    files = [p for p in tree.rglob("*") if p.is_file() and not CACHES & set(p.relative_to(tree).parts)]
    return {p.relative_to(tree).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def copy_of_the_repository(folder: Path) -> Path:
    def left_out(folder: str, names: list[str]) -> set[str]:
        top = {".git", ".venv", "results", "demo-output"} if Path(folder) == ROOT else set()
        return {name for name in names if name in CACHES | top}

    return Path(shutil.copytree(ROOT, folder, ignore=left_out))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the repository."""
    return copy_of_the_repository(tmp_path / "tree")


BUILD_EACH = """
import os, runpy, sys

path = list(sys.path)
for tree in sys.argv[1:]:
    os.chdir(tree)
    sys.path[:] = [tree, os.path.join(tree, "src"), *path]
    runpy.run_module("docs.build", run_name="__main__")
    assert sys.modules["ultraad"].__file__.startswith(tree)
    for module in [m for m in sys.modules if m.partition(".")[0] in ("docs", "ultraad")]:
        del sys.modules[module]
"""
"""``python -m docs.build`` in several trees; a process for each would spend most of its time on importing torch."""


@pytest.fixture(scope="session")
def followed(once: Once) -> Path:
    """A copy of the repository for each example and one for ``all``, with the pages built; and one ``untouched``."""

    def follow(folder: Path) -> None:
        copy_of_the_repository(folder / "untouched")
        for kind, example in EXAMPLES.items():
            example.write(copy_of_the_repository(folder / kind))
        copy_of_the_repository(folder / "all")
        for example in EXAMPLES.values():
            example.write(folder / "all")
        run(folder, "-c", BUILD_EACH, *(str(folder / tree) for tree in (*EXAMPLES, "all")))

    return once("followed", follow)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_following_a_section_changes_exactly_the_files_it_names(followed: Path, kind: str) -> None:
    example, before, after = EXAMPLES[kind], digests(followed / "untouched"), digests(followed / kind)
    changed = {file for file in before | after if before.get(file) != after.get(file)}
    assert changed == example.files("You (?:write|change):") | example.files("`python -m docs.build` updates:")
    code = sorted(file for file in changed if file.endswith(".py"))
    run(followed / kind, "-m", "ruff", "format", "--check", *code)
    run(followed / kind, "-m", "ruff", "check", *code)


def test_all_examples_together_pass_the_tests_of_their_kind(followed: Path) -> None:
    names = " or ".join([*(e.name for e in EXAMPLES.values()), "catalogue", "generated", "readme", "every_method"])
    tests = [file for e in EXAMPLES.values() for file in e.tests if file.endswith(".py")]
    others = "not contributed and not readme_block"  # these do not depend on what is in the tree
    words = ("-k", f"({names}) and {others}", *tests, "tests/metrics/test_catalogue.py", "tests/test_docs.py")
    plain = "--assert=plain"  # rewriting the asserts takes longer than the tests
    counts = run(followed / "all", "-m", "pytest", "-q", plain, *words)
    assert int(re.findall(r"(\d+) passed", counts)[-1]) > 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXAMPLES)
def test_each_example_passes_the_tests_of_its_kind_and_of_the_documents(tree: Path, kind: str) -> None:
    EXAMPLES[kind].write(tree)
    run(tree, "-m", "docs.build")
    run(tree, "-m", "pytest", "-q", "-k", "not the_contributed", *EXAMPLES[kind].tests, *DOCS)


@pytest.mark.slow
def test_all_examples_pass_the_type_check(tree: Path) -> None:
    for example in EXAMPLES.values():
        example.write(tree)
    if (ROOT / ".mypy_cache").is_dir():  # spares the packages, not the source
        shutil.copytree(ROOT / ".mypy_cache", tree / ".mypy_cache")
    run(tree, "-m", "mypy")


def test_a_wrong_diff_and_a_failing_command_are_noticed(tree: Path) -> None:
    with pytest.raises(AssertionError, match="does not have once"):
        patch(tree, "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-nowhere\n+there\n")
    with pytest.raises(AssertionError, match=r"^-c raise SystemExit"):
        run(tree, "-c", "raise SystemExit(3)")
