"""Store objects at a peer: one association for what is due, a bounded number of tries, longer and longer pauses.

An object that an earlier process may have sent is looked for with C-FIND before it is sent again. A peer that has no
C-FIND gets it again: it has the same UID and the same bytes.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from ultraad.dicom.segmentation import KINDS
from ultraad.errors import Caught, brief
from ultraad.node.peers import Peer
from ultraad.node.queue import Due, Queue

FIRST_PAUSE, LONGEST_PAUSE = (
    10.0,
    600.0,
)  # seconds, ours: a peer that restarts is back soon; one that is away is not hurried
TRIES = 60
"""Of one object at one peer: some nine hours with the pauses above."""
_CLASSES = (
    *(kind.sop_class for kind in KINDS.values()),
    *("1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.59"),
    *("1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.11.2"),
    *("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"),
)
_ANSWERED = 0xFF00  # of C-FIND: pending, with a match
_FAILURES = 0xA000, 0xD000  # statuses of C-STORE that are errors, PS3.4 B.2.3; 0xBxxx are warnings


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


def send_due(queue: Queue, peer: Peer, sender: Sender, *, stopped: Callable[[], bool]) -> int:
    """Send what is due to a peer; returns the number of objects that it took."""
    due = queue.next_object(peer.name)
    if due is None:
        return 0
    with Caught() as caught:
        association = _associate(peer, sender)
    if caught.error is not None or not _is_open(association):
        reason = brief(caught.error) if caught.error is not None else _refusal(association)
        _put_off(queue, peer, sender, due, f"{peer.name} cannot be reached: {reason}")
        return 0
    taken = 0
    try:
        while due is not None and not stopped():
            with Caught() as caught:
                answer = _store(association, due)
            if caught.error is not None:
                answer = brief(caught.error)
            if answer is None:
                queue.sent(peer.name, due.uid, keep=sender.keep)
                taken += 1
            else:
                _put_off(queue, peer, sender, due, answer)
                if not _is_open(association):
                    return taken
            due = queue.next_object(peer.name)
        if due is not None:
            queue.put_off(peer.name, due.uid, "the node was stopped", until=time.time())
    finally:
        if _is_open(association):
            association.release()
    return taken


def _is_open(association: Association) -> bool:
    return association.is_established


def _associate(peer: Peer, sender: Sender) -> Association:
    ae = AE(ae_title=sender.aet)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = sender.timeout
    for sop_class in dict.fromkeys(_CLASSES):
        ae.add_requested_context(sop_class, ExplicitVRLittleEndian)
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    tls = (sender.tls, peer.host) if peer.tls and sender.tls is not None else None
    return ae.associate(peer.host, peer.port, ae_title=peer.aet, tls_args=tls)


def _refusal(association: Association) -> str:
    if association.is_rejected:
        return f"it rejects the AE title {association.requestor.ae_title!r} or its own"
    return "no connection, or the association was aborted"


def _store(association: Association, due: Due) -> str | None:
    """Send an object; None if the peer has it, else what it said."""
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    if due.unsure and _is_there(association, due, accepted):
        return None
    if due.sop_class not in accepted:
        return f"it does not take {UID(due.sop_class).name}"
    status = association.send_c_store(due.file)
    if "Status" not in status:
        return "no answer, or the association was aborted"
    if (
        _FAILURES[0] <= status.Status < 0xB000
        or 0xC000 <= status.Status < _FAILURES[1]
        or status.Status in (0x0122, 0x0124)
    ):
        comment = status.get("ErrorComment", "")
        return f"status 0x{status.Status:04X}{f' ({comment})' if comment else ''}"
    return None


def _is_there(association: Association, due: Due, accepted: set[UID | None]) -> bool:
    """Whether the peer finds an object; False if it has no C-FIND."""
    if StudyRootQueryRetrieveInformationModelFind not in accepted:
        return False
    header = pydicom.dcmread(due.file, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
    question = Dataset()
    question.QueryRetrieveLevel = "IMAGE"
    question.StudyInstanceUID, question.SeriesInstanceUID = header.StudyInstanceUID, header.SeriesInstanceUID
    question.SOPInstanceUID = due.uid
    answers = list(association.send_c_find(question, StudyRootQueryRetrieveInformationModelFind))  # to the last one
    return any(
        status.get("Status") == _ANSWERED and answer is not None and answer.get("SOPInstanceUID") == due.uid
        for status, answer in answers
    )


def _put_off(queue: Queue, peer: Peer, sender: Sender, due: Due, reason: str) -> None:
    pause = min(FIRST_PAUSE * 2**due.tries, LONGEST_PAUSE)
    queue.put_off(peer.name, due.uid, reason, until=time.time() + pause if due.tries + 1 < sender.tries else None)
