"""Random numbers: one named stream per purpose, never the global state.

Adding an augmentation must not change the support set, so every purpose has its own stream, derived from the user's
seed and the name of the purpose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def _entropy(seed: int, purpose: str) -> list[int]:
    if seed < 0:
        msg = f"seed must be >= 0, got {seed}"
        raise ValueError(msg)
    return [seed, int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")]


def seeded(seed: int, purpose: str) -> np.random.Generator:
    """A numpy generator for one purpose.

    Args:
        seed: Any integer >= 0; 0 is a seed like any other.
        purpose: Names the stream, e.g. ``"split"``, ``"init"``, ``"augment/<image id>"``.

    Returns:
        A generator that depends only on the two arguments.

    Raises:
        ValueError: If ``seed`` is negative.
    """
    return np.random.default_rng(_entropy(seed, purpose))


def torch_seeded(seed: int, purpose: str) -> torch.Generator:
    """A CPU torch generator for one purpose; see :func:`seeded`."""
    import torch

    state = int(seeded(seed, purpose).integers(0, 2**63 - 1))
    return torch.Generator().manual_seed(state)


@contextmanager
def torch_forked(seed: int, purpose: str) -> Iterator[None]:
    """Inside, torch's own initialisers use a separate stream; afterwards the global state is as before.

    Examples:
        >>> import torch
        >>> from ultraad.rng import torch_forked
        >>> with torch_forked(0, "init"):
        ...     layer = torch.nn.Linear(4, 2)
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seeded(seed, purpose).integers(2**31)))
        yield
