"""What all tests of the node share."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _closed_sockets() -> Iterator[None]:
    """pynetdicom leaves the socket of a refused connection to the garbage collector: collect it here, quietly."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
