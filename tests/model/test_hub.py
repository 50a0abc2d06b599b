"""Models on a hub: against a server that speaks what huggingface_hub asks for, for small files."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ultraad.cli import main
from ultraad.errors import BundleError
from ultraad.model.hub import Address, address, pull, push
from ultraad.model.model import load


class Hub:
    """Repositories in memory: {name: [(commit, {file: bytes})]}, and who may see them."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: dict[str, bool] = {}
        self.tokens: set[str] = set()

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        made = self.commits.get(name, [])
        return made[-1] if made and revision == "main" else next((c for c in made if c[0] == revision), None)

    def commit(self, name: str, lines: list[dict[str, dict[str, str]]]) -> str:
        files = dict(self.commits[name][-1][1]) if self.commits[name] else {}
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = hashlib.sha1(f"{name}{len(self.commits[name])}".encode()).hexdigest()
        self.commits[name].append((commit, files))
        return commit


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""

    def answer(self, body: object, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        parts = self.path.partition("?")[0].strip("/").split("/")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            known = name in self.hub.commits
            self.hub.commits.setdefault(name, [])
            self.hub.private.setdefault(name, asked.get("private") or asked.get("visibility") == "private")
            self.answer({"url": f"http://{self.headers['Host']}/{name}"}, 409 if known else 200)
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif parts[4] == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        else:
            name = "/".join(parts[2:4])
            commit = self.hub.commit(name, [json.loads(line) for line in body.splitlines()])
            url = f"http://{self.headers['Host']}/{name}/commit/{commit}"
            self.answer({"success": True, "commitOid": commit, "commitUrl": url})

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            name, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            found = self.hub.files(name, revision)
            if found is None:
                self.answer({"error": "not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
            else:
                siblings = [{"rfilename": file} for file in sorted(found[1])]
                self.answer({"id": name, "sha": found[0], "siblings": siblings})
            return
        found = self.hub.files("/".join(parts[:2]), parts[3])
        assert found
        data = found[1][parts[4]]
        self.answer(data, **{"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": found[0]})

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    made = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Handler,), {"hub": made}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    import huggingface_hub.constants as settings

    here = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(settings, "ENDPOINT", here)  # of HF_ENDPOINT, which is read when the package is imported
    monkeypatch.setattr(settings, "HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(settings, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def saved(folder_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(folder_bundle, tmp_path_factory.mktemp("hub") / "model")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}


def test_a_pulled_model_is_the_model(hub: Hub, saved: Path, tmp_path: Path) -> None:
    sent = push(saved, address("hub:clinic/breast"))
    assert pull(address("hub:clinic/breast"), tmp_path / "again") == sent
    assert content(tmp_path / "again") == content(saved)
    assert load(tmp_path / "again").digest == load(saved).digest
    assert hub.private == {"clinic/breast": True}, "a new repository is private"
    assert hub.tokens == {"Bearer hf_secret"}


def test_the_card_has_metadata_once(hub: Hub, saved: Path, tmp_path: Path) -> None:
    push(saved, Address("clinic/breast", None), public=True, licence="cc-by-4.0")
    pull(Address("clinic/breast", None), tmp_path / "again")
    push(tmp_path / "again", Address("clinic/breast", None), licence="mit")
    card = hub.commits["clinic/breast"][-1][1]["README.md"].decode()
    assert card.startswith("---\n")
    assert card.count("library_name: ultraad") == 1
    assert "license: mit" in card
    assert card.endswith((saved / "README.md").read_text(encoding="utf-8"))
    assert hub.private == {"clinic/breast": False}


def test_only_the_files_of_the_model_are_sent_and_fetched(hub: Hub, saved: Path, tmp_path: Path) -> None:
    (saved / "patients.csv").write_text("mine", encoding="utf-8")
    try:
        push(saved, Address("clinic/breast", None))
    finally:
        (saved / "patients.csv").unlink()
    files = hub.commits["clinic/breast"][-1][1]
    assert "patients.csv" not in files
    files["virus.py"] = b"import os"
    pull(Address("clinic/breast", None), tmp_path / "again")
    assert not (tmp_path / "again" / "virus.py").exists()


def test_a_revision_is_that_revision(hub: Hub, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = push(saved, Address("clinic/breast", None))
    push(saved, Address("clinic/breast", None))
    hub.commits["clinic/breast"][-1][1]["config.json"] = b"{}"
    with pytest.raises(SystemExit) as done:
        main(["pull", str(first), str(tmp_path / "again")])
    assert not done.value.code
    assert f"pulled {first} to" in capsys.readouterr().out
    assert content(tmp_path / "again") == content(saved)


def test_a_file_that_was_changed_on_the_hub_is_refused(hub: Hub, saved: Path, tmp_path: Path) -> None:
    sent = push(saved, Address("clinic/breast", None))
    hub.commits["clinic/breast"][-1][1]["adapter.safetensors"] += b"x"
    with pytest.raises(BundleError, match=r"adapter.safetensors is damaged: sha256"):
        pull(sent, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_is_not_there_or_no_model_is_said(hub: Hub, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot use hub:clinic/other: .*404.*Check the name"):
        pull(address("hub:clinic/other"), tmp_path / "x")
    hub.commits["clinic/text"] = [("1" * 40, {"README.md": b"hello"})]
    with pytest.raises(BundleError, match=r"no model of ultraad"):
        pull(address("hub:clinic/text"), tmp_path / "x")
    for text in ("clinic/breast", "hub:breast", "hub:../x", "hub:a/b@", "hub:a/b/c"):
        with pytest.raises(BundleError, match=r"wanted hub:OWNER/NAME"):
            address(text)
    with pytest.raises(BundleError, match=r"a push makes the newest revision"):
        push(saved, address("hub:clinic/breast@v1"))
    with pytest.raises(BundleError, match=r"exists and is not empty"):
        pull(address("hub:clinic/breast"), saved)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as settings

    with socket.socket() as free:  # nothing listens there
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(settings, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with pytest.raises(BundleError, match=r"cannot use hub:a/b: .*Check the name, the network, and the token"):
            pull(Address("a/b", None), tmp_path / "new")
    assert not (tmp_path / "new").exists()
