"""CoOp: learned context words in front of the class name.

Paper      Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022, arXiv 2109.01134.
Equations  t_c      class text   E_t([v_1] ... [v_M] <class>.), M learned words, shared by all classes or one set each
           p(c|x)   classes      softmax_c(<n(f), n(t_c)> / tau), tau that of the backbone;   loss = CE
Reference  KaiyangZhou/CoOp ff61507 (MIT).
Learned    v, the context words; both towers stay frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import nn

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.class_texts import ClassPrompts, Position, class_phrase, frozen_texts, require_words
from ultraad.nn.class_tokens import ClassTokens, epochs_by_shots, grade
from ultraad.nn.prompts import starting_words, unit
from ultraad.rng import torch_seeded
from ultraad.texts.bank import TextBank, breast_texts
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="coop",
    title="CoOp: learning to prompt for vision-language models",
    paper="Zhou et al., IJCV 2022",
    url="https://arxiv.org/abs/2109.01134",
    reference="KaiyangZhou/CoOp ff61507",
    licence="MIT",
    idea="learns the words in front of the class name",
    learned="context words",
    outputs=frozenset({"score", "classes"}),
    needs=Needs(abnormal_images=True, class_labels=True),
    zero_shot=True,
    deviations=(
        "starts from the words 'a photo of a', as in the comparison of the CoCoOp paper; the repository's default is "
        "sixteen random words (words='', context=16)",
        "with class_specific every class starts from these words; the reference ignores class_specific then",
        "a class is called '<class> <object of the text bank>'; the reference uses the class name alone",
        "views are shifted, rotated and mirrored; the reference crops to as little as 8 % of the area",
        "views are drawn and encoded once (views); the reference draws new ones in every epoch",
        "the cosine schedule includes the warm-up epoch; in the reference it starts after it",
        "float32 words; the reference trains them in float16",
    ),
)


class CoOpConfig(MethodConfig):
    """Every option of CoOp."""

    texts: TextBank | None = Field(None, description="text bank that names the object; None: breast ultrasound (ours)")
    context: int = Field(4, ge=1, le=32, description="learned words M (CoCoOp paper sec. 4; CoOp's default: 16)")
    words: str = Field(
        "a photo of a", description="initial words (CoCoOp paper sec. 4); further or missing words start at N(0, 0.02)"
    )
    class_specific: bool = Field(default=False, description="separate words for each class (reference default: shared)")
    position: Position = Field("end", description="place of the class name (reference default: end)")
    epochs: int | None = Field(
        None, ge=0, description="None: 50 for 1 shot, 100 for 2 to 7, 200 for more (reference scripts)"
    )
    batch_size: int = Field(32, ge=1, description="images per step (reference configs)")
    lr: float = Field(2e-3, gt=0, description="of SGD, cosine per epoch (reference configs)")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD (reference: Dassl's default)")
    weight_decay: float = Field(5e-4, ge=0, description="of SGD (reference: Dassl's default)")
    warmup_epochs: int = Field(1, ge=0, description="epochs at warmup_lr (reference configs)")
    warmup_lr: float = Field(1e-5, gt=0, description="rate of the warm-up (reference configs)")
    views: int = Field(8, ge=1, description="augmented views per image, each encoded once (ours, as for UltraAD)")


class CoOp(Method):
    """CoOp; see the module's header for the equations."""

    info = INFO
    Config = CoOpConfig
    config: CoOpConfig

    def prepare(self) -> None:
        """The sentences around the learned words."""
        bank, c = self.config.texts or breast_texts(), self.config
        phrases = [class_phrase(bank, name) for name in self.classes]
        self.prompts = ClassPrompts(self.backbone, phrases, count=c.context, position=c.position)
        self.text = frozen_texts(self.backbone, bank, self.classes, source="template")  # W (c d), without normal images

    def build(self, *, seed: int) -> None:
        """Fresh words."""
        c, generator = self.config, torch_seeded(seed, "init")
        sets = len(self.classes) if c.class_specific else 1
        words = [starting_words(self.backbone, c.words, c.context, generator=generator) for _ in range(sets)]
        self.context = nn.Parameter(torch.stack(words))  # (1|c m text_width)

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train the words. Without images they stay ``config.words``: zero-shot CLIP."""
        c = self.config
        if len(support) == 0:
            require_words(self.backbone, c.words, c.context, method=self.info.name)
            return FitReport("zero-shot")
        epochs = epochs_by_shots(support) if c.epochs is None else c.epochs
        tokens = ClassTokens(self.backbone, support, count=c.views, epochs=epochs, seed=seed)
        history = tokens.train(
            lambda f: self.for_loss(self.logits(f)),
            [self.context],
            options=c,
            epochs=epochs,
            seed=seed,
            progress=self.progress,
        )
        return FitReport("last epoch", history)

    def class_features(self) -> torch.Tensor:
        """Text features of the learned sentences, raw f32 (c d)."""
        return self.prompts(self.context.expand(len(self.classes), -1, -1)[None])[0]

    def logits(self, f: torch.Tensor) -> torch.Tensor:
        """Class logits (b c) of raw class tokens (b d)."""
        return self.backbone.logit_scale * unit(f) @ unit(self.class_features()).T

    def score(self, images: torch.Tensor) -> Scores:
        """``1 - p(normal)`` and class logits of images f32 (b 3 s s)."""
        f = self.backbone.encode_image(images).image
        texts = None if self.normal_seen else self.backbone.logit_scale * unit(f) @ self.text.T
        return grade(self.logits(f), normal_index=self.normal_index, texts=texts)


METHOD = CoOp
