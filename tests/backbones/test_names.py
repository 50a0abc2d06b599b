"""Which backbone a name means."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ultraad
from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError

LOADER = """
from ultraad.backbones.tiny import load as _load

def load(rest, *, name, device, dtype, size):
    assert rest == ""
    return _load("uneven", name=name, device=device, dtype=dtype, size=size)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "mytowers.py").write_text(LOADER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mytowers", None)


@pytest.mark.usefixtures("module")
def test_a_loader_outside_the_package_works_and_a_saved_model_finds_it_again(tmp_path: Path) -> None:
    b = load_backbone("mytowers:load", size=72)
    assert (b.name, b.size, b.width) == ("mytowers:load", 72, 96)
    model = ultraad.zero_shot(backbone="mytowers:load")
    model.save(tmp_path / "model")
    assert ultraad.load(tmp_path / "model").digest == model.digest


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "embeded",
            r"unknown backbone 'embeded'; did you mean 'embedded'\? Wanted one of embedded, .*open_clip, tiny",
        ),
        ("embedded_simulated", r"did you mean 'embedded-simulated'\?"),
        ("open_clib:ViT-B-32/openai", r"unknown backbone 'open_clib:ViT-B-32/openai'; did you mean 'open_clip'\?"),
        ("open_clib:local-dir:x", r"did you mean 'open_clip'\?"),
        ("tinny:uneven", r"cannot import the backbone 'tinny:uneven': .*; did you mean 'tiny'\?"),
        ("mytowers:laod", r"mytowers has no 'laod'; did you mean 'load'\?"),
        ("mytower:load", r"No module named 'mytower'; did you mean 'mytowers'\?"),
        ("nowhere/weights.pt", r"unknown backbone 'nowhere/weights.pt'\. Wanted .* the path of an existing checkpoint"),
        ("", r"unknown backbone ''"),
        ("open_clip:ViT-B-33", r"open_clip has no model 'ViT-B-33'; similar names: .*ViT-B-32"),
    ],
)
def test_a_wrong_name_is_explained(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_backbone(name)
