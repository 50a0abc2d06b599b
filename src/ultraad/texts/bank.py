"""Text banks: the sentences that describe an organ and its classes."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ultraad.config import Strict, explain, read_yaml
from ultraad.errors import ConfigError


class ClassTexts(Strict):
    """Sentences about one class; ``affirmative`` is an optional subset without negations."""

    sentences: tuple[str, ...] = Field(min_length=1)
    affirmative: tuple[str, ...] = ()


class TextBank(Strict):
    """Sentences about an organ; ``ultraad/texts/breast.yaml`` explains the format."""

    organ: str
    object: str = Field(min_length=1)
    classes: dict[str, ClassTexts]

    def sentences(self, class_name: str) -> tuple[str, ...]:
        """The sentences of a class; one plain sentence for a class that is not in the bank."""
        if class_name in self.classes:
            return self.classes[class_name].sentences
        return (f"This is a {class_name.replace('_', ' ')} {self.organ} ultrasound image.",)


@cache
def breast_texts() -> TextBank:
    """The bank for breast ultrasound, with the descriptors of the BI-RADS ultrasound lexicon (UltraAD, section 2.2)."""
    return load_texts(Path(str(files("ultraad.texts") / "breast.yaml")))


def load_texts(path: Path) -> TextBank:
    """Read a text bank from a YAML file.

    Raises:
        ConfigError: If the file cannot be read, is not YAML, or has another structure.
    """
    try:
        return TextBank.model_validate(read_yaml(path))
    except ValidationError as e:
        msg = (
            f"{explain(e, where=str(path))}. Wanted: organ, object, and classes: {{name: {{sentences: [...]}}}}; "
            "copy ultraad/texts/breast.yaml and change it"
        )
        raise ConfigError(msg) from e


def as_options(bank: TextBank) -> dict[str, Any]:
    """The bank as plain data, for options and saved models."""
    return bank.model_dump(mode="json")
