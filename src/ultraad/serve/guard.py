"""What a request must pass before the application sees it. Pure ASGI, so that streams pass through unbuffered.

    Host        one of our own names with our port: a page that rebinds its DNS name to 127.0.0.1 is refused
    Origin      our own, if there is one; "null" is refused; Sec-Fetch-Site must not be another site
    cookie      a 256-bit token, new at every start, for everything below /api
    body        limited by its declared and by its counted length
    answer      a strict Content-Security-Policy and its companions; no CORS header, so no other page can read it

The token never is in an address. The terminal shows a code in the fragment of the address, which browsers do not send;
the page posts it once and gets the token as an HttpOnly, SameSite=Strict cookie.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from threading import Lock
from typing import Any

from starlette.exceptions import HTTPException

from ultraad.errors import Caught
from ultraad.serve.child import where

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON_LIMIT = 1 << 20  # bytes of a request that carries no files
SESSION = "/api/session"
_METHODS = {"GET", "HEAD", "POST", "PATCH", "DELETE"}
_FROM_HERE = {"same-origin", "none"}  # none: typed by the user, or a bookmark
_CODES = 32  # unused codes that are valid at a time

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "font-src 'self'; media-src 'self' blob:; worker-src 'self'; manifest-src 'self'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}

KINDS = {
    400: "invalid",
    401: "unauthorised",
    403: "forbidden",
    404: "not_found",
    405: "forbidden",
    409: "conflict",
    413: "too_large",
    415: "invalid",
    421: "misdirected",
    422: "invalid",
    503: "not_ready",
    507: "full",
}
"""The word in an error's body for each status."""


class Keys:
    """The token of this start, and the one-time codes that are exchanged for it.

    Args:
        port: Part of the cookie's name, because browsers send a cookie to every port of a host.
    """

    def __init__(self, port: int) -> None:
        self.cookie = f"ultraad-{port}"
        self._lock = Lock()
        self._codes: list[str] = []
        self._token = secrets.token_urlsafe(32)

    def new_code(self) -> str:
        """A code that is valid once."""
        code = secrets.token_urlsafe(32)
        with self._lock:
            self._codes = [*self._codes[1 - _CODES :], code]
        return code

    def exchange(self, code: str) -> str | None:
        """The token for a valid code, which is used up; None for any other text."""
        with self._lock:
            found = [known for known in self._codes if secrets.compare_digest(known.encode(), code.encode())]
            self._codes = [known for known in self._codes if known not in found]
            return self._token if found else None

    def renew(self) -> None:
        """Make every cookie invalid."""
        with self._lock:
            self._token = secrets.token_urlsafe(32)

    def opens(self, cookies: str) -> bool:
        """Whether the value of a Cookie header holds the token."""
        try:
            morsel = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return False
        return morsel is not None and secrets.compare_digest(morsel.value.encode(), self._token.encode())


class Guard:
    """Refuses what is not from our page, and gives every answer its headers.

    Args:
        app: The application.
        keys: Tokens and codes.
        hosts: Values of the Host header that mean this server, with port.
        file_limit: Bytes of a request that may carry files.
        file_paths: Paths of these requests.
    """

    def __init__(
        self, app: App, *, keys: Keys, hosts: Iterable[str], file_limit: int, file_paths: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._keys = keys
        self._hosts = frozenset(hosts)
        self._origins = frozenset(f"http://{host}" for host in self._hosts)
        self._file_limit = file_limit
        self._file_paths = frozenset(file_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no WebSockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        refused = self._refusal(scope, headers)
        if refused is not None:
            await _refuse(send, *refused)
            return
        with Caught() as caught:  # the application has answered already, as far as it could
            await self._app(scope, self._counting(receive, self._limit(scope["path"])), _with_headers(send))
        if caught.error is not None:
            _log.error("a request failed: %s", where(caught.error))

    def _limit(self, path: str) -> int:
        return self._file_limit if path in self._file_paths else JSON_LIMIT

    def _refusal(self, scope: Scope, headers: dict[str, list[str]]) -> tuple[int, str] | None:
        """(status, message) if the request must not pass."""
        path: str = scope["path"]
        host = headers.get("host", [])
        if len(host) != 1 or host[0].lower() not in self._hosts:
            return 421, "this address is not the one in the terminal; use that one"
        if any(origin.lower() not in self._origins for origin in headers.get("origin", [])):
            return 403, "the request comes from another page; use the page that ultraad opened"
        opens_page = scope["method"] == "GET" and path == "/" and headers.get("sec-fetch-mode") == ["navigate"]
        if not opens_page and any(site not in _FROM_HERE for site in headers.get("sec-fetch-site", [])):
            return 403, "the request comes from another site; use the page that ultraad opened"
        if scope["method"] not in _METHODS:
            return 405, f"the method {scope['method'][:20]} is not used here"
        opens_session = path == SESSION and scope["method"] == "POST"
        if _is_api(path) and not opens_session and not self._keys.opens("; ".join(headers.get("cookie", []))):
            return 401, "this browser is not signed in; open the address that was printed last in the terminal"
        return self._refused_body(path, headers)

    def _refused_body(self, path: str, headers: dict[str, list[str]]) -> tuple[int, str] | None:
        lengths = headers.get("content-length", [])
        if len(lengths) > 1 or any(not n.isascii() or not n.isdigit() for n in lengths):
            return 400, "the length of the request is not a number"
        if lengths and int(lengths[0]) > self._limit(path):
            return 413, _too_large(self._limit(path))
        return None

    @staticmethod
    def _counting(receive: Receive, limit: int) -> Receive:
        """The body, until it is longer than allowed: a chunked body declares no length."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise HTTPException(413, _too_large(limit))
            return message

        return counted


def _is_api(path: str) -> bool:
    return path == "/api" or path.startswith("/api/")


def _too_large(limit: int) -> str:
    return f"the request is larger than {limit >> 20} MB; send less at a time"


def error_body(status: int, message: str, **more: object) -> bytes:
    """The body of every error; see :class:`ultraad.serve.schemas.Problem`."""
    return json.dumps({"error": {"kind": KINDS.get(status, "internal"), "message": message, **more}}).encode()


async def _refuse(send: Send, status: int, message: str) -> None:
    body = error_body(status, message)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": status, "headers": headers}
    guarded = _with_headers(send)
    await guarded(start)
    await guarded({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    """Adds the headers of :data:`_HEADERS` that the answer has not set itself."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message["headers"]}
            extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in own]
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return guarded
