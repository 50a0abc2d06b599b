"""The node beside a real PACS: Orthanc with its DICOMweb plug-in (Debian: orthanc, orthanc-dicomweb), started here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicomweb_client.web import DICOMwebClient

from tests.dicom.made import write_us
from tests.node.pacs import free_port
from tests.node.test_node import until
from tests.node.test_process import killed_often
from ultraad.model.adapt import zero_shot
from ultraad.node.intake import Door
from ultraad.node.node import Node, Setup
from ultraad.node.peers import Peer, WebPeer
from ultraad.node.send import Sender
from ultraad.node.web import WebWatch

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
pytestmark = [
    pytest.mark.skipif(
        (shutil.which("Orthanc") is None or not PLUGIN.exists()) and "CI" not in os.environ,  # CI installs it
        reason="needs Orthanc: apt-get install orthanc orthanc-dicomweb",
    ),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]
TODAY = f"{date.today():%Y%m%d}"


@dataclass(frozen=True)
class Orthanc:
    """A running one.

    Attributes:
        http: Its HTTP port.
        dicom: Its DICOM port.
        node: The port at which it looks for the node.
    """

    http: int
    dicom: int
    node: int

    @property
    def web(self) -> WebPeer:
        """Its DICOMweb service."""
        return WebPeer(f"http://127.0.0.1:{self.http}/dicom-web")

    def ask(self, path: str, content: bytes | None = None) -> object:
        """Its REST interface."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=content)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Orthanc on ports of its own, in a folder of its own; it refuses HTTP and DICOM from other machines."""
    with running(tmp_path) as found:
        yield found


@contextmanager
def running(tmp_path: Path, *words: str) -> Iterator[Orthanc]:
    """Orthanc, started with these words; its log is ``orthanc.log``."""
    found = Orthanc(free_port(), free_port(), free_port())
    settings = {
        "Name": "test",
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "HttpPort": found.http,
        "DicomPort": found.dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        "DicomAlwaysAllowStore": False,
        "DicomAlwaysAllowEcho": False,
        "DicomModalities": {"ultraad": ["ULTRAAD", "127.0.0.1", found.node]},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with (tmp_path / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            ["Orthanc", *words, str(tmp_path / "orthanc.json")], stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(lambda: process.poll() is not None or _answers(found), 60)
        assert process.poll() is None, (tmp_path / "orthanc.log").read_text()[-2000:]
        yield found
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _answers(orthanc: Orthanc) -> bool:
    try:
        return bool(orthanc.ask("/system"))
    except OSError:
        time.sleep(0.1)
        return False


def instances(orthanc: Orthanc, modality: str) -> list[dict]:
    """What QIDO-RS finds."""
    return DICOMwebClient(orthanc.web.url).search_for_instances(search_filters={"Modality": modality})


def retrieved(orthanc: Orthanc, found: dict) -> pydicom.Dataset:
    """What WADO-RS returns."""
    study, series, uid = (found[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    return DICOMwebClient(orthanc.web.url).retrieve_instance(
        study, series, uid, media_types=(("application/dicom", "*"),)
    )


def test_orthanc_sends_a_study_and_finds_the_results(orthanc: Orthanc, tmp_path: Path) -> None:
    still = write_us(tmp_path / "still.dcm", StudyDate=TODAY)
    cine = write_us(tmp_path / "cine.dcm", frames=3, StudyDate=TODAY)
    ids = [orthanc.ask("/instances", path.read_bytes())["ID"] for path in (cine, still)]
    peer = Peer("ORTHANC", "127.0.0.1", orthanc.dicom)
    door = Door("ULTRAAD", port=orthanc.node, allowed=("ORTHANC",), timeout=10)
    options = {"pixel_threshold": 0.4, "threshold": 0.0, "objects": ["seg", "sr", "pr", "sc", "ko"]}
    setup = Setup(tmp_path / "node", door, Sender("ULTRAAD", 10, None), peers=(peer,), options=options)
    with Node(zero_shot(backbone="tiny"), setup) as node:
        for _ in range(2):  # the second time, nothing is new
            assert orthanc.ask("/modalities/ultraad/store", json.dumps(ids).encode())["FailedInstancesCount"] == 0
            until(node.idle)
        assert node.queue.reasons() == {}
        sent = node.queue.counts()["objects sent"]
    kinds = {modality: instances(orthanc, modality) for modality in ("SEG", "SR", "PR", "KO", "US")}
    assert {modality: len(found) for modality, found in kinds.items()} == {"SEG": 2, "SR": 2, "PR": 2, "KO": 2, "US": 4}
    assert sent == sum(map(len, kinds.values())) - 2
    sources = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, (still, cine))}
    for found in kinds["SEG"]:
        segmentation = retrieved(orthanc, found)
        image = sources[segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID]
        assert segmentation.pixel_array.shape[-2:] == (image.Rows, image.Columns)
        assert np.any(segmentation.pixel_array)
    for found in kinds["SR"]:
        report = highdicom.sr.ComprehensiveSR.from_dataset(retrieved(orthanc, found))
        assert report.content.get_planar_roi_measurement_groups()[-1].tracking_identifier == "whole image"


def test_a_dicomweb_service_is_watched_and_gets_the_results(orthanc: Orthanc, tmp_path: Path) -> None:
    for name, day in (("today.dcm", TODAY), ("old.dcm", "20200101")):
        orthanc.ask("/instances", write_us(tmp_path / name, StudyDate=day).read_bytes())
    watch = WebWatch(orthanc.web, timeout=10)
    options = {"objects": ["sr", "sc"]}
    setup = Setup(
        tmp_path / "node", None, Sender("ULTRAAD", 10, None), peers=(orthanc.web,), watch=(watch,), options=options
    )
    model = zero_shot(backbone="tiny")
    for _ in range(2):  # a second start finds nothing new: not the image, nor its own picture
        with Node(model, setup) as node:
            until(node.idle)
            assert node.queue.reasons() == {}
            counts = node.queue.counts()
        assert counts["images done"] == 1
        assert counts["objects sent"] == 2
    assert len(instances(orthanc, "SR")) == 1
    assert len(instances(orthanc, "US")) == 3  # two images and one picture
    assert retrieved(orthanc, instances(orthanc, "SR")[0]).StudyDate == TODAY


@pytest.mark.slow
@pytest.mark.parametrize("kills", [10, 100])
def test_after_kills_orthanc_has_everything_once(tmp_path: Path, kills: int) -> None:
    with running(tmp_path, "--verbose") as orthanc:
        acknowledged = killed_often(tmp_path, Peer("ORTHANC", "127.0.0.1", orthanc.dicom), kills)
        reports = instances(orthanc, "SR")
        uids = [pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "node" / "jobs").glob("*/dicom/*-sr.dcm")]
    assert len(reports) == len(acknowledged)  # one report of each
    assert {found["00080018"]["Value"][0] for found in reports} >= set(uids)
    log = (tmp_path / "orthanc.log").read_text(errors="replace")
    assert log.count("New instance stored") == len(acknowledged)
    assert "Already stored" not in log  # what Orthanc says of an instance that comes again
