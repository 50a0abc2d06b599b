"""Several towers as one: their vectors side by side, so that a cosine is the mean of their cosines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NoReturn, cast

import torch
import torch.nn.functional as F
from torch import nn

from ultraad.backbones._door import Around, Backbone, DType
from ultraad.backbones._gist import gists_of, listening
from ultraad.errors import ConfigError
from ultraad.types import Features


class Joined(Backbone):
    """Towers of one architecture as one backbone (ensemble), at the time of all of them.

    Every vector is the concatenation of those of the towers: tokens (w), joint vectors (d), word embeddings. All towers
    give vectors of about the same length, so a cosine in the joint space is about the mean of theirs, and log-odds are
    the mean of log-odds. Pictures arrive at the side of the largest tower. The others get them smaller, and their
    patches are enlarged to its grid.

    A method that works inside the blocks of a tower (``around``, tokens of its own) needs a single one.

    Args:
        towers: Backbones with the same width, layers, tokenizer and preprocessing, but for the side.
        name: The names of the towers, joined by ``+``.

    Attributes:
        towers: As they were given.
    """

    def __init__(self, towers: Sequence[Backbone], *, name: str) -> None:  # no super().__init__: it wraps one model
        self.towers = tuple(towers)
        self._lead = lead = max(towers, key=lambda tower: tower.size)
        self.name, self.preprocess = name, lead.preprocess
        self.model = nn.ModuleList(tower.model for tower in towers).eval()
        self.fingerprint = _digest(tower.fingerprint for tower in towers)
        self.weights = _digest(tower.weights for tower in towers)
        self.device, self.dtype, self._tokenizer = lead.device, lead.dtype, lead._tokenizer
        self.size, self.patch, self.grid, self.layers = lead.size, lead.patch, lead.grid, lead.layers
        self.context, self.organ = lead.context, lead.organ
        self.width = sum(tower.width for tower in towers)
        self.dim = sum(tower.dim for tower in towers)
        self.text_width = sum(tower.text_width for tower in towers)
        self.logit_scale = sum(tower.logit_scale for tower in towers) / len(towers)
        self.detail = sum(tower.detail for tower in towers) if all(tower.detail for tower in towers) else 0
        places = [tower.location for tower in towers if tower.location is not None]
        self.location = torch.stack(places).mean(0) if len(places) == len(towers) else None
        self._serving = None
        self._own_caches()

    @property
    def lead(self) -> Backbone:
        """The tower with the largest input. It alone gives the gist of an image."""
        return self._lead

    def in_dtype(self, dtype: DType) -> Backbone:
        """As of one tower."""
        return Joined([tower.in_dtype(dtype) for tower in self.towers], name=self.name)

    def embed_image(self, images: torch.Tensor) -> NoReturn:  # noqa: ARG002
        """Not possible: the tokens of one tower do not enter the blocks of another.

        Raises:
            ConfigError: Always.
        """
        names = " or ".join(tower.name for tower in self.towers)
        msg = f"this method works inside the blocks of a tower, so {self.name} is not possible; use {names}"
        raise ConfigError(msg)

    def encode_tokens(
        self,
        tokens: torch.Tensor,
        *,
        layers: Sequence[int] = (),  # noqa: ARG002
        around: Around | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """Not possible, see :meth:`embed_image`.

        Raises:
            ConfigError: Always.
        """
        self.embed_image(tokens)

    def _run_tower(self, images: torch.Tensor, *, layers: Sequence[int], around: Around | None = None) -> Features:
        if around is not None:
            self.embed_image(images)
        with listening(self.lead) as gists:
            found = [tower.encode_image(_resized(images, tower.size), layers=layers) for tower in self.towers]
        if (kept := gists_of(self)) is not None:
            kept += gists[:1]
        details = [_resized(f.detail, 2 * self.grid[0]) for f in found if f.detail is not None]
        return Features(
            image=torch.cat([f.image for f in found], -1),
            patches={layer: torch.cat([self._on_grid(f, layer) for f in found], -1) for layer in layers},
            cls={layer: torch.cat([f.cls[layer] for f in found], -1) for layer in layers},
            grid=self.grid,
            detail=torch.cat(details, 1) if self.detail else None,
        )

    def _on_grid(self, f: Features, layer: int) -> torch.Tensor:
        """Patches (b n w) of a tower at the places of the largest one's."""
        patches = f.patches[layer]
        return _resized(patches.reshape(patches.shape[0], *f.grid, -1).movedim(-1, 1), self.grid[0]).flatten(2).mT

    def finer(self, features: Features) -> Features:
        """As of one tower; each makes its own patches finer, on the grid of the largest."""
        if features.detail is None:
            return features
        widths = [tower.width for tower in self.towers]
        parts = {layer: torch.split(x, widths, -1) for layer, x in features.patches.items()}
        details = torch.split(features.detail, [tower.detail for tower in self.towers], 1)
        found = [
            tower.finer(replace(features, patches={layer: x[i] for layer, x in parts.items()}, detail=details[i]))
            for i, tower in enumerate(self.towers)
        ]
        together = {layer: torch.cat([f.patches[layer] for f in found], -1) for layer in parts}
        return replace(features, patches=together, grid=found[0].grid, detail=None)

    def post_norm(self, tokens: torch.Tensor) -> torch.Tensor:
        """The last layer norm of every tower on its own part of the tokens: (... w) to f32 (... w)."""
        return self._each(lambda tower, x: tower.post_norm(x), tokens, [tower.width for tower in self.towers])

    @property
    def projection(self) -> torch.Tensor:
        """The matrices into the joint spaces as one, block by block: f32 (w d)."""
        return cast("torch.Tensor", torch.block_diag(*(tower.projection for tower in self.towers)))  # type: ignore[no-untyped-call]

    def embed_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """As of one tower."""
        return torch.cat([tower.embed_text(tokens) for tower in self.towers], -1)

    def encode_prompts(
        self, embeds: torch.Tensor, eot: torch.Tensor, *, around: Around | None = None, project: bool = True
    ) -> torch.Tensor:
        """As of one tower, without ``around``.

        Raises:
            ConfigError: If ``around`` is given.
        """
        if around is not None:
            self.embed_image(embeds)
        widths = [tower.text_width for tower in self.towers]
        return self._each(lambda tower, x: tower.encode_prompts(x, eot, project=project), embeds, widths)

    def _each(
        self, apply: Callable[[Backbone, torch.Tensor], torch.Tensor], x: torch.Tensor, widths: list[int]
    ) -> torch.Tensor:
        """Apply something of every tower to its own part of the last axis."""
        return torch.cat([apply(*pair) for pair in zip(self.towers, torch.split(x, widths, -1), strict=True)], -1)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256(" + ".join(parts).encode()).hexdigest()


def _resized(x: torch.Tensor, side: int) -> torch.Tensor:
    """Pictures (b c s s) at another side: bilinear, with antialiasing, as two products, which every runtime can."""
    if x.shape[-1] == side:
        return x
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)[None, None]
    along = F.interpolate(eye, (side, x.shape[-1]), mode="bilinear", antialias=True)[0, 0]  # (side s)
    return along @ x @ along.mT
