"""A zip that is sent or written while it is made, so that it need not fit into memory or on the disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_CHUNK = 1 << 20


def zipped(files: Iterable[tuple[zipfile.ZipInfo, Path]]) -> Iterator[bytes]:
    """A zip of files, part by part. They are stored as they are: pictures and learned values do not shrink.

    Args:
        files: Each with its entry, which gives name, time and permissions.

    Yields:
        The bytes of the zip in their order.
    """
    done = _Written()
    with zipfile.ZipFile(done, "w", zipfile.ZIP_STORED) as packed:
        for entry, path in files:
            with path.open("rb") as source, packed.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield done.take()
    yield done.take()


class _Written(io.RawIOBase):
    """Keeps what was written until it is taken; a zip is written to it from front to back."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Everything since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
