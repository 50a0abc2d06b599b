"""The gist of an image: what kind of picture it is, without where anything is. The tower's first step gives it.

While someone listens, it is kept of every batch that enters the tower, so that nothing is encoded twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch


class Tower(Protocol):
    """What is needed of a :class:`ultraad.backbones._door.Backbone`, which needs this module itself."""

    @property
    def lead(self) -> Tower: ...

    def embed_image(self, images: torch.Tensor) -> torch.Tensor: ...


_kept: ContextVar[tuple[object, list[torch.Tensor]] | None] = ContextVar("gists", default=None)
"""The tower that this thread listens to, and the gists so far."""


def gist_of(tokens: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of the patches of tokens (b 1+n w): f32 (b 2w)."""
    patches = tokens.detach()[:, 1:].float()
    return torch.cat([patches.mean(1), patches.std(1)], 1)


@torch.no_grad()
def gist(backbone: Tower, images: torch.Tensor) -> torch.Tensor:
    """The gist f32 (b 2w) of images f32 (b 3 s s), by the first step of the tower alone."""
    return gist_of(backbone.lead.embed_image(images))


@contextmanager
def listening(backbone: Tower) -> Iterator[list[torch.Tensor]]:
    """Inside, the gists f32 (b 2w) of every batch that enters the tower in this thread are kept in the list, in order.

    Caches of ``Backbone.new_cache`` keep gists, too, and give the first of them.
    """
    kept = list[torch.Tensor]()
    token = _kept.set((backbone, kept))
    try:
        yield kept
    finally:
        _kept.reset(token)


def gists_of(backbone: Tower) -> list[torch.Tensor] | None:
    """The list of :func:`listening` that this thread is in; None outside."""
    heard = _kept.get()
    return heard[1] if heard is not None and heard[0] is backbone else None


def heard(backbone: Tower, batches: Sequence[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The gists f32 (b 2w) of images (b 3 s s) that were encoded while :func:`listening`.

    The first step of the tower runs again only if the features came from the backbone's own cache.
    """
    if batches and len(batches[0]) == len(images):
        return batches[0]  # a tower that looks again, in a mirror or through windows, does so after the first look
    return gist(backbone, images)
