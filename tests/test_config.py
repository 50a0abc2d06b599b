from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ultraad.config import completed, dump, options, parse_assignments, read_yaml, resolve
from ultraad.errors import ConfigError


class Score(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    tau: float | Literal["learnable"] = 0.01
    refine: Literal["mix", "off"] = "mix"


class Train(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: int = Field(50, ge=0, description="passes")
    lr: float = 1e-3


class Method(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    score: Score = Score()
    train: Train = Train()
    layers: tuple[int, ...] | None = None
    texts: dict[str, list[str]] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Method:
        if self.layers == ():
            msg = "layers may not be empty"
            raise ValueError(msg)
        return self


def test_dotted_nested_and_mixed_keys_mean_the_same() -> None:
    wanted = Method(score=Score(tau=0.07, refine="off"))
    assert resolve(Method, {"score.tau": 0.07, "score.refine": "off"}) == wanted
    assert resolve(Method, {"score": {"tau": 0.07, "refine": "off"}}) == wanted
    assert resolve(Method, {"score": {"tau": 0.07}, "score.refine": "off"}) == wanted
    assert resolve(Method) == Method()


def test_a_dump_resolves_to_itself() -> None:
    model = resolve(Method, {"layers": [3, 6], "train.lr": 0.1, "texts": {"a": ["b"]}})
    assert resolve(Method, dump(model)) == model
    assert dump(model)["layers"] == [3, 6]


@pytest.mark.parametrize(
    ("key", "hint"),
    [("score.tua", "score.tau"), ("tau", "score.tau"), ("epoch", "train.epochs"), ("train", "train.epochs")],
)
def test_an_unknown_key_names_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown option '{key}'; did you mean {hint}") as e:
        resolve(Method, {key: 3}, where="recipe.yaml")
    assert str(e.value).startswith("recipe.yaml: ")


def test_an_unknown_key_without_neighbours_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"known: layers, score\.refine, score\.tau, texts, train\.epochs, train\.lr"):
        resolve(Method, {"zzzzzz": 1})


def test_a_bad_value_is_explained_in_one_line() -> None:
    with pytest.raises(ConfigError) as e:
        resolve(Method, {"train.epochs": -1, "score.tau": "hot"})
    text = str(e.value)
    assert "train.epochs: wanted whole number >= 0, found -1" in text
    assert text.count("score.tau: ") == 1, "the arms of a union are one reason each, not one key each"
    assert "learnable" in text
    assert "found 'hot'" in text
    assert "pydantic" not in text
    assert "http" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("word", "layers"), [("1,2,3", (1, 2, 3)), ("1", (1,)), ("[1, 2]", (1, 2)), ("1, 2", (1, 2)), ('["1"]', (1,))]
)
def test_a_list_needs_no_brackets(word: str, layers: tuple[int, ...]) -> None:
    assert resolve(Method, parse_assignments([f"layers={word}"])).layers == layers


@pytest.mark.parametrize("word", ["x", "1,x", "1,,2", "true", "{a: 1}"])
def test_a_wrong_list_is_answered_with_one_that_works(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^x: layers: wanted list of whole numbers .*e\.g\. [\d,]+, found ") as e:
        resolve(Method, parse_assignments([f"layers={word}"]), where="x")
    example = str(e.value).partition("e.g. ")[2].partition(", found")[0]
    assert resolve(Method, parse_assignments([f"layers={example}"])).layers


def test_a_rule_between_options_is_explained_without_a_dump() -> None:
    with pytest.raises(ConfigError, match=r"^options: layers may not be empty$"):
        resolve(Method, {"layers": []})


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'score\.tau' is given twice"):
        resolve(Method, {"score": {"tau": 1.0}, "score.tau": 2.0})


def test_assignments_read_values_as_yaml() -> None:
    words = ["a.b=1e-3", "c=off", "d=[2, 5]", "e=true", "f=x=y", "g=", "h=007", "i=.5", "j=1.", "k=-2e+5", "l=3"]
    assert parse_assignments(words) == {
        "a.b": 1e-3,
        "c": "off",
        "d": [2, 5],
        "e": True,
        "f": "x=y",
        "g": None,
        "h": 7,
        "i": 0.5,
        "j": 1.0,
        "k": -2e5,
        "l": 3,
    }


@pytest.mark.parametrize("word", ["tau", "=3", "tau=[1", "tau={a: 1, a: 2}"])
def test_a_broken_assignment_is_an_error(word: str) -> None:
    with pytest.raises(ConfigError):
        parse_assignments([word])
    with pytest.raises(ConfigError, match="'a' is given twice"):
        parse_assignments(["a=1", "a=2"])


def test_yaml_files(tmp_path: Path) -> None:
    path = tmp_path / "größe.yaml"
    path.write_text("score:\n  refine: off\n  tau: 7e-2\n", encoding="utf-8")
    assert resolve(Method, read_yaml(path)).score == Score(tau=0.07, refine="off")
    for text, reason in (("- a\n", "mapping"), ("a: 1\na: 2\n", "given twice"), ("a: [", "not valid YAML")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=reason):
            read_yaml(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")


def test_yaml_never_builds_objects(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(path)


def test_options_list_every_leaf_with_its_default() -> None:
    found = {o.key: o for o in options(Method)}
    assert list(found) == ["score.tau", "score.refine", "train.epochs", "train.lr", "layers", "texts"]
    assert (found["train.epochs"].default, found["train.epochs"].type) == (50, "int")
    assert found["train.epochs"].description == "passes"
    assert found["score.refine"].type == "Literal['mix', 'off']"
    assert found["layers"].type == "tuple[int, ...] | None"


def test_options_say_in_words_what_they_may_be() -> None:
    class Group(BaseModel):
        """Of a group.

        More about it.
        """

        share: float = Field(0.5, ge=0, le=1)
        rate: float | Literal["auto"] = Field(0.1, gt=0, lt=2)
        weight: Annotated[float, Field(ge=0, le=1)] | Literal["shots"] = "shots"
        few: list[Annotated[int, Field(ge=1)]] = []

    class All(BaseModel):
        group: Group = Group()
        many: int = Field(1, ge=1)
        few: int = Field(1, lt=9)
        on: bool = True
        layers: tuple[int, ...] | None = None
        pairs: tuple[tuple[str, ...], ...] = ()
        bank: Score | None = Field(None)
        any: dict[str, int] = {}

    found = {o.key: (o.values, o.section) for o in options(All)}
    assert found == {
        "group.share": ("number in [0, 1]", "Of a group."),
        "group.rate": ("number in (0, 2) | auto", "Of a group."),
        "group.weight": ("number in [0, 1] | shots", "Of a group."),
        "group.few": ("list of whole numbers >= 1", "Of a group."),
        "many": ("whole number >= 1", ""),
        "few": ("whole number < 9", ""),
        "on": ("true | false", ""),
        "layers": ("list of whole numbers | none", ""),
        "pairs": ("list of list of text", ""),
        "bank": ("score | none", ""),
        "any": ("dict", ""),
    }


def test_a_saved_model_goes_on_as_before_there_was_an_option() -> None:
    saved = {"prior": {"map": 0.5}, "seed": 1}
    assert completed(saved, {"prior.grade": "cls", "prior.map": 1.0}) == {**saved, "prior.grade": "cls"}
    assert completed(saved, {}) == saved
