"""Text banks from files: YAML as everywhere else, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

import ultraad
from ultraad.backbones import load_backbone
from ultraad.errors import ConfigError
from ultraad.texts.bank import as_options, breast_texts, load_texts, organs


def write(folder: Path, text: str) -> Path:
    path = folder / "bank.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("organ", organs())
def test_a_shipped_bank_names_its_organ_and_classes_in_every_sentence(organ: str) -> None:
    bank = load_texts(organ)
    assert bank.organ == organ
    assert list(bank.classes) == ["normal", "benign", "malignant"]
    every = [s for texts in bank.classes.values() for s in texts.sentences]
    assert len(set(every)) == len(every) >= 18
    for name, texts in bank.classes.items():
        assert all(s.startswith(f"This is a {name} {organ} ultrasound image with ") for s in texts.sentences)
        assert set(texts.affirmative) <= set(texts.sentences)
        assert not any(" no " in s or " not " in s for s in texts.affirmative)
    load_backbone("tiny").tokenize(every)  # raises if a text is longer than CLIP's 77 tokens


def test_a_shipped_bank_is_chosen_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"breast", "liver"} <= set(organs())
    model = ultraad.zero_shot(backbone="tiny", options={"texts": "liver"})
    assert model.describe().options["texts"] == as_options(load_texts("liver"))
    with pytest.raises(ConfigError, match=r"no text bank 'livr'; did you mean 'liver'\? wanted breast, liver,"):
        ultraad.zero_shot(backbone="tiny", options={"texts": "livr"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "liver").write_text("organ: mine\nobject: mine\nclasses: {}\n", encoding="utf-8")
    assert load_texts("liver").organ == "mine", "a file that is there wins"


def test_a_class_may_be_called_no(tmp_path: Path) -> None:
    bank = load_texts(
        write(
            tmp_path,
            "organ: knee\nobject: knee ultrasound\nclasses:\n  no: {sentences: [A knee without effusion.]}\n"
            "  yes: {sentences: [A knee with effusion.]}\n",
        )
    )
    assert list(bank.classes) == ["no", "yes"]
    assert bank.sentences("no") == ("A knee without effusion.",)
    model = ultraad.zero_shot(backbone="tiny", options={"texts": as_options(bank)}, normal_class="no")
    assert model.classes == ("no", "yes")


def test_a_bank_survives_its_way_through_options() -> None:
    assert type(breast_texts()).model_validate(as_options(breast_texts())) == breast_texts()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", r"bank\.yaml: not valid YAML"),
        ("- a\n", r"bank\.yaml holds list; wanted a mapping"),
        ("organ: liver\norgan: liver\n", r"the key 'organ' is given twice"),
        ("organ: liver\n", r"object: field required; classes: field required\. Wanted: organ, object, and classes"),
        ("organ: liver\nobject: ''\nclasses: {}\n", r"object: .*at least 1 character.*copy ultraad/texts/breast\.yaml"),
        ("organ: liver\nobject: liver\nclasses: {a: {sentence: [b]}}\n", r"classes\.a\.sentence: extra inputs"),
    ],
)
def test_a_wrong_bank_is_explained(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_texts(write(tmp_path, text))


def test_a_missing_bank_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        load_texts(tmp_path / "none.yaml")
