"""Objects on a store, by their URL: ``s3://bucket/key``, ``gs://bucket/key`` and ``file:///path`` (extra ``[s3]``).

pyarrow reads them. It finds credentials and the region where tools of that store look: in the environment, a profile,
or the machine's own role. A URL may have a query that pyarrow knows, such as ``?endpoint_override=https://host`` or
``?region=eu-central-1``. Query and user are for the connection alone: :func:`public_url` is without them, and nothing
else is written anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from ultraad.errors import Caught, DataError, MissingExtraError, one_line

SCHEMES = ("s3", "gs", "gcs", "file")

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SAFE = "/:"  # characters of a path that get no code
_BUFFER = 1 << 20  # bytes of one request for a stream
_SECRET = 4  # characters of the shortest text that is taken for a secret
_ADVICE = (
    ("NO_SUCH_BUCKET", "there is no such bucket; check its name"),
    ("Bucket '", "there is no such bucket; check its name"),
    ("NETWORK_CONNECTION", "the store cannot be reached; check the network, and endpoint_override in the URL"),
    ("ACCESS_DENIED", "access is denied; check the credentials in the environment or the profile"),
    ("INVALID_ACCESS_KEY_ID", "the store does not know the access key; check the credentials"),
    ("SIGNATURE", "the store does not accept the credentials; check the secret key"),
    ("TOKEN", "the store does not accept the credentials; they may have expired"),
    ("HTTP status 403", "access is denied; check the credentials in the environment or the profile"),
    ("HTTP response code 403", "access is denied; check the credentials in the environment or the profile"),
)


class StoreAwayError(DataError):
    """The store cannot be reached at all, so that no other object of it can be read either."""


class NoRoomError(DataError):
    """A copy of an object cannot be written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a folder of a store holds.

    Attributes:
        name: Within the folder.
        is_folder: Whether it is a folder and not an object.
        size: Bytes of an object.
        changed: Time of its last change, in whole seconds since 1970; 0 if the store does not say.
    """

    name: str
    is_folder: bool
    size: int = 0
    changed: int = 0


def is_url(name: object) -> bool:
    """Whether a name is a URL, of a store or of anything else, and not a path."""
    return _URL.match(str(name)) is not None


def public_url(url: str) -> str:
    """A URL without user, password, query and fragment, and odd characters as ``%`` codes; a path as it is."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{_host(parts)}{_path(parts)}"


def beside(url: str, name: str) -> str:
    """The URL of what a list at ``url`` names: relative to its folder, or a URL.

    It is read with the user and the query of the list, unless it has its own or is of another scheme.
    """
    parts = urlsplit(url)
    if is_url(name):
        named = urlsplit(name)
        if named.query or "@" in named.netloc or named.scheme.lower() != parts.scheme.lower():
            return name
        user, at, _ = parts.netloc.rpartition("@")
        return named._replace(netloc=f"{user}{at}{named.netloc}", query=parts.query).geturl()
    pieces: list[str] = []
    for piece in [*PurePosixPath(unquote(parts.path)).parent.parts[1:], *PurePosixPath(name).parts]:
        if piece == "..":
            del pieces[-1:]
        else:
            pieces.append(piece)
    return parts._replace(path="/" + quote("/".join(pieces), safe=_SAFE), fragment="").geturl()


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _path(parts: SplitResult) -> str:
    """The path in its one form, however it was written: ``a b`` and ``a%20b`` are the same."""
    return quote(unquote(parts.path), safe=_SAFE)


@lru_cache(maxsize=32)
def _connected(scheme: str, netloc: str, query: str) -> Any:  # noqa: ANN401
    """The file system of a bucket."""
    try:
        from pyarrow import fs
    except ModuleNotFoundError as e:
        msg = "objects on a store need an extra package: pip install 'ultraad[s3]'"
        raise MissingExtraError(msg) from e
    return fs.FileSystem.from_uri(f"{scheme}://{netloc}/{'?' if query else ''}{query}")[0]


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path there."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        msg = f"no images can be read from {scheme}://; wanted {', '.join(f'{s}://' for s in SCHEMES)}, or a path"
        raise DataError(msg)
    path = unquote(parts.path)
    if scheme == "file":
        return _connected("file", "", ""), path[1:] if re.match(r"/[a-z]:", path, re.IGNORECASE) else path
    if not _host(parts):
        msg = f"{public_url(url)} names no bucket; wanted {scheme}://BUCKET/KEY"
        raise DataError(msg)
    return _connected(scheme, parts.netloc, parts.query), f"{_host(parts)}{path}".rstrip("/")


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """Errors of a store as a DataError that names the object, the reason and what to do, and no credentials."""
    with Caught() as caught:
        yield
    error = caught.error
    if error is None:
        return
    if isinstance(error, (DataError, MissingExtraError)):
        raise error
    name = public_url(url)
    if isinstance(error, FileNotFoundError):
        msg = f"{name} does not exist; check bucket and key"
        raise DataError(msg) from None
    text = _without_secrets(one_line(error), urlsplit(url))
    advice = next((advice for mark, advice in _ADVICE if mark in text), None)
    msg = f"{name} cannot be read: {f'{advice} ({text})' if advice else text}"
    raise (StoreAwayError if "NETWORK_CONNECTION" in text else DataError)(msg) from None  # the cause has the URL


def _without_secrets(text: str, parts: SplitResult) -> str:
    """A message without anything of a URL's user or query; the name of the endpoint stays unless it is there."""
    user = parts.netloc.rpartition("@")[0]
    secrets = [parts.query, user, *user.split(":"), *(value for _, value in parse_qsl(parts.query))]
    whole = {s for s in [*secrets, *map(unquote, secrets)] if len(s) >= _SECRET}
    for secret in sorted(whole, key=len, reverse=True):
        text = text.replace(secret, "...")
    return text


@contextmanager
def open_stream(url: str) -> Iterator[BinaryIO]:
    """The bytes of an object from its first to its last.

    Raises:
        DataError: If there is no such object, or it cannot be read.
        MissingExtraError: If pyarrow is not installed.
    """
    with _reading(url):
        system, path = _opened(url)
        with system.open_input_stream(path, compression=None, buffer_size=_BUFFER) as file:
            yield file


@contextmanager
def open_anywhere(url: str) -> Iterator[Any]:
    """An object that is read at any place, for pyarrow; raises as :func:`open_stream`."""
    with _reading(url):
        system, path = _opened(url)
        with system.open_input_file(path) as file:
            yield file


def fetch(url: str, target: Path) -> None:
    """Copy an object to a file. pyarrow tries a few times if a connection breaks.

    Raises:
        StoreAwayError: If the store cannot be reached.
        NoRoomError: If the copy cannot be written.
        DataError: If there is no such object, or it cannot be read.
        MissingExtraError: If pyarrow is not installed.
    """
    with open_stream(url) as source, target.open("wb") as copy:
        while part := source.read(_BUFFER):
            try:
                copy.write(part)
            except OSError as e:
                msg = f"no room for copies in {target.parent}: {one_line(e)}"
                raise NoRoomError(msg) from e


def entry_of(url: str) -> Entry | None:
    """The object of exactly this URL; None if there is none. Raises as :func:`open_stream` otherwise."""
    with _reading(url):
        system, path = _opened(url)
        found = system.get_file_info(path)
        return _entry(found) if found.is_file else None


def entries(url: str) -> list[Entry]:
    """The folders and objects in one folder of a store, without those further below.

    Raises:
        DataError: If there is no such folder, or it cannot be listed.
        MissingExtraError: If pyarrow is not installed.
    """
    with _reading(url):
        system, path = _opened(url)
        from pyarrow import fs

        return [_entry(found) for found in system.get_file_info(fs.FileSelector(path))]


def _entry(found: Any) -> Entry:  # noqa: ANN401  # pyarrow has no types
    if not found.is_file:
        return Entry(found.base_name, is_folder=True)
    return Entry(found.base_name, is_folder=False, size=found.size, changed=(found.mtime_ns or 0) // 10**9)


def path_of(url: str) -> Path | None:
    """The path that a ``file://`` URL means; None for other URLs."""
    return Path(_opened(url)[1]) if urlsplit(url).scheme.lower() == "file" else None


def inside(url: str, name: str) -> str:
    """The URL of an entry of a folder; it is read with the same query."""
    parts = urlsplit(url)
    return parts._replace(path=f"{_path(parts).rstrip('/')}/{quote(name, safe=_SAFE)}", fragment="").geturl()
