"""Store objects at a peer: one connection for what is due, a bounded number of tries, longer and longer pauses.

An object that an earlier process may have sent is looked for with C-FIND before it is sent again. A peer that has no
C-FIND gets it again: it has the same UID and the same bytes.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from ultraad.dicom.segmentation import KINDS
from ultraad.errors import Caught, DataError, UltraadError, brief
from ultraad.node.peers import Peer, WebPeer
from ultraad.node.queue import LONGEST_PAUSE, Due, Queue
from ultraad.node.sockets import closing
from ultraad.node.web import WebLine

FIRST_PAUSE = 10.0  # seconds, ours: a peer that restarts is back soon
TRIES = 60
"""Of one object at one peer: some nine hours with the pauses above."""
_CLASSES = (
    *(kind.sop_class for kind in KINDS.values()),
    *("1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.59"),
    *("1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.11.2"),
    *("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"),
)
_ANSWERED = 0xFF00  # of C-FIND: pending, with a match
_FAILURES = (0xA000, 0xB000), (0xC000, 0xD000)  # statuses of C-STORE that are errors, PS3.4 B.2.3; 0xBxxx are warnings
_REFUSED = frozenset({0x0110, 0x0117, 0x0122, 0x0124, 0x0210, 0x0211, 0x0212})  # general errors, PS3.7 C


@dataclass(frozen=True, slots=True)
class Sender:
    """How objects go out.

    Attributes:
        aet: The AE title of this node.
        timeout: Seconds without an answer after which an association is given up.
        tls: For peers with TLS; None if there are none.
        keep: Whether images and runs stay when everything was sent.
        tries: At most, of one object.
    """

    aet: str
    timeout: float
    tls: ssl.SSLContext | None
    keep: bool = False
    tries: int = TRIES


class Line(Protocol):
    """An open connection to a peer."""

    @property
    def is_open(self) -> bool:
        """Whether more can be sent over it."""
        ...

    def store(self, due: Due) -> str | None:
        """Send an object, unless the peer has it from an earlier process; None if it has it now, else what it said."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


def send_due(queue: Queue, peer: Peer | WebPeer, sender: Sender, *, stopped: Callable[[], bool]) -> int:
    """Send what is due to a peer; returns the number of objects that it took."""
    due = queue.next_object(peer.name)
    if due is None:
        return 0
    line: Line
    with Caught() as caught:
        line = WebLine(peer, sender.timeout) if isinstance(peer, WebPeer) else _Association(peer, sender)
    if caught.error is not None:
        reason = str(caught.error) if isinstance(caught.error, UltraadError) else brief(caught.error)
        _put_off(queue, peer, sender, due, f"{peer.name} cannot be reached: {reason}")
        return 0
    taken = 0
    try:
        while due is not None and not stopped():
            answer: str | None = None
            with Caught() as caught:
                answer = line.store(due)
            if caught.error is not None:
                answer = brief(caught.error)
            if answer is None:
                queue.sent(peer.name, due.uid, keep=sender.keep)
                taken += 1
            else:
                _put_off(queue, peer, sender, due, answer)
                if not line.is_open:
                    return taken
            due = queue.next_object(peer.name)
        if due is not None:
            queue.put_off(peer.name, due.uid, "the node was stopped", until=time.time())
    finally:
        line.close()
    return taken


class _Association:
    """An association with a peer.

    Raises:
        DataError: If there is none.
    """

    def __init__(self, peer: Peer, sender: Sender) -> None:
        ae = AE(ae_title=sender.aet)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = sender.timeout
        for sop_class in dict.fromkeys(_CLASSES):
            ae.add_requested_context(sop_class, ExplicitVRLittleEndian)
        ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        tls = (sender.tls, peer.host) if peer.tls and sender.tls is not None else None
        self._association = ae.associate(peer.host, peer.port, ae_title=peer.aet, tls_args=tls, evt_handlers=closing())
        if not self.is_open:
            rejected = f"it rejects the AE title {sender.aet!r} or its own"
            msg = rejected if self._association.is_rejected else "no connection, or the association was aborted"
            raise DataError(msg)
        self._accepted = {context.abstract_syntax for context in self._association.accepted_contexts}

    @property
    def is_open(self) -> bool:
        """Whether it is established."""
        return self._association.is_established

    def close(self) -> None:
        """Release it."""
        if self.is_open:
            self._association.release()

    def store(self, due: Due) -> str | None:
        """C-STORE."""
        if due.unsure and self._is_there(due):
            return None
        if due.sop_class not in self._accepted:
            return f"it does not take {UID(due.sop_class).name}"
        status = self._association.send_c_store(due.file)
        if "Status" not in status:
            return "no answer, or the association was aborted"
        code = int(status.Status)
        if code in _REFUSED or any(low <= code < high for low, high in _FAILURES):
            comment = status.get("ErrorComment", "")
            return f"status 0x{code:04X}{f' ({comment})' if comment else ''}"
        return None

    def _is_there(self, due: Due) -> bool:
        """Whether the peer finds an object; False if it has no C-FIND."""
        if StudyRootQueryRetrieveInformationModelFind not in self._accepted:
            return False
        header = pydicom.dcmread(due.file, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
        question = Dataset()
        question.QueryRetrieveLevel = "IMAGE"
        question.StudyInstanceUID, question.SeriesInstanceUID = header.StudyInstanceUID, header.SeriesInstanceUID
        question.SOPInstanceUID = due.uid
        found = self._association.send_c_find(question, StudyRootQueryRetrieveInformationModelFind)
        answers = list(found)  # to the last one, or the next message would be mistaken for it
        return any(
            status.get("Status") == _ANSWERED and answer is not None and answer.get("SOPInstanceUID") == due.uid
            for status, answer in answers
        )


def _put_off(queue: Queue, peer: Peer | WebPeer, sender: Sender, due: Due, reason: str) -> None:
    pause = min(FIRST_PAUSE * 2**due.tries, LONGEST_PAUSE)
    queue.put_off(peer.name, due.uid, reason, until=time.time() + pause if due.tries + 1 < sender.tries else None)
