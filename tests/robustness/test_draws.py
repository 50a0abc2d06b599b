"""A drawn support set holds nothing that cannot be used without saying so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import helpers
from ultraad import draw_support
from ultraad.data.loader import decode
from ultraad.errors import DataError
from ultraad.types import SupportSet


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return helpers.write_folder(tmp_path / "set", per_class=6)


def drawn(support: SupportSet, label: str) -> list[str]:
    return [s.id for s in support.samples if s.label == label]


def cut(*files: Path) -> None:
    for file in files:
        file.write_bytes(file.read_bytes()[:60])


def test_what_cannot_be_read_is_never_drawn(root, caplog):
    first, second, *rest = drawn(draw_support(root, shots=4), "benign")
    assert not caplog.messages
    cut(root / first, root / second.replace(".png", "_mask.png"))
    support = draw_support(root, shots=4)
    assert drawn(support, "benign")[:2] == rest
    (said,) = caplog.messages
    assert f"left out 2 image(s) that cannot be read or whose mask cannot, and drew the next: {first}, {second}" in said
    assert "ultraad data check" in said


def test_a_draw_reads_no_more_than_it_takes(root, monkeypatch):
    wanted = {s.id for s in draw_support(root, shots=2).samples}
    read = set[str]()
    monkeypatch.setattr("ultraad.data.support.draw.decode", lambda s, **given: read.add(s.id) or decode(s, **given))
    draw_support(root, shots=2)
    assert read == wanted


def test_a_class_with_too_few_readable_images_names_the_others(root):
    first, second, *_ = drawn(draw_support(root, shots=6), "benign")
    cut(root / first, root / second)
    with pytest.raises(DataError, match=rf"has 4 image\(s\).* 2 cannot be read: {first}, {second}"):
        draw_support(root, shots=6)


def test_a_mask_that_does_not_fit_is_named_when_it_is_drawn(root, caplog):
    for mask in root.rglob("*_mask.png"):
        helpers.save(mask, helpers.picture(0, lesion=True, size=(10, 10))[1])
    support = draw_support(root, shots=1)
    lesions = [*drawn(support, "benign"), *drawn(support, "malignant")]
    (said,) = caplog.messages
    assert f"{len(lesions)} mask(s) do not fit their image's pixel grid and count as unknown" in said
    assert all(word in said for word in (*lesions, "ultraad data check", "--resize-masks"))
