"""Importing the package or asking for help loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ultraad

HEAVY = (
    "torch",
    "torchvision",
    "open_clip",
    "timm",
    "numpy",
    "scipy",
    "sklearn",
    "cv2",
    "PIL",
    "pydicom",
    "matplotlib",
)


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running some code."""
    script = f"import sys\n{code}\nprint('\\nLOADED', *{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["predict", "--help"], ["adapt", "--help"], ["demo", "--help"], ["data", "--help"]],
    ids=" ".join,
)
def test_help_is_light(words: list[str]) -> None:
    code = f"from ultraad.cli import main\ntry:\n    main({words!r})\nexcept SystemExit as e:\n    assert not e.code"
    assert not loaded_by(code) & {*HEAVY, "rich"}


def test_the_package_is_light() -> None:
    found = loaded_by("import ultraad\nultraad.UltraadError, ultraad.__version__, dir(ultraad)")
    assert not found & {*HEAVY, "typer", "rich", "pydantic", "yaml"}
    assert "torch" in loaded_by("import ultraad\nultraad.load"), "the test can see what is loaded"


@pytest.mark.parametrize("name", [n for n in ultraad.__all__ if n != "__version__"])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ultraad, name).__name__ == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"public names: .*zero_shot"):
        ultraad.nonsense  # noqa: B018
