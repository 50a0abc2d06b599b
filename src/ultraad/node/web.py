"""DICOMweb: look for new images with QIDO-RS, get them with WADO-RS, store objects with STOW-RS.

User and password come from ``~/.netrc``; certificates from the system, or ``REQUESTS_CA_BUNDLE``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from io import BytesIO
from typing import Any

import pydicom
from dicomweb_client.web import DICOMwebClient

from ultraad.errors import Caught, brief
from ultraad.node.intake import IMAGES, keep
from ultraad.node.peers import WebPeer
from ultraad.node.queue import Due, Queue

_PAGE = 100  # series or instances of one answer
_ANY = (("application/dicom", "*"),)  # as it is stored there: a server that transcodes would change the pixels
_STUDY, _SERIES, _INSTANCE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"


class WebLine:
    """A DICOMweb service as the place where objects are stored."""

    is_open = True  # there is no connection that could end: each object is a request

    def __init__(self, peer: WebPeer, timeout: float) -> None:
        self._client = _client(peer, timeout)

    def store(self, due: Due) -> str | None:
        """STOW-RS."""
        if due.unsure and self._is_there(due):
            return None
        answer = self._client.store_instances([pydicom.dcmread(due.file)])
        if any(item.ReferencedSOPInstanceUID == due.uid for item in answer.get("ReferencedSOPSequence") or ()):
            return None
        reasons = [f"0x{int(item.get('FailureReason', 0)):04X}" for item in answer.get("FailedSOPSequence") or ()]
        return f"STOW-RS failed: {', '.join(reasons) or 'the answer does not name the object'}"

    def close(self) -> None:
        """Nothing."""

    def _is_there(self, due: Due) -> bool:
        return bool(self._client.search_for_instances(search_filters={"SOPInstanceUID": due.uid}))


class WebWatch:
    """Takes new ultrasound images from a DICOMweb service.

    Args:
        peer: The service.
        days: Only studies of so many days, today included: an archive holds years.
        timeout: Seconds without an answer after which a request fails.
    """

    def __init__(self, peer: WebPeer, *, days: int = 1, timeout: float = 60.0) -> None:
        self._peer, self._days = peer, days
        self._client = _client(peer, timeout)
        self._taken: set[str] = set()

    def look(self, queue: Queue) -> int:
        """Take what is new; returns the number of images that were put into the queue."""
        new = 0
        for found in self._images():
            study, series, uid, sop_class = (_value(found, tag) for tag in (_STUDY, _SERIES, _INSTANCE, _CLASS))
            if not (study and series and uid) or uid in self._taken or sop_class not in IMAGES:
                continue
            if queue.knows(uid):
                self._taken.add(uid)
                continue
            with Caught() as caught:
                content = BytesIO()
                self._client.retrieve_instance(study, series, uid, media_types=_ANY).save_as(content)
                new += keep(queue, content.getvalue(), origin=self._peer.name, uid=uid, sop_class=sop_class) == "new"
                self._taken.add(uid)
            if caught.error is not None:  # it is asked for again at the next look
                queue.note("refused", origin=self._peer.name, uid=uid, reason=brief(caught.error))
        return new

    def _images(self) -> Iterator[dict[str, Any]]:
        """The instances of every ultrasound series of these days."""
        since = date.today() - timedelta(days=self._days - 1)  # StudyDate is local
        filters = {"Modality": "US", "StudyDate": f"{since:%Y%m%d}-"}
        for series in _pages(self._client.search_for_series, search_filters=filters):
            study, uid = _value(series, _STUDY), _value(series, _SERIES)
            if study and uid:
                for found in _pages(
                    self._client.search_for_instances, study_instance_uid=study, series_instance_uid=uid
                ):
                    yield {_STUDY: {"Value": [study]}, _SERIES: {"Value": [uid]}, **found}


def _client(peer: WebPeer, timeout: float) -> DICOMwebClient:
    return DICOMwebClient(peer.url, timeout=timeout)


def _pages(search: Any, **given: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """The answers to a search, page by page."""
    offset = 0
    while True:
        page = search(limit=_PAGE, offset=offset, **given)
        yield from page
        offset += len(page)
        if len(page) < _PAGE:
            return


def _value(found: dict[str, Any], tag: str) -> str | None:
    values = found.get(tag, {}).get("Value") or [None]
    return None if values[0] is None else str(values[0])
