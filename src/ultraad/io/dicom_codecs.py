"""Encodings of DICOM that pydicom does not decode by itself: JPEG of 12 bits, JPEG lossless, JPEG-LS and JPEG XL.

The extra ``dicom-codecs`` brings the decoders: imagecodecs, with libjpeg-turbo, CharLS and libjxl.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

INSTALL = "pip install 'ultraad[dicom-codecs]'"

_JPEG, _JPEG_LS, _JPEG_XL = "JPEG", "JPEG-LS", "JPEG XL"
_KINDS = {  # by transfer syntax UID
    "1.2.840.10008.1.2.4.51": _JPEG,  # 12 bits, lossy
    "1.2.840.10008.1.2.4.57": _JPEG,  # lossless
    "1.2.840.10008.1.2.4.70": _JPEG,  # lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": _JPEG_LS,
    "1.2.840.10008.1.2.4.81": _JPEG_LS,  # near-lossless
    "1.2.840.10008.1.2.4.110": _JPEG_XL,
    "1.2.840.10008.1.2.4.111": _JPEG_XL,
    "1.2.840.10008.1.2.4.112": _JPEG_XL,
}
_NAMES = {  # of encodings that are newer than pydicom, PS3.6 A.1
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}
_RGB_WHATEVER_THE_HEADER = ("1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112")  # libjxl undoes YBR and XYB itself
_END_OF_IMAGE = b"\xff\xd9"


def in_extra(syntax: str) -> bool:
    """Whether an encoding is one of those that the extra decodes."""
    return syntax in _KINDS


def installed() -> bool:
    """Whether the extra is there."""
    return find_spec("imagecodecs") is not None


def name_of(syntax: str) -> str | None:
    """The name of an encoding that pydicom does not know."""
    return _NAMES.get(syntax)


def keeps_colours(syntax: str) -> bool:
    """Whether the decoded samples are in the colours of the header's photometric interpretation, not always RGB."""
    return syntax not in _RGB_WHATEVER_THE_HEADER


def decode(code: bytes, syntax: str, *, samples: int) -> NDArray[Any]:
    """The stored values of one compressed frame; see :func:`keeps_colours`.

    Args:
        code: The compressed frame.
        syntax: A transfer syntax of :func:`in_extra`.
        samples: Samples per pixel according to the header.

    Returns:
        uint8 or uint16, (h w) or (h w 3).

    Raises:
        ValueError: If the frame is cut off, or decodes to something else.
        RuntimeError: If the decoder refuses it.
    """
    import imagecodecs

    if _KINDS[syntax] != _JPEG_XL and _END_OF_IMAGE not in code[-16:]:
        msg = "the compressed picture is cut off"  # libjpeg would fill it with grey, and CharLS search for seconds
        raise ValueError(msg)
    if _KINDS[syntax] == _JPEG:
        as_stored = "rgb" if samples == 3 else None  # the same colours in and out: no conversion
        pixels = imagecodecs.jpeg8_decode(code, colorspace=as_stored, outcolorspace=as_stored)
    elif _KINDS[syntax] == _JPEG_LS:
        pixels = imagecodecs.jpegls_decode(code)
    else:
        pixels = imagecodecs.jpegxl_decode(code, index=0, numthreads=1)
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[2:] != ((samples,) if samples > 1 else ()):
        msg = (
            f"the compressed picture decodes to {pixels.dtype} {pixels.shape}, wanted 8 or 16 bits, {samples} sample(s)"
        )
        raise ValueError(msg)
    return np.array(pixels)
