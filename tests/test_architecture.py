"""Who may import whom, and a few things that stand nowhere in the source; docs/architecture.md section 3."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "ultraad"
FILES = sorted(SRC.rglob("*.py"))

BASE = {"types", "errors", "rng", "config", "texts"}
LOW = {*BASE, "io", "metrics", "simulate", "backbones", "data", "nn", "methods"}
TOP = {
    "model",
    "origin",
    "record",
    "guide",
    "calibrate",
    "bundle",
    "card",
    "results",
    "runs",
    "live",
    "report",
    "demo",
    "doctor",
    "bench",
    "export",
}
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    **{part: {*BASE, part} for part in ("io", "metrics", "simulate", "backbones")},
    "data": {*BASE, "io", "simulate", "data"},
    "nn": {*BASE, "backbones", "nn"},
    "methods": {*BASE, "backbones", "nn", "methods"},
    **{part: {*LOW, *TOP} for part in TOP},
    **{part: {*LOW, *TOP, part} for part in ("cli", "serve")},
    "__init__": {*LOW, *TOP},
}
ONLY_IN = {
    "open_clip": ("backbones",),
    "timm": ("backbones",),
    "torchvision": ("backbones",),
    "pydicom": ("io/dicom.py",),
    "highdicom": ("io/dicom.py",),
    "onnx": ("export",),
    "onnxruntime": ("export",),
    "openvino": ("export",),
    "rich": ("cli",),
    "typer": ("cli",),
}
NEVER = {
    "a device chosen far from the backbone": r"\.cuda\(|\.half\(\)",
    "a silenced warning": r"(?:filterwarnings|simplefilter)\(\s*[\"']ignore",
    "a machine's own path": r"/home/|/root/|/tmp/|/mnt/|[A-Z]:\\\\",
    "a path that depends on where one stands": r"[\"'](?:\./|\.\./)",
    "a copy of CLIP": r"class (?:ResidualAttentionBlock|VisionTransformer|ResidualAttentionBlock)\b",
    "pickle": r"\bimport pickle\b|\bpickle\.load|weights_only=False",
    "global state": r"os\.environ\[[^]]+\]\s*=(?!=)|torch\.backends\.[\w.]+\s*=(?!=)|np\.random\.seed|random\.seed\(",
    "an unnamed exception": r"except\s*:|except (?:Base)?Exception\b",
    "a blanket exemption": r"#\s*noqa(?!:)|#\s*type:\s*ignore(?!\[)",
}


def name(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def part(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Absolute names of all modules a file imports at run time, wherever the import stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for branch in node.body
        for inner in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in for_types_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_reader_of_imports_sees_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nimport a.b\nif TYPE_CHECKING:\n    import hidden\n"
        "def f():\n    from c import d as e\n"
    )
    assert list(imports(path)) == ["typing.TYPE_CHECKING", "a.b", "c.d"]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_layers(path: Path) -> None:
    here = part(path)
    assert here in ALLOWED, f"{here} is in no layer; add it to this test and to docs/architecture.md"
    used = {m.split(".")[1] for m in imports(path) if m.startswith("ultraad.")} - {"__version__"}
    assert used <= ALLOWED[here], f"{name(path)} may not import {sorted(used - ALLOWED[here])}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_packages_with_one_door(path: Path) -> None:
    for package, doors in ONLY_IN.items():
        if package in {m.split(".")[0] for m in imports(path)}:
            assert name(path).startswith(doors), f"{name(path)} imports {package}, which belongs in {doors}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_what_stands_nowhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for what, pattern in NEVER.items():
        found = re.search(pattern, text)
        assert found is None, f"{name(path)} has {what}: {found and found.group()}"


def test_metrics_know_no_torch() -> None:
    for path in (SRC / "metrics").rglob("*.py"):
        assert not {m.split(".")[0] for m in imports(path)} & {"torch", "sklearn"}, name(path)


def test_methods_do_not_know_each_other() -> None:
    for path in (SRC / "methods").rglob("*.py"):
        own = path.relative_to(SRC / "methods").parts[0].removesuffix(".py")
        others = {m.split(".")[2] for m in imports(path) if m.startswith("ultraad.methods.")}
        assert others <= {own, "base"} or own == "__init__", f"{name(path)} imports {others}"


def test_nothing_in_the_package_imports_what_lies_outside() -> None:
    outside = {p.stem for p in (SRC.parents[1]).iterdir() if p.is_dir()} - {"src"}
    for path in FILES:
        assert not {m.split(".")[0] for m in imports(path)} & outside, name(path)
