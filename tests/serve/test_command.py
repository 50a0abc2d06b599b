"""``ultraad serve``: the address, the project, the end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import helpers
from tests.serve.conftest import Client, wait_for
from ultraad.cli.serve import _places
from ultraad.errors import BundleError, ConfigError
from ultraad.serve.database import FILE
from ultraad.serve.server import LOCAL, Settings, _hosts, listen, serve


@contextmanager
def serving(*words: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A server in its own process, and the lines it printed until the page could be opened."""
    command = [sys.executable, "-m", "ultraad.cli", "serve", *words, "--no-browser", "--backbone", "tiny"]
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            if "code=" in line:
                break
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def test_the_printed_address_opens_the_project_once(tmp_path: Path, scans: Path) -> None:
    with serving(str(scans), "--project", str(tmp_path / "p")) as (process, lines):
        address = lines[-1].removeprefix("open once: ")
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#code=[\w-]{43}", address)
        client = Client(address).enter()
        assert wait_for(lambda: client.get("/api/project")["images"]) > 0
        assert Client(address).ask("POST", "/api/session", {"code": client.code}).status == 401
        second = subprocess.run(
            [sys.executable, "-m", "ultraad.cli", "serve", "--project", str(tmp_path / "p"), "--no-browser"],
            capture_output=True,
            text=True,
        )
        assert second.returncode == 1
        assert "another run is writing" in second.stderr
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
        assert client.cookie.partition("=")[2] not in output + errors
        assert "Traceback" not in errors


def test_the_project_is_beside_the_folder_by_default(tmp_path: Path) -> None:
    assert _places(tmp_path / "scans", None) == (tmp_path / "scans", tmp_path / "scans-ultraad")
    assert _places(None, None) == (None, Path("ultraad-project"))
    assert _places(tmp_path, tmp_path / "p") == (tmp_path, tmp_path / "p")
    (tmp_path / FILE).touch()
    assert _places(tmp_path, None) == (None, tmp_path)


def test_a_taken_port_is_an_error_if_it_was_asked_for_and_another_one_if_not(tmp_path: Path) -> None:
    first = listen(LOCAL, Settings(tmp_path).ports(None))
    try:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match="choose another --port"):
            listen(LOCAL, Settings(tmp_path, port=port).ports(None))
        other = listen(LOCAL, Settings(tmp_path).ports(port))
        assert other.getsockname()[1] != port
        other.close()
    finally:
        first.close()


def test_answers_are_sent_at_once(tmp_path: Path) -> None:
    """Without TCP_NODELAY each answer waits 40 ms for a delayed acknowledgement."""
    with listen(LOCAL, Settings(tmp_path).ports(None)) as listening:
        assert listening.proto == socket.IPPROTO_TCP, "asyncio sets TCP_NODELAY on such sockets only"


def test_only_loopback_addresses_are_local(tmp_path: Path) -> None:
    def local(host: str) -> bool:
        return Settings(tmp_path, host=host).local

    assert [local(h) for h in ("127.0.0.1", "localhost", "::1", "127.0.0.2")] == [True] * 4
    assert [local(h) for h in ("0.0.0.0", "192.168.0.3", "::", "example.org")] == [False] * 4


def test_the_host_names_that_pass_are_those_of_the_address(tmp_path: Path) -> None:
    assert _hosts(Settings(tmp_path), 80) == ["127.0.0.1:80", "localhost:80", "[::1]:80"]
    assert _hosts(Settings(tmp_path, host="192.168.0.3"), 80)[0] == "192.168.0.3:80"
    assert "0.0.0.0:80" not in _hosts(Settings(tmp_path, host="0.0.0.0"), 80)


def listening(port: int) -> set[str]:
    """The addresses that this machine listens on at a port, as the kernel lists them; IPv4 in dotted form."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, number = line.split()[1].split(":")
            if int(number, 16) == port and line.split()[3] == "0A":  # LISTEN
                parts = bytes.fromhex(address)
                found.add(".".join(map(str, parts[::-1])) if table == "tcp" else address)
    return found


def port_of(line: str) -> int:
    found = re.search(r":(\d+)/#code=", line)
    assert found is not None
    return int(found[1])


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="asks the kernel of Linux")
def test_the_server_listens_on_this_machine_alone(tmp_path: Path) -> None:
    with serving("--project", str(tmp_path / "p")) as (_, lines):
        assert listening(port_of(lines[-1])) == {"127.0.0.1"}


def test_another_address_than_loopback_prints_a_warning_and_still_wants_the_cookie(tmp_path: Path) -> None:
    with serving("--project", str(tmp_path / "p"), "--host", "0.0.0.0") as (process, lines):
        port = port_of(lines[-1])
        if Path("/proc/net/tcp").exists():
            assert listening(port) == {"0.0.0.0"}
        stranger = Client(f"http://127.0.0.1:{port}/#code={'x' * 43}")
        assert stranger.ask("GET", "/api/project").status == 401
        assert stranger.ask("POST", "/api/session", {"code": stranger.code}).status == 401
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert "other machines can connect" in errors


def test_nothing_of_a_patient_is_on_the_screen_of_the_server(tmp_path: Path) -> None:
    """Neither names in headers nor names of files, also of files that cannot be read."""
    folder = tmp_path / "scans"
    helpers.write_dicom(folder / "Doe^Jane.dcm", patient="SECRET-1")
    (folder / "Roe^Mary.dcm").write_bytes((folder / "Doe^Jane.dcm").read_bytes()[:700])
    (folder / "Poe^Anne.png").write_bytes(b"no picture")
    with serving(str(folder), "--project", str(tmp_path / "p")) as (process, lines):
        client = Client(lines[-1].removeprefix("open once: ")).enter()
        wait_for(lambda: client.get("/api/project")["images"] == 3)
        for item in client.get("/api/images")["items"]:
            client.ask("GET", f"/api/images/{item['id']}/frames/0")
            client.ask("GET", f"/api/images/{item['id']}/frames/7/marks")
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
        said = "".join([*lines, output, errors])
        assert not [name for name in ("Doe", "Jane", "Roe", "Mary", "Poe", "Anne", "SECRET") if name in said]


def test_a_model_that_is_none_is_told_before_the_page_is_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(BundleError, match="model is not a model"):
        serve(Settings(tmp_path / "p", model=tmp_path / "model"), ready=lambda _: pytest.fail("it has started"))
    assert not (tmp_path / "p").exists()
