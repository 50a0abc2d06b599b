"""Other programs read what encode_png writes, value for value."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from ultraad.io.png import encode_png

SIDES = st.integers(1, 40)
SHAPES = st.one_of(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES, st.just(3)))


@given(arrays.arrays(np.uint8, SHAPES) | arrays.arrays(np.uint16, st.tuples(SIDES, SIDES)))
def test_two_decoders_give_the_same_array_back(array):
    data = encode_png(array)
    with Image.open(io.BytesIO(data)) as picture:
        picture.verify()  # checksums of all chunks
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == {(2, 1): "L", (3, 1): "RGB", (2, 2): "I;16"}[array.ndim, array.itemsize]
        np.testing.assert_array_equal(np.asarray(picture), array)
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., ::-1] if array.ndim == 3 else read, array)


@pytest.mark.parametrize(
    "view", [lambda a: a[::-1], lambda a: a[:, ::2], lambda a: a.transpose(1, 0, 2), lambda a: a[..., 1]]
)
def test_arrays_may_have_any_memory_layout(view):
    array = view(np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8))
    with Image.open(io.BytesIO(encode_png(array))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), array)


def test_a_smooth_map_is_compressed():
    ramp = np.add.outer(np.arange(256), np.arange(256)).astype(np.uint16)
    assert len(encode_png(ramp)) < ramp.nbytes / 20
