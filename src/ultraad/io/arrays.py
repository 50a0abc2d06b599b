"""Pictures in memory as 8-bit RGB, in the forms that cameras, Pillow, OpenCV and torch give them."""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ultraad.errors import ConfigError, DataError
from ultraad.io.brightness import (
    GREY_DEPTHS,
    grey_depth,
    grey_to_rgb,
    over_black,
    scale_grey,
    scaled,
    to_rgb8,
    unit_to_byte,
)
from ultraad.io.faults import Faults
from ultraad.io.image import image_region, read_image
from ultraad.io.raster import check_size
from ultraad.types import Box

_WANTED = "wanted (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of uint8, uint16, or float in 0..1"
_CHANNELS = (1, 3, 4)
_FILE = "the file in memory"
_PHOTOMETRIC_TAG = 262  # TIFF 6.0


def as_rgb8(x: Any, *, name: str = "the array", depth: int | None = None) -> NDArray[np.uint8]:  # noqa: ANN401
    """One picture in memory as 8-bit RGB.

    Shapes are (h w), (h w 1), (h w 3) and (h w 4). A torch tensor may also be (1 h w), (3 h w) or (4 h w): its first
    axis is the channels if it has 1, 3 or 4 entries and the last has not. No picture is that narrow, so this is never
    ambiguous. A numpy array (3 h w) may be three frames, and is refused. The fourth channel is alpha; as in files, the
    picture is laid over black.

    Brightness is treated as in files (:mod:`ultraad.io.brightness`):

    - uint8 as it is; float in 0..1 times 255.
    - Other integers: full scale is the smallest depth of 8, 10, 12, 14 and 16 bits that holds the brightest pixel. One
      frame cannot know the depth of its camera: give ``depth``, else a dark frame of 12 bits is taken for one of 10.

    Channels are red, green, blue. OpenCV's cameras give blue, green, red: for grey ultrasound that is the same, for
    colour Doppler give ``x[..., ::-1]``.

    Args:
        x: An array, or what numpy makes one of; a torch tensor; or a Pillow image, turned upright by its EXIF data.
        name: What a message calls it.
        depth: Bits of an integer pixel, 8 to 16, for integers of more than 8 bits; None takes them from the pixels.

    Returns:
        uint8 (h w 3); a view of ``x`` if that is what ``x`` is.

    Raises:
        ConfigError: If ``depth`` is no number of bits.
        DataError: If it has a wrong shape, type or range, masked, NaN or no pixels, or fewer than 8 on a side.
    """
    if depth is not None and depth not in range(GREY_DEPTHS[0], GREY_DEPTHS[-1] + 1):
        msg = f"depth={depth}: wanted a whole number of bits, 8 to 16, or None to take them from the pixels"
        raise ConfigError(msg)
    if isinstance(x, Image.Image):
        x, name = _from_pillow(x), "the picture"
        if x.dtype == np.uint8:
            return np.asarray(x)
    array = _as_array(x, name)
    name = f"{name} {array.shape} {array.dtype}"
    _check_type(array, name)
    if array.ndim == 2:
        array = array[..., None]  # (h w 1)
    _check_shape(array, name)
    colour = _to_byte(array[..., :3], name, depth)
    if array.shape[-1] == 4:
        opaque = array[..., 3:]
        own = depth or (grey_depth(opaque) if opaque.dtype.kind in "iu" else None)  # not that of the colours
        alpha = _to_byte(opaque, f"the alpha channel of {name}", own)
        if not alpha.any():
            msg = f"{name} is fully transparent: its fourth channel is 0. If that is no alpha, give x[..., :3]"
            raise DataError(msg)
        return over_black(np.concatenate([colour, alpha], axis=-1))
    return grey_to_rgb(colour[..., 0]) if colour.shape[-1] == 1 else colour


def read_content(data: bytes, *, frame: int = 0) -> tuple[NDArray[np.uint8], Box | None]:
    """The bytes of an image file, DICOM included, as :func:`~ultraad.io.image.read_image` reads the file.

    With them comes the part that shows tissue, as :func:`~ultraad.io.image.image_region` finds it.

    The reader of DICOM finds frames in a file, so the bytes pass through a temporary one.

    Args:
        data: The whole file.
        frame: 0-based frame of a file with several.

    Raises:
        DataError: As :func:`~ultraad.io.image.read_image`.
    """
    with (
        Faults(f"{_FILE} cannot be read", about=_FILE, advice="Give its path"),
        tempfile.TemporaryDirectory(prefix="ultraad-") as folder,
    ):
        path = Path(folder) / _FILE
        path.write_bytes(data)
        try:
            return read_image(path, frame=frame), image_region(path)
        except DataError as e:
            raise DataError(str(e).replace(str(path), _FILE)) from e


def content_of(x: Any) -> bytes | None:  # noqa: ANN401
    """The content of ``bytes``, or of an open file from its start; None for anything else.

    Raises:
        DataError: If the file was opened as text.
    """
    if isinstance(x, (bytes, bytearray)) or (isinstance(x, memoryview) and x.ndim == 1):
        return bytes(x)
    if isinstance(x, BytesIO):
        return x.getvalue()
    if not hasattr(x, "read"):
        return None
    with Faults("the open file cannot be read", about="open file", advice="Give its path, or its bytes"):
        if x.seekable():
            x.seek(0)
        data = x.read()
    if not isinstance(data, bytes):
        msg = "the file is open as text, wanted bytes; open it with 'rb', or give its path"
        raise DataError(msg)
    return data


def _from_pillow(picture: Image.Image) -> NDArray[Any]:
    """uint8 (h w 3), or the stored values (h w) of integer and float modes."""
    name = f"the picture ({picture.width} x {picture.height}, mode {picture.mode})"
    check_size((picture.height, picture.width), name)
    tags = getattr(picture, "tag_v2", {})
    if tags.get(_PHOTOMETRIC_TAG) == 0 and picture.mode[0] in "IF":
        msg = f"{name} is a TIFF in which 0 is white, which Pillow does not invert; give the path of the file"
        raise DataError(msg)
    with Faults(f"{name} cannot be converted to RGB", about=name, advice="Convert it first: picture.convert('RGB')"):
        upright = ImageOps.exif_transpose(picture)
        return np.asarray(upright) if upright.mode[0] in "IF" else to_rgb8(upright, name=name)


def _as_array(x: Any, name: str) -> NDArray[Any]:  # noqa: ANN401
    """A numpy array of any shape and type, channels last."""
    torch = sys.modules.get("torch")  # a tensor exists only where torch is imported
    if torch is not None and isinstance(x, torch.Tensor):
        with Faults(f"the tensor {tuple(x.shape)} {x.dtype} has no pixels for numpy", about="tensor", advice=_WANTED):
            x = x.detach().cpu()
            array = np.asarray(x.float() if x.dtype == torch.bfloat16 else x)
        first = array.ndim == 3 and array.shape[0] in _CHANNELS and array.shape[2] not in _CHANNELS
        return np.moveaxis(array, 0, -1) if first else array
    kind = type(x).__name__
    if isinstance(x, (list, tuple, dict, set)) or x is None:
        what = "OpenCV's imread gives None for a file that it cannot read" if x is None else "give them one by one"
        msg = (
            f"got {kind}, wanted one picture: a path, an array, a tensor, a Pillow image or the bytes of a file; {what}"
        )
        raise DataError(msg)
    if isinstance(x, np.ma.MaskedArray):
        msg = f"{name} {x.shape} {x.dtype} is a masked array; {_WANTED}. Say what is under the mask: x.filled(0)"
        raise DataError(msg)
    with Faults(f"numpy makes no array of {kind}", about=kind, advice=_WANTED):
        return np.asarray(x)


def _check_type(array: NDArray[Any], name: str) -> None:
    """Refuse arrays whose values are no brightness."""
    kind = array.dtype.kind
    if kind == "b":
        msg = f"{name} is a mask; {_WANTED}. If it is a picture: x.astype(numpy.uint8) * 255"
    elif kind not in "uif":
        msg = (
            f"{name} holds no plain numbers; {_WANTED}. Rows of different lengths, or several pictures, give this type"
        )
    elif array.size == 0:
        msg = f"{name} is empty; {_WANTED}, at least 8 x 8. Check the source of the frame"
    elif kind == "f" and not (finite := np.isfinite(array)).all():
        count = int(finite.size - np.count_nonzero(finite))
        msg = f"{name} has {count} values that are NaN or infinite; {_WANTED}. Replace them first: numpy.nan_to_num(x)"
    else:
        return
    raise DataError(msg)


def _check_shape(array: NDArray[Any], name: str) -> None:
    """Refuse arrays that are not one picture (h w c)."""
    if array.ndim == 3 and array.shape[-1] in _CHANNELS:
        check_size((array.shape[0], array.shape[1]), name)
        return
    advice = "Give one picture"
    if array.ndim == 3 and array.shape[0] in _CHANNELS:
        advice = "If its channels come first: numpy.moveaxis(x, 0, -1); if it is several frames, give them one by one"
    elif array.ndim == 4:
        advice = f"It looks like {array.shape[0]} pictures; give them one by one: x[0]"
    msg = f"{name} is no picture; {_WANTED}. {advice}"
    raise DataError(msg)


def _to_byte(values: NDArray[Any], name: str, depth: int | None) -> NDArray[np.uint8]:
    """uint8 of the same shape."""
    if values.dtype.kind == "f":
        return unit_to_byte(values, name=name)
    if values.dtype == np.uint8:
        return values
    if depth is None:
        return scale_grey(values, name=name)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**depth:
        wanted = f"wanted 0..{2**depth - 1}, as {depth} bits hold"
        msg = f"{name} has values {low}..{high}, {wanted}. Give the depth of the camera"
        raise DataError(msg)
    return scaled(values, depth=depth)
