"""Sentences and learnable words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ultraad.backbones._door import Backbone


def unit(x: torch.Tensor) -> torch.Tensor:
    """L2-normalise the last dimension: the n(.) of the papers."""
    return F.normalize(x, dim=-1)


def cosine(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Cosines (... n r) of vectors (... n d) with unit rows (... r d); cheaper than ``unit(x) @ rows.mT`` if r < d."""
    return torch.div(x @ rows.mT, torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12))


@torch.no_grad()
def encode_ensemble(backbone: Backbone, sentences: Sequence[str]) -> torch.Tensor:
    """n(mean_j n(E_t(sentence_j))), f32 (d,): the prompt ensemble of CLIP (Radford et al., 2021, sec. 3.1.4)."""
    return unit(unit(backbone.encode_text(list(sentences))).mean(0))


def word_embeddings(backbone: Backbone, words: str) -> torch.Tensor:
    """Input embeddings f32 (t text_width) of the tokens of some words, without start and end tokens."""
    tokens = backbone.tokenize([words])
    eot = int(backbone.end_of_text(tokens)[0])
    return backbone.embed_text(tokens)[0, 1:eot]


class Template:
    """Frozen words with a slot for learnable ones, e.g. ``"A photo of a normal {}"``.

    Args:
        backbone: Its tokenizer and word embeddings are used.
        text: Contains ``{}`` exactly once.
    """

    def __init__(self, backbone: Backbone, text: str) -> None:
        before, _, after = text.partition("{}")
        self.before = torch.cat([_start(backbone), word_embeddings(backbone, before.strip())])
        rest = word_embeddings(backbone, after.strip()) if after.strip() else self.before[:0]
        self.after = torch.cat([rest, _end(backbone)])

    def fill(self, slots: torch.Tensor, *, context: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Put learnable words in.

        Args:
            slots: f32 (b r text_width).
            context: f32 (m text_width) replacing the first m frozen words after the start token; None keeps them.

        Returns:
            Embeddings f32 (b length text_width) and read-out positions int64 (b,): for ``encode_prompts``.
        """
        before = self.before
        if context is not None:
            before = torch.cat([before[:1], context, before[1 + len(context) :]])
        b = slots.shape[0]
        embeds = torch.cat([before.expand(b, -1, -1), slots, self.after.expand(b, -1, -1)], dim=1)  # (b length w)
        return embeds, torch.full((b,), embeds.shape[1] - 1, device=embeds.device)


def together(sides: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Several results of :meth:`Template.fill` in one batch, for one run of the text tower, padded with zeros.

    Args:
        sides: Embeddings f32 (b length text_width) and read-out positions int64 (b,), each.

    Returns:
        Embeddings f32 (sides*b longest text_width) and read-out positions int64 (sides*b,), in order.
    """
    longest = max(embeds.shape[1] for embeds, _ in sides)
    padded = [F.pad(embeds, (0, 0, 0, longest - embeds.shape[1])) for embeds, _ in sides]
    return torch.cat(padded), torch.cat([eot for _, eot in sides])


def _start(backbone: Backbone) -> torch.Tensor:
    return backbone.embed_text(backbone.tokenize(["a"]))[0, :1]


def _end(backbone: Backbone) -> torch.Tensor:
    tokens = backbone.tokenize(["a"])
    eot = int(backbone.end_of_text(tokens)[0])
    return backbone.embed_text(tokens)[0, eot : eot + 1]


def starting_words(backbone: Backbone, words: str, count: int, *, generator: torch.Generator) -> torch.Tensor:
    """``count`` learnable words f32 (count text_width): the embeddings of ``words`` first, N(0, 0.02) for the rest."""
    known = word_embeddings(backbone, words)[:count] if words else torch.zeros(0, backbone.text_width)
    drawn = 0.02 * torch.randn(count - len(known), backbone.text_width, generator=generator)
    return torch.cat([known.cpu(), drawn]).to(backbone.device)
