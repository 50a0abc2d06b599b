"""A small server of the S3 protocol: what a client needs to list and read. Signatures are not checked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

KEY, SECRET = "AKIAEXAMPLEEXAMPLE", "a-secret-that-nobody-may-see"


class Store(ThreadingHTTPServer):
    """Buckets that are folders on the disk.

    Args:
        root: Folder of the buckets.
        page: Most entries of an answer to ListObjectsV2.
    """

    daemon_threads = True

    def __init__(self, root: Path, *, page: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.page = root, page
        self.read: list[str] = []  # "bucket/key" of each object that was read
        self.pages = 0

    @property
    def query(self) -> str:
        """What the URL of an object needs to be looked for here."""
        return f"?endpoint_override=127.0.0.1:{self.server_port}&scheme=http&region=us-east-1"

    @contextmanager
    def running(self) -> Iterator[Store]:
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        asked = urlsplit(self.path)
        bucket, _, key = unquote(asked.path).lstrip("/").partition("/")
        if f"Credential={KEY}/" not in self.headers.get("Authorization", ""):
            self._fault(403, "InvalidAccessKeyId")
        elif not (self.server.root / bucket).is_dir():
            self._fault(404, "NoSuchBucket")
        elif key:
            self._object(f"{bucket}/{key}")
        elif self.command == "HEAD":
            self._send(200, b"")
        else:
            self._list(bucket, {name: values[0] for name, values in parse_qs(asked.query).items()})

    def _object(self, name: str) -> None:
        path = self.server.root / name
        if not path.is_file():
            self._fault(404, "NoSuchKey")
            return
        content, status = path.read_bytes(), 200
        more = {"Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        if self.command == "GET":
            self.server.read.append(name)
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1 if last else len(content), len(content))
            more["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
            content, status = content[int(first) : end], 206
        self._send(status, content, kind="application/octet-stream", more=more)

    def _list(self, bucket: str, asked: dict[str, str]) -> None:
        """A page of ListObjectsV2 with a delimiter: keys and common prefixes in the order of their names."""
        root, prefix = self.server.root / bucket, asked.get("prefix", "")
        keys = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        below = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
        names = list(dict.fromkeys(f"{name.split('/')[0]}/" if "/" in name else name for name in below))
        after = int(asked.get("continuation-token", "0"))
        end = after + min(self.server.page, int(asked["max-keys"]))
        self.server.pages += 1
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < len(names) else ""
        body = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}"
        for name in names[after:end]:
            full = escape(prefix + name)
            if name.endswith("/"):
                body += f"<CommonPrefixes><Prefix>{full}</Prefix></CommonPrefixes>"
            else:
                stat = (root / f"{prefix}{name}").stat()
                when = f"{datetime.fromtimestamp(stat.st_mtime, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3]
                when = f"<LastModified>{when}Z</LastModified>"
                body += f"<Contents><Key>{full}</Key>{when}<Size>{stat.st_size}</Size></Contents>"
        self._send(200, f"<?xml version='1.0'?><ListBucketResult>{body}</ListBucketResult>".encode())

    def _fault(self, status: int, code: str) -> None:
        self._send(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def _send(
        self, status: int, body: bytes, *, kind: str = "application/xml", more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        dated = {"Last-Modified": formatdate(0, usegmt=True), "ETag": '"0"', "Content-Type": kind}
        for name, value in {**dated, "Content-Length": str(len(body)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def serving(buckets: Path) -> Iterator[Store]:
    """A running store of these buckets, and its credentials in the environment."""
    with pytest.MonkeyPatch.context() as patch, Store(buckets, page=3).running() as running:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield running


def url(bucket_and_key: str) -> str:
    """The URL of an object, without the query."""
    return f"s3://{quote(bucket_and_key)}"
