"""Addresses of other nodes, and the certificates for TLS."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ultraad.errors import ConfigError

_ADDRESS = re.compile(r"(?P<tls>tls:)?(?P<aet>[^@:]+)@(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]@:]+):(?P<port>\d{1,5})")
_AET = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")  # PS3.5 6.2: no backslash, no control characters


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node.

    Attributes:
        aet: Its AE title.
        host: Its name or address.
        port: Its port.
        tls: Whether to connect with TLS.
    """

    aet: str
    host: str
    port: int
    tls: bool = False

    @property
    def name(self) -> str:
        """As it is given on the command line."""
        return f"{'tls:' if self.tls else ''}{self.aet}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class WebPeer:
    """A DICOMweb service.

    Attributes:
        url: Its address, without the part for a service.
    """

    url: str

    @property
    def name(self) -> str:
        """As it is given on the command line."""
        return self.url


def peer_of(text: str) -> Peer | WebPeer:
    """``"AET@HOST:PORT"``, with ``"tls:"`` before it for TLS; or the URL of a DICOMweb service.

    Raises:
        ConfigError: If it is none.
    """
    if text.strip().lower().startswith(("http://", "https://")):
        return web_peer_of(text)
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or not 0 < int(found["port"]) < 2**16:
        msg = (
            f"{text!r} is no address of a node; wanted AET@HOST:PORT, e.g. PACS@10.0.0.5:104, tls:AET@HOST:PORT, or "
            "the URL of a DICOMweb service"
        )
        raise ConfigError(msg)
    return Peer(checked_aet(found["aet"]), found["host"].strip("[]"), int(found["port"]), tls=found["tls"] is not None)


def web_peer_of(text: str) -> WebPeer:
    """The URL of a DICOMweb service.

    Raises:
        ConfigError: If it is none, or holds a password, which would end up in logs.
    """
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable or "@" in parts.netloc:
        msg = (
            f"{text.rpartition('@')[2]!r} is no usable URL of a DICOMweb service; wanted http(s)://HOST[:PORT]/PATH "
            "without user and password (those belong into ~/.netrc)"
        )
        raise ConfigError(msg)
    return WebPeer(text.strip().rstrip("/"))


def checked_aet(text: str) -> str:
    """An AE title.

    Raises:
        ConfigError: If it is none.
    """
    if not _AET.fullmatch(text) or not text.strip():
        msg = f"{text!r} is no AE title; wanted 1 to 16 characters of ASCII without backslash"
        raise ConfigError(msg)
    return text.strip()


def server_tls(certificate: Path, key: Path, authority: Path | None) -> ssl.SSLContext:
    """TLS for those who connect to this node; with an authority, they must show a certificate of it.

    Raises:
        ConfigError: If a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _loaded(context, certificate, key, authority)


def client_tls(certificate: Path | None, key: Path | None, authority: Path | None) -> ssl.SSLContext:
    """TLS towards peers, whose certificates and names are checked; this node's own certificate is shown if given.

    Raises:
        ConfigError: If a file cannot be used.
    """
    context = ssl.create_default_context()
    return _loaded(context, certificate, key, authority)


def _loaded(
    context: ssl.SSLContext, certificate: Path | None, key: Path | None, authority: Path | None
) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # PS3.15 B.12, the BCP 195 profile
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        if authority is not None:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as e:
        msg = f"the certificates {certificate}, {key}, {authority} cannot be used: {e}; wanted PEM files that fit"
        raise ConfigError(msg) from e
    return context
