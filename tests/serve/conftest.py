"""A project with a few small images, and a real server on the loopback address, without the worker."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests import helpers
from ultraad.serve.app import make_app
from ultraad.serve.desk import Desk
from ultraad.serve.guard import Keys


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return self.json["error"]["message"]


class Client:
    """A program that drives the server over HTTP, with the cookie of a browser that opened the printed address."""

    def __init__(self, address: str) -> None:
        found = re.fullmatch(r"http://([^/]+)/#code=([\w-]{43})", address)
        assert found is not None
        self.host, self.code = found[1], found[2]
        self.cookie = ""

    def enter(self) -> Client:
        answer = self.ask("POST", "/api/session", {"code": self.code})
        assert answer.status == 204
        self.cookie = answer.headers["set-cookie"].split(";")[0]
        return self

    def ask(
        self, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None, raw: Any = None
    ) -> Answer:
        sent = {"Cookie": self.cookie} if self.cookie else {}
        if body is not None:
            raw, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, path, raw, {**sent, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status == 200, answer.body
        return answer.json

    def post(self, path: str, body: object) -> Any:
        answer = self.ask("POST", path, body)
        assert answer.status in (200, 202), answer.body
        return answer.json

    def upload(self, batch: str, files: dict[str, bytes]) -> Answer:
        edge = "----------------edge"
        parts = [
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
            + data
            + b"\r\n"
            for name, data in files.items()
        ]
        raw = b"".join([*parts, f"--{edge}--\r\n".encode()])
        headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        return self.ask("POST", f"/api/uploads?batch={batch}", headers=headers, raw=raw)


def wait_for(done: Callable[[], Any], seconds: float = 60) -> Any:
    """What ``done`` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


class Running(uvicorn.Server):
    """A server in a thread."""

    def __init__(self, desk: Desk) -> None:
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        self.desk = desk
        port = self.listening.getsockname()[1]
        self.keys = Keys(port)
        hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
        app = make_app(desk, self.keys, hosts=hosts)
        super().__init__(uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="off"))
        self.thread = threading.Thread(target=self.run, kwargs={"sockets": [self.listening]}, daemon=True)
        self.thread.start()
        wait_for(lambda: self.started)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}/#code={self.keys.new_code()}"

    def end(self) -> None:
        self.desk.hub.close()
        self.should_exit = True
        self.thread.join()
        self.listening.close()


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with masks: 12 images, three classes."""
    return helpers.write_folder(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server on an empty project, shared by the tests of a module."""
    desk = Desk(tmp_path_factory.mktemp("serve") / "project", backbone="tiny")
    running = Running(desk)
    try:
        yield running
    finally:
        running.end()
        desk.close()


@pytest.fixture(scope="module")
def client(server: Running) -> Client:
    """A signed-in client."""
    return Client(server.address).enter()


@pytest.fixture(scope="module")
def images(client: Client, scans: Path) -> list[dict[str, Any]]:
    """The items of the project after the scans were imported, without marks."""
    number = client.post("/api/imports", {"path": str(scans), "use_marks": False})["number"]
    wait_for(lambda: next(i for i in client.get("/api/imports") if i["number"] == number)["state"] == "done")
    return client.get("/api/images?limit=1000")["items"]
