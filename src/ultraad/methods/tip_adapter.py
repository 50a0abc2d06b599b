"""Tip-Adapter: the support images as a memory beside the class texts, as it is or fine-tuned (Tip-Adapter-F).

Paper      Zhang et al., Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, ECCV 2022,
           arXiv 2207.09519.
Equations  K, Y     memory       n(mean over views of f) and one-hot labels of the support images
           S(x)     classes      n(f) W^T / tau + alpha exp(-beta (1 - n(f) K^T)) Y, tau the frozen tower's own
           F        fine-tuning  loss = CE of S; K moves and is not normalised again
Reference  gaopengcuhk/Tip-Adapter d0e2d6f (no licence; written from the paper).
Learned    K with ``finetune``, otherwise nothing; both towers, W and Y stay frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy

from ultraad.errors import DataError
from ultraad.methods._base import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.class_texts import TextSource, frozen_texts, missing_sentences
from ultraad.nn.class_tokens import ClassTokens, grade
from ultraad.nn.key_value import cache_logits
from ultraad.nn.loop import train
from ultraad.nn.prompts import unit
from ultraad.texts.bank import TextBank, breast_texts
from ultraad.types import FitReport, Scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ultraad.backbones._door import Backbone
    from ultraad.types import Batch

INFO = MethodInfo(
    name="tip_adapter",
    title="Tip-Adapter(-F): adaption of CLIP for few-shot classification by a cache of the support images",
    paper="Zhang et al., ECCV 2022",
    url="https://arxiv.org/abs/2207.09519",
    reference="gaopengcuhk/Tip-Adapter d0e2d6f",
    licence="none stated; written from the paper",
    idea="asks the most similar support images, beside the class texts",
    learned="the memory's keys (finetune=false: nothing)",
    outputs=frozenset({"score", "classes"}),
    needs=Needs(normal_images=True, abnormal_images=True, class_labels=True),
    zero_shot=True,
    deviations=(
        "Tip-Adapter-F is the default, the like of UltraAD's learned memory (finetune=false: the training-free one)",
        "alpha 1 and beta 5.5 as in the paper; the reference starts at 1 to 2 and 1 and searches (alpha, beta, search)",
        "the search looks at dev images or at the support with one image left out; the reference's best epoch and its "
        "better of two results are chosen on the test set: here the last epoch counts",
        "several sentences per class (text=template: one; the reference has one to seven templates)",
        "the temperature is the tower's own; the reference writes 100, which is CLIP's",
        "views move, turn and mirror the image; the reference crops from half of its area and mirrors",
        "views are encoded once (views); the reference's fine-tuning draws new ones in every epoch",
        "a class without support images only loses its memory; in the reference it breaks shapes",
    ),
)

SEARCH_STEPS = (200, 20)
"""Values of beta and alpha that are tried (reference configs)."""


class TipAdapterConfig(MethodConfig):
    """Every option of Tip-Adapter."""

    texts: TextBank | None = Field(None, description="text bank; None: breast ultrasound (ours)")
    text: TextSource = Field("bank", description="the bank's sentences (ours), or 'a photo of a ...' (reference)")
    finetune: bool = Field(default=True, description="learn the keys: Tip-Adapter-F (ours), or keep them")
    alpha: float = Field(1.0, ge=0, description="weight of the memory (paper sec. 4)")
    beta: float = Field(5.5, gt=0, description="sharpness of the memory (paper sec. 4)")
    search: Literal["off", "dev", "leave_one_out"] = Field(
        "off",
        description="choose alpha and beta by accuracy: on dev images after fitting (reference), or before on the "
        "support, each image without itself (ours)",
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
    """The reference's grid: ``steps`` values from 0.1 on; ``end`` itself is not among them."""
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
        own: int64 (b,), each query's own key, which it does not see.

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

    info: ClassVar[MethodInfo] = INFO
    Config: ClassVar[type[MethodConfig]] = TipAdapterConfig
    resizable: ClassVar[tuple[str, ...]] = ("keys", "values")
    config: TipAdapterConfig
    values: torch.Tensor
    blend: torch.Tensor

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig | None = None,
        *,
        classes: Sequence[str],
        normal_class: str,
    ) -> None:
        super().__init__(backbone, config, classes=classes, normal_class=normal_class)
        bank, c = self.config.texts or breast_texts(), self.config
        self.text = frozen_texts(backbone, bank, self.classes, source=c.text)  # W (c d)
        self.notes = missing_sentences(bank, self.classes, source=c.text)
        self.register_buffer("values", torch.zeros(0, len(self.classes)))  # Y (m c)
        self.register_buffer("blend", torch.tensor([c.alpha, c.beta]))
        self.keys = nn.Parameter(torch.zeros(0, backbone.dim), requires_grad=c.finetune)  # K (m d)
        self.to(backbone.device)

    def fit(
        self,
        support: Batch,
        *,
        dev: Batch | None = None,
        auxiliary: Iterable[Batch] | None = None,  # noqa: ARG002
        seed: int,
    ) -> FitReport:
        """Remember the support, and fine-tune; see :meth:`Method.fit`. Without images: zero-shot CLIP.

        Raises:
            DataError: If ``search=dev`` and there are no dev images.
        """
        started = time.perf_counter()
        self.check_needs(support)
        c = self.config
        self.blend.copy_(torch.tensor([c.alpha, c.beta]))
        if len(support) == 0:
            self._remember(self.keys[:0], self.values[:0])
            self.eval()
            self.fitted = True
            return FitReport("zero-shot", seconds=time.perf_counter() - started, notes=self.notes)
        if c.search == "dev" and (dev is None or dev.labels is None or len(dev) == 0):
            msg = "tip_adapter with search=dev needs labelled dev images and got none; pass dev=..., or search=off"
            raise DataError(msg)
        tokens = ClassTokens(self.backbone, support, count=c.views, epochs=c.epochs, seed=seed)
        self._remember(tokens.keys(), tokens.one_hot(len(self.classes)))
        if c.search == "leave_one_out":
            own = torch.arange(len(support), device=self.backbone.device)
            self._search(tokens.views[0], tokens.labels, own=own)
        history = self._finetune(tokens, seed=seed) if c.finetune else ()
        if c.search == "dev" and dev is not None and dev.labels is not None:
            self._search(self.backbone.cache.encode(dev.images, layers=()).image, dev.labels.to(self.text.device))
        self.eval()
        self.fitted = True
        selection = "last epoch" if c.finetune else "nothing is learned"
        if c.search != "off":
            selection += f"; alpha and beta by {c.search}"
        learned = {"keys": self.keys.numel()} if c.finetune else {}
        return FitReport(selection, history, time.perf_counter() - started, learned, self.notes)

    def _remember(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys = nn.Parameter(keys.detach().clone(), requires_grad=self.config.finetune)
        self.values = values.clone()

    def _finetune(self, tokens: ClassTokens, *, seed: int) -> tuple[float, ...]:
        c, count = self.config, len(tokens.labels)
        self.train()
        return train(
            lambda index, epoch: cross_entropy(self.logits(tokens.draw(index, epoch)), tokens.labels[index]),
            [{"params": [self.keys], "lr": c.lr}],
            count=count,
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
        grid = accuracy_grid(
            self.zero_shot_logits(query), query, self.keys, self.values, labels, betas=betas, alphas=alphas, own=own
        )
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
        return grade(self.logits(self.backbone.encode_image(images).image), normal_index=self.normal_index)


METHOD = TipAdapter
