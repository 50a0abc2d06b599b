"""What can be said in a project, and how it is pronounced.

A class is spoken as its name is read: words of the dictionary that comes with PocketSphinx (the CMU Pronouncing
Dictionary), the words of :data:`MEDICAL` that are missing there, numbers, and the names of letters for abbreviations.
No pronunciation is guessed from the spelling: English does not allow it. For any other name the user writes how it is
said, in words that are known: "schwannoma" as "swan oh ma".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Phones = tuple[str, ...]

COMMANDS = ("accept", "next", "skip", "undo")
"""What can be said in every project, besides its classes."""

MEDICAL: Mapping[str, str] = {
    "adenocarcinoma": "AE D AH N OW K AA R S AH N OW M AH",
    "adenoma": "AE D AH N OW M AH",
    "adenosis": "AE D AH N OW S AH S",
    "bursitis": "B ER S AY T AH S",
    "calcification": "K AE L S AH F AH K EY SH AH N",
    "cirrhotic": "S ER AA T IH K",
    "cystadenoma": "S IH S T AE D AH N OW M AH",
    "dermoid": "D ER M OY D",
    "ductal": "D AH K T AH L",
    "effusion": "IH F Y UW ZH AH N",
    "endometrioma": "EH N D OW M IY T R IY OW M AH",
    "fibroadenoma": "F AY B R OW AE D AH N OW M AH",
    "follicular": "F AH L IH K Y AH L ER",
    "hamartoma": "HH AE M ER T OW M AH",
    "hemangioma": "HH IH M AE N JH IY OW M AH",
    "hepatocellular": "HH AH P AE T OW S EH L Y AH L ER",
    "hydatid": "HH AY D AH T IH D",
    "hydrosalpinx": "HH AY D R OW S AE L P IH NG K S",
    "lipoma": "L AH P OW M AH",
    "lobular": "L AA B Y AH L ER",
    "mastitis": "M AE S T AY T AH S",
    "medullary": "M EH D AH L EH R IY",
    "myoma": "M AY OW M AH",
    "papillary": "P AE P AH L EH R IY",
    "phyllodes": "F AH L OW D IY Z",
    "seroma": "S ER OW M AH",
    "steatosis": "S T IY AH T OW S AH S",
    "tendinitis": "T EH N D AH N AY T AH S",
    "teratoma": "T EH R AH T OW M AH",
    "thrombus": "TH R AA M B AH S",
    "thyroiditis": "TH AY R OY D AY T AH S",
    "tumour": "T UW M ER",
}
"""Words of ultrasound reports that the dictionary lacks, transcribed by us in its phones."""

_NUMBERS = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "  # noqa: SIM905
    "eighteen nineteen".split()
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_PARTS = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z]?[a-z']+|[A-Z]|\d+|[^\W\d_]+")
_LETTERS = 6  # an abbreviation has at most so many
_MOST = 6  # pronunciations of one class
APART = 2
"""Phones in which two words must differ at least, to be told apart."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Something that can be said.

    Attributes:
        name: A word of :data:`COMMANDS`, or the name of a class.
        kind: Which of the two.
        phones: Its pronunciations, in the phones of the CMU dictionary.
    """

    name: str
    kind: Literal["command", "class"]
    phones: tuple[Phones, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What can be said in a project.

    Attributes:
        spoken: Commands and classes.
        silent: {class: why it cannot be said}.
    """

    spoken: tuple[Spoken, ...]
    silent: Mapping[str, str]


class Dictionary:
    """Words and their pronunciations.

    Args:
        path: A dictionary of Sphinx: a word and its phones in each line; ``word(2)`` is another pronunciation.
    """

    def __init__(self, path: Path) -> None:
        self._known: dict[str, list[Phones]] = {word: [tuple(said.split())] for word, said in MEDICAL.items()}
        for line in path.read_text(encoding="utf-8").splitlines():
            word, *phones = line.split()
            self._known.setdefault(word.partition("(")[0], []).append(tuple(phones))

    def pronounce(self, text: str) -> tuple[list[Phones], list[str]]:
        """(pronunciations of a text, its parts that are in no dictionary); no pronunciation if there are such."""
        parts, unknown = [], []
        for part in _PARTS.findall(text):
            found = self._part(part)
            parts.append(found)
            unknown += [] if found else [part]
        if unknown or not parts:
            return [], unknown
        joined = [tuple(itertools.chain(*choice)) for choice in itertools.product(*parts)]
        return list(dict.fromkeys(joined))[:_MOST], []

    def _part(self, part: str) -> list[Phones]:
        """The pronunciations of a word, a number or an abbreviation; none if it is unknown."""
        if part.isdigit():
            return [tuple(itertools.chain(*(self._known[w][0] for w in _in_words(part))))]
        if found := self._known.get(part.lower()):
            return found
        if part.isupper() and part.isascii() and len(part) <= _LETTERS:
            names = [self._known.get(f"{letter.lower()}.") or self._known[letter.lower()] for letter in part]
            return [tuple(itertools.chain(*(name[0] for name in names)))]
        return []

    @property
    def words(self) -> Mapping[str, Sequence[Phones]]:
        """{word: its pronunciations}."""
        return self._known


def _in_words(digits: str) -> list[str]:
    """``12`` is twelve, ``45`` forty five; longer numbers are read digit by digit."""
    number = int(digits)
    if number < 20 and digits == str(number):
        return [_NUMBERS[number]]
    if number < 100 and digits == str(number):
        return [_TENS[number // 10 - 2], *([_NUMBERS[number % 10]] if number % 10 else [])]
    return [_NUMBERS[int(d)] for d in digits]


def distance(one: Phones, other: Phones) -> int:
    """How many phones must be changed, added or left out to turn one pronunciation into another."""
    before = list(range(len(other) + 1))
    for i, phone in enumerate(one, 1):
        now = [i]
        for j, theirs in enumerate(other, 1):
            now.append(min(now[-1] + 1, before[j] + 1, before[j - 1] + (phone != theirs)))
        before = now
    return before[-1]


def vocabulary(dictionary: Dictionary, classes: Sequence[str], said: Mapping[str, str]) -> Vocabulary:
    """What can be said in a project.

    Args:
        dictionary: Of the language model.
        classes: Names of the classes, in their order.
        said: {class: how the user says it}, in words of the dictionary.
    """
    spoken = [Spoken(name, "command", tuple(dictionary.pronounce(name)[0])) for name in COMMANDS]
    silent: dict[str, str] = {}
    for name in classes:
        phones, unknown = dictionary.pronounce(said.get(name, name))
        if not phones:
            what = f"'{unknown[0]}' is in no dictionary here" if unknown else "its name has no word"
            silent[name] = f"{what}; write how it is said in English words"
        elif (like := _too_like(phones, spoken)) is not None:
            silent[name] = f"it sounds like '{like}'; write another word for it"
        else:
            spoken.append(Spoken(name, "class", tuple(phones)))
    return Vocabulary(tuple(spoken), silent)


def _too_like(phones: Iterable[Phones], spoken: Sequence[Spoken]) -> str | None:
    """The word that is so like another that they would be taken for each other; None if there is none."""
    for one in spoken:
        if any(distance(a, b) < APART for a in one.phones for b in phones):
            return one.name
    return None
