"""APRIL-GAN (VAND): one linear layer per tapped layer maps patches to text space; normal images are stored.

Paper      Chen, Han, Zhang, VAND challenge at CVPR 2023, arXiv 2305.17382.
Equations  t_n, t_a   sentences         n(mean n(E_t(.))) over states x 35 templates
           M_text     zero-shot map     sum_l softmax(U(scale <n(A_l F_l), (t_n, t_a)>))_a; U upsamples, corners aligned
           M_few      few-shot map      sum_l U(min_b (1 - cos(F_l, b))) over the raw patches b of the normal images
           s(x)       zero-shot score   softmax(scale <n(f), (t_n, t_a)>)_a of the class token f
           map        M_text, with a memory M_text + M_few;  score s, with a memory (s + max map) / 2
           loss       sum_l focal + dice of the abnormal side
Reference  ByChelsea/VAND-APRIL-GAN f13b8a6 (MIT).
Learned    A_l; the patches of the normal images are stored. Without lesion masks there is no M_text: map M_few.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field, PositiveFloat
from torch import nn

from ultraad.methods import Holding, Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.key_value import distance_maps
from ultraad.nn.labelled import Labelled, TrainingSet, normals
from ultraad.nn.losses import segmentation
from ultraad.nn.maps import largest, to_probability
from ultraad.nn.prompts import unit
from ultraad.nn.templates import TEMPLATES_35, States, both_sides, encode_pair
from ultraad.texts.bank import TextBank
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="april_gan",
    title="APRIL-GAN: linear layers from patches to text, and a memory of normal patches",
    paper="Chen et al., VAND challenge at CVPR 2023",
    url="https://arxiv.org/abs/2305.17382",
    reference="ByChelsea/VAND-APRIL-GAN f13b8a6",
    licence="MIT",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    idea="compares linearly mapped patches with sentences, and raw patches with those of normal images",
    learned="one linear layer per tapped layer",
    auxiliary=True,
    deviations=(
        "sentences name lesions instead of flaws (states=industrial: the reference's words)",
        "without an auxiliary set, the linear layers are trained on the support, for more epochs (epochs)",
        "the logit scale is that of the backbone; the reference has 100, the value of OpenAI's weights (scale=100)",
        "maps are averaged over layers; the reference sums them",
        "the few-shot map is the mean of text map and distance (clipped at 1); the reference adds both",
        "the few-shot image score uses the maximum of the map; the reference min-max normalises it over the test set",
        "all normal support images are stored; the reference draws them with replacement, so some count twice",
        "without a memory, the class token alone gives the image score, as in the reference; training does not move it",
        "dice is always per image; the reference computes it per row for a batch of one",
        "without an auxiliary set and lesion masks, the linear layers are not used: the map is the distance alone",
        "no mosaics of four training images; the reference uses them for MVTec only",
        "the last epoch is kept, in float32; the reference trains with autocast and selects an epoch for its numbers",
        "the activation is that of the backbone; the reference ran OpenAI's weights with exact GELU at 518 px",
    ),
)


class AprilGANConfig(MethodConfig):
    """Every option of APRIL-GAN."""

    layers: tuple[int, ...] | None = Field(
        None, description="tapped layers, 1-based; None: quarters of the tower (reference scripts: 6 12 18 24 of 24)"
    )
    texts: TextBank | None = Field(None, description="text bank that names the object; None: breast ultrasound (ours)")
    states: States = Field("medical", description="words for normal and abnormal (ours); 'industrial': the reference's")
    scale: PositiveFloat | Literal["backbone"] = Field(
        "backbone", description="logits per unit of cosine: that of the backbone, or a number (reference: 100)"
    )
    memory: bool = Field(default=True, description="store the normal images (paper, few-shot track)")
    epochs: int | None = Field(
        None, ge=0, description="None: 15 on an auxiliary set (reference, VisA), 50 on the support (ours)"
    )
    batch_size: int = Field(8, ge=1, description="images per step from the support (reference scripts: 8)")
    lr: PositiveFloat = Field(1e-3, description="learning rate of Adam, constant (reference train.py: 1e-3)")
    beta1: float = Field(0.5, ge=0, lt=1, description="first momentum of Adam (reference train.py: 0.5)")


class AprilGAN(Method):
    """APRIL-GAN; see the module's header for the equations and :class:`AprilGANConfig` for every option."""

    info = INFO
    Config = AprilGANConfig
    resizable = ("memory",)
    config: AprilGANConfig
    memory: torch.Tensor
    has_text_map: torch.Tensor

    @classmethod
    def also_missing(cls, held: Holding, config: AprilGANConfig) -> str:
        """Masks, if no normal image is to be stored."""
        if held.masks or config.memory:
            return ""
        return f"has nothing to learn without lesion masks ({held}); add masks, or leave memory=true"

    def prepare(self) -> None:
        """Tapped layers and the pair of texts."""
        c, b = self.config, self.backbone
        self.layers = b.check_layers(c.layers or b.default_layers)
        self.scale = b.logit_scale if c.scale == "backbone" else c.scale
        self.text = encode_pair(b, *both_sides(c.texts, c.states, TEMPLATES_35))  # (2 d), normal first

    def build(self, *, seed: int) -> None:
        """Fresh linear layers and an empty memory."""
        b = self.backbone
        self.adapters = nn.ModuleDict({str(layer): nn.Linear(b.width, b.dim) for layer in self.layers})
        self.register_buffer("memory", torch.zeros(len(self.layers), 0, b.width))  # (l m w)
        self.register_buffer("has_text_map", torch.tensor(True))  # noqa: FBT003  whether masks trained the layers

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the auxiliary set if there is one, otherwise on the support; store the support's normal images.

        Raises:
            DataError: If no image of the auxiliary set has a lesion mask.
        """
        c = self.config
        if auxiliary is None and not (support.masks is not None and bool(support.masks.any())):
            self.has_text_map.fill_(False)  # noqa: FBT003
            self.adapters.requires_grad_(requires_grad=False)
            self._remember(normals(support, normal_index=self.normal_index))
            note = (
                "no lesion mask to train on, so the linear layers are not used: the map is the distance to the normal "
                "images, and the score adds the zero-shot score of the class token"
            )
            return FitReport("nothing is learned", notes=(note,))
        data = TrainingSet(support, auxiliary, normal_index=self.normal_index, batch_size=c.batch_size, seed=seed)
        history = data.train(
            self._loss,
            [{"params": [*self.adapters.parameters()], "lr": c.lr}],
            epochs=c.epochs if c.epochs is not None else (15 if data.auxiliary else 50),
            beta1=c.beta1,
            masks_for=self.info.name,
            progress=self.progress,
        )
        notes = self._remember(normals(support, normal_index=self.normal_index))
        return FitReport("last epoch", history, notes=notes)

    def _loss(self, batch: Labelled) -> torch.Tensor:
        """Focal and dice of every layer's map, summed over layers; every mask is known."""
        f = self.backbone.cache.encode(batch.images, layers=self.layers)
        target = batch.masks.to(self.backbone.device)
        return torch.stack([segmentation(probs, target, both=False) for probs in self.text_maps(f)]).sum()

    def _remember(self, normal: torch.Tensor) -> tuple[str, ...]:
        """Store every patch of the normal images (m 3 s s); returns notes for the user."""
        if not self.config.memory or len(normal) == 0:
            return ("no normal image is stored: map and score are those of the zero-shot branch",)
        f = self.backbone.cache.encode(normal, layers=self.layers)
        self.memory = self._raw(f).flatten(1, 2)  # (l m*n w)
        return ()

    def score(self, images: torch.Tensor) -> Scores:
        """Score and map, both in [0, 1], of images f32 (b 3 s s); the map has the model input's resolution."""
        f = self.backbone.encode_image(images, layers=self.layers)
        score = self.class_score(f)
        if not self.memory.shape[1]:
            return Scores(score=score, map=self.text_maps(f).mean(0))
        maps = self.memory_maps(f).mean(0).clamp(0, 1)  # cosines of raw tokens are rarely negative
        if self.has_text_map:
            maps = (self.text_maps(f).mean(0) + maps) / 2
        return Scores(score=(score + largest(maps)) / 2, map=maps)

    def class_score(self, f: Features) -> torch.Tensor:
        """Abnormal probability (b,) of the class token; it uses no learned values."""
        return (self.scale * unit(f.image) @ self.text.T).softmax(-1)[:, 1]

    def patch_logits(self, f: Features) -> torch.Tensor:
        """Logits (l b n 2) of every patch against (normal, abnormal)."""
        mapped = torch.stack([self.adapters[str(layer)](f.patches[layer]) for layer in self.layers])  # (l b n d)
        return self.scale * unit(mapped) @ self.text.T

    def text_maps(self, f: Features) -> torch.Tensor:
        """Abnormal probability (l b s s) of every layer; the reference's map is their sum."""
        size = self.backbone.size
        return torch.stack([to_probability(logits, f.grid, size=size) for logits in self.patch_logits(f)])

    def memory_maps(self, f: Features) -> torch.Tensor:
        """Distance (l b s s) in [0, 2] to the nearest normal patch; the reference's map is their sum."""
        return distance_maps(self._raw(f), self.memory, f.grid, size=self.backbone.size)

    def _raw(self, f: Features) -> torch.Tensor:
        return torch.stack([f.patches[layer] for layer in self.layers])  # (l b n w)


METHOD = AprilGAN
