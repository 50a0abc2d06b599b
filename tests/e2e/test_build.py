"""The built page that ships in the wheel is the one that web/ builds, small, and asks nobody but its own server."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
STATIC = ROOT / "src" / "ultraad" / "serve" / "static"
SOURCES = (
    *("index.html", "review.html", "package.json", "package-lock.json"),
    *("public", "src", "tsconfig.json", "vite.config.ts"),
)
LIMIT = 60_000  # bytes, gzip, all files of the page
REVIEW, REVIEW_LIMIT = ("review.html", "assets/review.js"), 6_000  # what only the review of deidentify loads


def built(folder: Path = STATIC) -> dict[str, bytes]:
    """{path: content} of a build."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def source_files() -> Iterator[Path]:
    for name in SOURCES:
        path = WEB / name
        yield from ([path] if path.is_file() else (p for p in path.rglob("*") if p.is_file()))


def source_hash() -> str:
    """As the plugin ``stamp`` of web/vite.config.ts computes it."""
    files = {path.relative_to(WEB).as_posix(): path.read_bytes() for path in source_files()}
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(name.encode() + b"\0" + files[name] + b"\0")
    return whole.hexdigest()


def test_the_build_is_as_new_as_its_source() -> None:
    stamp = json.loads(built()["build.json"])["sources"]
    assert stamp == source_hash(), (
        "the page is older than web/: run 'npm ci && npm run build' in web/ and commit the result"
    )


def test_the_page_is_small() -> None:
    sizes = {name: len(gzip.compress(content, 9)) for name, content in built().items()}
    review = sum(sizes.pop(name) for name in REVIEW)
    assert sum(sizes.values()) <= LIMIT, f"{sum(sizes.values())} bytes: {sizes}"
    assert review <= REVIEW_LIMIT, f"{review} bytes"


def test_the_licences_of_what_is_built_in_ship_with_it() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    needed = {name.removeprefix("node_modules/"): p for name, p in lock.items() if name and not p.get("dev")}
    text = built()["assets/licences.txt"].decode()
    assert len(needed) >= 3
    for name, package in needed.items():
        assert f"{name} {package['version']}\n" in text
    assert text.count("Permission is hereby granted") == len(needed)


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    html = built()["index.html"].decode() + built()["review.html"].decode()
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert re.findall(r"<style|\bstyle=|\bon\w+=", html) == []
    for name, content in built().items():
        text = content.decode()
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"'`)]*", text))
        assert {a for a in addresses if not a.startswith("http://www.w3.org/")} == set(), name
        assert not re.search(r"[\"'`(]data:", text), name
        assert "@font-face" not in text, name


def test_every_package_is_pinned_to_one_version() -> None:
    package = json.loads((WEB / "package.json").read_text())
    lock = json.loads((WEB / "package-lock.json").read_text())["packages"]
    for name, version in (package["dependencies"] | package["devDependencies"]).items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), f"{name} {version}"
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in entry for path, entry in lock.items() if path)


def test_no_source_file_of_the_page_is_long() -> None:
    long = {p.name: n for p in (WEB / "src").rglob("*.ts*") if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


IMPORTS = re.compile(r"""^(?:import|export) .*?from "(\.[^"]+)";""", re.M | re.S)


def imported() -> dict[str, set[str]]:
    """{module: the modules it imports}, by path below web/src."""
    src = WEB / "src"
    modules = {p.relative_to(src).with_suffix("").as_posix(): p for p in src.rglob("*.ts*")}
    return {
        name: {
            (path.parent / found).resolve().relative_to(src).as_posix()
            for found in IMPORTS.findall(re.sub(r"^import type .*?;", "", path.read_text(), flags=re.M | re.S))
        }
        for name, path in modules.items()
    }


def test_the_editor_core_knows_no_page_and_no_modules_import_in_a_circle() -> None:
    graph = imported()
    assert len(graph) > 30
    assert {
        name
        for name, used in graph.items()
        if name.startswith("core/") and not all(u.startswith("core/") for u in used)
    } == set()
    for name, used in graph.items():
        if name.startswith("state/"):
            assert not any(u.startswith(("ui/", "views/")) for u in used), name
    while graph:
        leaves = {name for name, used in graph.items() if not used & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: used for name, used in graph.items() if name not in leaves}


def npm(*words: str) -> str:
    """The output of an npm command in web/; skips where the packages are not installed, never in CI."""
    if not (WEB / "node_modules").is_dir() or not shutil.which("npm"):
        message = "the page's own tests need Node and its packages: cd web && npm ci"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    run = subprocess.run(["npm", *words], cwd=WEB, capture_output=True, text=True, check=False, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_tests_of_the_editor_pass() -> None:
    assert re.search(r"\d{2} passed", npm("test", "--", "--reporter=dot"))


@pytest.mark.slow
def test_the_source_builds_to_exactly_the_files_that_ship(tmp_path: Path) -> None:
    npm("run", "build", "--", "--outDir", str(tmp_path / "static"))
    assert built(tmp_path / "static") == built()
