"""The one place where any fault of a picture file becomes a DataError, and any warning about it becomes ours.

Pillow, pydicom and their codecs raise almost any exception on damaged data (zlib.error, struct.error,
ZeroDivisionError, RecursionError). A list of them is never complete, and one missing there ends a run over a thousand
files.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TextIO, TypeVar

import numpy as np

from ultraad.errors import DataError, first_names, one_line

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)

_PACKAGES = r"PIL|pydicom|pylibjpeg|openjpeg|numpy|ultraad\.io"  # whose Python warnings are about the file being read
_MOST_KINDS = 1000  # of warnings remembered
_NAMED = 3  # files in the warning at the end of a run
_TEXTS = 3  # warnings of one kind with other numbers at the end of a run

# Without a handler of its own, logging would print the errors of these packages to stderr.
for _package in ("PIL", "pylibjpeg", "openjpeg"):
    logging.getLogger(_package).addHandler(logging.NullHandler())


class Faults(AbstractContextManager["Faults"]):
    """Turns every exception of its block into a DataError of one picture; a DataError is passed on unchanged.

    Python warnings of the packages that decode become one line in the log of ultraad (:func:`warn_of`).

    Args:
        what: What failed, with the name of the file, e.g. ``"a.png cannot be read"``.
        advice: What to do, a sentence without full stop.
        about: The name of the file, for warnings.
    """

    def __init__(self, what: str, *, about: object, advice: str = "Copy or export the file again") -> None:
        self._what, self._advice, self._about = what, advice, about
        self._numbers = np.errstate(divide="raise", invalid="raise")

    def __enter__(self) -> Faults:
        _ear.open()
        self._numbers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._numbers.__exit__(kind, error, trace)
        heard = _ear.close()
        if error is None:
            for text in heard:
                warn_of(self._about, text)
        if isinstance(error, Exception) and not isinstance(error, DataError):
            msg = f"{self._what}: {one_line(error)}. {self._advice}"
            raise DataError(msg) from error


class Remark(NamedTuple):
    """The arguments of :func:`warn_of`."""

    name: object
    text: str
    kind: str | None


@dataclass(slots=True)
class Memory:
    """What one run remembers about its files, so that it makes each kind of remark once.

    Attributes:
        said: {kind of remark: {its text, which may have other numbers for other files: these files}}.
        depths: {bits of 16-bit pictures: the first file that uses them}.
    """

    said: dict[str, dict[str, dict[str, None]]] = field(default_factory=dict)
    depths: dict[int, object] = field(default_factory=dict)


_memory: ContextVar[Memory | None] = ContextVar("memory", default=None)
_kept: ContextVar[list[Remark] | None] = ContextVar("kept", default=None)


def memory() -> Memory:
    """That of the current run; an empty one outside of a run."""
    return _memory.get() or Memory()


@contextmanager
def one_run() -> Iterator[None]:
    """The block, or the function that this decorates, is one run, unless it is part of one.

    At its end, each remark that was made about one file is made once about the others; those with other numbers apart.
    """
    outermost = _memory.get() is None
    token = _memory.set(memory())
    try:
        yield
    finally:
        for texts in memory().said.values() if outermost else ():
            _tell_of_others(texts)
        _memory.reset(token)


def _tell_of_others(texts: Mapping[str, Collection[str]]) -> None:
    """Make the remarks of one kind about all files but the first: once for each text, if these are few."""
    (text, (first, *others)), *more = texts.items()
    if others:
        _log.warning("%s, like %s: %s", first_names(others, _NAMED), first, text)
    told, rest = {first, *others}, dict[str, None]()
    for number, (other, files) in enumerate(more):
        fresh = dict.fromkeys(name for name in files if name not in told)  # of each file one remark of a kind is enough
        told.update(fresh)
        if fresh and number < _TEXTS:
            _log.warning("%s: %s", first_names([*fresh], _NAMED), other)
        else:
            rest |= fresh
    if rest:
        _log.warning("%s: like %s, but with other values", first_names([*rest], _NAMED), first)


def in_this_run(function: Callable[P, R]) -> Callable[P, R]:
    """The function for other threads, as part of the current run; as a run of its own if there is none."""
    current = memory()

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        token = _memory.set(current)
        try:
            return function(*args, **kwargs)
        finally:
            _memory.reset(token)

    return call


@contextmanager
def keeping_remarks() -> Iterator[list[Remark]]:
    """Collect the remarks of the block instead of making them, for a result that is cached with them."""
    kept: list[Remark] = []
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)


def warn_of(name: object, text: str, kind: str | None = None) -> None:
    """Log a remark about a file: the first of each kind in a run as a warning, the others at debug level.

    At the end of the run, one more warning names the other files with that text and says how many they are; files with
    another text of the same kind have warnings of their own.

    Args:
        name: The file.
        text: The remark, without full stop.
        kind: What counts as the same remark; None: the text, whatever its numbers.
    """
    kept = _kept.get()
    if kept is not None:
        kept.append(Remark(name, text, kind))
        return
    text = " ".join(text.split()).rstrip(".")
    kind = kind or re.sub(r"\d+", "0", text)[:100]
    said = memory().said
    first = kind not in said and len(said) < _MOST_KINDS
    if first:
        said[kind] = {}
    if kind in said:
        said[kind].setdefault(text, {}).setdefault(str(name))
    _log.log(logging.WARNING if first else logging.DEBUG, "%s: %s", name, text)


class _Ear:
    """Collects Python warnings for the threads that are reading a picture.

    :class:`warnings.catch_warnings` is not safe with threads, so the first reader installs the hook and the last one
    restores what was there; warnings of other threads and other packages go where they went before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._before = warnings.catch_warnings()
        self._show: Any = None
        self._thread = threading.local()

    def open(self) -> None:
        stack: list[list[str]] = self._thread.__dict__.setdefault("heard", [])
        stack.append([])
        with self._lock:
            self._readers += 1
            if self._readers == 1:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.filterwarnings("always", module=_PACKAGES)
                if warnings.showwarning != self._hear:
                    self._show, warnings.showwarning = warnings.showwarning, self._hear

    def close(self) -> list[str]:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._before.__exit__(None, None, None)
        heard: list[str] = self._thread.heard.pop()
        return list(dict.fromkeys(heard))

    def _hear(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        stack = self._thread.__dict__.get("heard")
        if stack:
            stack[-1].append(str(message))
        else:
            self._show(message, category, filename, lineno, file, line)


_ear = _Ear()
