"""Who may talk to the server, and what it gives away to others: every check of the guard, over a real connection."""

from __future__ import annotations

import http.client
import logging
import socket
from contextlib import suppress

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from tests.serve.conftest import Client, Running
from ultraad.serve import guard
from ultraad.serve.guard import JSON_LIMIT, Keys, Message, Receive, Scope, Send
from ultraad.serve.routes import images, marks, models, project, session, voice

ROUTES = [
    (method, f"/api{route.path}")
    for module in (session, project, images, marks, models, voice)
    for route in module.router.routes
    if isinstance(route, APIRoute)
    for method in route.methods
]
PROTECTED = [r for r in ROUTES if r != ("POST", "/api/session")]


def filled(path: str) -> str:
    return path.replace("{image}", "0" * 16).replace("{frame}", "0").replace("{number}", "1")


@pytest.fixture
def stranger(client: Client) -> Client:
    """A client without a cookie."""
    other = Client(f"http://{client.host}/#code={'x' * 43}")
    other.cookie = ""
    return other


@pytest.mark.parametrize(("method", "path"), PROTECTED, ids=[f"{m} {p}" for m, p in PROTECTED])
def test_without_the_cookie_no_route_answers(stranger: Client, method: str, path: str) -> None:
    assert stranger.ask(method, filled(path), {}).status == 401


def test_there_are_routes() -> None:
    assert len(PROTECTED) > 30
    assert isinstance(FastAPI(), FastAPI)


def test_a_code_works_once(server: Running, stranger: Client) -> None:
    stranger.code = server.keys.new_code()
    assert stranger.ask("POST", "/api/session", {"code": stranger.code}).status == 204
    again = stranger.ask("POST", "/api/session", {"code": stranger.code})
    assert again.status == 401
    assert "used before" in again.message


def test_the_cookie_is_for_this_site_only_and_hidden_from_scripts(server: Running, stranger: Client) -> None:
    cookie = stranger.ask("POST", "/api/session", {"code": server.keys.new_code()}).headers["set-cookie"]
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert "domain" not in cookie.lower()
    port = server.listening.getsockname()[1]
    assert cookie.startswith(f"ultraad-{port}="), "cookies of other ports have other names"


def test_a_token_has_256_bits_and_is_new_at_every_start() -> None:
    tokens = {Keys(1).exchange(keys.new_code()) or keys.exchange(keys.new_code()) for keys in (Keys(1), Keys(1))}
    assert len(tokens) == 2
    assert all(token is not None and len(token) == 43 for token in tokens)  # 32 bytes in base 64


def test_signing_out_ends_every_session(server: Running) -> None:
    keys = Keys(5)
    token = keys.exchange(keys.new_code())
    assert keys.opens(f"ultraad-5={token}")
    keys.renew()
    assert not keys.opens(f"ultraad-5={token}")


def test_an_invitation_opens_a_second_browser(client: Client, stranger: Client) -> None:
    address = client.post("/api/session/invite", {})["address"]
    assert Client(address).enter().get("/api/project")["title"]


@pytest.mark.parametrize("cookie", ["", "ultraad-1=x", "a=b;;;=", "ultraad=\x7f"])
def test_a_wrong_cookie_opens_nothing(stranger: Client, cookie: str) -> None:
    stranger.cookie = cookie
    assert stranger.ask("GET", "/api/project").status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.:{port}"]
)
def test_another_host_name_is_refused(client: Client, host: str) -> None:
    port = client.host.rpartition(":")[2]
    for path in ("/api/project", "/"):
        assert client.ask("GET", path, headers={"Host": host.format(port=port)}).status == 421


def test_two_host_headers_are_refused(client: Client) -> None:
    name, port = client.host.split(":")
    with socket.create_connection((name, int(port))) as raw:
        lines = [
            f"GET /api/project HTTP/1.1\r\nHost: {client.host}",
            f"Host: {client.host}",
            f"Cookie: {client.cookie}",
        ]
        raw.sendall(("\r\n".join([*lines, "Connection: close", "", ""])).encode())
        with http.client.HTTPResponse(raw) as answer:
            answer.begin()
            assert answer.status in (400, 421)


def test_the_name_localhost_is_ours(client: Client) -> None:
    port = client.host.rpartition(":")[2]
    assert client.ask("GET", "/api/project", headers={"Host": f"localhost:{port}"}).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", ""]
)
def test_another_origin_is_refused(client: Client, origin: str) -> None:
    port = client.host.rpartition(":")[2]
    for method, path in (("POST", "/api/marks"), ("GET", "/api/project"), ("GET", "/")):
        assert client.ask(method, path, {}, headers={"Origin": origin.format(port=port)}).status == 403


def test_our_own_origin_passes(client: Client) -> None:
    assert client.ask("GET", "/api/project", headers={"Origin": f"http://{client.host}"}).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_may_link_to_the_page_and_nothing_else(client: Client, site: str) -> None:
    followed = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert client.ask("GET", "/", headers=followed).status == 200
    assert client.ask("GET", "/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}).status == 403
    assert client.ask("GET", "/api/project", headers=followed).status == 403
    assert client.ask("GET", "/page.js", headers={"Sec-Fetch-Site": site}).status == 403


@pytest.mark.parametrize("path", ["/", "/api/project", "/api/nothing", "/nothing"])
@pytest.mark.parametrize("known", [True, False])
def test_every_answer_has_the_headers(client: Client, stranger: Client, path: str, known: bool) -> None:
    headers = (client if known else stranger).ask("GET", path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert not any(name.startswith("access-control") for name in headers)


def test_a_preflight_gets_no_permission(client: Client) -> None:
    asked = {"Origin": f"http://{client.host}", "Access-Control-Request-Method": "POST"}
    answer = client.ask("OPTIONS", "/api/marks", headers=asked)
    assert answer.status == 405
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_body_is_limited_by_its_declared_length(client: Client) -> None:
    answer = client.ask("POST", "/api/marks", raw=b" " * (JSON_LIMIT + 1), headers={"Content-Type": "application/json"})
    assert answer.status == 413
    assert "1 MB" in answer.message


def test_a_body_without_a_length_is_limited_by_counting(client: Client) -> None:
    def chunks():
        for _ in range(3 * JSON_LIMIT // 65536):
            yield b" " * 65536

    connection = http.client.HTTPConnection(client.host)
    headers = {"Cookie": client.cookie, "Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # the server may close while we are still sending
            connection.request("POST", "/api/marks", chunks(), headers, encode_chunked=True)
            with connection.getresponse() as answer:
                assert answer.status == 413
    finally:
        connection.close()
    assert client.ask("GET", "/api/project").status == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "٣", "1, 1"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    refused = guard.Guard(None, keys=Keys(1), hosts=["h"], file_limit=1)._refused_body(
        "/", {"content-length": [length]}
    )
    assert refused is not None
    assert refused[0] == 400


def test_a_websocket_never_reaches_the_application() -> None:
    """The server speaks none; if it did, the guard would close it, even with the right cookie and origin."""
    reached: list[Scope] = []
    answers: list[Message] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        reached.append(scope)

    async def send(message: Message) -> None:
        answers.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    keys = Keys(1)
    cookie = f"ultraad-1={keys.exchange(keys.new_code())}".encode()
    headers = [(b"host", b"h"), (b"origin", b"http://h"), (b"cookie", cookie)]
    guarded = guard.Guard(app, keys=keys, hosts=["h"], file_limit=1)
    with suppress(StopIteration):  # nothing in it waits, so that it needs no loop
        guarded({"type": "websocket", "path": "/api/events", "headers": headers}, receive, send).send(None)
    assert (reached, answers) == ([], [{"type": "websocket.close", "code": 1008}])
    with suppress(StopIteration):  # the same as a request for a file reaches it
        scope = {"type": "http", "method": "GET", "path": "/page.js", "headers": headers}
        guarded(scope, receive, send).send(None)
    assert [scope["type"] for scope in reached] == ["http"]


def test_an_upgrade_is_no_way_around_the_guard(stranger: Client) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    assert stranger.ask("GET", "/api/events", headers=upgrade).status == 401


def test_the_description_of_the_api_is_off(client: Client) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/api/openapi.json"):
        assert client.ask("GET", path).status == 404


def test_the_stream_of_events_needs_the_cookie_too(stranger: Client) -> None:
    assert stranger.ask("GET", "/api/events").status == 401


def test_an_error_names_no_path_and_no_secret(
    server: Running, client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        msg = f"{server.desk.project.folder}/Doe^Jane.dcm"
        raise RuntimeError(msg)

    monkeypatch.setattr(server.desk, "info", fail)
    with caplog.at_level(logging.DEBUG, logger="ultraad"):
        answer = client.ask("GET", "/api/project")
    assert answer.status == 500
    assert answer.json["error"]["kind"] == "internal"
    for text in (answer.body.decode(), caplog.text):
        assert "Doe" not in text
        assert str(server.desk.project.folder) not in text
        assert client.cookie.partition("=")[2] not in text


def test_files_of_the_page_are_named_one_by_one(client: Client) -> None:
    for path in ("/../app.py", "/..%2fapp.py", "/%2e%2e/guard.py", "//etc/passwd", "/static/index.html"):
        assert client.ask("GET", path).status == 404
