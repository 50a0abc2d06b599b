"""CLIP-Adapter: a small network after the image tower, whose output is mixed with its input.

Paper      Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, IJCV 2024, arXiv 2110.04544.
Equations  A(f)     adapter      ReLU(W_2 ReLU(W_1 f)), d -> d/4 -> d, no biases
           f'       mixture      ratio A(f) + (1 - ratio) f, f as the tower returns it
           p(c|x)   classes      softmax_c(<n(f'), w_c> / tau), tau that of the backbone;   loss = CE
Reference  gaopengcuhk/CLIP-Adapter 08d07f8 (no licence; written from the paper), trained with KaiyangZhou/CoOp (MIT).
Learned    W_1, W_2; both towers and the class texts w stay frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.blocks import MiniNet, silence
from ultraad.nn.class_texts import TextSource, class_texts
from ultraad.nn.class_tokens import ClassTokens, epochs_by_shots, grade
from ultraad.nn.prompts import unit
from ultraad.texts.bank import TextBank
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="clip_adapter",
    title="CLIP-Adapter: better vision-language models with feature adapters",
    paper="Gao et al., IJCV 2024",
    url="https://arxiv.org/abs/2110.04544",
    reference="gaopengcuhk/CLIP-Adapter 08d07f8",
    licence="none stated; written from the paper",
    idea="changes the image feature with a small network",
    learned="a two-layer adapter on the class token",
    outputs=frozenset({"score", "classes"}),
    needs=Needs(abnormal_images=True, class_labels=True),
    zero_shot=True,
    deviations=(
        "several sentences per class (text=template: the reference's single template)",
        "the paper's second adapter, for texts, is not implemented, as in the reference code",
        "class texts are encoded once; the reference encodes them in every step, with the same result",
        "SGD at 2e-3, because the reference says to train like CoOp (lr); the paper says 1e-5",
        "views are shifted, rotated and mirrored; the reference crops to as little as 8 % of the area",
        "views are drawn and encoded once (views); the reference draws new ones in every epoch",
        "the cosine schedule includes the warm-up epoch; in the reference it starts after it",
    ),
)


class CLIPAdapterConfig(MethodConfig):
    """Every option of CLIP-Adapter."""

    texts: TextBank | None = Field(None, description="text bank; None: breast ultrasound (ours)")
    text: TextSource = Field("bank", description="the bank's sentences (ours), or 'a photo of a ...' (reference)")
    ratio: float = Field(0.2, ge=0, le=1, description="share of the adapter in the mixture (paper sec. 4, reference)")
    epochs: int | None = Field(
        None, ge=0, description="None: 50 for 1 shot, 100 for 2 to 7, 200 for more (reference: as CoOp)"
    )
    batch_size: int = Field(32, ge=1, description="images per step (paper sec. 4)")
    lr: float = Field(2e-3, gt=0, description="of SGD, cosine per epoch (reference: as CoOp)")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD (reference: Dassl's default)")
    weight_decay: float = Field(5e-4, ge=0, description="of SGD (reference: Dassl's default)")
    warmup_epochs: int = Field(1, ge=0, description="epochs at warmup_lr (reference: as CoOp)")
    warmup_lr: float = Field(1e-5, gt=0, description="rate of the warm-up (reference: as CoOp)")
    views: int = Field(8, ge=1, description="augmented views per image, each encoded once (ours, as for UltraAD)")


class CLIPAdapter(Method):
    """CLIP-Adapter; see the module's header for the equations."""

    info = INFO
    Config = CLIPAdapterConfig
    config: CLIPAdapterConfig

    def prepare(self) -> None:
        """Class texts."""
        c = self.config
        self.text, self.notes = class_texts(self.backbone, self.classes, c.texts, source=c.text)  # (c d)

    def build(self, *, seed: int) -> None:
        """Fresh adapter."""
        d = self.backbone.dim
        self.adapter = MiniNet(d, d, kind="clip_adapter")

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train the adapter. Without images its output is zero: zero-shot CLIP."""
        c = self.config
        if len(support) == 0:
            silence(self.adapter)
            return FitReport("zero-shot")
        epochs = epochs_by_shots(support) if c.epochs is None else c.epochs
        tokens = ClassTokens(self.backbone, support, count=c.views, epochs=epochs, seed=seed)
        history = tokens.train(
            lambda f: self.for_loss(self.logits(f)),
            self.parameters(),
            options=c,
            epochs=epochs,
            seed=seed,
            progress=self.progress,
        )
        return FitReport("last epoch", history)

    def mixed(self, f: torch.Tensor) -> torch.Tensor:
        """n(f'), unit (b d), from raw class tokens (b d)."""
        ratio = self.config.ratio
        return unit(ratio * self.adapter(f) + (1 - ratio) * f)

    def logits(self, f: torch.Tensor) -> torch.Tensor:
        """Class logits (b c) of raw class tokens (b d)."""
        return self.backbone.logit_scale * self.mixed(f) @ self.text.T

    def score(self, images: torch.Tensor) -> Scores:
        """``1 - p(normal)`` and class logits of images f32 (b 3 s s)."""
        f = self.backbone.encode_image(images).image
        texts = None if self.normal_seen else self.backbone.logit_scale * unit(f) @ self.text.T
        return grade(self.logits(f), normal_index=self.normal_index, texts=texts)


METHOD = CLIPAdapter
