"""Our objects in a real viewer: OHIF over Orthanc in a headless Chromium. Fetches OHIF from npm: run with -m slow."""

from __future__ import annotations

import json
import mimetypes
import re
import shutil
import subprocess
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.dicom.made import ellipse, region, run_of, write_us
from tests.node.test_orthanc import Orthanc, pytestmark
from tests.node.test_orthanc import orthanc as orthanc
from ultraad.dicom.saving import write_objects
from ultraad.simulate import simulate

OHIF = "@ohif/app@3.13.2"
SIZE = 256
BEST = 5  # frame of the highest score
CONFIG = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "strictZSpacingForVolumeViewport": True,
    "defaultDataSourceName": "dicomweb",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "dicomweb",
            "configuration": {
                "friendlyName": "test",
                "name": "test",
                "wadoUriRoot": "/wado",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}
pytestmark = [
    *pytestmark,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("npm") is None or shutil.which("chromium") is None, reason="npm or chromium is not installed"
    ),
]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of OHIF."""
    return fetched(tmp_path_factory.mktemp("ohif"))


def fetched(folder: Path) -> Path:
    """The files of OHIF, from npm into a folder."""
    subprocess.run(["npm", "pack", "--silent", OHIF], cwd=folder, check=True, capture_output=True, timeout=300)
    (packed,) = folder.glob("*.tgz")
    with tarfile.open(packed) as content:
        content.extractall(folder, filter="data")
    return folder / "package" / "dist"


def serve(root: Path, orthanc: Orthanc) -> ThreadingHTTPServer:
    """OHIF, with Orthanc behind /dicom-web."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            status, kind = 200, "text/javascript"
            path = self.path.partition("?")[0].lstrip("/")
            if self.path.startswith("/dicom-web/"):
                status, kind, content = self._ask()
            elif path == "app-config.js":
                content = f"window.config = {json.dumps(CONFIG)};".encode()
            else:
                file = root / path
                file = file if path and file.is_file() else root / "index.html"
                content = file.read_bytes()
                kind = "application/wasm" if file.suffix == ".wasm" else mimetypes.guess_type(file)[0] or "text/plain"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(content)

        def _ask(self) -> tuple[int, str, bytes]:
            accept = {"Accept": self.headers.get("Accept", "*/*")}
            request = urllib.request.Request(f"http://127.0.0.1:{orthanc.http}{self.path}", headers=accept)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, answer.headers.get("Content-Type", ""), answer.read()
            except urllib.error.HTTPError as e:
                return e.code, "text/plain", e.read()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def opened(viewer: Path, orthanc: Orthanc, tmp_path: Path) -> Iterator[tuple[object, str]]:
    """As :func:`study`."""
    with study(viewer, orthanc, tmp_path) as found:
        yield found


@contextmanager
def study(viewer: Path, orthanc: Orthanc, tmp_path: Path) -> Iterator[tuple[object, str]]:
    """(a browser, the address of a study): a simulated cine with a lesion that moves, and its objects."""
    playwright = pytest.importorskip("playwright.sync_api")
    phantom = simulate(3, size=SIZE)
    cine = write_us(
        tmp_path / "cine.dcm", frames=10, size=(SIZE, SIZE), regions=[region((0, 0, SIZE, SIZE), (0.1, 0.1))]
    )
    ds = pydicom.dcmread(cine)
    ds.PixelData = np.stack([np.roll(phantom.image[..., 0], f, 1) for f in range(10)]).tobytes()
    ds.save_as(cine)

    def maps(shape: tuple[int, int], frame: int) -> np.ndarray:
        lesion = ellipse(shape, (110 + 2 * frame, 120), (40, 25))
        return np.where(lesion, 0.9 - 0.02 * abs(frame - BEST), 0.1).astype(np.float32)

    run_of(tmp_path / "out", [cine], maps=maps, score=lambda f: 0.8 - 0.01 * abs(f - BEST))
    assert write_objects(tmp_path / "out", ["seg", "labelmap", "sr", "pr", "sc", "ko"]) == {}
    for path in (cine, *(tmp_path / "out" / "dicom").glob("*.dcm")):
        orthanc.ask("/instances", path.read_bytes())
    server = serve(viewer, orthanc)
    gl = ["--enable-unsafe-swiftshader", "--use-gl=angle", "--use-angle=swiftshader", "--ignore-gpu-blocklist"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium"), headless=True, args=["--no-sandbox", *gl]
        )
        yield browser, f"http://127.0.0.1:{server.server_address[1]}/viewer?StudyInstanceUIDs={ds.StudyInstanceUID}"
        browser.close()
    server.shutdown()
    server.server_close()


def show(browser, address: str, words: str) -> tuple[np.ndarray, str, list[str]]:
    """Open the series that is called so: (screenshot, its text, errors)."""
    page = browser.new_page(viewport={"width": 1100, "height": 720})
    errors: list[str] = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.goto(address)
    thumbnails = page.locator('[data-cy="study-browser-thumbnail"], [data-cy="study-browser-thumbnail-no-image"]')
    page.wait_for_selector('[data-cy="study-browser-thumbnail"]', timeout=120_000)
    page.wait_for_timeout(5000)
    page.add_style_tag(content=".shepherd-modal-overlay-container,.shepherd-element{display:none!important}")
    for text in ("Confirm and hide",):
        if page.get_by_text(text, exact=True).count():
            page.get_by_text(text, exact=True).first.click()
    thumbnails.filter(has_text=words).first.dblclick()
    yes, opened = page.get_by_role("button", name="Yes", exact=True), False
    for _ in range(300):  # software rendering on a busy machine
        page.wait_for_timeout(1000)
        if yes.count():
            yes.first.click()
            opened = True
        shown = page.evaluate("[...document.querySelectorAll('svg text')].map(t => t.textContent).join(' ')")
        drawn = "Area" in shown if "measurements" in words else opened and not yes.count()
        if drawn or not ("measurements" in words or "lesions" in words):
            break
    page.wait_for_timeout(8000)
    picture = np.asarray(Image.open(BytesIO(page.screenshot())).convert("RGB")).astype(int)
    text = page.inner_text("body") + page.evaluate(
        "[...document.querySelectorAll('svg text')].map(t=>t.textContent).join(' ')"
    )
    page.close()
    return picture, text, errors


def coloured(picture: np.ndarray) -> int:
    """Pixels of the viewport whose red is far from their green and blue."""
    part = picture[90:690, 300:1050]
    return int((part[..., 0] - part[..., 1:].max(-1) > 40).sum())


def test_ohif_shows_segmentations_reports_and_captures_on_their_frames(opened: tuple[object, str]) -> None:
    browser, address = opened
    plain, text, errors = show(browser, address, "S:1")
    assert errors == []
    assert "(1/10)" in text
    for words in ("ultraad lesions, research", "ultraad lesions, label"):
        picture, text, errors = show(browser, address, words)
        assert errors == []
        assert coloured(picture) > coloured(plain) + 5000, words
        assert re.search(r"\(\d+/10\)", text)
    picture, text, errors = show(browser, address, "ultraad measurements")
    assert errors == []
    assert f"({BEST + 1}/10)" in text
    assert re.search(r"Area: 31\.\d\d mm", text), text[-500:]  # pi * 4.0 * 2.5 mm2
    assert "Certainty of Finding: 90.00 %" in text
    picture, text, errors = show(browser, address, "ultraad overlay cine")
    assert errors == []
    assert coloured(picture) > coloured(plain) + 5000
