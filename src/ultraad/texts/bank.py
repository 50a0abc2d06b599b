"""Text banks: what the sentences of an organ and its classes are."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ultraad.errors import ConfigError


class ClassTexts(BaseModel):
    """Sentences about one class; ``affirmative`` is an optional subset free of negations."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sentences: tuple[str, ...] = Field(min_length=1)
    affirmative: tuple[str, ...] = ()


class TextBank(BaseModel):
    """What the text memory says; see ``ultraad/texts/breast.yaml`` for the format and its source."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    organ: str
    object: str = Field(min_length=1)
    classes: dict[str, ClassTexts]

    def sentences(self, class_name: str) -> tuple[str, ...]:
        """The class's sentences; one plain sentence for a class the bank does not know."""
        if class_name in self.classes:
            return self.classes[class_name].sentences
        return (f"This is a {class_name.replace('_', ' ')} {self.organ} ultrasound image.",)


@cache
def breast_texts() -> TextBank:
    """The bank of ``reference/ultraad`` section 9 for breast ultrasound."""
    return load_texts(Path(str(files("ultraad.texts") / "breast.yaml")))


def load_texts(path: Path) -> TextBank:
    """A user's own bank from YAML.

    Raises:
        ConfigError: If the file is missing, is not YAML, or has another structure.
    """
    try:
        return TextBank.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as e:
        msg = f"cannot read the text bank {path}: {e.strerror}"
        raise ConfigError(msg) from e
    except yaml.YAMLError as e:
        msg = f"{path} is not YAML: {e}"
        raise ConfigError(msg) from e
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "the file"
        msg = (
            f"{path}: {where}: {first['msg']}. Wanted: organ, object, and classes: {{name: {{sentences: [...]}}}}; "
            "copy ultraad/texts/breast.yaml and change it"
        )
        raise ConfigError(msg) from e


def as_options(bank: TextBank) -> dict[str, Any]:
    """The bank as plain data, for options and bundles."""
    return bank.model_dump(mode="json")
