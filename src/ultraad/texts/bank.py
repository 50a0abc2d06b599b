"""Text banks: the sentences that describe an organ and its classes."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from ultraad.config import Strict, explain, read_yaml
from ultraad.errors import ConfigError
from ultraad.registry import did_you_mean


class ClassTexts(Strict):
    """Sentences about one class; ``affirmative`` is an optional subset without negations."""

    sentences: tuple[str, ...] = Field(min_length=1)
    affirmative: tuple[str, ...] = ()


class TextBank(Strict):
    """Sentences about an organ; ``ultraad/texts/breast.yaml`` explains the format.

    In options, the name of an organ means the bank of that organ that ships: ``texts=liver``.
    """

    organ: str
    object: str = Field(min_length=1)
    classes: dict[str, ClassTexts]

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any) -> Any:  # noqa: ANN401
        return read_yaml(_shipped(data)) if isinstance(data, str) else data

    def sentences(self, class_name: str) -> tuple[str, ...]:
        """The sentences of a class; one plain sentence for a class that is not in the bank."""
        if class_name in self.classes:
            return self.classes[class_name].sentences
        return (f"This is a {class_name.replace('_', ' ')} {self.organ} ultrasound image.",)


@cache
def breast_texts() -> TextBank:
    """The bank for breast ultrasound, with the descriptors of the BI-RADS ultrasound lexicon (UltraAD, section 2.2)."""
    return load_texts("breast")


def organs() -> list[str]:
    """The organs whose text banks ship with the package, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_texts(source: str | Path) -> TextBank:
    """Read a text bank.

    Args:
        source: One of :func:`organs`, or a YAML file.

    Raises:
        ConfigError: If the file cannot be read, is not YAML, or has another structure.
    """
    path = Path(source)
    if not path.suffix and not path.is_file():
        path = _shipped(str(source))
    try:
        return TextBank.model_validate(read_yaml(path))
    except ValidationError as e:
        msg = (
            f"{explain(e, where=str(path))}. Wanted: organ, object, and classes: {{name: {{sentences: [...]}}}}; "
            "copy ultraad/texts/breast.yaml and change it"
        )
        raise ConfigError(msg) from e


def _folder() -> Path:
    return Path(str(files("ultraad.texts")))


def _shipped(organ: str) -> Path:
    """The file of a bank that ships."""
    if organ not in organs():
        hint = did_you_mean(organ, organs()) or ";"
        msg = f"there is no text bank {organ!r}{hint} wanted {', '.join(organs())}, or a YAML file of your own"
        raise ConfigError(msg)
    return _folder() / f"{organ}.yaml"


def as_options(bank: TextBank) -> dict[str, Any]:
    """The bank as plain data, for options and saved models."""
    return bank.model_dump(mode="json")
