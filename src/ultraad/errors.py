"""The errors of ultraad. Messages say what was found, what was wanted and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from unicodedata import category


class UltraadError(Exception):
    """Base class of all errors of ultraad; the command line prints the message and exits with 1.

    Examples:
        >>> import ultraad
        >>> try:
        ...     ultraad.load("nowhere")
        ... except ultraad.UltraadError as e:
        ...     print(e)
        nowhere is not an ultraad model: there is no such folder. Wanted a folder written by 'ultraad adapt -o'
    """


class ConfigError(UltraadError):
    """An option is unknown, of the wrong type, or out of range."""


class DataError(UltraadError):
    """A file, mask or folder cannot be used."""


class LeakageError(UltraadError):
    """The data used to adapt and to evaluate a model share an image or a patient."""


class NotFittedError(UltraadError):
    """A method was asked to predict before it was fitted."""


class WeightsError(UltraadError):
    """Weights are missing or corrupted, or do not fit the model."""


class BundleError(UltraadError):
    """A model folder is incomplete, corrupted, or belongs to another backbone."""


class MissingExtraError(UltraadError):
    """An optional package is not installed; the message gives the pip command."""


class ExportError(UltraadError):
    """A model cannot be exported, or the exported graph differs from the model."""


def first_names(names: Sequence[str], limit: int = 8) -> str:
    """The first names of a list, for a message: ``"a, b and 3 more"``."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def brief(error: BaseException, limit: int = 200) -> str:
    """An error of another library in one line: its type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:limit]}" if lines else type(error).__name__


def one_line(error: BaseException, limit: int = 300) -> str:
    """The message of an exception in one line without a full stop; its type if it has no message."""
    return " ".join(str(error).split()).rstrip(".")[:limit] or type(error).__name__


_UNSHOWN = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control characters, odd bytes of a name, line breaks
_TURNS = range(0x202A, 0x202F), range(0x2066, 0x206A)  # characters that turn the direction of the text after them


def printable(text: str, *, keep: str = "") -> str:
    r"""Text as one line that every screen and file can show.

    A file name may hold bytes that are no text, line breaks, and codes that colour or delete what a terminal shows.
    These become escapes: ``\xff``, ``\n``, ``\x1b``.

    Args:
        text: Any text.
        keep: Control characters to leave as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or not _is_unshown(c) else _escape(c) for c in text)


def _is_unshown(c: str) -> bool:
    return category(c) in _UNSHOWN or any(ord(c) in turns for turns in _TURNS)


def _escape(c: str) -> str:
    odd_byte = "\udc80" <= c <= "\udcff"  # PEP 383
    return f"\\x{ord(c) - 0xDC00:02x}" if odd_byte else c.encode("unicode_escape").decode()


class Caught:
    """Keeps an exception of its block in ``error``: one image or job fails, and the others go on.

    Ctrl-C is not caught.
    """

    error: Exception | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None
