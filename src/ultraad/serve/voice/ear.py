"""The ear of a server: a child process with the recogniser, asked one clip at a time; also the program of that child.

A clip goes to the child through a pipe, and is forgotten when it has been answered. Neither of the two writes it
anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from threading import Lock
from typing import Any

from ultraad.errors import Caught, DataError, MissingExtraError, UltraadError
from ultraad.serve.child import Child, Message, Parent, parent, quiet, where
from ultraad.serve.voice.clip import checked
from ultraad.serve.voice.hear import MISSING, MODEL, Recogniser, model_folder
from ultraad.serve.voice.words import Dictionary, Vocabulary, vocabulary

SECONDS = 120.0  # for an answer: the first clip takes three, others less than one, a busy machine many more
_PATIENCE = 10.0  # seconds to wait while another clip is recognised


def installed() -> bool:
    """Whether PocketSphinx is installed."""
    return find_spec("pocketsphinx") is not None


class Ear:
    """One child that listens; it starts with the first question."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._child: Child | None = None

    def words(self, classes: Sequence[str], said: Mapping[str, str]) -> tuple[list[tuple[str, str]], dict[str, str]]:
        """What can be said: ([(name, kind)], {class: why it cannot be said}).

        Args:
            classes: Names of the project's classes, in their order.
            said: {class: how the user says it}.

        Raises:
            MissingExtraError: If PocketSphinx is not installed.
            DataError: If the child does not answer.
        """
        answer = self._ask({"classes": list(classes), "said": dict(said)}, b"")
        return [(name, kind) for name, kind in answer["words"]], answer["silent"]

    def hear(self, clip: bytes, classes: Sequence[str], said: Mapping[str, str]) -> str | None:
        """The command or class that is said in a clip; None if it is not understood.

        Args:
            clip: 16 kHz, one channel, signed 16-bit little-endian.
            classes: As :meth:`words`.
            said: As :meth:`words`.

        Raises:
            MissingExtraError: If PocketSphinx is not installed.
            DataError: If nothing can be heard in the clip, with the reason, or the child does not answer.
        """
        checked(clip)
        heard: str | None = self._ask({"classes": list(classes), "said": dict(said)}, clip)["heard"]
        return heard

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _ask(self, what: dict[str, Any], clip: bytes) -> dict[str, Any]:
        if not installed():
            raise MissingExtraError(MISSING)
        if not self._lock.acquire(timeout=_PATIENCE):
            msg = "another clip is being recognised; say the word again"
            raise DataError(msg)
        try:
            if self._child is None:
                self._child = Child(__name__)
            answer = self._child.receive(timeout=SECONDS) if self._child.send(Message(what, clip)) else None
        except TimeoutError:
            answer = None
        finally:
            if answer is None:
                self._end()
            self._lock.release()
        if answer is None:
            msg = "the clip could not be recognised; say the word again"
            raise DataError(msg)
        if "error" in answer.what:
            raise DataError(answer.what["error"])
        return answer.what

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


class _Listener:
    """What the child keeps from question to question: its dictionary, and the recogniser of the last words."""

    def __init__(self) -> None:
        self._folder = model_folder()
        self._dictionary = Dictionary(self._folder / MODEL / f"cmudict-{MODEL}.dict")
        self._of: dict[str, Any] | None = None
        self._words = Vocabulary((), {})
        self._recogniser: Recogniser | None = None

    def answer(self, message: Message) -> dict[str, Any]:
        """The words that can be said, or the one that was."""
        if message.what != self._of:
            self._of, self._recogniser = message.what, None
            self._words = vocabulary(self._dictionary, message.what["classes"], message.what["said"])
        if not message.data:
            return {"words": [(s.name, s.kind) for s in self._words.spoken], "silent": dict(self._words.silent)}
        self._recogniser = self._recogniser or Recogniser(self._words, self._dictionary, self._folder)
        heard = self._recogniser.measure(checked(message.data))
        return {"heard": heard.name if heard.sure else None}


def _listen(to_parent: Parent) -> None:
    listener: _Listener | None = None
    for message in to_parent.messages():
        with Caught() as caught:
            listener = listener or _Listener()
            to_parent.send(listener.answer(message))
        if isinstance(caught.error, UltraadError):
            to_parent.send({"error": str(caught.error)})
        elif caught.error is not None:
            to_parent.send({"error": f"the clip could not be recognised ({where(caught.error)}); say the word again"})


if __name__ == "__main__":
    quiet()
    _listen(parent())
