"""What comes in: C-ECHO, C-STORE and storage commitment over the network, or files in a watched folder."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from ultraad.dicom.source import OURS
from ultraad.errors import Caught, ConfigError, DataError, brief
from ultraad.io.dicom_header import text_of
from ultraad.io.faults import Faults, keeping_remarks
from ultraad.io.find import no_picture
from ultraad.node.peers import Peer
from ultraad.node.queue import Arrival, Queue
from ultraad.node.sockets import closing

IMAGES = (  # SOP classes that are taken, PS3.4 B.5
    "1.2.840.10008.5.1.4.1.1.6.1",  # Ultrasound Image
    "1.2.840.10008.5.1.4.1.1.3.1",  # Ultrasound Multi-frame Image
    "1.2.840.10008.5.1.4.1.1.6",  # the same two, retired
    "1.2.840.10008.5.1.4.1.1.3",
)
ENCODINGS = (  # that pydicom and our decoders read
    *("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"),
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"),
    *("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    "1.2.840.10008.1.2.5",
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PDU = 65536  # bytes; the default of 16 KB makes a cine of many small parts
_OK, _NO_SPACE, _NOT_UNDERSTOOD, _OTHER_CONTENT, _NO_ADDRESS = 0x0000, 0xA700, 0xC000, 0xC001, 0x0110
_NO_SUCH, _CLASS_CONFLICT = 0x0112, 0x0119  # failure reasons of storage commitment, PS3.3 C.14.1.1
_COMMITTED, _PARTLY = 1, 2  # event types, PS3.4 J.3.3.1
_WELL_KNOWN = "1.2.840.10008.1.20.1.1"  # the instance that commitment is asked of, PS3.4 J.3.5


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in, and how much.

    Attributes:
        aet: The AE title of this node.
        host: The address it listens at.
        port: The port; 0 takes any.
        allowed: AE titles that may call; empty for everyone, which only loopback allows.
        most_bytes: Of one image.
        most_associations: At the same time.
        timeout: Seconds without a message after which an association ends.
        tls: TLS; None without.
        peers: {AE title: peer} that get the answer to a request for commitment.
        peer_tls: TLS towards peers.
    """

    aet: str
    host: str = "127.0.0.1"
    port: int = 11112
    allowed: tuple[str, ...] = ()
    most_bytes: int = 2**29
    most_associations: int = 10
    timeout: float = 60.0
    tls: ssl.SSLContext | None = None
    peers: Mapping[str, Peer] = field(default_factory=dict)
    peer_tls: ssl.SSLContext | None = None


def listen(queue: Queue, door: Door) -> ThreadedAssociationServer:
    """Start to listen, in threads.

    Raises:
        ConfigError: If the port cannot be had, or everyone could call from other machines.
    """
    if door.host not in _LOOPBACK and not door.allowed and door.tls is None:
        msg = (
            f"{door.host} can be reached from other machines, and every AE title may call; name those that may with "
            "--allow, or give TLS with an authority"
        )
        raise ConfigError(msg)
    ae = AE(ae_title=door.aet)
    ae.require_called_aet = True
    ae.require_calling_aet = list(door.allowed)
    ae.maximum_associations = door.most_associations
    ae.maximum_pdu_size = _PDU
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = door.timeout
    ae.add_supported_context(Verification)
    ae.add_supported_context(StorageCommitmentPushModel)
    for sop_class in IMAGES:
        ae.add_supported_context(sop_class, list(ENCODINGS))
    guard = _Guard(door.most_bytes, queue)
    handlers = [
        (evt.EVT_C_STORE, _store, [queue]),
        (evt.EVT_N_ACTION, _commit, [queue, door]),
        (evt.EVT_REJECTED, _rejected, [queue]),
        (evt.EVT_DATA_RECV, guard.count),
        (evt.EVT_DIMSE_RECV, guard.reset),
        (evt.EVT_CONN_CLOSE, guard.forget),
        *closing(),
    ]
    try:
        server = ae.start_server((door.host, door.port), block=False, ssl_context=door.tls, evt_handlers=handlers)
    except OSError as e:
        msg = f"port {door.port} of {door.host} cannot be had: {e.strerror or e}; choose another with --port"
        raise ConfigError(msg) from e
    assert server is not None  # block=False
    return server


def keep(queue: Queue, content: bytes, *, origin: str, uid: str | None = None, sop_class: str | None = None) -> Arrival:
    """Put an image into the queue, or note why it is none of those that are predicted.

    Args:
        queue: The queue.
        content: The whole file.
        origin: Who sent it.
        uid: Its SOP instance UID, if it is known.
        sop_class: Its SOP class UID, if it is known.

    Raises:
        DataError: If it is no DICOM, has no UIDs, or cannot be written.
    """
    with keeping_remarks(), Faults("the object cannot be read", about=origin, advice="Send it again"):
        header = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, force=True)
        uid, sop_class = uid or text_of(header, "SOPInstanceUID"), sop_class or text_of(header, "SOPClassUID")
        ours = text_of(header, "Manufacturer") == OURS
    if uid is None or sop_class is None:
        msg = "the object has no SOPInstanceUID or no SOPClassUID; it is no DICOM image"
        raise DataError(msg)
    if not ours and queue.is_full(len(content)):
        msg = f"the disk of {queue.folder} is full; free space there"
        raise DataError(msg)
    return queue.add(uid, sop_class, content, origin=origin, ignore="written by ultraad" if ours else None)


def _store(event: Event, queue: Queue) -> int | Dataset:
    """Acknowledge an image when it is on the disk."""
    request: Any = event.request  # a C-STORE request
    with Caught() as caught:
        arrival = keep(
            queue,
            event.encoded_dataset(),
            origin=event.assoc.requestor.ae_title,
            uid=str(request.AffectedSOPInstanceUID),
            sop_class=str(request.AffectedSOPClassUID),
        )
    if caught.error is not None:
        said = str(caught.error) if isinstance(caught.error, DataError) else brief(caught.error)
        queue.note("refused", uid=str(request.AffectedSOPInstanceUID), reason=said)
        full = isinstance(caught.error, DataError) and ("full" in said or "cannot be written" in said)
        return _status(_NO_SPACE if full else _NOT_UNDERSTOOD, said)
    if arrival == "other":
        return _status(_OTHER_CONTENT, "another object with this SOP Instance UID is here")
    return _OK


def _status(code: int, comment: str) -> Dataset:
    out = Dataset()
    out.Status, out.ErrorComment = code, comment.encode("ascii", "replace").decode()[:64]
    return out


def _rejected(event: Event, queue: Queue) -> None:
    requestor = event.assoc.requestor
    queue.note("rejected", origin=requestor.ae_title, address=requestor.address, called=event.assoc.acceptor.ae_title)


class _Guard:
    """Ends an association that sends more bytes for one message than an image may have."""

    def __init__(self, most: int, queue: Queue) -> None:
        self._most, self._queue = most, queue
        self._bytes: dict[int, int] = {}

    def count(self, event: Event) -> None:
        key = id(event.assoc)
        self._bytes[key] = self._bytes.get(key, 0) + len(event.data)
        if self._bytes[key] > self._most:
            self._bytes[key] = 0
            origin = event.assoc.requestor.ae_title
            self._queue.note("aborted", origin=origin, reason=f"an object of more than {self._most} bytes")
            threading.Thread(target=event.assoc.abort, daemon=True).start()  # not from its own thread

    def reset(self, event: Event) -> None:
        self._bytes[id(event.assoc)] = 0

    def forget(self, event: Event) -> None:
        self._bytes.pop(id(event.assoc), None)


# ---- storage commitment ---------------------------------------------------------------------------------------------


def _commit(event: Event, queue: Queue, door: Door) -> tuple[int, Dataset | None]:
    """Answer a request for commitment at the address of the peer, as the standard wants it, in a thread of its own."""
    caller = event.assoc.requestor.ae_title
    peer = door.peers.get(caller)
    if peer is None:
        queue.note("commitment refused", origin=caller, reason="no address of this AE title is known")
        return _NO_ADDRESS, None
    asked = event.action_information
    report, complete = Dataset(), True
    report.TransactionUID = asked.TransactionUID
    here, missing = [], []
    for wanted in asked.ReferencedSOPSequence:
        one = Dataset()
        one.ReferencedSOPClassUID = wanted.ReferencedSOPClassUID
        one.ReferencedSOPInstanceUID = wanted.ReferencedSOPInstanceUID
        known = queue.has(str(wanted.ReferencedSOPInstanceUID), str(wanted.ReferencedSOPClassUID))
        if known:
            here.append(one)
        else:
            one.FailureReason = _CLASS_CONFLICT if known is None else _NO_SUCH
            missing.append(one)
            complete = False
    if here:
        report.ReferencedSOPSequence = here
    if missing:
        report.FailedSOPSequence = missing
    threading.Thread(target=_report, args=(queue, door, peer, report, complete), daemon=True).start()
    return _OK, None


def _report(queue: Queue, door: Door, peer: Peer, report: Dataset, complete: bool) -> None:  # noqa: FBT001
    said: str | None = None
    with Caught() as caught:
        ae = AE(ae_title=door.aet)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = door.timeout
        ae.add_requested_context(StorageCommitmentPushModel)
        tls = (door.peer_tls, peer.host) if peer.tls and door.peer_tls is not None else None
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate(
            peer.host, peer.port, ae_title=peer.aet, ext_neg=[role], tls_args=tls, evt_handlers=closing()
        )
        if association.is_established:
            kind = _COMMITTED if complete else _PARTLY
            status, _ = association.send_n_event_report(report, kind, StorageCommitmentPushModel, _WELL_KNOWN)
            association.release()
            said = None if status and status.Status == _OK else "the peer did not take the answer"
        else:
            said = "the peer cannot be reached"
    if caught.error is not None:
        said = brief(caught.error)
    missing = len(report.get("FailedSOPSequence", []))
    queue.note("commitment", peer=peer.name, missing=missing, reason=said)


# ---- a folder -------------------------------------------------------------------------------------------------------


class Watch:
    """Takes DICOM files from a folder, each when it has not changed for a while.

    Args:
        folder: The folder; files stay there.
        settled: Seconds without a change after which a file is whole.

    Raises:
        ConfigError: If there is no such folder.
    """

    def __init__(self, folder: Path, *, settled: float = 2.0) -> None:
        if not folder.is_dir():
            msg = f"{folder} is no folder, so it cannot be watched"
            raise ConfigError(msg)
        self._folder, self._settled = folder, settled
        self._seen: dict[Path, tuple[tuple[int, int], float | None]] = {}  # since when as it is; None: taken

    def look(self, queue: Queue) -> int:
        """Take what is new; returns the number of files that were put into the queue."""
        new = 0
        for path in sorted(p for p in self._folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            with Caught() as caught:
                stat = path.stat()
                mark = (stat.st_size, stat.st_mtime_ns)
                if not self._is_whole(path, mark):
                    continue
                kind = no_picture(path)
                if kind is None and path.suffix.lower() in {"", ".dcm", ".dicom", ".ima"}:
                    new += keep(queue, path.read_bytes(), origin=f"folder {self._folder}") == "new"
            if caught.error is not None:
                queue.note("refused", origin=f"folder {self._folder}", file=path.name, reason=brief(caught.error))
        return new

    def _is_whole(self, path: Path, mark: tuple[int, int]) -> bool:
        """Whether a file has not changed for long enough, and is not taken yet. Its time may be that of any clock."""
        now = time.monotonic()
        earlier, since = self._seen.get(path, (None, now))
        if earlier != mark:
            since = now
        whole = since is not None and now - since >= self._settled
        self._seen[path] = mark, None if whole else since
        return whole
