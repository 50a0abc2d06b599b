"""Who may import whom, and a few things that stand nowhere in the source; docs/architecture.md section 3."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from ultraad import methods

SRC = Path(__file__).parents[1] / "src" / "ultraad"
FILES = sorted(SRC.rglob("*.py"))

LAYERS = (
    {"types", "geometry", "fan", "errors", "rng", "config", "registry", "texts"},
    {"io", "metrics", "simulate", "backbones"},
    {"data", "nn"},
    {"methods"},
    {"model"},
    {"results"},
    {"report", "dicom"},
    {"runs", "translate"},
    {"bench", "export", "node"},
    {"serve"},
    {"cli"},
)
"""From the ground up; a part may import what is below it and itself."""
NARROWER = {
    **{part: {part} for part in ("io", "metrics", "simulate", "backbones")},
    "data": {"io", "simulate", "data"},
    "nn": {"backbones", "nn"},
    "methods": {"backbones", "nn", "methods"},
    "translate": {"io", "metrics", "backbones", "data", "nn", "model", "report", "translate"},
}
"""Parts that may import less than all below them: the ground floor, and these."""


def allowed(part: str) -> set[str]:
    """What a part may import."""
    ground = LAYERS[0]
    if part == "__init__":
        return set.union(*LAYERS)
    level = next(i for i, layer in enumerate(LAYERS) if part in layer)
    below = set[str]().union(*LAYERS[:level])
    return ground | NARROWER.get(part, below | {part})


ONLY_IN = {
    "open_clip": ("backbones",),
    "timm": ("backbones",),
    "torchvision": ("backbones",),
    "pydicom": ("io/dicom.py", "io/dicom_pixels.py", "dicom", "node"),
    "pynetdicom": ("node",),
    "dicomweb_client": ("node/web.py",),
    "imagecodecs": ("io/dicom_codecs.py",),
    "highdicom": ("dicom/report.py",),
    "dicomanonymizer": ("dicom/deidentify/profile.py",),
    "rapidocr": ("dicom/deidentify/text.py",),
    "onnx": ("export", "model/runtimes.py"),
    "onnxruntime": ("export", "model/runtimes.py"),
    "openvino": ("export", "model/runtimes.py"),
    "fastapi": ("serve",),
    "starlette": ("serve",),
    "uvicorn": ("serve",),
    "pyarrow": ("io/store.py", "data/lists.py", "results/parquet.py"),
    "pocketsphinx": ("serve/voice/hear.py",),
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


@cache
def imports(path: Path, *, types: bool = False) -> tuple[str, ...]:
    """Absolute names of everything that a file imports, at its top or inside functions.

    Args:
        path: The file.
        types: Also what is imported for type checkers only.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types_only = {
        id(inner)
        for node in ast.walk(tree)
        if not types and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for branch in node.body
        for inner in ast.walk(branch)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if id(node) in for_types_only:
            continue
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


def test_the_reader_of_imports_sees_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nimport a.b\nif TYPE_CHECKING:\n    import hidden\n"
        "def f():\n    from c import d as e\n"
    )
    assert imports(path) == ("typing.TYPE_CHECKING", "a.b", "c.d")
    assert imports(path, types=True) == ("typing.TYPE_CHECKING", "a.b", "hidden", "c.d")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_layers(path: Path) -> None:
    here = part(path)
    assert here == "__init__" or here in set.union(*LAYERS), f"{here} is in no layer; add it here and to the docs"
    used = {m.split(".")[1] for m in imports(path) if m.startswith("ultraad.")} - {"__version__"}
    assert used <= allowed(here), f"{name(path)} may not import {sorted(used - allowed(here))}"


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
        allowed = {own, "_base"} | ({"_needs"} if own in ("_base", "_guide") else set())
        assert others - set(methods.__all__) <= allowed, f"{name(path)} imports {others}"


def test_nothing_in_the_package_imports_what_lies_outside() -> None:
    outside = {p.stem for p in (SRC.parents[1]).iterdir() if p.is_dir()} - {"src"}
    for path in FILES:
        assert not {m.split(".")[0] for m in imports(path)} & outside, name(path)


def modules(src: Path = SRC) -> dict[str, set[str]]:
    """{module: the modules of the package that it names in any import, those for types included}."""
    files = {}
    for path in src.rglob("*.py"):
        module = ".".join(("ultraad", *path.relative_to(src).with_suffix("").parts))
        files[module.removesuffix(".__init__")] = path
    graph = {}
    for module, path in files.items():
        wanted = (one if one in files else one.rpartition(".")[0] for one in imports(path, types=True))
        graph[module] = {one for one in wanted if one in files and one != module}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or around."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for after in graph[todo.pop()] - seen:
                seen.add(after)
                todo.append(after)
        reach[start] = seen
    groups = {frozenset({m, *(o for o in reach[m] if m in reach[o])}) for m in graph if m in reach[m]}
    return sorted(sorted(g) for g in groups)


def test_no_circle() -> None:
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
    assert circles(modules()) == []


def test_few_loose_modules() -> None:
    loose = {p.stem for p in SRC.glob("*.py")} - {"__init__"}
    assert loose == {"types", "geometry", "fan", "errors", "rng", "config", "registry"}


def test_files_are_short() -> None:
    long = {name(p): n for p in FILES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long
