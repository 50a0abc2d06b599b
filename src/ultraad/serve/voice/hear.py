"""Recognise a word by a grammar, and refuse what is none of it.

A clip is decoded by PocketSphinx against up to four grammars:

    words    the words that can be said
    others   all of them but the one that was found
    sounds   any sequence of speech sounds
    common   the most frequent words of English

The word that was found is taken only if it lasts as long as what was said, explains the sound nearly as well as free
speech sounds do, and better than the other words and the common ones; everything else is "not understood". Margins
are of the acoustic score (natural logarithms per 10 ms of the word). They were chosen on other voices and words than
the figures in docs/page.md are of (``python -m perf.voice``).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultraad.errors import MissingExtraError
from ultraad.serve.voice.clip import prepared
from ultraad.serve.voice.words import APART, Dictionary, Phones, Vocabulary, distance

MODEL = "en-us"
MISSING = "labels by voice need PocketSphinx; install it with: pip install 'ultraad[voice]'"
_COMMON = 1500  # words of English
_SHIFT = 1 << 10  # PocketSphinx keeps scores without their last ten bits
_TINY = 1e-300

COVER = 0.7
OTHERS = 0.5
WORDLIKE = -1.9
HOPELESS = WORDLIKE - 2.0


@dataclass(frozen=True, slots=True)
class Heard:
    """The best word of a clip, and by how much it is better than the rest.

    The measures are worked out in this order, until one is too low. Those after it are minus infinity.

    Attributes:
        name: A command or a class; None if there is no word at all.
        cover: Length of the word as a share of that of what was said, 0 and above.
        sounds: Margin over free speech sounds in the time of the word; they fit better than a word, so below 0.
        others: Margin over every other word that can be said.
        common: Margin over the most frequent words of English.
    """

    name: str | None
    cover: float = -math.inf
    sounds: float = -math.inf
    others: float = -math.inf
    common: float = -math.inf

    @property
    def sure(self) -> bool:
        """Whether the word is taken."""
        return self.cover >= COVER and self.others >= OTHERS and self.sounds + self.common >= WORDLIKE


def model_folder() -> Path:
    """The folder of models that comes with PocketSphinx.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        from pocketsphinx import get_model_path
    except ImportError as e:
        raise MissingExtraError(MISSING) from e
    return Path(get_model_path())


class Recogniser:
    """Hears the words of one project.

    Args:
        words: What can be said.
        dictionary: Of English.
        model: Folder of the acoustic model.
    """

    def __init__(self, words: Vocabulary, dictionary: Dictionary, model: Path) -> None:
        from pocketsphinx import Decoder

        self._model = model / MODEL
        said = {phones: spoken.name for spoken in words.spoken for phones in spoken.phones}
        common = self._frequent(dictionary, said)
        self._names: dict[str, str] = {}
        entries: dict[str, Phones] = {}
        for n, (phones, name) in enumerate(said.items()):
            entries[f"w{n}"], self._names[f"w{n}"] = phones, name
        entries |= {f"c{n}": phones for n, phones in enumerate(common)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "words.dict"
            path.write_text("".join(f"{word} {' '.join(phones)}\n" for word, phones in entries.items()))
            self._decoder = Decoder(
                hmm=str(self._model / MODEL),
                dict=str(path),
                lm=None,
                bestpath=False,
                compallsen=True,  # else each search is scored relative to its own best sound
                loglevel="FATAL",
            )
        self._decoder.add_allphone_file("sounds", None)
        self._grammar("words", self._names)
        self._grammar("common", [word for word in entries if word not in self._names])
        for name in set(self._names.values()):
            self._grammar(f"not {name}", [word for word, theirs in self._names.items() if theirs != name])

    def _frequent(self, dictionary: Dictionary, said: Iterable[Phones]) -> list[Phones]:
        """The most frequent words of English, as far as they differ enough from those that can be said."""
        from pocketsphinx import Config, LogMath, NGramModel

        model = NGramModel(Config(), LogMath(), str(self._model / f"{MODEL}.lm.bin"))
        words = sorted(dictionary.words, key=lambda word: -model.prob([word]))[:_COMMON]
        every = dict.fromkeys(phones for word in words for phones in dictionary.words[word])
        return [phones for phones in every if all(distance(phones, other) >= APART for other in said)]

    def _grammar(self, name: str, words: Iterable[str]) -> None:
        self._decoder.add_jsgf_string(name, f"#JSGF V1.0; grammar g; public <g> = {' | '.join(words)};")

    def measure(self, samples: NDArray[np.float64]) -> Heard:
        """The best word of a clip and how sure it is.

        Args:
            samples: Of :func:`~ultraad.serve.voice.clip.checked`.
        """
        sound, frames = prepared(samples)
        best = self._path("words", sound)
        if best is None or best.word not in self._names:
            return Heard(None)
        heard = Heard(self._names[best.word], cover=best.frames / frames)
        if heard.cover >= COVER:
            heard = replace(heard, sounds=best.own / best.frames - self._free(best, sound))
        if heard.sounds >= HOPELESS:
            heard = replace(heard, others=self._ahead(best, f"not {heard.name}", sound))
        if heard.others >= OTHERS:
            heard = replace(heard, common=self._ahead(best, "common", sound))
        return heard

    def _ahead(self, best: _Path, search: str, sound: bytes) -> float:
        """By how much a path is better than the best of a search; infinity if the search finds none."""
        other = self._path(search, sound)
        return math.inf if other is None else (best.whole - other.whole) / best.frames

    def _free(self, best: _Path, sound: bytes) -> float:
        """The score per frame of free speech sounds in the time of a word."""
        total = 0.0
        for s in self._segments("sounds", sound):
            shared = min(s.end_frame, best.end) - max(s.start_frame, best.start) + 1
            total += _score(s.ascore) * max(0, shared) / (s.end_frame - s.start_frame + 1)
        return total / best.frames

    def _segments(self, search: str, sound: bytes) -> list[Any]:
        """The words or sounds that a search finds in a clip, in order."""
        decoder = self._decoder
        decoder.activate_search(search)
        decoder.start_utt()
        decoder.process_raw(sound, full_utt=True)
        decoder.end_utt()
        return list(decoder.seg() or ())

    def _path(self, search: str, sound: bytes) -> _Path | None:
        """The best path of a search through a clip; None if there is none."""
        segments = self._segments(search, sound)
        word = next((s for s in segments if s.word[0] in "wc"), None)
        if word is None:
            return None
        whole = sum(_score(s.ascore) for s in segments)
        return _Path(word.word, whole, _score(word.ascore), word.start_frame, word.end_frame)


class _Path(NamedTuple):
    """A word, and natural logarithms of its clip's and its own score, relative to the best sounds of each frame."""

    word: str
    whole: float
    own: float
    start: int
    end: int

    @property
    def frames(self) -> int:
        """Of the word."""
        return self.end - self.start + 1


def _score(share: float) -> float:
    return _SHIFT * math.log(max(share, _TINY))
