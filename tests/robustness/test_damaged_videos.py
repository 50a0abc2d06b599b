"""Damaged videos, run through ``predict``: each frame is a row or is named, and no decoder ends or hangs a run."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest

from tests.robustness.mutations import MEMORY, Tally, attack, damaged_bytes, peak_memory
from tests.robustness.test_images import encoded, only_ours
from tests.videos import H264, HEVC10, write_video
from ultraad.errors import DataError
from ultraad.io.video import VideoProcess
from ultraad.model.adapt import zero_shot
from ultraad.model.model import Model
from ultraad.results.folder import read_errors, read_rows, read_run
from ultraad.runs.predict import predict

CASES = 2  # of each video; a decoder starts in a third of a second
PART = 60  # of one test under -m slow
CODECS = {
    "mjpg.avi": "MJPG",
    "mpeg4.avi": "XVID",
    "mpeg4.mp4": "mp4v",
    "mpeg4.mov": "mp4v",
    "ffv1.mkv": "FFV1",
    "mjpg.mkv": "MJPG",
    "vp8.webm": "VP80",
}
VIDEOS = (*CODECS, "h264.mp4", "hevc.mp4", "moving.gif")
_WINDOW = 700  # bytes of an index
_LENGTHS = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\x7f", b"\0\x98\x96\x80")
_ATOM = re.compile(rb"moov|mvhd|tkhd|mdhd|stsd|stts|stss|ctts|stsc|stsz|stco|avcC|avih|strh|strf|idx1|LIST|movi|00dc")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    folder = tmp_path_factory.mktemp("videos")

    def content(name: str) -> bytes:
        if name == "moving.gif":
            return encoded("GIF", frames=3)
        if name in CODECS:
            return write_video(folder / name, codec=CODECS[name]).read_bytes()
        return (H264 if name == "h264.mp4" else HEVC10).read_bytes()

    return content


@pytest.fixture(scope="module")
def model() -> Model:
    return zero_shot(backbone="tiny")


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The most bytes that each decoder had when it sent a message."""
    seen: list[int] = []
    receive = VideoProcess.receive

    def watched(self: VideoProcess) -> dict[str, object]:
        said = receive(self)
        seen.append(peak_memory(self._process.pid))
        return said

    monkeypatch.setattr(VideoProcess, "receive", watched)
    monkeypatch.setattr("ultraad.runs.predict.render", lambda folder: folder)  # half of the time of a run here
    return seen


def damaged_video(whole: bytes, seed: int) -> bytes:
    """A video with bytes replaced near its start or its end, where an index may be, or behind the name of an atom."""
    draw = random.Random(seed)
    kind = draw.randrange(4)
    if kind == 0:
        return damaged_bytes(whole, seed)
    if kind == 1:
        at = max(0, len(whole) - _WINDOW)
        return whole[:at] + damaged_bytes(whole[at:], seed)
    data = bytearray(whole)
    if kind == 2:  # a length or a number of a header
        places = [found.start() for found in _ATOM.finditer(whole)] or [0]
        for _ in range(draw.randint(1, 3)):
            at = max(0, draw.choice(places) + draw.choice((-4, 4, 8, 12, 16, 20, 24, 28, 32)))
            data[at : at + 4] = draw.choice((*_LENGTHS, draw.randbytes(4)))
    else:  # a part that is lost, doubled or noise
        at = draw.randrange(len(data))
        end = at + draw.choice((1, 8, 64, 512))
        data[at:end] = draw.choice((b"", whole[at:end] * 2, draw.randbytes(end - at), bytes(end - at)))
    return bytes(data)


def attacked(model: Model, path: Path, whole: bytes, seeds: range, decoders: list[int]) -> Tally:
    """Predict damaged versions of a video, each into a folder of its own."""
    runs = count()
    save = [] if path.suffix != ".mp4" else ["overlays"]

    def run(path: Path) -> None:
        decoders.clear()
        out = path.parent / f"out{next(runs)}"
        done = predict(model, path, out, save=save, batch_size=4)
        assert max(decoders, default=0) < MEMORY, f"a decoder had {max(decoders)} bytes"
        rows = list(read_rows(out))
        assert len(rows) == done.predicted
        assert len({row.id for row in rows}) == len(rows)
        for a, b in pairwise(rows):
            assert a.frame < b.frame
            assert path.suffix == ".gif" or a.seconds < b.seconds
        assert all(math.isfinite(row.score) for row in rows)
        assert dict(read_errors(out)) == done.failed
        assert not {row.id for row in rows} & set(done.failed), "a frame is a row or a failure"
        for reason in done.failed.values():
            assert "\n" not in reason
            assert len(reason) < 1000
            assert path.name in reason
            assert "gave nothing for" not in reason, "a decoder hung"
        assert read_run(out).status == "complete"
        json.loads((out / "run.json").read_bytes())
        assert not [p for p in out.rglob("*") if ".tmp" in p.name]
        if not rows:
            assert done.failed, "nothing was predicted, and nothing said why"
            raise DataError(next(iter(done.failed.values())))

    return attack(path, run, seeds, damage=damaged_video, whole=whole, wanted=DataError)


@pytest.mark.parametrize("name", VIDEOS)
def test_damaged_videos(whole, model, tmp_path, name, decoders, capfd, record) -> None:
    content = whole(name)
    capfd.readouterr()  # what OpenCV said of the encoder
    attacked(model, tmp_path / name, content, range(CASES), decoders).check(record)
    assert only_ours("".join(capfd.readouterr()))


def test_frames_of_one_time_come_one_after_the_other(whole, model, tmp_path, decoders, record) -> None:
    tally = attacked(model, tmp_path / "hevc.mp4", whole("hevc.mp4"), range(1039, 1040), decoders)
    tally.check(record)
    assert tally.read


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("name", VIDEOS)
def test_many_damaged_videos(whole, model, tmp_path, name, part, decoders, capfd, record) -> None:
    seeds, content = range(1000 + PART * part, 1000 + PART * (part + 1)), whole(name)
    capfd.readouterr()
    tally = attacked(model, tmp_path / name, content, seeds, decoders)
    tally.check(record)
    assert tally.read
    assert tally.refused
    assert only_ours("".join(capfd.readouterr()))
