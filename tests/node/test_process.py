"""The command: kill -9 at any moment, a stop by signal, TLS."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest

from tests.node.pacs import Pacs, Scanner, free_port, images
from tests.node.test_node import until
from ultraad.model.adapt import zero_shot
from ultraad.node.intake import Door
from ultraad.node.node import Node, Setup
from ultraad.node.peers import Peer, client_tls, server_tls
from ultraad.node.send import Sender

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


def start(folder: Path, port: int, peer: Peer, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "ultraad.cli", "node", "zero-shot", "--backbone", "tiny", "--folder", str(folder)]
    words += ["--port", str(port), "--store", peer.name, "--objects", "sr", "--timeout", "5", *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def listening(port: int, process: subprocess.Popen[str], seconds: float = 300) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def killed_often(folder: Path, peer: Peer, kills: int) -> set[str]:
    """Send images to a node that is killed so often, until nothing waits any more: the UIDs that it acknowledged."""
    rng, port, acknowledged = random.Random(0), free_port(), set()
    waiting = images(folder / "in", 2 * kills)
    for _ in range(kills):
        process = start(folder / "node", port, peer)
        assert listening(port, process), process.communicate()[0]
        batch = waiting[:3]
        for path, status in zip(batch, Scanner(port).send(*batch), strict=True):
            if status == 0:
                acknowledged.add(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID))
                waiting.remove(path)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        process.communicate()
    process = start(folder / "node", port, peer, "--once", "--keep")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert f"images done: {len(acknowledged)}" in said
    return acknowledged


@pytest.mark.slow
def test_after_kills_at_any_moment_nothing_is_lost_and_nothing_is_stored_twice(tmp_path: Path) -> None:
    with Pacs() as pacs:
        acknowledged = killed_often(tmp_path, pacs.peer, 100)
        assert len(pacs.got) == len(acknowledged)  # one report of each
        assert {len(came) for came in pacs.got.values()} == {1}


def test_sigterm_stops_a_node_in_order(tmp_path: Path) -> None:
    port = free_port()
    with Pacs() as pacs:
        process = start(tmp_path / "node", port, pacs.peer)
        assert listening(port, process), process.communicate()[0]
        audit = tmp_path / "node" / "audit.jsonl"
        until(lambda: audit.exists() and '"started"' in audit.read_text())
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "stopped" in said
    assert '"what": "stopped"' in audit.read_text()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates of this test")
def test_tls_lets_in_who_has_a_certificate_and_nobody_else(tmp_path: Path) -> None:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=tmp_path)

    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    for name in ("node", "other"):
        key = ["-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        openssl("req", "-x509", "-days", "2", *key, *subject)
    mine, key = tmp_path / "node.pem", tmp_path / "node.key"
    (image,) = images(tmp_path / "in", 1)
    door = Door("ULTRAAD", port=0, timeout=5, tls=server_tls(mine, key, mine))
    with Node(zero_shot(backbone="tiny"), Setup(tmp_path / "node", door, Sender("ULTRAAD", 5, None))) as node:
        assert Scanner(node.port, tls=(client_tls(mine, key, mine), "127.0.0.1")).send(image) == [0]
        assert Scanner(node.port).echo() is None  # without TLS
        stranger = ssl.create_default_context(cafile=mine)
        stranger.load_cert_chain(tmp_path / "other.pem", tmp_path / "other.key")
        assert Scanner(node.port, tls=(stranger, "127.0.0.1")).echo() is None
    assert Peer("P", "h", 1, tls=True).name == "tls:P@h:1"
