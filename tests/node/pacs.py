"""A PACS for the tests: a real SCP that keeps what it gets, and can be told to misbehave."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind

from tests.dicom.made import write_us
from ultraad.node.intake import IMAGES
from ultraad.node.peers import Peer
from ultraad.node.send import _CLASSES
from ultraad.node.sockets import closing

SENT = "1.2.840.10008.1.2.1"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Pacs:
    """Attributes:
    got: {SOP instance UID: digests of what came under it, in order}.
    status: What it answers to C-STORE.
    reports: Answers to requests for commitment: (event type, dataset).
    """

    def __init__(
        self, *, aet: str = "PACS", port: int = 0, classes: Iterable[str] = _CLASSES, find: bool = True
    ) -> None:
        self.got: dict[str, list[str]] = {}
        self.status = 0x0000
        self.reports: list[tuple[int, Dataset]] = []
        self.finds = 0
        ae = AE(ae_title=aet)
        for sop_class in classes:
            ae.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        if find:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_EVENT_REPORT, self._report),
            *closing(),
        ]
        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        self.peer = Peer(aet, "127.0.0.1", self.port)

    def _store(self, event: evt.Event) -> int:
        if self.status == 0:
            digest = hashlib.sha256(event.encoded_dataset(include_meta=False)).hexdigest()
            self.got.setdefault(str(event.request.AffectedSOPInstanceUID), []).append(digest)
        return self.status

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.finds += 1
        wanted = event.identifier.SOPInstanceUID
        if wanted in self.got:
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.SOPInstanceUID = "IMAGE", wanted
            yield 0xFF00, answer
        yield 0x0000, None

    def _report(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return 0x0000, None

    def __enter__(self) -> Pacs:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()


class Scanner:
    """Sends images, as a modality does."""

    def __init__(self, port: int, *, aet: str = "SCANNER", called: str = "ULTRAAD", tls: object = None) -> None:
        self._ae = AE(ae_title=aet)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = 20
        self._ae.add_requested_context("1.2.840.10008.1.1")
        self._ae.add_requested_context(StorageCommitmentPushModel)
        for sop_class in IMAGES:
            self._ae.add_requested_context(sop_class, SENT)
        self._to = {"addr": "127.0.0.1", "port": port, "ae_title": called, "tls_args": tls}

    def associate(self):
        return self._ae.associate(**self._to, evt_handlers=closing())

    def echo(self) -> int | None:
        association = self.associate()
        if not association.is_established:
            return None
        status = association.send_c_echo()
        association.release()
        return status.get("Status")

    def send(self, *paths: Path) -> list[int | None]:
        """The status of each image; None without an answer."""
        association = self.associate()
        if not association.is_established:
            return [None for _ in paths]
        found = []
        for path in paths:
            try:
                found.append(association.send_c_store(pydicom.dcmread(path)).get("Status"))
            except RuntimeError:  # the association was aborted before
                found.append(None)
        if association.is_established:
            association.release()
        return found

    def commit(self, *references: tuple[str, str], transaction: str = "1.2.3.4") -> int | None:
        """Ask for commitment of (SOP class, SOP instance)."""
        asked = Dataset()
        asked.TransactionUID, asked.ReferencedSOPSequence = transaction, []
        for sop_class, uid in references:
            one = Dataset()
            one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, uid
            asked.ReferencedSOPSequence.append(one)
        association = self.associate()
        status, _ = association.send_n_action(asked, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        association.release()
        return status.get("Status")


def images(folder: Path, number: int, **options: object) -> list[Path]:
    """So many images of one study."""
    study = {"StudyInstanceUID": "1.2.826.0.1.3680043.10.1"}
    return [write_us(folder / f"{n}.dcm", **{**study, **options}) for n in range(number)]


__all__ = ["Pacs", "Scanner", "build_role", "free_port", "images"]
