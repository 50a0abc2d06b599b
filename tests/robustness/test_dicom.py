"""DICOM as scanners and archives write it: a minor fault in a header does not decide about the pixels."""

from __future__ import annotations

import logging
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from tests.io.test_dicom import H, W, make, region, save
from tests.robustness.mutations import attack, damaged_bytes
from tests.robustness.test_images import fails_at_once, only_ours
from ultraad.data.sources import frames_of
from ultraad.errors import DataError
from ultraad.io import count_frames, dicom, image_size, read_image
from ultraad.io.faults import one_run
from ultraad.io.find import no_picture

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "a.dcm"


@pytest.fixture
def grey() -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 256, (H, W), dtype=np.uint8)
    picture[0, :2] = 0, 255
    return picture


def empty(ds: Dataset, *names: str) -> Dataset:
    """Elements that are there without a value."""
    for name in names:
        tag = Tag(name)
        ds[tag] = pydicom.DataElement(tag, pydicom.datadict.dictionary_VR(tag), None)
    return ds


# ---- one element decides about itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["PhysicalDeltaX", "PhysicalDeltaY", "RegionLocationMaxX1", "RegionLocationMaxY1"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_an_incomplete_region_costs_only_the_spacing(path, grey, missing, how):
    item = region()
    del item[missing]
    if how == "empty":
        empty(item, missing)
    cine = np.stack([grey, grey // 2, grey])
    save(path, make(cine, "MONOCHROME2", PatientID="P", SequenceOfUltrasoundRegions=Sequence([item])))
    frames = frames_of(path)
    assert [number for number, _ in frames] == [0, 1, 2]
    assert frames[0][1].group
    assert frames[0][1].spacing_mm is None


def test_spacing_of_one_value_is_no_spacing(path, grey):
    facts = dicom.metadata(save(path, make(grey, "MONOCHROME2", PatientID="P", PixelSpacing="0.1")))
    assert facts["spacing_mm"] is None
    assert facts["patient"]


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"RescaleSlope": "2", "RescaleIntercept": None},
        {"RescaleSlope": None, "RescaleIntercept": "-7"},
        {"RescaleSlope": "0", "RescaleIntercept": "5"},
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": "40", "WindowWidth": None},
        {"WindowCenter": None, "WindowWidth": "80"},
        {"WindowCenter": "40", "WindowWidth": "0"},
        {"VOILUTSequence": Sequence([Dataset()]), "ModalityLUTSequence": Sequence([Dataset()])},
        {"VOILUTSequence": Sequence([]), "SequenceOfUltrasoundRegions": Sequence([])},
        {"NumberOfFrames": None, "PixelSpacing": None, "PatientID": None, "Manufacturer": None},
        {"VOILUTFunction": "ODD", "WindowCenter": "128", "WindowWidth": "256"},
        {"PixelRepresentation": None},
        {"BitsStored": None, "HighBit": None},
        {"SamplesPerPixel": None},
        {"PhotometricInterpretation": None},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")  # pydicom's, while the odd file is written
def test_empty_or_odd_elements_leave_the_pixels_as_they_are(path, grey, tags):
    ds = make(grey, "MONOCHROME2")
    for name, value in tags.items():
        if value is None:
            empty(ds, name)
        else:
            setattr(ds, name, value)
    np.testing.assert_array_equal(read_image(save(path, ds))[..., 0], grey)
    assert dicom.metadata(path)["size"] == (H, W)


@pytest.mark.parametrize(
    ("name", "colour"),
    [(n, c) for n in ("PhotometricInterpretation", "BitsStored", "PixelRepresentation") for c in (False, True)]
    + [("PlanarConfiguration", True), ("SamplesPerPixel", False), ("NumberOfFrames", False)],
)
def test_missing_elements_of_the_pixels_have_defaults(path, grey, name, colour):
    picture = np.stack([grey, grey[::-1], grey // 2], axis=-1) if colour else grey
    ds = make(picture, "RGB" if colour else "MONOCHROME2")
    if name in ds:
        del ds[name]
    got = read_image(save(path, ds))
    np.testing.assert_array_equal(got, picture if colour else np.dstack([grey] * 3))


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_colour_with_one_sample_is_read_as_what_the_pixels_are(path, grey, photometric, caplog):
    np.testing.assert_array_equal(read_image(save(path, make(grey, photometric)))[..., 0], grey)
    assert f"{photometric} with 1 sample per pixel; the pixels are read as MONOCHROME2" in caplog.text


def test_colour_that_says_one_sample_but_has_three(path, grey):
    picture = np.stack([grey, grey[::-1], grey // 2], axis=-1)
    np.testing.assert_array_equal(read_image(save(path, make(picture, "RGB", SamplesPerPixel=1))), picture)
    assert count_frames(path) == 1


def test_eight_bits_of_ultrasound_are_never_signed(path, grey, caplog):
    np.testing.assert_array_equal(
        read_image(save(path, make(grey, "MONOCHROME2", PixelRepresentation=1)))[..., 0], grey
    )
    assert "they are read as unsigned" in caplog.text


def test_what_cannot_be_a_picture_is_named(path, grey):
    fails_at_once(read_image, save(path, make(grey, "PALETTE COLOR")), "indices of a palette, but no palette")
    fails_at_once(read_image, save(path, make(grey, "MONOCHROME2", Rows=0)), "without pixels: Rows is missing")


@pytest.mark.parametrize("spacing", [["0", "0"], ["-0.1", "0.1"], ["1000", "1000"], ["1e-9", "1e-9"]])
def test_an_impossible_spacing_is_unknown_with_a_warning(path, grey, spacing, caplog):
    assert dicom.metadata(save(path, make(grey, "MONOCHROME2", PixelSpacing=spacing)))["spacing_mm"] is None
    assert "which no scanner has; lengths stay in pixels" in caplog.text


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_windows_in_functional_groups(path, grey, groups):
    def group(centre: int) -> Dataset:
        item, window = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = centre, 100
        item.FrameVOILUTSequence = Sequence([window])
        return item

    cine = np.stack([grey, grey])
    save(path, make(cine, "MONOCHROME2", **{groups: Sequence([group(60), group(180)])}))
    plain = path.with_name("plain.dcm")
    for frame, centre in enumerate((60, 60) if groups.startswith("Shared") else (60, 180)):
        save(plain, make(grey, "MONOCHROME2", WindowCenter=centre, WindowWidth=100))
        np.testing.assert_array_equal(read_image(path, frame=frame), read_image(plain))


def test_one_frame_leaves_nothing_to_the_next(path, grey):
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 60, 100
    narrow, plain = Dataset(), Dataset()
    narrow.FrameVOILUTSequence = Sequence([window])
    wide = {"WindowCenter": 128, "WindowWidth": 256, "RescaleSlope": "0"}
    cine = make(np.stack([grey, grey]), "MONOCHROME2", **wide)
    cine.PerFrameFunctionalGroupsSequence = Sequence([narrow, plain])
    save(path, cine)
    alone = [read_image(save(path.with_name("alone.dcm"), cine), frame=1)]
    read_image(path, frame=0)
    for _ in range(2):
        np.testing.assert_array_equal(read_image(path, frame=1), alone[0])
    deep = save(path.with_name("deep.dcm"), make(grey.astype(np.uint16) * 4, "MONOCHROME2"))
    for _ in range(2):
        assert np.abs(read_image(deep, depth=12)[..., 0].astype(int) * 4 - grey).max() <= 4


def test_three_samples_of_monochrome_are_read_as_colour(path, grey, caplog):
    colour = np.stack([grey, grey[::-1], grey // 2], axis=-1)
    np.testing.assert_array_equal(read_image(save(path, make(colour, "MONOCHROME2"))), colour)
    assert "3 samples per pixel; the pixels are read as RGB" in caplog.text


def test_an_unknown_value_representation_is_named_or_ignored(path, grey):
    ds = make(grey, "MONOCHROME2", Manufacturer="Maker")
    whole = save(path, ds).read_bytes()
    at = whole.index(b"Maker") - 4
    path.write_bytes(whole[:at] + b"ZZ" + whole[at + 2 :])
    try:
        np.testing.assert_array_equal(read_image(path)[..., 0], grey)
    except DataError as e:
        assert str(path) in str(e)  # noqa: PT017  # either is right


# ---- how many frames ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("said", [999_999_999, 20_000])
def test_a_frame_count_beyond_every_limit_is_refused_at_once(path, grey, said, compressed):
    ds = make(np.stack([grey] * 3), "MONOCHROME2")
    if compressed:
        ds.compress(RLELossless)
    ds.NumberOfFrames = said
    save(path, ds)
    fails_at_once(count_frames, path, "limit is 10000")
    fails_at_once(read_image, path, "limit is 10000")
    assert [number for number, _ in frames_of(path)] == [None]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_frame_count_that_is_too_large_gives_the_frames_that_are_there(path, grey, compressed, caplog):
    ds = make(np.stack([grey, grey // 2, grey // 3]), "MONOCHROME2")
    if compressed:
        ds.compress(RLELossless)
    ds.NumberOfFrames = 7
    save(path, ds)
    assert count_frames(path) == 3
    np.testing.assert_array_equal(read_image(path, frame=2)[..., 0], grey // 3)
    assert "says 7 frames but holds 3" in caplog.text


def test_a_header_that_was_read_before_is_remarked_on_again(path, grey, caplog):
    ds = make(np.stack([grey, grey // 2]), "MONOCHROME2")
    ds.NumberOfFrames = 7
    save(path, ds)
    for _ in range(2):
        with one_run():
            assert count_frames(path) == 2
            read_image(path, frame=1)
    assert [r.getMessage().count("says 7 frames but holds 2") for r in caplog.records] == [1, 1]


@pytest.mark.parametrize("how", ["absent", "empty", "zero"])
def test_a_missing_frame_count_is_taken_from_the_pixels(path, grey, how, caplog):
    ds = make(np.stack([grey, grey // 2, grey // 3]), "MONOCHROME2")
    if how == "absent":
        del ds.NumberOfFrames
    elif how == "empty":
        empty(ds, "NumberOfFrames")
    else:
        ds.NumberOfFrames = 0
    save(path, ds)
    assert count_frames(path) == 3
    np.testing.assert_array_equal(read_image(path, frame=1)[..., 0], grey // 2)
    assert "NumberOfFrames is missing" in caplog.text


def test_a_cine_that_cannot_be_decoded_is_one_failure(path, grey):
    ds = make(np.stack([grey] * 3), "MONOCHROME2", syntax=JPEGLSLossless)
    ds.PixelData = encapsulate([b"\xff\xd8\xff" + b"\0" * 100] * 3)
    ds["PixelData"].is_undefined_length = True
    save(path, ds)
    assert [number for number, _ in frames_of(path)] == [None]
    with pytest.raises(DataError):
        read_image(path)


# ---- work is bounded ------------------------------------------------------------------------------------------------


def test_deflated_data_stop_at_the_limit(path, grey):
    whole = save(path, make(grey, "MONOCHROME2", syntax=DeflatedExplicitVRLittleEndian)).read_bytes()
    start = 128 + 4 + 12 + struct.unpack("<I", whole[140:144])[0]
    inflated = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS, level=1)
    bomb = b"".join(
        [deflate.compress(inflated), *(deflate.compress(b"\0" * 2**20) for _ in range(300)), deflate.flush()]
    )
    path.write_bytes(whole[:start] + bomb)
    tracemalloc.start()
    with pytest.raises(DataError, match="inflates to more than 256 MB"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_deflated_file_that_is_torn_is_a_data_error(path, grey):
    whole = save(path, make(grey, "MONOCHROME2", syntax=DeflatedExplicitVRLittleEndian)).read_bytes()
    for cut in (60, 300):
        path.write_bytes(whole[:-cut])
        with pytest.raises(DataError, match=r"a\.dcm"):
            read_image(path)


@pytest.mark.parametrize("side", [2 * W, 30_000])
def test_a_compressed_picture_that_is_larger_than_its_header_is_not_decoded(path, grey, side):
    siz = struct.pack(">HHIIII", 41, 0, side, side, 0, 0) + b"\0" * 25
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, side, side, 3) + b"\0" * 60
    for syntax, code in ((JPEG2000Lossless, b"\xff\x4f\xff\x51" + siz + b"\0" * 60), (JPEGBaseline8Bit, jpeg)):
        ds = make(grey, "MONOCHROME2", syntax=syntax)
        ds.PixelData = encapsulate([code])
        ds["PixelData"].is_undefined_length = True
        fails_at_once(read_image, save(path, ds), f"{side} x {side} pixels, but the header says {W} x {H}")


# ---- brightness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("used", [8, 10, 12, 14])
def test_bits_stored_sixteen_with_fewer_bits_in_use(path, grey, used, photometric, caplog):
    values = grey.astype(np.uint16) << (used - 8)
    if photometric == "MONOCHROME1":
        values = 2**used - 1 - values
    with caplog.at_level(logging.WARNING):
        got = read_image(save(path, make(values, photometric)))[..., 0]
    assert np.abs(got.astype(int) - grey).max() <= 1
    assert f"use {used} bits" in caplog.text


def test_signed_pixels_that_are_never_negative(path, grey):
    values = grey.astype(np.int16) * 16
    got = read_image(save(path, make(values, "MONOCHROME2")))[..., 0]
    assert np.abs(got.astype(int) - grey).max() <= 1


def test_a_window_decides_about_the_brightness(path, grey):
    values = grey.astype(np.uint16)
    got = read_image(save(path, make(values, "MONOCHROME2", WindowCenter="32768", WindowWidth="65536")))
    assert got.max() <= 1


# ---- mutations ------------------------------------------------------------------------------------------------------

SMALL = (
    "SC_rgb_rle.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "MR_small_jp2klossless.dcm",
    "ExplVR_BigEnd.dcm",
    "MR_small_implicit.dcm",
    "image_dfl.dcm",
    "examples_palette.dcm",
)
READERS = (read_image, count_frames, image_size, no_picture, dicom.metadata, lambda path: read_image(path, frame=1))
PART = 1500  # cases of one test under -m slow


@pytest.mark.parametrize("name", SMALL)
def test_mutated_dicom(tmp_path, name, capfd, record):
    whole = (SHIPPED / name).read_bytes()
    tally = attack(tmp_path / name, READERS, range(40), damage=damaged_bytes, whole=whole, wanted=DataError)
    tally.check(record)
    assert tally.read
    assert tally.refused
    assert only_ours("".join(capfd.readouterr()))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("name", SMALL)
def test_many_mutated_dicom(tmp_path, name, part, capfd, record):
    seeds = range(1000 + PART * part, 1000 + PART * (part + 1))
    whole = (SHIPPED / name).read_bytes()
    attack(tmp_path / name, READERS, seeds, damage=damaged_bytes, whole=whole, wanted=DataError).check(record)
    assert only_ours("".join(capfd.readouterr()))
