"""``ultraad deidentify --page`` in a process of its own, over made scans with names in their pixels."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from PIL import Image

from tests.dicom.made import region, write_us
from ultraad.simulate import simulate

SIZE = (360, 480)
VIEW = (60, 40, 340, 300)
NAME = "OKONKWO ADAEZE"


def screen(seed: int, words: str = "") -> np.ndarray:
    """The screen of a scanner, uint8 (h w 3): simulated tissue below a banner, with words over the tissue."""
    out = np.zeros((*SIZE, 3), np.uint8)
    x, y, w, h = VIEW
    grey = cv2.resize(simulate(seed, size=256).image, (w, h))
    out[y : y + h, x : x + w] = (grey if grey.ndim == 3 else grey[..., None]) // 2
    for text, at in ((NAME, (70, 24)), (words, (90, 290))):
        cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return out


def write_scans(folder: Path) -> Path:
    """A still with a name over its tissue, a cine, a still without text, and a picture without regions."""
    tags = {"PatientName": "Okonkwo^Adaeze", "PatientID": "77120934", "BurnedInAnnotation": "YES"}
    made = {"still": [screen(1, "ID 77120934")], "cine": [screen(2), screen(2, "DOB 1970"), screen(2)]}
    for name, pictures in {**made, "plain": [screen(3)]}.items():
        path = folder / f"{name}.dcm"
        frames = len(pictures) if len(pictures) > 1 else 0
        write_us(path, frames=frames, photometric="RGB", regions=[region(VIEW, (0.1, 0.1))], size=SIZE, **tags)
        ds = pydicom.dcmread(path)
        ds.PixelData = np.stack(pictures).tobytes()
        ds.save_as(path)
    Image.fromarray(screen(4)).save(folder / "export.png")
    return folder


@dataclass
class Reviewing:
    """A command whose page is open.

    Attributes:
        process: The command.
        address: Of the page, once.
        said: What it said before.
    """

    process: subprocess.Popen[str]
    address: str
    said: str

    @property
    def origin(self) -> str:
        return self.address.partition("/#")[0]

    def rest(self) -> str:
        """What it says until it ends."""
        said, _ = self.process.communicate(timeout=120)
        return said


def start(source: Path, out: Path, *more: str) -> Reviewing:
    """Start the command and read the address."""
    words = [sys.executable, "-m", "ultraad.cli", "deidentify", str(source), str(out), "--key", f"{out}.key"]
    process = subprocess.Popen(
        [*words, "--page", "--no-browser", "--frames", "1", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+/#code=\S+", line):
            return Reviewing(process, found[0], "".join(said))
    raise RuntimeError(f"the page did not start: {''.join(said)}")


def stop(running: Reviewing) -> None:
    """End the command, if it has not ended."""
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(20)
    if running.process.stdout is not None:
        running.process.stdout.close()


def at(page: Any, x: float, y: float, *, which: int = 0) -> tuple[float, float]:
    """The place on the screen of a pixel of the picture that is shown."""
    box = page.locator(".viewer svg").nth(which).bounding_box()
    scale = min(box["width"] / SIZE[1], box["height"] / SIZE[0])
    left, top = (box["width"] - SIZE[1] * scale) / 2, (box["height"] - SIZE[0] * scale) / 2
    return box["x"] + left + x * scale, box["y"] + top + y * scale


def show(page: Any, name: str) -> None:
    """Go to a file by its name."""
    page.click(f".files button:has-text('{name}')")
    page.wait_for_selector(f".decide h1:text-is('{name}')")


def saved(page: Any) -> None:
    """Wait until everything was saved."""
    page.wait_for_selector("body[data-saved='true']")
