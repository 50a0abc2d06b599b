"""MediCLIP: a detector trained on normal images with synthetic anomalies.

Paper      Zhang et al., MICCAI 2024, arXiv 2405.11315.
Equations  t_n, t_a   learned prompts   n(mean_j E_t([V_j] word_j .)) over words for "normal" and "abnormal", m learned
                                        context tokens V_j for each word
           L          patch logits      mean over layers of n(A_l F_l) [t_n t_a]: cosines, no temperature
           map        softmax of the upsampled logits, abnormal side;   score = its maximum
           loss       focal + dice(map, mask of the synthetic anomaly)
Reference  cnulab/MediCLIP ca99858 (MIT): models/, medsyn/, train.py, config/busi.yaml.
Learned    A_l (a 1x1 adapter for each tapped layer) and the contexts V; both CLIP towers stay frozen.
Deviations see ``INFO.deviations``. The synthesis is in nn/synthesis.py, with pictures in docs/medi-clip-synthesis.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from ultraad.backbones._door import Backbone
from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.augment import from_intensity, grey, to_intensity
from ultraad.nn.loop import train
from ultraad.nn.losses import segmentation
from ultraad.nn.maps import largest, to_probability
from ultraad.nn.prompts import unit
from ultraad.nn.synthesis import FAMILIES, apply, draw
from ultraad.rng import seeded
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="medi_clip",
    title="MediCLIP: adapting CLIP for few-shot medical image anomaly detection with synthetic anomalies",
    paper="Zhang et al., MICCAI 2024",
    url="https://arxiv.org/abs/2405.11315",
    reference="cnulab/MediCLIP ca99858",
    licence="MIT",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    deviations=(
        "the text tower keeps its causal mask; the reference removes it, so its published prompts cannot be used here",
        "16 synthetic views of each image are drawn once, so the frozen tower runs once per view (views; the reference "
        "draws new ones in every epoch: views=0)",
        "test images are made grey like the training images (grey=false: in colour, as in the reference)",
        "pasted tissue is compared in signed numbers; the unsigned 8-bit difference of the reference wraps around",
        "the label of pasted tissue is binary and inside the patch; that of the reference is soft, but almost 0 or 1",
        "warped tissue keeps the range of its patch; the reference does not clip the overshoot of its splines",
        "blur radii of the synthesis scale with the image; those of the reference are pixels at 224",
        "all randomness comes from the seed; three sources in the reference's synthesis are unseeded",
        "the last epoch is kept; the reference keeps the best one on the test set",
    ),
    idea="adds synthetic anomalies to normal images and learns to find them with learned words",
    learned="one linear layer per tapped layer, context words",
)


class MixConfig(MethodConfig):
    """Relative frequency of each family of synthetic anomalies."""

    cutpaste: float = Field(0.25, ge=0, description="tissue of another image (reference config/busi.yaml)")
    gauss_intensity: float = Field(0.25, ge=0, description="brighter or darker with a texture (config/busi.yaml)")
    smooth_intensity: float = Field(0.0, ge=0, description="brighter or darker, smooth rim (off in config/busi.yaml)")
    source: float = Field(0.25, ge=0, description="tissue pushed outwards from a point (config/busi.yaml)")
    sink: float = Field(0.0, ge=0, description="tissue pulled to a point (off in config/busi.yaml)")
    identity: float = Field(0.25, ge=0, description="no change: a normal image (config/busi.yaml)")

    @model_validator(mode="after")
    def _has_some(self) -> MixConfig:
        if sum(self.model_dump().values()) == 0:
            msg = "all weights of the mix are 0, so nothing can be drawn; give one family a weight above 0"
            raise ValueError(msg)
        return self


class MediCLIPConfig(MethodConfig):
    """Every option of MediCLIP."""

    layers: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        description="tapped layers, 1-based; None: 1/2, 3/4 and all of the tower (busi.yaml: 12,18,24)",
    )
    context: int = Field(8, ge=1, le=32, description="learned tokens in front of each word (config/busi.yaml)")
    normal_words: tuple[str, ...] = Field(
        (
            "normal", "healthy", "negative", "unremarkable", "clear", "asymptomatic", "normal findings", "no findings",
            "in good health", "no evidence of disease",
        ),
        min_length=1,
        description="words for a normal image (config/busi.yaml)",
    )  # fmt: skip
    abnormal_words: tuple[str, ...] = Field(
        (
            "abnormal", "positive", "symptomatic", "disease", "lesion", "pathological", "impaired",
            "evidence of disease", "abnormal finding", "pathological condition", "pathological abnormality",
        ),
        min_length=1,
        description="words for an abnormal image (config/busi.yaml)",
    )  # fmt: skip
    scale: float = Field(1.0, gt=0, description="factor on the cosines; 1: no temperature (reference MapMaker.py)")
    grey: bool = Field(default=True, description="make test images grey like the training images (ours)")
    mix: MixConfig = MixConfig()
    views: int = Field(16, ge=0, description="synthetic views per image, drawn once (ours); 0: new in every epoch")
    epochs: int = Field(200, ge=0, description="passes over the normal images (config/busi.yaml)")
    batch_size: int = Field(8, ge=1, description="images per step (config/busi.yaml)")
    lr: float = Field(1e-3, gt=0, description="of Adam, constant (reference train.py)")
    beta1: float = Field(0.5, ge=0, lt=1, description="of Adam (reference train.py)")


class MediCLIP(Method):
    """MediCLIP; see the module's header for the equations and :class:`MediCLIPConfig` for every option."""

    info = INFO
    Config = MediCLIPConfig
    config: MediCLIPConfig
    text: torch.Tensor

    def prepare(self) -> None:
        """Tapped layers and the words' embeddings."""
        b = self.backbone
        self.layers = b.check_layers(self.config.layers or b.default_layers[-3:])
        words = (*self.config.normal_words, *self.config.abnormal_words)
        tokens = b.tokenize([f"{'X ' * self.config.context}{word}." for word in words])
        self._embeds = b.embed_text(tokens)  # (t ctx text_width); the contexts replace the X
        self._ends = b.end_of_text(tokens)

    def build(self, *, seed: int) -> None:
        """Fresh adapters and contexts."""
        c, b = self.config, self.backbone
        self.adapters = nn.ModuleDict({str(layer): nn.Linear(b.width, b.dim) for layer in self.layers})
        self.normal_context, self.abnormal_context = (
            nn.Parameter(0.02 * torch.randn(len(words), c.context, b.text_width))  # (t m text_width)
            for words in (c.normal_words, c.abnormal_words)
        )
        self.register_buffer("text", torch.zeros(2, b.dim))  # t_n, t_a, set after training

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the normal images of the support; other images are not used."""
        assert support.labels is not None  # checked by fit
        normal = support.select((support.labels == self.normal_index).nonzero().flatten().tolist())
        views = _SyntheticViews(self.backbone, normal, layers=self.layers, config=self.config, seed=seed)
        c = self.config
        history = train(
            lambda index, epoch: self._loss(*views.draw(index, epoch)),
            [{"params": [*self.parameters()], "lr": c.lr}],
            count=len(normal),
            batch_size=c.batch_size,
            seed=seed,
            epochs=c.epochs,
            optimiser="adam",
            betas=(c.beta1, 0.999),
            schedule="constant",
            progress=self.progress,
        )
        with torch.no_grad():
            self.text.copy_(self.text_pair())
        unused = len(support) - len(normal)
        notes = (
            (f"{unused} abnormal support images were not used: medi_clip learns from normal ones",) if unused else ()
        )
        return FitReport("last epoch", history, notes=notes)

    def _loss(self, patches: Mapping[int, torch.Tensor], masks: torch.Tensor) -> torch.Tensor:
        """Focal + dice, patches {layer: (b n w)}, masks bool (b s s)."""
        return segmentation(self.anomaly_map(patches, self.text_pair()), masks, both=False)

    def text_pair(self) -> torch.Tensor:
        """t_n and t_a: unit f32 (2 d), the mean of the words' raw features; gradients flow to the contexts."""
        contexts = torch.cat([self.normal_context, self.abnormal_context])  # (t m text_width)
        rest = self._embeds[:, 1 + self.config.context :]
        embeds = torch.cat([self._embeds[:, :1], contexts, rest], dim=1)  # (t ctx text_width)
        features = self.backbone.encode_prompts(embeds, self._ends)  # (t d)
        n = len(self.normal_context)
        return unit(torch.stack([features[:n].mean(0), features[n:].mean(0)]))

    def adapt(self, patches: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """n(A_l F_l): patches {layer: (b n w)} to unit f32 (l b n d)."""
        return unit(torch.stack([self.adapters[str(layer)](patches[layer]) for layer in self.layers]))

    def anomaly_map(self, patches: Mapping[int, torch.Tensor], text: torch.Tensor) -> torch.Tensor:
        """Abnormal probability f32 (b s s) from patches {layer: (b n w)} and t_n, t_a (2 d)."""
        logits = self.config.scale * (self.adapt(patches) @ text.T).mean(0)  # (b n 2)
        return to_probability(logits, self.backbone.grid, size=self.backbone.size, up="logits")

    def score(self, images: torch.Tensor) -> Scores:
        """Map and its maximum; without a temperature both are between 0.12 and 0.88."""
        if self.config.grey:
            images = _without_colour(images, self.backbone)
        maps = self.anomaly_map(self.backbone.encode_image(images, layers=self.layers).patches, self.text)
        return Scores(score=largest(maps), map=maps)


class _SyntheticViews:
    """Frozen features of normal images with synthetic anomalies.

    Args:
        backbone: The tower.
        normal: Normal images.
        layers: Tapped layers.
        config: Number of views and mix of families.
        seed: Of the anomalies; they depend on it, the image's id and the view's number.
    """

    def __init__(
        self, backbone: Backbone, normal: Batch, *, layers: Sequence[int], config: MediCLIPConfig, seed: int
    ) -> None:
        self._backbone, self._ids, self._layers, self._seed = backbone, normal.ids, layers, seed
        self._images = [*grey(normal.images, backbone.preprocess)[:, 0].cpu().numpy()]  # m of (s s)
        weights = np.array([getattr(config.mix, family) for family in FAMILIES])
        self._mix = weights / weights.sum()
        self._features: list[Features] = []
        self._masks: list[torch.Tensor] = []
        for view in range(config.views):
            images, masks = self._paint(range(len(normal)), view)
            self._features.append(backbone.cache.encode(images, layers=layers))
            self._masks.append(masks)
        self._choice = seeded(seed, "views").integers(max(1, config.views), size=(max(1, config.epochs), len(normal)))

    def draw(self, index: torch.Tensor, epoch: int) -> tuple[Mapping[int, torch.Tensor], torch.Tensor]:
        """One view of each image at int64 (b,): patches {layer: (b n w)} and masks bool (b s s)."""
        device = self._backbone.device
        if not self._features:
            images, masks = self._paint(index.tolist(), epoch)
            with torch.no_grad():
                return self._backbone.encode_image(images.to(device), layers=self._layers).patches, masks.to(device)
        rows = list(zip(self._choice[epoch, index.numpy()].tolist(), index.tolist(), strict=True))
        patches = {k: torch.stack([self._features[v].patches[k][i] for v, i in rows]) for k in self._layers}
        return patches, torch.stack([self._masks[v][i] for v, i in rows]).to(device)

    def _paint(self, index: Iterable[int], view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """View number ``view`` of the images at these positions: normalised f32 (b 3 s s), masks bool (b s s)."""
        painted, masks = [], []
        for i in index:
            rng = seeded(self._seed, f"synthesis/{view}/{self._ids[i]}")
            family = FAMILIES[rng.choice(len(FAMILIES), p=self._mix)]
            steps = draw(family, rng, shape=self._images[i].shape, sources=len(self._images))
            image, mask = apply(self._images[i], steps, self._images)
            painted.append(torch.from_numpy(image))
            masks.append(torch.from_numpy(mask))
        changed = torch.stack(painted)[:, None].expand(-1, 3, -1, -1)  # (b 3 s s)
        return from_intensity(changed, self._backbone.preprocess), torch.stack(masks)


def _without_colour(images: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Images (b 3 s s) made grey; grey images are returned bit for bit, so that cached features remain valid."""
    intensity = to_intensity(images, backbone.preprocess)
    coloured = (intensity.amax(1) - intensity.amin(1)).flatten(1).amax(1) > 0.5 / 255  # (b,), half a grey level
    bare = from_intensity(grey(images, backbone.preprocess).expand_as(images), backbone.preprocess)
    return torch.where(coloured.view(-1, 1, 1, 1), bare, images)


METHOD = MediCLIP
