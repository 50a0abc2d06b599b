"""The sentences are about the organ that the images show, or a warning says so."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

import ultraad
from tests.adapted import QUICK
from ultraad.texts.bank import as_options, breast_texts, load_texts
from ultraad.types import SupportSet


def of_layout(support: SupportSet, layout: str) -> SupportSet:
    return replace(support, source=support.source.replace("folder:", f"{layout}:"))


@pytest.fixture
def support(folder_dir: Path) -> SupportSet:
    return ultraad.draw_support(folder_dir, shots=1)


def texts_after(support: SupportSet, method: str = "ultraad", **options: object) -> object:
    quick = {**(QUICK if method == "ultraad" else {}), **options}
    model = ultraad.adapt(support, method=method, backbone="tiny", options=quick, calibrate=False)
    return model.describe().options.get("texts")


def test_the_layout_names_the_organ(support: SupportSet, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert texts_after(support) is None, "a folder does not say what it shows"
        assert texts_after(of_layout(support, "busi")) is None
        assert texts_after(of_layout(support, "liver")) == as_options(load_texts("liver"))
        assert texts_after(of_layout(support, "liver"), texts="breast") == as_options(breast_texts()), "a choice wins"
        assert texts_after(of_layout(support, "liver"), method="linear_probe") is None
    assert not caplog.messages


def test_an_organ_without_a_bank_is_a_warning(support: SupportSet, caplog: pytest.LogCaptureFixture) -> None:
    assert texts_after(of_layout(support, "ddti")) is None
    wanted = "the images show the thyroid, but the sentences of the model describe the breast; give it your own: "
    assert caplog.messages == [f"{wanted}--texts FILE"]


@pytest.mark.parametrize(("texts", "warned"), [("breast", True), ("liver", False)])
def test_evaluation_of_another_organ_is_a_warning(
    folder_dir: Path, caplog: pytest.LogCaptureFixture, texts: str, warned: bool
) -> None:
    model = ultraad.zero_shot(backbone="tiny", options={"texts": texts})
    ultraad.evaluate(model, ultraad.scan(folder_dir), layout="liver", bootstrap=0)
    assert any("the images show the liver" in m and "--texts liver" in m for m in caplog.messages) == warned
