"""What the methods say about themselves, in words; and that it fits into a window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import BaseModel, Field

from ultraad import methods
from ultraad.cli import main
from ultraad.methods import _guide as guide
from ultraad.methods._base import MethodInfo, Needs

INFO = MethodInfo(
    name="x",
    title="X",
    paper="A et al., 2020",
    url="https://x",
    reference="a/x 1234567",
    licence="MIT",
    outputs=frozenset({"score", "map"}),
    needs=Needs(),
)


@pytest.mark.parametrize(
    ("changes", "needs", "group"),
    [
        ({}, "labelled images", guide.GROUPS[1]),
        ({"needs": Needs(normal_images=True, masks=True)}, "normal images, masks", guide.GROUPS[1]),
        (
            {"zero_shot": True, "outputs": frozenset({"score", "classes"}), "needs": Needs(class_labels=True)},
            "nothing (zero-shot), or class labels",
            guide.GROUPS[2],
        ),
        ({"auxiliary": True, "needs": Needs(masks=True)}, "masks; or an auxiliary set", guide.GROUPS[1]),
        (
            {"auxiliary": True, "zero_shot": True, "needs": Needs(normal_images=True)},
            "nothing (zero-shot), or normal images, or an auxiliary set",
            guide.GROUPS[1],
        ),
        ({"auxiliary": True, "needs": Needs(auxiliary=True)}, "an auxiliary set", guide.GROUPS[1]),
        ({"baseline": True}, "labelled images", guide.GROUPS[3]),
        ({"outputs": frozenset({"score", "map", "classes"})}, "labelled images", guide.GROUPS[0]),
    ],
)
def test_needs_and_group(changes: dict, needs: str, group: str) -> None:
    info = replace(INFO, **changes)
    assert guide.needs(info) == needs
    assert guide.group_of(info) == group


def test_every_method_is_in_one_group() -> None:
    members = [m.info.name for group in guide.grouped().values() for m in group]
    assert sorted(members) == methods.available()
    assert list(guide.grouped()) == list(guide.GROUPS)
    assert guide.gives(methods.get("ultraad").info) == "score, map, classes"


def test_options_come_in_their_groups_with_loose_ones_first() -> None:
    class Train(BaseModel):
        """Training.

        Details.
        """

        epochs: int = Field(3)

    class Config(BaseModel):
        train: Train = Train()
        layers: tuple[int, ...] = (1, 2)

    class Method:
        pass

    Method.Config = Config
    found = guide.sections(Method)
    assert {section: [o.key for o in members] for section, members in found.items()} == {
        "": ["layers"],
        "Training.": ["train.epochs"],
    }
    assert list(found) == ["", "Training."]


@pytest.mark.parametrize(
    ("default", "text"),
    [(None, "none"), (True, "true"), (0.003, "0.003"), (1e-5, "1e-05"), ((2, 3), "[2, 3]"), ("mean", "mean"), (8, "8")],
)
def test_defaults_are_written_as_they_are_typed(default: object, text: str) -> None:
    assert guide.value(default) == text


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    def show(*words: str, width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["methods", *words])
        assert not end.value.code
        return capsys.readouterr().out.splitlines()

    return show


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("words", [(), *((n,) for n in methods.available())], ids=str)
def test_pages_fit_into_the_window(shown: Callable[..., list[str]], words: tuple[str, ...], width: int) -> None:
    lines = shown(*words, width=width)
    too_wide = [line for line in lines if len(line) > min(width, 100) and " " in line.strip()]
    assert not too_wide
    assert not any(line != line.rstrip() for line in lines)


def test_the_list_tells_what_each_needs(shown: Callable[..., list[str]]) -> None:
    text = " ".join(" ".join(shown(width=200)).split())
    for name in methods.available():
        info = methods.get(name).info
        assert info.idea in text
        assert f"needs {guide.needs(info)} gives {guide.gives(info)} {info.paper}" in text
    for group in guide.GROUPS:
        assert group in text


def test_one_page_has_every_option_with_its_range(shown: Callable[..., list[str]]) -> None:
    text = " ".join(" ".join(shown("ultraad", width=80)).split())
    assert "prompt.n_global = 2 whole number in [1, 16] A1: learnable prompt tokens r (VCP: 2)" in text
    assert "Image-aware prompts (section 2.1)." in text
    assert "calibration.folds = 4 whole number >= 2" in text
    assert "learned prompt words" in text
    for deviation in methods.get("ultraad").info.deviations:
        assert f"- {deviation}" in text
