"""Videos frame by frame: what was encoded comes out, what is damaged or claimed is named, nothing else is printed."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.videos import (
    H264,
    HEVC10,
    UNEVEN,
    camera,
    frames_of,
    mp4_that_claims,
    number_of,
    numbered,
    turned,
    write_video,
)
from ultraad.errors import DataError
from ultraad.io import find_images, read_image, video, video_process
from ultraad.io.containers import container_of
from ultraad.io.files import remove_leftovers
from ultraad.io.find import find_media
from ultraad.io.video import Choice, VideoReader, is_camera, is_video, public_name
from ultraad.io.video_process import LONGEST_GROUP, Damage, first_fault
from ultraad.io.video_writer import VideoWriter


def read(path: Path | str, **choice: object) -> tuple[list[video.VideoFrame], list[tuple[str, str]]]:
    reader = VideoReader(path, Choice(**choice))
    return list(reader.frames()), reader.faults


def test_a_lossless_video_has_the_pixels_and_times_that_were_encoded(tmp_path: Path) -> None:
    frames, faults = read(write_video(tmp_path / "a.mkv", codec="FFV1"))
    assert faults == []
    assert [f.number for f in frames] == list(range(12))
    assert [f.seconds for f in frames] == pytest.approx([0.04 * i for i in range(12)], abs=1e-6)
    for f in frames:
        np.testing.assert_array_equal(f.image, numbered(f.number)[..., ::-1])


def test_the_order_of_display_and_ten_bits() -> None:
    for path, count in ((H264, 48), (HEVC10, 12)):
        frames, faults = read(path)
        assert faults == []
        assert [number_of(f.image) for f in frames] == [f.number for f in frames] == list(range(count))
        for f in frames:  # as strong a compression allows
            assert np.abs(f.image[:12].astype(int) - numbered(f.number)[:12]).max() <= 6


def test_frames_that_are_not_evenly_spaced_have_their_times_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        frames, faults = read(UNEVEN)
    assert faults == []
    assert [f.seconds for f in frames] == pytest.approx([0.04 * i + 0.3 * (i // 5) for i in range(20)], abs=1e-6)
    assert "not evenly spaced in time" in caplog.text


def test_only_the_wanted_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi")
    frames, faults = read(path, every=5)
    assert ([f.number for f in frames], faults) == ([0, 5, 10], [])
    assert [(f.number, number_of(f.image)) for f in read(path, frame=7)[0]] == [(7, 7)]
    assert [f.number for f in read(path, seconds=0.1)[0]] == [0, 1, 2]
    frames, ((id_, reason),) = read(path, frame=12)
    assert (frames, id_) == ([], path.as_posix())
    assert "has 12 frame(s), but frame 12 was requested" in reason


def test_turned_videos_are_upright_and_mirrored_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = frames_of(H264)[3]
    (found,), _ = read(turned(H264, tmp_path / "turned.mp4", (0, 1, -1, 0)), frame=3)
    np.testing.assert_array_equal(found.image, np.rot90(plain, -1))
    assert "mirrored" not in caplog.text
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        VideoReader(turned(H264, tmp_path / "mirrored.mp4", (-1, 0, 0, 1))).close()
    assert "its frames are to be mirrored, which is not done" in caplog.text


def test_one_damaged_frame_is_the_fault_of_that_frame(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "a.avi")
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 4] == b"00dc" and data[i + 8 : i + 10] == b"\xff\xd8"]
    assert len(starts) == 12
    tables = data.index(b"\xff\xc4", starts[7]) + 4
    data[tables : tables + 20] = bytes(20)
    path.write_bytes(data)
    frames, faults = read(path)
    assert [f.number for f in frames] == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert [number_of(f.image) for f in frames] == [f.number for f in frames]
    assert [id_ for id_, _ in faults] == [f"{path.as_posix()}#7"]
    assert "frame 7 is damaged (" in faults[0][1]
    assert capfd.readouterr() == ("", "")


def test_frames_that_depend_on_a_damaged_one_are_in_doubt(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 30, codec="FFV1")  # a key frame every 12, although all are called I frames
    data = bytearray(path.read_bytes())
    at = len(data) * 45 // 100
    data[at : at + 8] = b"\xaa" * 8
    path.write_bytes(data)
    frames, faults = read(path)
    assert len(faults) == 1
    assert {f.number for f in frames} >= {*range(12), *range(24, 30)}
    assert len(frames) < 29
    for f in frames:
        np.testing.assert_array_equal(f.image, numbered(f.number)[..., ::-1])


@pytest.mark.parametrize("seed", [0, 3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 40))])
def test_no_frame_that_shows_damage_passes(tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    clean = dict(enumerate(frames_of(H264)))
    data = bytearray(H264.read_bytes())
    rng = np.random.default_rng(seed)
    at = int(rng.integers(data.index(b"mdat") + 900, len(data) - 200))
    data[at : at + 24] = rng.integers(0, 256, 24, dtype=np.uint8).tobytes()
    (tmp_path / "damaged.mp4").write_bytes(data)
    frames, faults = read(tmp_path / "damaged.mp4")
    assert faults
    assert len(frames) >= 18, "key frames end the damage"
    for f in frames:
        np.testing.assert_array_equal(f.image, clean[f.number])
    assert capfd.readouterr() == ("", "")


def test_a_video_that_is_cut_off_is_read_to_its_cut(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "a.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    frames, faults = read(path)
    assert [number_of(f.image) for f in frames] == [f.number for f in frames]
    assert 3 <= len(frames) <= 11
    assert faults[-1][0] == path.as_posix()
    assert f"{path.as_posix()} is cut off: it ends after" in faults[-1][1]
    assert "of 12 frames, at 0." in faults[-1][1]
    path = tmp_path / "a.mp4"
    path.write_bytes(H264.read_bytes()[:3000])
    frames, faults = read(path)
    assert frames
    assert "is cut off" in faults[-1][1]
    whole = write_video(tmp_path / "whole.mp4", codec="mp4v").read_bytes()
    path.write_bytes(whole[: whole.index(b"moov") - 4])
    with pytest.raises(DataError, match="its index is missing, as if the recording was not finished"):
        VideoReader(path)
    assert capfd.readouterr() == ("", "")


def test_what_a_header_cannot_mean_is_refused_before_a_frame_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "claims.mp4"
    for claim, what in (
        (mp4_that_claims(10**9), "says that it has 1000000000 frames, but it is too small"),
        (
            mp4_that_claims(10, size=(16000, 16000), codec=b"raw "),
            "is 16000 x 16000 pixels; the limit is 64 megapixels",
        ),
    ):
        path.write_bytes(claim)
        with pytest.raises(DataError, match=what):
            VideoReader(path)


def test_more_frames_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_FRAMES", 11)
    with pytest.raises(DataError, match=r"has 12 frames; the limit is 11\. Split the file"):
        VideoReader(write_video(tmp_path / "a.avi"))


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    for name, content in (
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"),
        ("text.avi", b"no video"),
        ("picture.mp4", b"\0\0\0\x18ftypheic" + bytes(400)),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="is no video: it does not begin like"):
            VideoReader(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        VideoReader(tmp_path / "nothing.mp4")
    with pytest.raises(DataError, match=r"is a video \(MP4\), wanted an image"):
        read_image(H264)


def test_a_decoder_that_dies_costs_the_rest_of_its_video(tmp_path: Path) -> None:
    reader = VideoReader(write_video(tmp_path / "a.avi", 200, size=(240, 320)))
    frames = reader.frames()
    assert next(frames).number == 0
    reader._process._process.kill()
    rest = list(frames)
    assert len(rest) < 199
    ((id_, reason),) = reader.faults
    assert id_ == reader.name
    assert "cannot be read on: its decoder crashed" in reason


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")
def test_the_memory_of_a_decoder_has_a_limit() -> None:
    program = f"import runpy; runpy.run_path({video_process.__file__!r})['_bound_memory'](); bytearray(2 << 30)"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.stderr.endswith("MemoryError\n")


def test_a_camera_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "LIVE_WAIT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DataError, match=r"cannot be opened as a video: .+ Check its name and its cable"):
            VideoReader(name)
    with pytest.raises(DataError, match="there is no such camera, or another program uses it"):
        VideoReader("camera:99")


def test_a_camera_of_the_network_has_the_times_at_which_its_frames_came(capfd: pytest.CaptureFixture[str]) -> None:
    with camera(10) as url:
        frames, faults = read(url)
    assert faults == []
    assert [f.number for f in frames] == list(range(len(frames)))
    assert len(frames) >= 9
    assert all(a.seconds < b.seconds for a, b in pairwise(frames))
    assert capfd.readouterr() == ("", "")


def test_names_of_cameras() -> None:
    assert all(map(is_camera, ("camera:0", "/dev/video1", "rtsp://u:p@h:554/s?k=v", "http://h/s")))
    assert not any(
        map(is_camera, ("camera", "clip.mp4", "/dev/sda", "file:///a.mp4", "concat:a|b", Path("camera.mp4")))
    )
    assert public_name("rtsp://user:secret@h:554/s?key=v") == "rtsp://h:554/s"
    assert public_name(Path("a") / "b.mp4") == "a/b.mp4"


def test_videos_are_recognised_by_their_bytes(tmp_path: Path) -> None:
    for name, codec, kind in (
        ("a.mp4", "mp4v", "MP4"),
        ("a.avi", "MJPG", "AVI"),
        ("a.mkv", "FFV1", "Matroska or WebM"),
        ("a.ts", "mpg2", "MPEG transport stream"),
        ("a.flv", "FLV1", "FLV"),
    ):
        path = write_video(tmp_path / name, 3, codec=codec)
        assert container_of(path.read_bytes()[:400]) == kind
        path.rename(tmp_path / f"{kind}-without-suffix")
    cv2.imwrite(str(tmp_path / "picture.png"), numbered(1))
    (tmp_path / "broken.mov").write_bytes(b"x" * 500)
    (tmp_path / "letter.txt").write_text("Dear doctor")
    images, videos = find_media(tmp_path)
    assert [p.name for p in images] == ["picture.png"]
    assert {p.name for p in videos} == {p.name for p in tmp_path.iterdir()} - {"picture.png", "letter.txt"}
    assert not is_video(tmp_path / "picture.png")
    assert find_images(tmp_path) == images


def test_other_commands_count_videos_as_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cv2.imwrite(str(tmp_path / "picture.png"), numbered(1))
    write_video(tmp_path / "a.avi", 1).rename(tmp_path / "clip")
    with caplog.at_level(logging.WARNING, logger="ultraad"):
        find_images(tmp_path)
    assert "1 file was not used: 1 video" in caplog.text


def test_damage_lasts_until_a_key_frame() -> None:
    bad = [(16, "error while decoding MB 3 4")]

    def whole(kinds: str, at: int) -> str:
        damage = Damage()
        return "".join(
            "-+"[damage.of(bad if i == at else [], k.upper(), key=k == "I") is None] for i, k in enumerate(kinds)
        )

    assert whole("IIII", 1) == "+-++", "each frame alone"
    assert whole("IPPPIP", 1) == "+---++"
    assert whole("IPPiPIP", 1) == "+----++", "an I frame that is no key frame"
    assert whole("IBPIPPPPPI", 2) == "++-------+", "the first I may be the damaged one, shown late"
    damage = Damage()
    assert damage.of(bad, "P", key=False) == bad[0][1]
    assert sum(damage.of([], "P", key=False) is not None for _ in range(2 * LONGEST_GROUP)) == LONGEST_GROUP - 1
    assert first_fault([(24, "deprecated pixel format used"), (16, "mmco: unref short failure")]) is None
    assert first_fault([(32, "concealing 24 DC, 24 AC, 24 MV errors in P frame")]) is not None


def test_what_is_written_is_read_and_odd_sides_get_one_pixel(tmp_path: Path) -> None:
    size = (47, 65)
    writer = VideoWriter(tmp_path / "a.mp4", rate=12.5)
    for i in range(6):
        writer.add(numbered(i, size=size), seconds=0.08 * i)
        assert not (tmp_path / "a.mp4").exists()
    writer.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.rate == pytest.approx(12.5)
    frames = list(reader.frames())
    assert [number_of(f.image) for f in frames] == list(range(6))
    assert frames[0].image.shape == (48, 66, 3)
    assert np.abs(frames[3].image[: size[0], : size[1]].astype(int) - numbered(3, size=size)).mean() < 3


def test_frames_of_a_camera_are_shown_until_the_next_one(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", rate=25, real_time=True)
    for i, seconds in enumerate((0.0, 0.2, 0.201, 0.4)):
        writer.add(numbered(i), seconds=seconds)
    writer.finish()
    assert [number_of(f.image) for f in read(tmp_path / "a.mp4")[0]] == [0] * 5 + [2] * 5 + [3]


def test_a_video_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "nowhere" / "a.mp4", rate=25)
    writer.add(numbered(0), seconds=0.0)
    with pytest.raises(DataError, match=r"a\.mp4 cannot be written"):
        writer.finish()
    writer = VideoWriter(tmp_path / "a.mp4", rate=25)
    writer.add(numbered(0), seconds=0.0)
    writer.discard()
    (tmp_path / ".b.mp4.0a1b2c3d.tmp.mp4").write_bytes(b"of a killed run")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
