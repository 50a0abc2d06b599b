"""Small videos whose frames say their number, and a camera of the network."""

from __future__ import annotations

import http.server
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

H264, HEVC10, UNEVEN = (
    Path(__file__).parent / "robustness" / "videos" / f"{n}.mp4" for n in ("h264", "hevc10", "uneven")
)
"""48, 12 and 20 frames of :func:`numbered`, made by libx264 (a key frame every 12, B frames), libx265 (10 bits) and
libx264 (0.34 s instead of 0.04 s after every fifth frame), which OpenCV cannot write."""


def numbered(i: int, *, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """uint8 (h w 3): grey 40 + 4 i with a bright square that moves."""
    h, w = size
    image = np.full((h, w, 3), 40 + 4 * (i % 48), np.uint8)
    x = 3 * i % (w - 16)
    image[h // 3 : h // 3 + 16, x : x + 16] = 220
    return image


def number_of(image: np.ndarray) -> int:
    """The number, modulo 48, that the green of a frame says, which loses up to two levels on its way."""
    return round((float(image[:8, :, 1].mean()) - 39.2) / 4)


def write_video(path: Path, frames: int = 12, *, codec: str = "MJPG", size: tuple[int, int] = (48, 64)) -> Path:
    """A video of 25 frames a second; each frame of MJPG stands alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25, size[::-1])
    assert writer.isOpened()
    for i in range(frames):
        writer.write(numbered(i, size=size))
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    """All frames of a video, red first, as OpenCV reads them in this process."""
    capture, found = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (grabbed := capture.read())[0]:
        found.append(grabbed[1][..., ::-1])
    return found


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def mp4_that_claims(frames: int, *, size: tuple[int, int] = (48, 64), codec: bytes = b"mp4v") -> bytes:
    """An MP4 file whose header is whole and tells of so many frames of one byte; it holds 64 bytes of pixels."""
    (h, w), long = size, min(frames * 1000, 2**32 - 1)
    unity = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    entry = (
        struct.pack(">I", 86) + codec + bytes(6) + b"\0\1" + bytes(16) + struct.pack(">HHII", w, h, 72 << 16, 72 << 16)
    )
    entry += bytes(4) + b"\0\1" + bytes(32) + b"\0\x18\xff\xff"
    tables = (
        _box(b"stsd", bytes(4), struct.pack(">I", 1), entry),
        _box(b"stts", bytes(4), struct.pack(">III", 1, frames, 1000)),
        _box(b"stsc", bytes(4), struct.pack(">IIII", 1, 1, frames, 1)),
        _box(b"stsz", bytes(4), struct.pack(">II", 1, frames)),
        _box(b"stco", bytes(4), struct.pack(">II", 1, 700)),
    )
    source = _box(b"dinf", _box(b"dref", bytes(4), struct.pack(">I", 1), _box(b"url ", b"\0\0\0\1")))
    media = _box(
        b"mdia",
        _box(b"mdhd", bytes(4), struct.pack(">IIII", 0, 0, 25000, long), b"\x55\xc4\0\0"),
        _box(b"hdlr", bytes(8), b"vide", bytes(12), b"v\0"),
        _box(b"minf", _box(b"vmhd", b"\0\0\0\1", bytes(8)), source, _box(b"stbl", *tables)),
    )
    track = struct.pack(">IIIII", 0, 0, 1, 0, long) + bytes(16) + unity + struct.pack(">II", w << 16, h << 16)
    movie = struct.pack(">IIIII", 0, 0, 25000, long, 0x10000) + b"\1\0" + bytes(10) + unity + bytes(24) + b"\0\0\0\2"
    trak = _box(b"trak", _box(b"tkhd", b"\0\0\0\7", track), media)
    ftyp = _box(b"ftyp", b"isom\0\0\2\0isommp41")
    return ftyp + _box(b"moov", _box(b"mvhd", bytes(4), movie), trak) + _box(b"mdat", bytes(64))


def turned(path: Path, out: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The same MP4 with another matrix of display: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 0x40000000)
    out.write_bytes(data)
    return out


@contextmanager
def camera(frames: int | None, *, rate: float = 50.0) -> Iterator[str]:
    """The URL of a camera that sends JPEG pictures over HTTP, as cameras of the network do; None: without end."""
    pictures = [cv2.imencode(".jpg", numbered(i))[1].tobytes() for i in range(48)]

    class Camera(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            number = 0
            try:
                while number != frames:
                    data = pictures[number % len(pictures)]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
                    number += 1
                    time.sleep(1 / rate)
            except OSError:
                return  # nobody looks any more

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live"
    finally:
        server.shutdown()
        server.server_close()
