"""Decode files of unknown origin in a child process with a time limit; also the program of that child.

The readers of :mod:`ultraad.io` limit pixels, frames and inflated bytes. The child adds a limit of memory, and the
parent one of time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import TypeAdapter

from ultraad.errors import Caught, DataError, UltraadError
from ultraad.serve.child import Child, Message, parent, quiet, where
from ultraad.serve.shapes import region, run_lengths
from ultraad.types import Region, Sample

_log = logging.getLogger(__name__)

SECONDS = 20.0  # for one image; a cine in long fragments takes a few
BUSY = 10  # times as long at most, while the decoder waits for a processor
SCAN_SECONDS = 900.0  # for the names and headers of a whole folder
THUMBNAIL = 256  # pixels of the longer side
TINY = 32 * 32  # bytes of the tiny copy of an image, in grey
_MEMORY = 6 << 30  # bytes of address space; 64 megapixels in floats, and the libraries
_QUALITY = 82  # of JPEG thumbnails; speckle hides its artefacts
SAMPLES: TypeAdapter[list[Sample]] = TypeAdapter(list[Sample])
"""Samples to JSON and back."""
SAMPLES.rebuild(force=True, _types_namespace={"Path": Path, "Region": Region})  # types.py imports Path for mypy only


@dataclass(frozen=True, slots=True)
class Looked:
    """What is kept of a new image file; the thumbnail is that of its first frame.

    Attributes:
        sha256: Of the file.
        frames: Number of frames.
        size: (height, width) in pixels.
        spacing_mm: Pixel spacing (row, col); None if unknown.
        group: Patient from the DICOM header; None if unknown.
        device: Scanner from the DICOM header; None if unknown.
        dicom: Whether the file is DICOM.
        coloured: Whether more than a thousandth of the pixels are coloured.
        two_valued: Whether it has the few grey values of a mask.
        flat: Whether it is a single grey level.
        tiny: The first frame in grey, 32 x 32 bytes.
        thumbnail: JPEG.
    """

    sha256: str
    frames: int
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    group: str | None
    device: str | None
    dicom: bool
    coloured: bool
    two_valued: bool
    flat: bool
    tiny: bytes
    thumbnail: bytes


class Decoder:
    """One child that decodes; used by one thread at a time, others wait."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._child: Child | None = None

    def look(self, path: Path) -> Looked:
        """Read a file for the first time.

        Raises:
            DataError: If it cannot be decoded, or not in time. The message names no file.
        """
        answer = self._ask({"do": "look", "path": str(path)}, SECONDS)
        facts = answer.what["facts"]
        for key in ("size", "spacing_mm"):
            facts[key] = facts[key] and tuple(facts[key])
        return Looked(**facts, tiny=answer.data[:TINY], thumbnail=answer.data[TINY:])

    def thumbnail(self, path: Path, *, frame: int, longest: int) -> bytes:
        """A JPEG of a frame, its longer side ``longest`` pixels or less.

        Raises:
            DataError: As :meth:`look`.
        """
        return self._ask({"do": "thumbnail", "path": str(path), "frame": frame, "longest": longest}, SECONDS).data

    def picture(self, path: Path, *, frame: int, longest: int | None) -> bytes:
        """A frame as PNG, encoded anew.

        Raises:
            DataError: As :meth:`look`.
        """
        return self._ask({"do": "picture", "path": str(path), "frame": frame, "longest": longest}, SECONDS).data

    def mask(self, sample: Sample, *, size: tuple[int, int]) -> list[int]:
        """The union of a sample's masks as COCO run lengths, for an image of this (height, width).

        Raises:
            DataError: As :meth:`look`; also if a mask has another size.
        """
        what = {"do": "mask", "samples": SAMPLES.dump_python([sample], mode="json"), "size": size}
        counts: list[int] = self._ask(what, SECONDS).what["counts"]
        return counts

    def guess(
        self, path: Path, *, frame: int, tool: str, points: Sequence[float], radius: float, size: tuple[int, int]
    ) -> tuple[Region, str]:
        """(mask, rule) of a box or a scribble; see :mod:`ultraad.serve.guess`.

        Raises:
            DataError: As :meth:`look`; also if it has no pixel in the image.
        """
        what = {"do": "guess", "path": str(path), "frame": frame, "tool": tool}
        answer = self._ask({**what, "points": list(points), "radius": radius}, SECONDS).what
        return region(answer["counts"], size), answer["rule"]

    def scan(self, root: Path, layout: str) -> tuple[list[Sample], str | None, list[str]]:
        """(samples, layout, remarks) of a folder; without a known layout every image below it, and None.

        Raises:
            DataError: As :meth:`look`; also if there are no images.
        """
        answer = self._ask({"do": "scan", "root": str(root), "layout": layout}, SCAN_SECONDS).what
        return SAMPLES.validate_python(answer["samples"]), answer["layout"], answer["remarks"]

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _ask(self, what: dict[str, Any], seconds: float) -> Message:
        with self._lock:
            used = self._child is not None
            answer = self._answered(what, seconds)
            if answer is None and used:  # it may have died of an earlier file
                answer = self._answered(what, seconds)
        if answer is None:
            msg = "the file could not be read: it needs too much memory, or crashes the decoder; export it again"
            raise DataError(msg)
        if "error" in answer.what:
            raise DataError(answer.what["error"])
        return answer

    def _answered(self, what: dict[str, Any], seconds: float) -> Message | None:
        """The child's answer; None if it died."""
        if self._child is None:
            self._child = Child(__name__)
        try:
            answer = _within(self._child, seconds) if self._child.send(Message(what)) else None
        except TimeoutError:
            self._end()
            msg = f"the file could not be read within {seconds:.0f} s; export it again"
            raise DataError(msg) from None
        if answer is None:
            self._end()
        return answer

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


def _within(child: Child, seconds: float) -> Message | None:
    """The next message of a child; a busy machine, which gives it less than half a processor, is no fault of the file.

    Raises:
        TimeoutError: If none came in time.
    """
    _, before = child.processor()
    for _ in range(BUSY):
        with suppress(TimeoutError):
            return child.receive(timeout=seconds)
        wanting, spent = child.processor()
        if not wanting or spent - before >= seconds / 2:
            break
    raise TimeoutError


def without_path(text: str, path: Path) -> str:
    """A message about a file without the file's place and name."""
    for name in (str(path), str(path.resolve()), path.name):
        text = text.replace(name, "the file")
    return text


def without_paths(text: str, order: Mapping[str, Any]) -> str:
    """A message without the places of files: those of the support by their ids, folders by a word."""
    samples = SAMPLES.validate_python(order["support"]["samples"]) if "support" in order else []
    for sample in samples:
        text = text.replace(str(sample.image), sample.id)
    for key, word in (("folder", "the model"), ("maps", "the maps"), ("support_file", "the support set")):
        text = text.replace(str(order.get(key, "\0")), word)
    return text


class _Remarks(logging.Handler):
    """Collects the library's warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _shrunk(image: Any, longest: int | None) -> Any:  # noqa: ANN401
    import cv2

    h, w = image.shape[:2]
    if longest is None or max(h, w) <= longest:
        return image
    scale = longest / max(h, w)
    size = max(1, round(w * scale)), max(1, round(h * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _jpeg(image: Any) -> bytes:  # noqa: ANN401
    import cv2

    _, coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(coded.tobytes())


def _look(path: Path) -> tuple[dict[str, Any], bytes]:
    from ultraad import io
    from ultraad.data.audit.measure import measure
    from ultraad.data.sources import frames_of
    from ultraad.io.files import sha256
    from ultraad.io.image import is_dicom

    image = io.read_image(path)
    frames = frames_of(path)
    measured = measure(Sample("", path))
    if measured.thumbnail is None:
        raise DataError(measured.error or "the file cannot be read")
    header = frames[0][1]
    facts = {
        "sha256": sha256(path),
        "frames": len(frames),
        "size": image.shape[:2],
        "spacing_mm": header.spacing_mm,
        "group": header.group,
        "device": header.device,
        "dicom": is_dicom(path),
        "coloured": measured.coloured,
        "two_valued": measured.two_valued,
        "flat": measured.flat,
    }
    return {"facts": facts}, measured.thumbnail.tobytes() + _jpeg(_shrunk(image, THUMBNAIL))


def _scan(root: Path, layout: str) -> dict[str, Any]:
    from ultraad.data import sources
    from ultraad.data.samples import samples_of

    remarks = _Remarks()
    log = logging.getLogger("ultraad")
    log.addHandler(remarks)
    try:
        found: str | None = layout
        if layout == "auto":
            try:
                found = sources.detect(root)
            except DataError:
                found = None
        samples = sources.scan(root, layout=found) if found else samples_of([root])
    finally:
        log.removeHandler(remarks)
    return {"samples": SAMPLES.dump_python(samples, mode="json"), "layout": found, "remarks": remarks.lines}


def _answer(what: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    from ultraad import io
    from ultraad.io.png import encode_png

    if what["do"] == "scan":
        return _scan(Path(what["root"]), what["layout"]), b""
    if what["do"] == "mask":
        (sample,) = SAMPLES.validate_python(what["samples"])
        return {"counts": run_lengths(io.read_mask(sample.masks, shape=tuple(what["size"])))}, b""
    path = Path(what["path"])
    if what["do"] == "look":
        return _look(path)
    image = io.read_image(path, frame=what["frame"])
    if what["do"] == "guess":
        from ultraad.serve import guess

        box = what["tool"] == "box"
        mask = (
            guess.from_box(image, what["points"]) if box else guess.from_scribble(image, what["points"], what["radius"])
        )
        return {"counts": run_lengths(mask), "rule": guess.BOX_RULE if box else guess.SCRIBBLE_RULE}, b""
    image = _shrunk(image, what["longest"])
    if what["do"] == "thumbnail":
        return {}, _jpeg(image)
    grey = image[..., 0] if (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all() else image
    return {}, encode_png(grey)


def main() -> None:
    """Answer until the parent is gone."""
    try:
        import resource
    except ImportError:  # Windows
        pass
    else:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = _MEMORY if most == resource.RLIM_INFINITY else min(most, _MEMORY)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    quiet()
    to_parent = parent()
    for message in to_parent.messages():
        with Caught() as caught:
            to_parent.send(*_answer(message.what))
        e = caught.error
        if isinstance(e, UltraadError):
            path = Path(message.what.get("path", message.what.get("root", "-")))
            to_parent.send({"error": without_path(str(e), path)})
        elif e is not None:
            to_parent.send({"error": f"the file could not be read ({where(e)}); export it again"})


if __name__ == "__main__":
    main()
