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


PREDICT = """
import numpy as np
import torch
import ultraad

at_once = torch.compiler.disable
model = ultraad.zero_shot(backbone="tiny")
assert model.predict(np.zeros((50, 60), np.uint8)).map.shape == (50, 60)
assert not {"torch._dynamo", "torch._dynamo.utils", "sympy"} & set(sys.modules)
assert torch.compiler.disable is at_once
"""


def test_predicting_does_not_import_the_compiler_of_torch() -> None:
    found = loaded_by(PREDICT)
    assert found >= {"torch", "open_clip", "timm", "torchvision"}, "the test can see what is loaded"


def test_the_compiler_of_torch_is_imported_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import torch._dynamo.utils as real

    from ultraad.backbones._torchvision import _compiler_later

    for module in ("torch._dynamo", "torch._dynamo.utils"):
        monkeypatch.delitem(sys.modules, module)
    with _compiler_later():  # as torchvision, timm and others import it
        from torch._dynamo.utils import is_compile_supported

        later = torch.compiler.disable(lambda x: x + 1)
        stand_in = sys.modules["torch._dynamo.utils"]
        assert "torch._dynamo" not in sys.modules
    assert "torch._dynamo.utils" not in sys.modules
    monkeypatch.undo()
    assert is_compile_supported("cpu") == real.is_compile_supported("cpu")
    assert stand_in.counters is real.counters
    assert later(1) == 2
    with pytest.raises(AttributeError):
        stand_in.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", [n for n in ultraad.__all__ if n != "__version__"])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ultraad, name).__name__ == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"public names: .*zero_shot"):
        ultraad.nonsense  # noqa: B018
