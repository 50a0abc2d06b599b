"""Tip-Adapter: a memory of support images beside the class texts, frozen or fine-tuned (Tip-Adapter-F).

Paper      Zhang et al., Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, ECCV 2022,
           arXiv 2207.09519.
Equations  K, Y     memory       n(mean over views of f) and one-hot labels of the support images
           S(x)     classes      n(f) W^T / tau + alpha exp(-beta (1 - n(f) K^T)) Y, tau that of the backbone
           F        fine-tuning  loss = CE of S; K is trained and not normalised again
Reference  gaopengcuhk/Tip-Adapter d0e2d6f (no licence; written from the paper).
Learned    K with ``finetune``, otherwise nothing; both towers, W and Y stay frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.class_texts import TextSource, class_sentences, class_texts
from ultraad.nn.class_tokens import ClassTokens, beside_texts, grade
from ultraad.nn.evidence import Evidence, Sentences, beside, votes_of
from ultraad.nn.key_value import cache_logits
from ultraad.nn.loop import train
from ultraad.nn.prompts import unit
from ultraad.texts.bank import TextBank, breast_texts
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="tip_adapter",
    title="Tip-Adapter(-F): adaption of CLIP for few-shot classification by a cache of the support images",
    paper="Zhang et al., ECCV 2022",
    url="https://arxiv.org/abs/2207.09519",
    reference="gaopengcuhk/Tip-Adapter d0e2d6f",
    licence="none stated; written from the paper",
    idea="combines the class texts with the labels of similar support images",
    learned="the keys of the memory (finetune=false: nothing)",
    outputs=frozenset({"score", "classes"}),
    needs=Needs(abnormal_images=True, class_labels=True),
    zero_shot=True,
    deviations=(
        "Tip-Adapter-F is the default, as UltraAD's memory is learned, too (finetune=false: the training-free version)",
        "alpha is 1 and beta 5.5 (paper); the reference starts at 1 to 2 and 1 and searches (alpha, beta, search)",
        "the search uses leave-one-out on the support (search); the reference searches on a validation set",
        "the last epoch is kept; the reference chooses its best epoch, and the better of two results, on the test set",
        "several sentences per class (text=template: one; the reference has one to seven templates)",
        "the temperature is that of the backbone; the reference has 100, the value of CLIP",
        "views are shifted, rotated and mirrored; the reference crops down to half of the area and mirrors",
        "views are drawn and encoded once (views); the reference draws new ones in every epoch of fine-tuning",
        "a class without support images has no keys but still has its texts; the reference fails",
    ),
)

SEARCH_STEPS = (200, 20)
"""Number of values of beta and alpha to try (reference configs)."""


class TipAdapterConfig(MethodConfig):
    """Every option of Tip-Adapter."""

    texts: TextBank | None = Field(None, description="text bank; None: breast ultrasound (ours)")
    text: TextSource = Field("bank", description="the bank's sentences (ours), or 'a photo of a ...' (reference)")
    finetune: bool = Field(default=True, description="train the keys: Tip-Adapter-F (ours); false: keep them")
    alpha: float = Field(1.0, ge=0, description="weight of the memory (paper sec. 4)")
    beta: float = Field(5.5, gt=0, description="sharpness of the memory (paper sec. 4)")
    search: Literal["off", "leave_one_out"] = Field(
        "off",
        description="leave_one_out: choose alpha and beta by accuracy on the support, each image classified without "
        "its own key (ours; the reference searches on its validation set)",
    )
    search_beta: float = Field(7.0, gt=0.1, description="end of the search for beta (reference configs: 7 to 50)")
    search_alpha: float = Field(3.0, gt=0.1, description="end of the search for alpha (reference configs: 3 to 50)")
    views: int = Field(10, ge=1, description="views per image, each encoded once (reference: 10)")
    epochs: int = Field(20, ge=0, description="of fine-tuning (paper sec. 4)")
    batch_size: int = Field(256, ge=1, description="images per step (paper sec. 4)")
    lr: float = Field(1e-3, gt=0, description="of AdamW, cosine per step (paper sec. 4)")
    eps: float = Field(1e-4, gt=0, description="of AdamW (reference main.py)")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW (reference: torch's default)")


def search_values(end: float, steps: int) -> list[float]:
    """The reference's grid: ``steps`` values from 0.1, without ``end`` itself."""
    return [0.1 + i * (end - 0.1) / steps for i in range(steps)]


def accuracy_grid(
    zero_shot: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    labels: torch.Tensor,
    *,
    betas: Sequence[float],
    alphas: Sequence[float],
    own: torch.Tensor | None = None,
) -> torch.Tensor:
    """Accuracy in [0, 1] for every pair of beta and alpha.

    Args:
        zero_shot: Logits of the class texts f32 (b c).
        query: Unit class tokens f32 (b d).
        keys: f32 (m d).
        values: One-hot f32 (m c).
        labels: int64 (b,).
        betas: Sharpnesses.
        alphas: Weights.
        own: int64 (b,), each query's own key, which is left out.

    Returns:
        f32 (betas alphas).
    """
    rows = []
    for beta in betas:
        votes = cache_logits(query, keys, values, beta=beta, own=own)  # (b c)
        logits = torch.stack([zero_shot + alpha * votes for alpha in alphas])  # (alphas b c)
        rows.append((logits.argmax(-1) == labels).float().mean(1))
    return torch.stack(rows)


class TipAdapter(Method):
    """Tip-Adapter and Tip-Adapter-F; see the module's header for the equations."""

    info = INFO
    Config = TipAdapterConfig
    resizable = ("keys", "values")
    config: TipAdapterConfig
    values: torch.Tensor
    blend: torch.Tensor

    def prepare(self) -> None:
        """Class texts."""
        c = self.config
        self.text, self.notes = class_texts(self.backbone, self.classes, c.texts, source=c.text)  # W (c d)

    def build(self, *, seed: int) -> None:
        """Empty memory."""
        c = self.config
        self.register_buffer("values", torch.zeros(0, len(self.classes)))  # Y (m c)
        self.register_buffer("blend", torch.tensor([c.alpha, c.beta]))
        self.keys = nn.Parameter(torch.zeros(0, self.backbone.dim), requires_grad=c.finetune)  # K (m d)

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Store the support images, and fine-tune. Without images: zero-shot CLIP."""
        c = self.config
        if len(support) == 0:
            return FitReport("zero-shot")
        tokens = ClassTokens(self.backbone, support, count=c.views, epochs=c.epochs, seed=seed)
        self.keys = nn.Parameter(tokens.keys(), requires_grad=c.finetune)
        self.values = tokens.one_hot(len(self.classes))
        if c.search == "leave_one_out":
            own = torch.arange(len(support), device=self.backbone.device)
            self._search(tokens.views[0], tokens.labels, own=own)
        history = self._finetune(tokens, seed=seed) if c.finetune else ()
        selection = "last epoch" if c.finetune else "nothing is learned"
        if c.search != "off":
            selection += f"; alpha and beta by {c.search}"
        return FitReport(selection, history)

    def _finetune(self, tokens: ClassTokens, *, seed: int) -> tuple[float, ...]:
        c = self.config
        return train(
            lambda index, epoch: cross_entropy(
                self.for_loss(self.logits(tokens.draw(index, epoch))), tokens.labels[index]
            ),
            [{"params": [self.keys], "lr": c.lr}],
            count=len(tokens.labels),
            batch_size=c.batch_size,
            seed=seed,
            epochs=c.epochs,
            eps=c.eps,
            weight_decay=c.weight_decay,
            progress=self.progress,
        )

    @torch.no_grad()
    def _search(self, f: torch.Tensor, labels: torch.Tensor, *, own: torch.Tensor | None = None) -> None:
        """Set alpha and beta to the first pair of the grid with the best accuracy on raw class tokens (b d)."""
        betas = search_values(self.config.search_beta, SEARCH_STEPS[0])
        alphas = search_values(self.config.search_alpha, SEARCH_STEPS[1])
        query = unit(f)
        texts = self.for_loss(self.zero_shot_logits(query))
        grid = accuracy_grid(texts, query, self.keys, self.values, labels, betas=betas, alphas=alphas, own=own)
        i, j = (grid == grid.max()).nonzero()[0].tolist()
        self.blend.copy_(torch.tensor([alphas[j], betas[i]]))

    def zero_shot_logits(self, query: torch.Tensor) -> torch.Tensor:
        """Logits of the class texts (b c) for unit class tokens (b d)."""
        return self.backbone.logit_scale * query @ self.text.T

    def logits(self, f: torch.Tensor) -> torch.Tensor:
        """Class logits (b c) of raw class tokens (b d)."""
        query, alpha, beta = unit(f), self.blend[0], self.blend[1]
        return self.zero_shot_logits(query) + alpha * cache_logits(query, self.keys, self.values, beta=beta)

    def score(self, images: torch.Tensor) -> Scores:
        """``1 - p(normal)`` and class logits of images f32 (b 3 s s)."""
        f = self.backbone.encode_image(images).image
        texts = None if self.normal_seen else self.zero_shot_logits(unit(f))
        return grade(self.logits(f), normal_index=self.normal_index, texts=texts)

    @cached_property
    def _sentences(self) -> Sentences:
        bank = self.config.texts or breast_texts()
        of = [class_sentences(bank, name, source=self.config.text) for name in self.classes]
        return Sentences(self.backbone, self.classes, of)

    @torch.no_grad()
    def evidence(self, images: torch.Tensor) -> Evidence:
        """S(x) as the sum that it is: one part for each sentence and one for each key."""
        query = unit(self.backbone.encode_image(images).image)
        votes = self.blend[0] * votes_of(query, self.keys, self.values, beta=self.blend[1])  # (b m c)
        texts = self.zero_shot_logits(query)
        logits = texts + votes.sum(1)
        less = (logits[:, None] - votes).flatten(0, 1)  # (b*m c), without each key
        sentences = self._sentences.parts(query, self.backbone.logit_scale)
        if not self.normal_seen:
            i, repeated = self.normal_index, texts.repeat_interleave(votes.shape[1], 0)
            less = beside_texts(less, repeated, normal_index=i)
            votes = beside(votes, torch.zeros_like(votes), logits, texts, normal_index=i)
            sentences = beside(sentences, sentences, logits, texts, normal_index=i)
            logits = beside_texts(logits, texts, normal_index=i)
        return Evidence(
            logits=logits,
            sentences=sentences,
            support=votes,
            map=torch.zeros_like(logits),
            without=less.view(votes.shape),
            similarity=query @ unit(self.keys).T,
            likeness=query @ self._sentences.units.T,
            names=self._sentences.names,
        )


METHOD = TipAdapter
