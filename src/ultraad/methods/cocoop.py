"""CoCoOp: learned context words, shifted for every image by a small network.

Paper      Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022, arXiv 2203.05557.
Equations  pi       shift        meta-net(n(f)), d -> d/16 -> text width, ReLU
           t_c(x)   class text   E_t([v_1 + pi] ... [v_M + pi] <class>.), one shift for all words of an image
           p(c|x)   classes      softmax_c(<n(f), n(t_c(x))> / tau), tau that of the backbone;   loss = CE
Reference  KaiyangZhou/CoOp ff61507 (MIT).
Learned    v, the context words, and the meta-net; both towers stay frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import nn

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.blocks import MiniNet, silence
from ultraad.nn.class_texts import ClassPrompts, class_phrase, frozen_texts, require_words
from ultraad.nn.class_tokens import ClassTokens, grade
from ultraad.nn.prompts import starting_words, unit
from ultraad.rng import torch_seeded
from ultraad.texts.bank import TextBank, breast_texts
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="cocoop",
    title="CoCoOp: conditional prompt learning for vision-language models",
    paper="Zhou et al., CVPR 2022",
    url="https://arxiv.org/abs/2203.05557",
    reference="KaiyangZhou/CoOp ff61507",
    licence="MIT",
    idea="learns the words in front of the class name and shifts them for every image",
    learned="context words, meta-net",
    outputs=frozenset({"score", "classes"}),
    needs=Needs(abnormal_images=True, class_labels=True),
    zero_shot=True,
    deviations=(
        "a class is called '<class> <object of the text bank>'; the reference uses the class name alone",
        "views are shifted, rotated and mirrored; the reference crops to as little as 8 % of the area",
        "views are drawn and encoded once (views); the reference draws new ones in every epoch",
        "the cosine schedule includes the warm-up epoch; in the reference it starts after it",
        "float32 words and meta-net; the reference trains them in float16",
    ),
)


class CoCoOpConfig(MethodConfig):
    """Every option of CoCoOp."""

    texts: TextBank | None = Field(None, description="text bank that names the object; None: breast ultrasound (ours)")
    context: int = Field(4, ge=1, le=32, description="learned words M (paper sec. 4)")
    words: str = Field(
        "a photo of a", description="initial words (paper sec. 4); further or missing words start at N(0, 0.02)"
    )
    epochs: int = Field(10, ge=0, description="passes over the support (paper sec. 4)")
    batch_size: int = Field(1, ge=1, description="images per step; each image has its own texts (paper sec. 4)")
    lr: float = Field(2e-3, gt=0, description="of SGD, cosine per epoch (paper sec. 4)")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD (reference: Dassl's default)")
    weight_decay: float = Field(5e-4, ge=0, description="of SGD (reference: Dassl's default)")
    warmup_epochs: int = Field(1, ge=0, description="epochs at warmup_lr (reference configs)")
    warmup_lr: float = Field(1e-5, gt=0, description="rate of the warm-up (reference configs)")
    views: int = Field(8, ge=1, description="augmented views per image, each encoded once (ours, as for UltraAD)")


class CoCoOp(Method):
    """CoCoOp; see the module's header for the equations."""

    info = INFO
    Config = CoCoOpConfig
    config: CoCoOpConfig

    def prepare(self) -> None:
        """The sentences around the learned words."""
        bank = self.config.texts or breast_texts()
        phrases = [class_phrase(bank, name) for name in self.classes]
        self.prompts = ClassPrompts(self.backbone, phrases, count=self.config.context)
        self.text = frozen_texts(self.backbone, bank, self.classes, source="template")  # W (c d), without normal images

    def build(self, *, seed: int) -> None:
        """Fresh words and meta-net."""
        c, b = self.config, self.backbone
        words = starting_words(b, c.words, c.context, generator=torch_seeded(seed, "init"))
        self.context = nn.Parameter(words)  # (m text_width)
        self.meta = MiniNet(b.dim, b.text_width, kind="cocoop")

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train words and meta-net. Without images the words stay and nothing shifts them: zero-shot CLIP."""
        c = self.config
        if len(support) == 0:
            require_words(self.backbone, c.words, c.context, method=self.info.name)
            silence(self.meta)
            return FitReport("zero-shot")
        tokens = ClassTokens(self.backbone, support, count=c.views, epochs=c.epochs, seed=seed)
        history = tokens.train(
            lambda f: self.for_loss(self.logits(f)),
            self.parameters(),
            options=c,
            epochs=c.epochs,
            seed=seed,
            progress=self.progress,
        )
        return FitReport("last epoch", history)

    def class_features(self, f: torch.Tensor) -> torch.Tensor:
        """Text features of each image's own sentences, raw (b c d), from raw class tokens (b d)."""
        context = self.context + self.meta(unit(f))[:, None]  # (b m text_width)
        return self.prompts(context[:, None].expand(-1, len(self.classes), -1, -1))

    def logits(self, f: torch.Tensor) -> torch.Tensor:
        """Class logits (b c) of raw class tokens (b d)."""
        texts = unit(self.class_features(f))
        return self.backbone.logit_scale * torch.einsum("bd,bcd->bc", unit(f), texts)

    def score(self, images: torch.Tensor) -> Scores:
        """``1 - p(normal)`` and class logits of images f32 (b 3 s s)."""
        f = self.backbone.encode_image(images).image
        texts = None if self.normal_seen else self.backbone.logit_scale * unit(f) @ self.text.T
        return grade(self.logits(f), normal_index=self.normal_index, texts=texts)


METHOD = CoCoOp
