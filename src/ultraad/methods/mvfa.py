"""MVFA: residual adapters at four levels of the image tower, one set for segmentation and one for detection.

Paper      Huang et al., CVPR 2024, arXiv 2403.12570.
Equations  h_l        stream after block l, all tokens
           m_l, o_l   adapter           m = lrelu(W1 h), o = lrelu(W2 m): one for segmentation (s), one for detection
           h_l'       adapted stream    0.8 h + 0.1 o_s + 0.1 o_d, the input of block l + 1
           M_text     zero-shot map     sum_l softmax(U(scale <n(m_s), (t_n, t_a)>))_a; U upsamples, corners aligned
           D_text     zero-shot score   sum_l mean over patches of softmax(scale <n(m_d), (t_n, t_a)>)_a
           M_few      few-shot map      sum_l U(min_b (1 - cos(m_s, b))) over the tokens b of the normal images
           D_few      few-shot score    the same with m_d, mean over pixels
           map        M_text, with a memory half M_text and half M_few;  score: image_score
           loss       sum_l focal + dice of the abnormal side + BCE of the mean patch probability
Reference  MediaBrain-SJTU/MVFA-AD a30bf7b (MIT).
Learned    W1 and W2 of both sets (the last level has no W2, as nothing would read it); n(m) of normal images is stored.
           Without lesions no adapter can be trained: none is used, m is h, and map and score are M_few.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import nn

from ultraad.methods import Holding, Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.augment import to_intensity
from ultraad.nn.blocks import ResidualAdapter
from ultraad.nn.fixed_views import fixed_views, with_fixed_views
from ultraad.nn.frozen import tokens_after
from ultraad.nn.key_value import distance_maps
from ultraad.nn.labelled import Labelled, TrainingSet, normals
from ultraad.nn.losses import segmentation
from ultraad.nn.maps import largest, to_probability
from ultraad.nn.prompts import unit
from ultraad.nn.templates import TEMPLATES_35, States, both_sides, encode_pair
from ultraad.texts.bank import TextBank
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="mvfa",
    title="MVFA: multi-level adapters for medical anomaly detection",
    paper="Huang et al., CVPR 2024",
    url="https://arxiv.org/abs/2403.12570",
    reference="MediaBrain-SJTU/MVFA-AD a30bf7b",
    licence="MIT",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True),
    idea="adds adapters to the image tower and compares their output with sentences and with normal images",
    learned="two adapters at each tapped layer",
    auxiliary=True,
    deviations=(
        "images are normalised as the tower expects; the reference uses 0..1 intensities (normalise=false)",
        "sentences name lesions instead of flaws (states=industrial: the reference's words)",
        "the logit scale is that of the backbone; the reference has 100, the value of OpenAI's weights (scale=100)",
        "maps and detection scores are averaged over layers, distances are clipped at 1, and both halves are added "
        "directly; the reference sums over layers and min-max normalises each half over the test set",
        "images are also mirrored up-down, as in the reference, although ultrasound images have a top (augment=false)",
        "the detection loss applies a sigmoid to a probability, as in the reference (det_loss=bce: without)",
        "the memory holds class tokens, as in the reference, but only patches use it (memory_class_token=false)",
        "steps of 8 images; the reference takes one image at a time (batch_size=1)",
        "without masks there is no map, because its adapters are not trained, as in the reference",
        "with normal images only, no adapter is used: the memory holds tokens of the frozen tower (no reference)",
        "the last adapters have no second layer; that of the reference has no effect",
        "the last epoch is kept; the reference keeps the best one on the test set",
        "the activation is that of the backbone; the reference ran OpenAI's weights with exact GELU at 240 px",
    ),
)


class MVFAConfig(MethodConfig):
    """Every option of MVFA."""

    layers: tuple[int, ...] | None = Field(
        None, description="adapted layers, 1-based; None: quarters of the tower (reference: 6 12 18 24 of 24)"
    )
    texts: TextBank | None = Field(None, description="text bank that names the object; None: breast ultrasound (ours)")
    states: States = Field("medical", description="words for normal and abnormal (ours); 'industrial': the reference's")
    scale: PositiveFloat | Literal["backbone"] = Field(
        "backbone", description="logits per unit of cosine: that of the backbone, or a number (reference: 100)"
    )
    normalise: bool = Field(
        default=True, description="normalise images as the tower expects (ours), or use 0..1 intensities (reference)"
    )
    residual: float = Field(0.1, gt=0, le=0.5, description="share of each adapter in the stream (reference: 0.1)")
    det_loss: Literal["double_sigmoid", "bce"] = Field(
        "double_sigmoid", description="sigmoid of the probability (reference), or the probability itself (ours)"
    )
    augment: bool = Field(default=True, description="11 fixed views per support image (reference)")
    memory: bool = Field(
        default=True, description="store normal images (reference); ViT-L-14-336: 156 MB each, 14 MB without augment"
    )
    memory_class_token: bool = Field(default=True, description="also store class tokens (reference)")
    memory_weight: float = Field(0.5, ge=0, le=1, description="share of the memory in map and score (reference: 0.5)")
    image_score: Literal["reference", "map", "detection"] = Field(
        "reference", description="largest map value, detection adapters, or reference: the map if there is a memory"
    )
    epochs: int = Field(50, ge=0, description="passes over the training images and their views (reference: 50)")
    batch_size: int = Field(8, ge=1, description="images per step from the support (ours; reference: 1)")
    lr: PositiveFloat | None = Field(None, description="None: 1e-4 on an auxiliary set, else 1e-3 (reference)")
    beta1: float = Field(0.5, ge=0, lt=1, description="first momentum of Adam (reference: 0.5)")


class MVFA(Method):
    """MVFA; see the module's header for the equations and :class:`MVFAConfig` for every option."""

    info = INFO
    Config = MVFAConfig
    resizable = ("memory",)
    config: MVFAConfig
    memory: torch.Tensor
    has_map: torch.Tensor
    adapted: torch.Tensor

    @classmethod
    def also_missing(cls, held: Holding, config: MVFAConfig) -> str:
        """Lesions, if no normal image is to be stored."""
        if held.abnormal or config.memory:
            return ""
        return f"has nothing to learn without lesions ({held}); add abnormal images, or leave memory=true"

    def prepare(self) -> None:
        """Adapted layers and the pair of texts."""
        c, b = self.config, self.backbone
        self.layers = tuple(sorted(set(b.check_layers(c.layers or b.default_layers))))
        self.scale = b.logit_scale if c.scale == "backbone" else c.scale
        self.text = encode_pair(b, *both_sides(c.texts, c.states, TEMPLATES_35))  # (2 d), normal first

    def build(self, *, seed: int) -> None:
        """Fresh adapters and an empty memory."""
        b, deepest = self.backbone, self.layers[-1]
        self.seg, self.det = (
            nn.ModuleDict(
                {str(layer): ResidualAdapter(b.width, b.dim, deepest=layer == deepest) for layer in self.layers}
            )
            for _ in range(2)
        )
        self.register_buffer("memory", torch.zeros(2, len(self.layers), 0, b.dim))  # (seg|det l m d)
        self.register_buffer("has_map", torch.tensor(True))  # noqa: FBT003  whether there is a map
        self.register_buffer("adapted", torch.tensor(True))  # noqa: FBT003  whether lesions trained the adapters

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the auxiliary set if there is one, otherwise on the support; store the support's normal images."""
        c, few = self.config, auxiliary is None
        normal = normals(support, normal_index=self.normal_index)
        if few and len(normal) == len(support):
            return self._learn_normal(normal)
        notes = self._check_masks(support) if few else []
        seen = with_fixed_views(support) if few and c.augment else support
        data = TrainingSet(seen, auxiliary, normal_index=self.normal_index, batch_size=c.batch_size, seed=seed)
        learned = [p for p in self.parameters() if p.requires_grad]
        history = data.train(
            lambda batch: self._loss(batch, frozen=few),
            [{"params": learned, "lr": c.lr or (1e-3 if few else 1e-4)}],
            epochs=c.epochs,
            beta1=c.beta1,
            progress=self.progress,
        )
        notes += self._remember(normal)
        return FitReport("last epoch", history, notes=tuple(notes))

    def _learn_normal(self, normal: torch.Tensor) -> FitReport:
        """Store normal images (m 3 s s) without training, as no lesion can train the adapters."""
        self.adapted.fill_(False)  # noqa: FBT003
        self.requires_grad_(requires_grad=False)
        self._remember(normal)
        note = (
            "no support image shows a lesion, so the adapters are not used: map and score are distances to the normal "
            "images on the frozen tower"
        )
        return FitReport("nothing is learned", notes=(note,))

    def _check_masks(self, support: Batch) -> list[str]:
        """Without masks only the detection adapters are trained; returns notes for the user."""
        assert support.labels is not None  # checked by fit
        abnormal = support.labels != self.normal_index
        has_masks = support.mask_known is not None and bool((support.mask_known & abnormal).any())
        self.has_map.fill_(has_masks)
        self.seg.requires_grad_(requires_grad=has_masks)
        return [] if has_masks else ["no support image has a lesion mask: images are scored, but there is no map"]

    def _loss(self, batch: Labelled, *, frozen: bool) -> torch.Tensor:
        seg, det = self.tokens(batch.images, frozen=frozen)
        loss = self.detection_loss(det[:, :, 1:], batch.anomalous.to(det.device))
        known = batch.known.to(seg.device)
        if self.has_map and known.any():
            loss = loss + self.segmentation_loss(seg[:, known, 1:], batch.masks.to(seg.device)[known])
        return loss

    def segmentation_loss(self, patches: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Focal and dice of every layer's map, summed: patches f32 (l b n d), masks bool (b s s)."""
        return torch.stack([segmentation(probs, masks, both=False) for probs in self.text_maps(patches)]).sum()

    def detection_loss(self, patches: torch.Tensor, anomalous: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy of every layer's image probability, summed: patches f32 (l b n d), bool (b,)."""
        probs = self.text_scores(patches)  # (l b)
        target = anomalous.to(probs.dtype).expand_as(probs)
        twice = self.config.det_loss == "double_sigmoid"
        loss = F.binary_cross_entropy_with_logits if twice else F.binary_cross_entropy
        return loss(probs, target, reduction="none").mean(1).sum()

    @torch.no_grad()
    def _remember(self, normal: torch.Tensor) -> list[str]:
        """Store n(m) of the normal images (m 3 s s) and their views; returns notes for the user."""
        c = self.config
        if not c.memory or len(normal) == 0:
            return ["no normal image is stored: map and score are those of the zero-shot branch"]
        images = fixed_views(normal).flatten(0, 1) if c.augment else normal
        skip = 0 if c.memory_class_token else 1
        parts = [self.tokens(part, frozen=True)[:, :, :, skip:] for part in torch.split(images, 16)]
        self.memory = unit(torch.cat(parts, dim=2).flatten(2, 3))  # (2 l b 1+n d) -> (2 l m d)
        return []

    def score(self, images: torch.Tensor) -> Scores:
        """Score and map, both in [0, 1], of images f32 (b 3 s s); the map has the model input's resolution."""
        c = self.config
        if not self.adapted:
            maps = self.memory_maps(self.tokens(images)[0, :, :, 1:], 0).mean(0).clamp(0, 1)
            return Scores(score=maps.mean((1, 2)) if c.image_score == "detection" else largest(maps), map=maps)
        seg, det = self.tokens(images)[:, :, :, 1:]
        maps, score = self.text_maps(seg).mean(0), self.text_scores(det).mean(0)
        remembers = self.memory.shape[2] > 0
        if remembers:
            near_seg, near_det = (x.mean(0).clamp(0, 1) for x in (self.memory_maps(seg, 0), self.memory_maps(det, 1)))
            maps = torch.lerp(maps, near_seg, c.memory_weight)
            score = torch.lerp(score, near_det.mean((1, 2)), c.memory_weight)
        if not self.has_map:
            return Scores(score=score)
        if c.image_score == "map" or (c.image_score == "reference" and remembers):
            score = largest(maps)
        return Scores(score=score, map=maps)

    def tokens(self, images: torch.Tensor, *, frozen: bool = False) -> torch.Tensor:
        """Tokens m f32 (2 l b 1+n d) of images f32 (b 3 s s): segmentation first, class token first.

        Without adapters, tokens h (1 l b 1+n w) of the frozen tower. ``frozen`` takes the output of the blocks before
        the first adapter, which is not learned, from the cache.
        """
        b, r, first, deepest = self.backbone, self.config.residual, self.layers[0], self.layers[-1]
        images = images if self.config.normalise else to_intensity(images, b.preprocess)
        done, kept = first if frozen else 0, []

        def around(layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            if done < layer <= deepest:
                x = block(x)
            if layer in self.layers and not self.adapted:
                kept.append(x.float()[None])
            elif layer in self.layers:
                h = x.float()
                (m_s, o_s), (m_d, o_d) = self.seg[str(layer)](h), self.det[str(layer)](h)
                kept.append(torch.stack([m_s, m_d]))
                if layer < deepest:
                    x = ((1 - 2 * r) * h + r * o_s + r * o_d).to(x.dtype)
            return x

        start = tokens_after(b.cache.encode(images, layers=(first,)), first) if frozen else b.embed_image(images)
        b.encode_tokens(start.to(b.dtype), around=around)
        return torch.stack(kept, dim=1)

    def patch_logits(self, patches: torch.Tensor) -> torch.Tensor:
        """Logits (l b n 2) of patches (l b n d) against (normal, abnormal)."""
        return self.scale * unit(patches) @ self.text.T

    def text_maps(self, patches: torch.Tensor) -> torch.Tensor:
        """Abnormal probability (l b s s) of every layer; the reference's zero-shot map is their sum."""
        b = self.backbone
        return torch.stack([to_probability(x, b.grid, size=b.size) for x in self.patch_logits(patches)])

    def text_scores(self, patches: torch.Tensor) -> torch.Tensor:
        """Mean abnormal probability (l b) of the patches; the reference's zero-shot score is the sum over layers."""
        return self.patch_logits(patches).softmax(-1)[..., 1].mean(-1)

    def memory_maps(self, patches: torch.Tensor, which: int) -> torch.Tensor:
        """Distance (l b s s) in [0, 2] to the memory of segmentation (0) or detection (1); the reference sums them."""
        b = self.backbone
        return distance_maps(patches, self.memory[which], b.grid, size=b.size, unit_bank=True)


METHOD = MVFA
