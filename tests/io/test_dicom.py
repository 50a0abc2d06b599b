"""DICOM against arithmetic done by hand, and every ultrasound file that pydicom ships."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import encaps
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    HEVCMP51,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    UltrasoundImageStorage,
    generate_uid,
)

from ultraad.errors import DataError
from ultraad.io import count_frames, dicom, dicom_codecs, dicom_pixels, image_size, read_image

H, W = 24, 38
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"


def ybr_to_rgb(ybr: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 full range, PS3.3 C.7.6.3.1.2, as floats."""
    y, cb, cr = np.moveaxis(ybr.astype(np.float64), -1, 0)
    rgb = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    return np.stack(rgb, axis=-1).clip(0, 255)


def make(
    pixels: np.ndarray, photometric: str, *, bits: int | None = None, syntax=ExplicitVRLittleEndian, **tags
) -> Dataset:
    """A US image with native pixels (h w), (h w 3), (frames h w) or (frames h w 3)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = UltrasoundImageStorage, generate_uid(), "US"
    ds.PhotometricInterpretation = photometric
    ds.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    shape = pixels.shape[: pixels.ndim - (ds.SamplesPerPixel == 3)]
    ds.Rows, ds.Columns = shape[-2:]
    if len(shape) == 3:
        ds.NumberOfFrames = shape[0]
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def save(path: Path, ds: Dataset) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "a.dcm"


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


# ---- what pydicom ships -------------------------------------------------------------------------------------------


def test_every_shipped_ultrasound_file_is_read():
    ultrasound = {}
    warnings.simplefilter("ignore", UserWarning)  # pydicom's, about test files that are odd on purpose; pytest restores
    for file in SHIPPED.glob("*.dcm"):
        ds = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=["Modality", "Rows"])
        if ds.get("Modality") == "US" and "Rows" in ds:
            ultrasound[file.name] = read_image(file).shape
    assert ultrasound == {
        "ExplVR_BigEnd.dcm": (60, 80, 3),
        "examples_jpeg2k.dcm": (480, 640, 3),
        "examples_palette.dcm": (350, 800, 3),
        "examples_rgb_color.dcm": (240, 320, 3),
        "examples_ybr_color.dcm": (240, 320, 3),
    }


def test_shipped_rgb_equals_its_bytes():
    ds = pydicom.dcmread(SHIPPED / "examples_rgb_color.dcm")
    wanted = np.frombuffer(ds.PixelData, np.uint8).reshape(240, 320, 3)
    np.testing.assert_array_equal(read_image(SHIPPED / "examples_rgb_color.dcm"), wanted)


def test_shipped_planar_big_endian_is_three_planes():
    ds = pydicom.dcmread(SHIPPED / "ExplVR_BigEnd.dcm")
    assert ds.PlanarConfiguration == 1
    wanted = np.frombuffer(ds.PixelData, np.uint8).reshape(3, 60, 80).transpose(1, 2, 0)
    np.testing.assert_array_equal(read_image(SHIPPED / "ExplVR_BigEnd.dcm"), wanted)


def test_shipped_palette_is_a_table_lookup():
    ds = pydicom.dcmread(SHIPPED / "examples_palette.dcm")
    index = np.frombuffer(ds.PixelData, np.uint8)[: 350 * 800].reshape(350, 800)
    tables = (getattr(ds, f"{c}PaletteColorLookupTableData") for c in ("Red", "Green", "Blue"))
    wanted = np.dstack([(np.frombuffer(table, "<u2") >> 8)[index] for table in tables])
    assert ds.RedPaletteColorLookupTableDescriptor == [256, 0, 16]
    assert np.ptp(wanted, axis=-1).max() > 50  # it is in colour
    np.testing.assert_array_equal(read_image(SHIPPED / "examples_palette.dcm"), wanted)


@pytest.mark.parametrize("frame", [0, 13, 29])
def test_shipped_jpeg_cine_equals_a_jpeg_reader(frame):
    file = SHIPPED / "examples_ybr_color.dcm"
    ds = pydicom.dcmread(file)
    code = list(generate_frames(ds.PixelData, number_of_frames=30))[frame]
    wanted = np.asarray(Image.open(io.BytesIO(code)).convert("RGB")).astype(int)
    assert np.abs(read_image(file, frame=frame) - wanted).max() <= 2
    assert count_frames(file) == 30


def test_shipped_jpeg2000_equals_a_jpeg2000_reader():
    file = SHIPPED / "examples_jpeg2k.dcm"
    (code,) = generate_frames(pydicom.dcmread(file).PixelData, number_of_frames=1)
    got = read_image(file)
    np.testing.assert_array_equal(got, np.asarray(Image.open(io.BytesIO(code)).convert("RGB")))
    # The same picture as examples_rgb_color.dcm at twice the size
    half = np.asarray(Image.fromarray(got).resize((320, 240), Image.Resampling.BOX)).astype(int)
    assert np.abs(half - read_image(SHIPPED / "examples_rgb_color.dcm")).mean() < 10


COLOUR_BARS = np.repeat(
    [
        *[(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255), (128, 128, 255)],
        *[(0, 0, 0), (64, 64, 64), (192, 192, 192), (255, 255, 255)],
    ],
    10,
    axis=0,
)  # (100 3), what every SC_rgb_* file of 100 x 100 pixels shows


@pytest.mark.parametrize(
    "name",
    [f"SC_rgb_dcmtk_+eb+{kind}" for kind in ("cr", "cy+n1", "cy+n2", "cy+np", "cy+s2", "cy+s4")]
    + ["SC_rgb_gdcm_KY", "SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_lossy_gdcm", "SC_rgb_rle", "SC_rgb_rle_16bit"]
    + ["SC_rgb_rle_2frame", "SC_rgb_rle_32bit", "SC_ybr_full_422_uncompressed"],
)
def test_shipped_colour_bars_in_every_encoding(name):
    rows = read_image(SHIPPED / f"{name}.dcm").astype(int)[5::10]  # the middle of each bar: (10 100 3)
    assert np.abs(rows - COLOUR_BARS[::10, None]).max() <= 5  # most are lossy


def test_shipped_files_without_a_picture():
    for name in ("rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm"):
        with pytest.raises(DataError, match="without pixels"):
            read_image(SHIPPED / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(SHIPPED / "MR_truncated.dcm")


# ---- grey ---------------------------------------------------------------------------------------------------------


def test_eight_bit_grey_is_untouched_and_monochrome1_is_inverted(path):
    grey = np.arange(H * W, dtype=np.uint16).reshape(H, W).astype(np.uint8)
    got = read_image(save(path, make(grey, "MONOCHROME2")))
    np.testing.assert_array_equal(got, np.dstack([grey] * 3))
    got = read_image(save(path, make(grey, "MONOCHROME1")))
    np.testing.assert_array_equal(got, 255 - np.dstack([grey] * 3))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_twelve_bit_grey_uses_the_stored_bits(path, syntax):
    grey = np.linspace(0, 2000, H * W).astype(np.uint16).reshape(H, W)
    got = read_image(save(path, make(grey, "MONOCHROME2", bits=12, syntax=syntax)))
    np.testing.assert_array_equal(got[..., 0], np.rint(grey / 4095 * 255))


def test_signed_grey_and_rescale(path):
    grey = np.linspace(-128, 127, H * W).astype(np.int8).reshape(H, W)
    wanted = grey.astype(int) + 128
    signed = make(grey, "MONOCHROME2", Modality="CT")  # those of ultrasound are never signed
    np.testing.assert_array_equal(read_image(save(path, signed))[..., 0], wanted)
    rescaled = make(grey, "MONOCHROME2", Modality="CT", RescaleSlope="2", RescaleIntercept="-1000")
    np.testing.assert_array_equal(read_image(save(path, rescaled))[..., 0], wanted)


def test_window_after_rescale(path):
    grey = np.arange(H * W, dtype=np.uint16).reshape(H, W)
    tags = {"RescaleSlope": "2", "RescaleIntercept": "10", "WindowCenter": ["600", "1"], "WindowWidth": ["400", "2"]}
    got = read_image(save(path, make(grey, "MONOCHROME2", bits=12, **tags)))
    x = grey * 2.0 + 10
    wanted = ((x - 599.5) / 399 + 0.5).clip(0, 1) * 255  # PS3.3 C.11.2.1.2.1
    assert np.abs(got[..., 0] - wanted).max() <= 0.5 + 1e-6
    assert got.min() == 0
    assert got.max() == 255
    np.testing.assert_array_equal(read_image(save(path, make(grey, "MONOCHROME1", bits=12, **tags))), 255 - got)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_grey_by_table_equals_grey_by_pixel(kind, photometric):
    limits = np.iinfo(np.dtype(kind))
    stored = np.random.default_rng(0).integers(limits.min, limits.max, (300, 300), kind, endpoint=True)
    stored[0, :2] = limits.min, limits.max
    ds = make(stored, photometric, RescaleSlope="0.5", RescaleIntercept="-10", WindowCenter="20", WindowWidth="90")
    np.testing.assert_array_equal(dicom_pixels._grey_to_byte(stored, ds), dicom_pixels._grey_chain(stored, ds))


def test_window_of_width_zero_is_ignored(path):
    grey = np.arange(H * W, dtype=np.uint16).reshape(H, W).astype(np.uint8)
    got = read_image(save(path, make(grey, "MONOCHROME2", WindowCenter="0", WindowWidth="0")))
    np.testing.assert_array_equal(got[..., 0], grey)


def test_voi_lut(path):
    item = Dataset()
    item.LUTDescriptor = [256, 0, 16]
    table = (np.linspace(0, 1, 256) ** 2 * 65535).astype("<u2")
    item.LUTData = table.tobytes()
    item["LUTData"].VR = "OW"
    grey = np.arange(H * W, dtype=np.uint16).reshape(H, W).astype(np.uint8)
    got = read_image(save(path, make(grey, "MONOCHROME2", VOILUTSequence=Sequence([item]))))
    np.testing.assert_array_equal(got[..., 0], np.rint(table[grey] / 65535 * 255))


# ---- colour -------------------------------------------------------------------------------------------------------


def test_rgb_planar_or_not(path, rgb):
    np.testing.assert_array_equal(read_image(save(path, make(rgb, "RGB"))), rgb)
    planar = make(rgb, "RGB", PlanarConfiguration=1)
    planar.PixelData = rgb.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(read_image(save(path, planar)), rgb)


def test_ybr_full(path, rgb):
    got = read_image(save(path, make(rgb, "YBR_FULL")))
    assert np.abs(got - ybr_to_rgb(rgb)).max() <= 1


def test_ybr_full_422(path, rgb):
    ybr = rgb.copy()
    ybr[:, 1::2, 1:] = ybr[:, ::2, 1:]  # two neighbours share their colour
    packed = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    ds = make(rgb, "YBR_FULL_422")
    ds.PixelData = packed.tobytes()
    assert np.abs(read_image(save(path, ds)) - ybr_to_rgb(ybr)).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_with_first_entry_and_clipping(path, bits):
    index = np.random.default_rng(2).integers(0, 100, (H, W), dtype=np.uint8)
    table = np.random.default_rng(3).integers(0, 2**bits, (3, 50)).astype(f"<u{bits // 8}")
    ds = make(index, "PALETTE COLOR")
    for colour, column in zip(("Red", "Green", "Blue"), table, strict=True):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [50, 20, bits])
        setattr(ds, f"{colour}PaletteColorLookupTableData", column.tobytes())
    got = read_image(save(path, ds))
    wanted = np.moveaxis(table[:, (index.astype(int) - 20).clip(0, 49)] >> (bits - 8), 0, -1)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("entry", "wanted"), [(65535, 0), (255, 200)])
def test_the_depth_of_a_palette_comes_from_the_table(path, entry, wanted):
    table = np.array([200, entry], dtype="<u2")
    ds = make(np.zeros((H, W), np.uint8), "PALETTE COLOR")  # the second entry is not used
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [2, 0, 16])
        setattr(ds, f"{colour}PaletteColorLookupTableData", table.tobytes())
    assert np.unique(read_image(save(path, ds))).tolist() == [wanted]


def test_segmented_palette(path):
    index = np.tile(np.arange(W, dtype=np.uint8), (H, 1))
    ds = make(index, "PALETTE COLOR")
    segments = np.array([0, 2, 0, 0x1000, 1, W - 2, 0xFF00], dtype="<u2")  # discrete 0, 0x1000; linear up to 0xFF00
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [W, 0, 16])
        setattr(ds, f"Segmented{colour}PaletteColorLookupTableData", segments.tobytes())
    wanted = np.concatenate([[0], np.linspace(0x1000, 0xFF00, W - 1)]) / 256
    got = read_image(save(path, ds))
    assert (got == got[:1, :, :1]).all()
    assert np.abs(got[0, :, 0] - wanted).max() <= 1


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_compression(path, rgb, syntax):
    rgb = np.tile(rgb, (2, 2, 1))  # JPEG 2000 wants room for its five wavelet levels
    cine = np.stack([rgb, 255 - rgb, rgb // 2])
    ds = make(cine, "RGB")
    ds.compress(syntax)
    save(path, ds)
    for frame in range(3):
        np.testing.assert_array_equal(read_image(path, frame=frame), cine[frame])


def test_jpeg_baseline_colour(path):
    flat = np.full((H, W, 3), (220, 60, 20), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(flat).save(buffer, "JPEG", quality=95)
    ds = make(flat, "YBR_FULL_422", syntax=JPEGBaseline8Bit)
    ds.PixelData = encapsulate([buffer.getvalue()])
    ds["PixelData"].is_undefined_length = True
    assert np.abs(read_image(save(path, ds)).astype(int) - flat).max() <= 3


# ---- frames, header, errors ---------------------------------------------------------------------------------------


def test_only_the_requested_frame_is_decoded(path, rgb, monkeypatch):
    cine = np.stack([np.full_like(rgb, 10 * i) for i in range(20)])
    ds = make(cine, "RGB")
    ds.compress(RLELossless)
    save(path, ds)
    asked, parsed = [], []
    decode, parse = dicom.pixel_array, pydicom.dcmread
    monkeypatch.setattr(dicom, "pixel_array", lambda *a, **k: (asked.append(k["index"]), decode(*a, **k))[1])
    monkeypatch.setattr(pydicom, "dcmread", lambda *a, **k: (parsed.append(1), parse(*a, **k))[1])
    assert [int(read_image(path, frame=i)[0, 0, 0]) for i in range(20)] == list(range(0, 200, 10))
    assert asked == list(range(20))
    assert len(parsed) == 1


def with_frames(path: Path, cine: np.ndarray, kind: str) -> Path:
    """A cine in one of the ways in which frames can lie in a file."""
    ds = make(cine, "RGB")
    if kind != "native":
        ds.file_meta.TransferSyntaxUID, ds.PhotometricInterpretation = JPEGBaseline8Bit, "YBR_FULL_422"
        coded = []
        for picture in cine:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, format="JPEG")
            coded.append(buffer.getvalue())
        if kind == "extended table":
            ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(coded)
        else:
            pieces = 3 if "pieces" in kind else 1
            ds.PixelData = encapsulate(coded, has_bot="table" in kind, fragments_per_frame=pieces)
        ds["PixelData"].is_undefined_length = True
    return save(path, ds)


KINDS = ("native", "table", "no offsets", "extended table", "pieces, table", "pieces, no offsets")


@pytest.mark.parametrize("kind", KINDS)
def test_single_frames_equal_the_whole_cine(path, rgb, kind):
    cine = np.stack([np.roll(rgb, i, axis=1) for i in range(7)])
    whole = pydicom.dcmread(with_frames(path, cine, kind)).pixel_array
    for frame in (6, 0, 3, 3, 5, 1, 2, 4):
        np.testing.assert_array_equal(read_image(path, frame=frame), whole[frame])


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_late_frame_takes_no_longer_than_an_early_one(path, rgb, kind, monkeypatch):
    with_frames(path, np.stack([rgb] * 50), kind)
    reads = []
    unpack = encaps.unpack
    monkeypatch.setattr(encaps, "unpack", lambda *a: (reads.append(1), unpack(*a))[1])
    read_image(path, frame=1)  # may look for all frames, once
    steps = []
    for frame in (0, 25, 48):
        reads.clear()
        read_image(path, frame=frame)
        steps.append(len(reads))
    assert len(set(steps)) == 1
    assert steps[0] < 50


def test_a_truncated_cine_gives_its_complete_frames(path, rgb):
    whole = with_frames(path, np.stack([rgb] * 5), "no offsets").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert count_frames(path) == 5
    with pytest.raises(DataError, match="pixel data"):
        read_image(path, frame=4)


def test_a_changed_file_is_read_again(path, rgb):
    save(path, make(rgb, "RGB"))
    assert image_size(path) == (H, W)
    save(path, make(rgb[:10], "RGB"))
    assert image_size(path) == (10, W)
    np.testing.assert_array_equal(read_image(path), rgb[:10])


@pytest.mark.parametrize("frame", [-1, 2, 99])
def test_frame_out_of_range(path, rgb, frame):
    save(path, make(np.stack([rgb, rgb]), "RGB"))
    with pytest.raises(DataError, match=rf"2 frame\(s\), but frame {frame} was requested"):
        read_image(path, frame=frame)


def test_without_preamble_or_suffix(tmp_path, rgb):
    ds = make(rgb, "RGB")
    named = tmp_path / "IM0001"
    np.testing.assert_array_equal(read_image(save(named, ds)), rgb)
    for syntax, little in (
        (ImplicitVRLittleEndian, True),
        (ExplicitVRLittleEndian, True),
        (ExplicitVRBigEndian, False),
    ):
        bare = tmp_path / f"{syntax}.dcm"
        naked = make(rgb, "RGB")
        del naked.file_meta
        naked.save_as(bare, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little)
        assert bare.read_bytes()[128:132] != b"DICM"
        np.testing.assert_array_equal(read_image(bare), rgb)


@pytest.mark.parametrize(
    ("syntax", "advice"),
    [
        *((syntax, re.escape("pip install 'ultraad[dicom-codecs]'")) for syntax in (JPEGLSLossless, JPEGLosslessSV1)),
        (HEVCMP51, "video: export the frames"),
    ],
)
def test_encodings_without_a_decoder_are_named(path, rgb, syntax, advice, monkeypatch):
    ds = make(rgb, "RGB", syntax=syntax)
    ds.PixelData = encapsulate([b"\0" * 100])
    ds["PixelData"].is_undefined_length = True
    save(path, ds)

    class Nothing:
        is_available = False

    monkeypatch.setattr(dicom_codecs, "installed", lambda: False)
    if syntax != HEVCMP51:  # so that the test holds where a plug-in of pydicom is installed
        monkeypatch.setattr(dicom, "get_decoder", lambda _: Nothing)
    with pytest.raises(DataError, match=advice) as caught:
        read_image(path)
    assert syntax.name in str(caught.value)


def test_damaged_files(path, rgb, tmp_path):
    whole = save(path, make(rgb, "RGB")).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-500])
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "cut.dcm")
    (tmp_path / "text.dcm").write_bytes(b"no dicom at all, just some text that goes on" * 5)
    with pytest.raises(DataError, match=r"text\.dcm"):
        read_image(tmp_path / "text.dcm")
    (tmp_path / "magic.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(DataError, match="contains no DICOM data"):
        read_image(tmp_path / "magic.dcm")
    torn = make(rgb, "RGB")
    torn.compress(RLELossless)
    torn.PixelData = encapsulate([b"\0" * 10])  # the run-length header alone is 64 bytes
    with pytest.raises(DataError, match=r"pixel data \(RLE Lossless\)"):
        read_image(save(path, torn))
    no_pixels = make(rgb, "RGB")
    del no_pixels.PixelData
    with pytest.raises(DataError, match="cannot be read"):
        read_image(save(path, no_pixels))


def test_missing_files(path):
    with pytest.raises(DataError, match="does not exist"):
        dicom.metadata(path)


def test_size_limits(path):
    with pytest.raises(DataError, match="at least 8 x 8"):
        read_image(save(path, make(np.zeros((4, 90), np.uint8), "MONOCHROME2")))
    huge = make(np.zeros((H, W), np.uint8), "MONOCHROME2")
    huge.Rows = huge.Columns = 20_000
    with pytest.raises(DataError, match="64 megapixels"):
        read_image(save(path, huge))


def region(**tags) -> Dataset:
    item = Dataset()
    defaults = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "RegionLocationMinX0": 0,
        "RegionLocationMinY0": 0,
        "RegionLocationMaxX1": W - 1,
        "RegionLocationMaxY1": H - 1,
        "PhysicalDeltaX": 0.01,
        "PhysicalDeltaY": 0.02,
    }
    for name, value in {**defaults, **tags}.items():
        setattr(item, name, value)
    return item


@pytest.mark.parametrize(
    ("regions", "pixel_spacing", "wanted"),
    [
        ([region()], None, (0.2, 0.1)),  # cm to mm, (row, col)
        ([region(), region(RegionSpatialFormat=4, PhysicalDeltaX=9.0)], None, (0.2, 0.1)),  # a waveform has no say
        ([region(), region()], None, (0.2, 0.1)),
        ([region(), region(PhysicalDeltaX=0.02)], None, None),  # split screen, two scales
        ([region(RegionLocationMaxX1=2 * W)], None, None),  # the regions of a larger picture
        ([region(PhysicalDeltaX=0.0)], None, None),
        ([region(PhysicalDeltaX=-0.01)], None, (0.2, 0.1)),
        ([], ["0.3", "0.25"], (0.3, 0.25)),
        ([region(PhysicalUnitsXDirection=4)], ["0.3", "0.25"], (0.3, 0.25)),
        ([], ["0", "0"], None),
        ([], None, None),
    ],
)
def test_spacing(path, rgb, regions, pixel_spacing, wanted):
    tags = {"SequenceOfUltrasoundRegions": Sequence(regions)} if regions else {}
    if pixel_spacing:
        tags["PixelSpacing"] = pixel_spacing
    got = dicom.metadata(save(path, make(rgb, "RGB", **tags)))["spacing_mm"]
    assert got == (wanted if wanted is None else pytest.approx(wanted))


def test_shipped_files_that_were_scaled_after_the_scanner_have_no_spacing():
    for name in ("examples_ybr_color.dcm", "examples_palette.dcm"):  # regions of 640 x 480 and 800 x 600 pictures
        assert "SequenceOfUltrasoundRegions" in pydicom.dcmread(SHIPPED / name)
        assert dicom.metadata(SHIPPED / name)["spacing_mm"] is None


def test_metadata(path, rgb):
    tags = {"PatientID": "HELLO-17", "Manufacturer": "Maker ", "ManufacturerModelName": "", "NumberOfFrames": 1}
    tags["FrameTime"] = "40"
    facts = dicom.metadata(save(path, make(rgb, "RGB", **tags)))
    assert facts.pop("patient") != "HELLO-17"
    assert facts == {
        "modality": "US",
        "age_years": None,
        "sex": None,
        "frames": 1,
        "frame_ms": 40.0,
        "size": (H, W),
        "spacing_mm": None,
        "views": (),
        "region": None,
        "manufacturer": "Maker",
        "model": None,
        "photometric": "RGB",
        "transfer_syntax": "Explicit VR Little Endian",
    }


def test_patients_are_told_apart_and_never_named(path, rgb):
    def patient(**tags) -> str | None:
        return dicom.metadata(save(path, make(rgb, "RGB", **tags)))["patient"]

    first = patient(PatientID="1")
    assert first == patient(PatientID="1 ")
    assert len({first, patient(PatientID="2"), patient(PatientID="1", IssuerOfPatientID="elsewhere")}) == 3
    assert patient() is None
    assert patient(PatientID="") is None


def test_a_header_with_invalid_values_is_a_data_error(path):
    for function in (dicom.metadata, read_image):
        with pytest.raises(DataError, match="DICOM header of"):
            function(SHIPPED / "badVR.dcm")
