"""A model as one file that can be sent: a plain zip of the files that its record names, and nothing else.

The same model gives the same bytes. Both kinds of folders can be packed, those of ``ultraad adapt`` and of
``ultraad export``. No torch is imported.
"""

from __future__ import annotations

import json
import stat
import zipfile
import zlib
from pathlib import Path

from ultraad.config import shortened
from ultraad.errors import BundleError, brief, first_names
from ultraad.io.files import ensure_room, whole_folder, write_parts
from ultraad.io.find import is_there
from ultraad.io.zipped import zipped
from ultraad.model import exported
from ultraad.model.record import check_files

SUFFIX = ".ultraad"
CARD = "README.md"
RECORDS = (exported.CONFIG, "config.json")  # the first that a folder has says what it is
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
_CHUNK = 1 << 20
_MOST_RECORD = 16 << 20  # bytes
_MOST_RATIO = 200  # of the unpacked size to that of the file; lists of images shrink to a tenth


def pack(folder: str | Path, file: str | Path) -> Path:
    """Write a model folder as one file, completely or not at all.

    Args:
        folder: Written by ``ultraad adapt`` or ``ultraad export``. Files that its record does not name are left out.
        file: Ends in ``.ultraad``; an older one is replaced.

    Returns:
        The file.

    Raises:
        BundleError: If the folder is not a model, a file of it is missing or damaged, or the file has another ending.
        DataError: If the file cannot be written.
    """
    folder, file = Path(folder), Path(file)
    if file.suffix != SUFFIX:
        msg = f"got {file.name} as the file to write, wanted a name that ends in {SUFFIX}"
        raise BundleError(msg)
    names = files_of(folder)
    write_parts(file, zipped((_entry(name), folder / name) for name in names))
    return file


def unpack(file: str | Path, folder: str | Path) -> Path:
    """Write a packed model as the folder that it was, completely or not at all.

    Nothing is written outside the folder: a packed model holds files of plain names only. Every file is checked against
    the sha256 in the record.

    Args:
        file: From :func:`pack`.
        folder: Must not exist, or be empty.

    Returns:
        The folder.

    Raises:
        BundleError: If the file is no packed model, is damaged, holds other names than its record, links, or far more
            than its size; or if the folder exists.
        DataError: If the folder cannot be written.
    """
    file, folder = Path(file), Path(folder)
    if is_there(folder) and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} exists and is not empty; choose another name for the model"
        raise BundleError(msg)
    try:
        with zipfile.ZipFile(file) as packed:
            members = _members(packed, file)
            ensure_room(folder, sum(member.file_size for member in members))
            with whole_folder(folder) as fresh:
                for member in members:
                    with packed.open(member) as source, (fresh / member.filename).open("xb") as target:
                        while chunk := source.read(_CHUNK):
                            target.write(chunk)
                named = _checked(fresh, file)
                if extra := sorted({member.filename for member in members} - set(named)):
                    msg = f"{file} holds {first_names(extra)}, which its record does not name; do not use it"
                    raise BundleError(msg)
    except FileNotFoundError as e:
        msg = f"there is no file {file}; wanted one written by 'ultraad pack'"
        raise BundleError(msg) from e
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, ValueError, OSError) as e:
        msg = f"{file} is damaged or was not written by 'ultraad pack': {brief(e)}; copy it again"
        raise BundleError(msg) from e
    return folder


def files_of(folder: Path) -> list[str]:
    """The files of a model and its card, checked against its record.

    Raises:
        BundleError: If the folder is not a model, or a file is missing or damaged.
    """
    record = next((name for name in RECORDS if (folder / name).is_file()), None)
    if record is None:
        msg = f"{folder} is not a model: it has no {' and no '.join(RECORDS)}. Wanted what 'ultraad adapt' wrote"
        raise BundleError(msg)
    files = listed(folder / record)
    check_files(folder, files, required=(), what="model")
    return sorted({record, *files, *([CARD] if (folder / CARD).is_file() else [])})


def _checked(fresh: Path, file: Path) -> list[str]:
    """:func:`files_of` the temporary folder; a message names the file that the user has."""
    try:
        return files_of(fresh)
    except BundleError as e:
        said = str(e).replace(str(fresh), str(file)).replace("copy the whole folder again", "copy the file again")
        raise BundleError(said) from e


def listed(record: Path) -> dict[str, str]:
    """{name: sha256} of the files that the record of a model names; they are not checked.

    Raises:
        BundleError: If the record cannot be read.
    """
    try:
        if record.stat().st_size > _MOST_RECORD:
            msg = f"{record} has {record.stat().st_size / 1e6:.0f} MB, a record has less than {_MOST_RECORD / 1e6:.0f}"
            raise BundleError(msg)
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        plain = isinstance(files, dict) and all(isinstance(value, str) for value in files.values())
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        msg = f"{record} is damaged: {brief(e)}; copy the model again"
        raise BundleError(msg) from e
    if not plain:
        msg = f"{record} is damaged: it does not name its files; copy the model again"
        raise BundleError(msg)
    return dict(files)


def _entry(name: str) -> zipfile.ZipInfo:
    """The same for the same name: no time and no permissions of this machine."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _members(packed: zipfile.ZipFile, file: Path) -> list[zipfile.ZipInfo]:
    """The entries, none of which can leave the folder or fill the disk."""
    members = packed.infolist()
    names = [member.filename for member in members]
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        plain = member.filename.isprintable() and not set(member.filename) & set('/\\:*?"<>|')
        if not plain or member.filename.strip(". ") != member.filename or kind not in (0, stat.S_IFREG):
            msg = f"{file} holds {shortened(repr(member.filename))}, wanted files of plain names; do not use it"
            raise BundleError(msg)
    if len(set(names)) < len(names):
        msg = f"{file} holds a name twice; do not use it"
        raise BundleError(msg)
    size = sum(member.file_size for member in members)
    if size > _MOST_RATIO * max(file.stat().st_size, 1):
        msg = f"{file} would grow from {file.stat().st_size:,} to {size:,} bytes; no packed model does, do not use it"
        raise BundleError(msg)
    return members
