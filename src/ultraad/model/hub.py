"""A model on a hub of the kind of huggingface.co: pushed with a card, pulled at a revision, every file checked.

An address is ``hub:OWNER/NAME`` or ``hub:OWNER/NAME@REVISION``; a revision is a commit, a tag or a branch. The hub and
the token for it are the settings of huggingface-hub (``HF_ENDPOINT``, ``HF_TOKEN``, ``hf auth login``). Only the files
that the record names and the card are sent and fetched. No torch is imported.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ultraad import __version__
from ultraad.errors import BundleError, Caught, MissingExtraError, brief
from ultraad.io.files import whole_folder
from ultraad.io.find import is_there
from ultraad.model.pack import CARD, RECORDS, files_of, listed

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TAGS = ["ultraad", "ultrasound", "anomaly-detection"]
_FRONT = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)  # the metadata of a card that was pulled


@dataclass(frozen=True, slots=True)
class Address:
    """Where a model is on the hub.

    Attributes:
        name: ``"OWNER/NAME"``.
        revision: A commit, a tag or a branch; None is the newest.
    """

    name: str
    revision: str | None

    def __str__(self) -> str:
        return f"hub:{self.name}" + (f"@{self.revision}" if self.revision else "")


def address(text: str) -> Address:
    """Read an address.

    Raises:
        BundleError: If it has another form.
    """
    found = re.fullmatch(r"hub:([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w-][\w./-]*))?", text)
    if found is None:
        msg = f"got {text!r}, wanted hub:OWNER/NAME or hub:OWNER/NAME@REVISION, such as hub:clinic/breast@v1"
        raise BundleError(msg)
    return Address(found[1], found[2])


def push(folder: str | Path, to: Address, *, public: bool = False, licence: str | None = None) -> Address:
    """Send a model in one commit.

    Args:
        folder: Written by ``ultraad adapt`` or ``ultraad export``.
        to: Without a revision. The repository is made if needed.
        public: Whether everybody may see a new repository; one that is there stays as it is.
        licence: Of the model, by the hub's names, e.g. ``"cc-by-4.0"``. It is written on the card.

    Returns:
        The address with its commit.

    Raises:
        BundleError: If the folder is not a model, a file of it is damaged, or the hub cannot be used.
        MissingExtraError: If huggingface-hub is not installed.
    """
    if to.revision:
        msg = f"got {to}, wanted hub:{to.name}: a push makes the newest revision"
        raise BundleError(msg)
    folder = Path(folder)
    names = files_of(folder)
    api = _api()
    from huggingface_hub import CommitOperationAdd, ModelCardData

    about = ModelCardData(library_name="ultraad", tags=_TAGS, license=licence)
    text = _FRONT.sub("", (folder / CARD).read_text(encoding="utf-8")) if CARD in names else "# A model of ultraad\n"
    card = f"---\n{about.to_yaml()}\n---\n\n{text}".encode()
    files = [CommitOperationAdd(name, str(folder / name)) for name in names if name != CARD]
    with _usable(to):
        api.create_repo(to.name, private=not public, exist_ok=True)
        done = api.create_commit(
            to.name, [*files, CommitOperationAdd(CARD, card)], commit_message=f"A model of ultraad {__version__}"
        )
    return Address(to.name, done.oid)


def pull(what: Address, folder: str | Path) -> Address:
    """Fetch a model, completely or not at all. Every file is checked against the sha256 in the record.

    Args:
        what: Give the commit as the revision to get what somebody else got.
        folder: Must not exist, or be empty.

    Returns:
        The address with the commit that it was.

    Raises:
        BundleError: If there is no such model, a file differs from its record, or the folder exists.
        DataError: If the folder cannot be written.
        MissingExtraError: If huggingface-hub is not installed.
    """
    folder = Path(folder)
    if is_there(folder) and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} exists and is not empty; choose another name for the model"
        raise BundleError(msg)
    api = _api()
    with _usable(what):
        info = api.model_info(what.name, revision=what.revision)
    there = {file.rfilename for file in info.siblings or ()}
    record = next((name for name in RECORDS if name in there), None)
    if record is None or info.sha is None:
        msg = f"{what} is no model of ultraad: it has no {' and no '.join(RECORDS)}"
        raise BundleError(msg)
    with whole_folder(folder) as fresh, tempfile.TemporaryDirectory() as scratch:

        def fetch(name: str) -> None:
            with _usable(what):
                got = api.hf_hub_download(what.name, name, revision=info.sha, local_dir=scratch)
            shutil.move(got, fresh / name)

        fetch(record)
        for name in sorted({*listed(fresh / record), CARD} & there):
            fetch(name)
        files_of(fresh)
    return Address(what.name, info.sha)


def _api() -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as e:
        msg = "huggingface-hub is not installed; get it with: pip install huggingface-hub"
        raise MissingExtraError(msg) from e
    return HfApi(library_name="ultraad", library_version=__version__)


@contextmanager
def _usable(what: Address) -> Iterator[None]:
    """What goes wrong with a hub, as one error."""
    with Caught() as caught:
        yield
    e = caught.error
    if e is None:
        return
    # those of the hub derive from the first three, those of http (httpx, httpx2) share no base with anything
    if not isinstance(e, (OSError, RuntimeError, ValueError)) and not type(e).__module__.startswith("httpx"):
        raise e
    msg = f"cannot use {what}: {brief(e)}. Check the name, the network, and the token ('hf auth login', or HF_TOKEN)"
    raise BundleError(msg) from e
