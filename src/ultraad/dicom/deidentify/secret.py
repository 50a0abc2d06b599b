"""A secret from which new UIDs, pseudonyms and shifted dates are computed: the same secret gives the same ones.

HMAC-SHA256 (RFC 2104) under the secret: without it, nobody can compute the pseudonym of a known patient and look for
it, as they could with a plain hash of a short ID.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
import sys
from pathlib import Path
from uuid import UUID

from ultraad.errors import DataError
from ultraad.io.raster import open_file

_HEAD = "ultraad de-identification key 1"
_BYTES = 32
_MOST_DAYS = 3650
_LETTERS = 16  # of a pseudonym, five bits each: two of 100,000 patients share one with a chance below 1e-14


class Secret:
    """A secret of 32 bytes.

    Args:
        content: The bytes; None draws new ones, which nobody else will ever have.
    """

    def __init__(self, content: bytes | None = None) -> None:
        self._content = secrets.token_bytes(_BYTES) if content is None else content

    def digest(self, *what: str) -> bytes:
        """32 bytes that depend on the secret and on each of the texts."""
        parts = [text.encode(errors="surrogateescape") for text in what]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.new(self._content, message, hashlib.sha256).digest()

    def uid(self, original: str) -> str:
        """The UID that stands for another one, in the form of PS3.5 B.2 (2.25 and a UUID)."""
        return f"2.25.{UUID(bytes=self.digest('uid', original)[:16], version=5).int}"

    def name(self, purpose: str, *what: str) -> str:
        """A pseudonym of 16 letters and digits."""
        return base64.b32encode(self.digest(purpose, *what)).decode()[:_LETTERS]

    def days(self, patient: str) -> int:
        """By how many days the dates of a patient go back: 1 to 3650."""
        return 1 + int.from_bytes(self.digest("days", patient)[:8], "big") % _MOST_DAYS

    def mark(self) -> str:
        """Tells this secret from others, and nothing about it."""
        return self.digest("mark").hex()[:16]


def secret_of(path: Path | None) -> Secret:
    """The secret in a file, which is made if it is not there, readable for its owner only; a new one without a file.

    Raises:
        DataError: If the file is no key, others can read it, or it cannot be written.
    """
    if path is None:
        return Secret()
    if not path.exists():
        _make(path)
    with open_file(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        if sys.platform != "win32" and stat.S_IMODE(mode) & 0o077:
            msg = f"{path} can be read by others, and who has it can link the images to their patients: chmod 600 it"
            raise DataError(msg)
        lines = file.read(1000).decode(errors="replace").split("\n")
    try:
        content = bytes.fromhex(lines[1]) if lines[0] == _HEAD else b""
    except (IndexError, ValueError):
        content = b""
    if len(content) != _BYTES:
        msg = f"{path} is no key of 'ultraad deidentify'; give the key that it made, or the name of a new file"
        raise DataError(msg)
    return Secret(content)


def _make(path: Path) -> None:
    """Write a new key, complete or not at all, and never over another one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{_HEAD}\n{secrets.token_hex(_BYTES)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another run made it in the meantime
        except OSError:  # a file system without links
            draft.rename(path)
        draft.unlink(missing_ok=True)
    except OSError as e:
        msg = f"the key {path} cannot be written: {e.strerror or e}; choose another place"
        raise DataError(msg) from e
