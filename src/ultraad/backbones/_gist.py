"""The gist of an image: what kind of picture it is, without where anything is. The tower's first step gives it.

While someone listens, it is kept of every batch that enters the tower, so that nothing is encoded twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch


class Tower(Protocol):
    """What is needed of a :class:`ultraad.backbones._door.Backbone`, which needs this module itself."""

    gists: list[torch.Tensor] | None

    def embed_image(self, images: torch.Tensor) -> torch.Tensor: ...


def gist_of(tokens: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of the patches of tokens (b 1+n w): f32 (b 2w)."""
    patches = tokens.detach()[:, 1:].float()
    return torch.cat([patches.mean(1), patches.std(1)], 1)


@torch.no_grad()
def gist(backbone: Tower, images: torch.Tensor) -> torch.Tensor:
    """The gist f32 (b 2w) of images f32 (b 3 s s), by the first step of the tower alone."""
    return gist_of(backbone.embed_image(images))


@contextmanager
def listening(backbone: Tower) -> Iterator[list[torch.Tensor]]:
    """Inside, the gists f32 (b 2w) of every batch that enters the tower are kept in the list, in order.

    Caches of ``Backbone.new_cache`` keep gists, too, and give the first of them.
    """
    outer, kept = backbone.gists, list[torch.Tensor]()
    backbone.gists = kept
    try:
        yield kept
    finally:
        backbone.gists = outer


def heard(backbone: Tower, batches: Sequence[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The gists f32 (b 2w) of images (b 3 s s) that were encoded while :func:`listening`.

    The first step of the tower runs again only if the features came from the backbone's own cache.
    """
    if batches and len(batches[0]) == len(images):
        return batches[0]  # a tower that looks again, in a mirror or through windows, does so after the first look
    return gist(backbone, images)
