"""Crane: learned sentences that see the image while they learn, and patches from self-correlated attention.

Paper      Salehi et al., Crane: Context-Guided Prompt Learning and Attention Refinement for Zero-Shot Anomaly
           Detection, 2025, arXiv 2504.11055.
Equations  f, f'      class token  n(image vector of the tower); the same as a word of the text tower
           g_n, g_a   sentences    "V_1 .. V_12 f' object." and "W_1 .. W_12 f' damaged object.", V and W learned;
                                   f' only while they learn (context)
           u_l        deep tokens  4 learned vectors replace words 1..4 before text block l = 2..9
           a_l        E-Attn       a_(l-1) + out((A(q) + A(k) + A(v)) v)(ln_1(h_(l-1))), A(e) = softmax(e e^T /
                                   sqrt(d_h)), beside the blocks h_l of the tower
           P_l        patches      n(proj(ln_post(a_l))); logits z_l = P_l [t_n t_a] / 0.07, t = n(E_t(g; u))
           map        mean over layers of U(softmax(z_l)_a), then smoothed
           h          pooling      n(sum over patches of softmax(mean_l z_l)_a mean_l P_l)
           score      softmax(n(0.5 h + 0.5 f) [t_n t_a] / 0.07)_a
Loss       8 mean_l (focal + dice_a)(nearest U(softmax(z_l)_a)) + 0.2 CE(score at temperature 0.01)
Reference  AlirezaSalehy/Crane 39181f9 (MIT).
Learned    V, W and u (and a linear layer f -> f' if the widths differ); both towers stay frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, model_validator
from torch import nn

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.deep_prompts import Rounding, encode_sentences, text_layers
from ultraad.nn.loop import minimise
from ultraad.nn.losses import segmentation
from ultraad.nn.maps import smooth, to_probability
from ultraad.nn.prompts import unit
from ultraad.nn.seen import Seen, seen_batches
from ultraad.nn.templates import States, learned_pair
from ultraad.nn.value_path import ValuePath
from ultraad.texts.bank import TextBank
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="crane",
    title="Crane: context-guided prompts and refined attention",
    paper="Salehi et al., 2025",
    url="https://arxiv.org/abs/2504.11055",
    reference="AlirezaSalehy/Crane 39181f9",
    licence="MIT",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True, abnormal_images=True, masks=True),
    idea="learns a normal and an abnormal sentence that contain the image, and compares both with patches whose "
    "attention follows likeness",
    learned="the words of two sentences, and text tokens of the first blocks",
    auxiliary=True,
    auxiliary_alone=True,
    deviations=(
        "the patches are those of the last block; the reference taps four, but it adds to its stream in place, so all "
        "four are the last (layers=[6,12,18,24]: four different ones, with a tower of 24)",
        "no DINOv2: this is Crane, not Crane+, whose patches also attend by the likeness of DINOv2's features",
        "sentences name the object and say normal and abnormal (states=industrial: the reference's words)",
        "the sentences contain the image in training only, as in the reference's scripts (context=always: everywhere)",
        "without an auxiliary set it is trained on the support, for more epochs (epochs)",
        "the refined attention starts after a quarter of the tower; block 6 of 24 in the reference (attention_from)",
        "a linear layer maps the class token to the text width where it differs from the joint dimension",
        "deep text tokens are float32; the reference rounds them to float16 (rounding=float16)",
        "smoothing is scaled with the input; sigma is given for 518 px, as in the reference",
        "dice is always per image; the reference computes it per row for a batch of one",
        "the last epoch is kept; the reference reports a fixed epoch for each group of data sets (epochs)",
    ),
)


class CraneConfig(MethodConfig):
    """Every option of Crane."""

    layers: tuple[int, ...] | None = Field(
        None, description="tapped layers, 1-based; None: the last (paper; what the reference's 6 12 18 24 amount to)"
    )
    attention_from: int | None = Field(
        None, ge=1, description="first block with E-Attn; None: after a quarter (reference: 6 of 24)"
    )
    correlate: Literal["qkv", "qk", "q", "k", "v"] = Field(
        "qkv", description="projections that are correlated with themselves (paper: q, k and v)"
    )
    texts: TextBank | None = Field(None, description="text bank that names the object; None: breast ultrasound (ours)")
    states: States = Field("medical", description="words for normal and abnormal (ours); 'industrial': the reference's")
    context: Literal["training", "always", "never"] = Field(
        "training", description="when the sentences contain the image (reference scripts: in training)"
    )
    words: int = Field(12, ge=1, description="learned words per sentence (reference: 12)")
    depth: int = Field(9, ge=2, description="text blocks 2..depth get deep tokens, cut to the tower (reference: 9)")
    length: int = Field(4, ge=1, description="deep tokens per block; they replace the first words (reference: 4)")
    rounding: Rounding = Field("none", description="of deep tokens (reference: float16)")
    tau: PositiveFloat = Field(0.07, description="temperature of maps and scores (reference: 0.07)")
    tau_loss: PositiveFloat = Field(0.01, description="temperature of the score in the loss (reference: 0.01)")
    pooling: float = Field(0.5, ge=0, le=1, description="share of pooled patches in the image vector (reference: 0.5)")
    seg_weight: float = Field(
        8.0, ge=0, description="weight of focal and dice (reference: 2 for each of four layers, which are equal)"
    )
    score_weight: float = Field(0.2, ge=0, description="weight of the cross-entropy of the score (reference: 0.2)")
    sigma: float = Field(4.0, ge=0, description="smoothing in pixels at 518, scaled with the input (reference: 4)")
    epochs: int | None = Field(
        None, ge=0, description="None: 5 on an auxiliary set (reference), 50 on the support (ours)"
    )
    batch_size: int = Field(8, ge=1, description="images per step from the support (reference: 8)")
    lr: PositiveFloat = Field(1e-3, description="learning rate of Adam, constant (reference: 1e-3)")
    beta1: float = Field(0.6, ge=0, lt=1, description="first momentum of Adam (reference: 0.6)")

    @model_validator(mode="after")
    def _fits_together(self) -> CraneConfig:
        if self.length > self.words:
            msg = f"length={self.length} deep tokens do not fit into words={self.words}; set length to at most that"
            raise ValueError(msg)
        return self


class Crane(Method):
    """Crane; see the module's header for the equations and :class:`CraneConfig` for every option."""

    info = INFO
    Config = CraneConfig
    config: CraneConfig
    text: torch.Tensor

    def prepare(self) -> None:
        """Tapped layers and sentence templates."""
        c, b = self.config, self.backbone
        self.layers = b.check_layers(c.layers or [b.layers])
        (self.attention_from,) = b.check_layers([c.attention_from or max(1, round(b.layers / 4))])
        self.templates = learned_pair(b, c.texts, c.states)

    def build(self, *, seed: int) -> None:
        """Fresh words and deep tokens."""
        c, b = self.config, self.backbone
        depth = min(c.depth, text_layers(b))
        self.words = nn.Parameter(0.02 * torch.randn(2, c.words, b.text_width))  # V and W (2 r text_width)
        self.deep = nn.Parameter(0.02 * torch.randn(depth - 1, c.length, b.text_width))  # u, from block 2 on
        same = b.dim == b.text_width or c.context == "never"
        self.to_text = nn.Identity() if same else nn.Linear(b.dim, b.text_width)
        self.register_buffer("text", torch.zeros(2, b.dim), persistent=False)  # without a context, set by _encode

    @torch.no_grad()
    def _encode(self) -> None:
        """Encode the sentences without a context once, for :meth:`score`."""
        self.text.copy_(self.encode_text(None))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        """Strict load; encodes the sentences of the loaded words."""
        found = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self._encode()
        return found

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the auxiliary set if there is one, otherwise on the support."""
        c = self.config
        batches, steps = seen_batches(
            support, auxiliary, self.encode, normal_index=self.normal_index, batch_size=c.batch_size, seed=seed
        )
        history = minimise(
            lambda seen, _: self.loss(seen),
            [{"params": [*self.parameters()], "lr": c.lr}],
            batches,
            steps=steps,
            epochs=c.epochs if c.epochs is not None else (50 if auxiliary is None else 5),
            optimiser="adam",
            betas=(c.beta1, 0.999),
            schedule="constant",
            progress=self.progress,
        )
        self._encode()
        return FitReport("last epoch", history)

    def loss(self, seen: Seen) -> torch.Tensor:
        """The loss of the header, f32 (); an unknown mask is left out of the pixel terms."""
        c, f, b = self.config, seen.features, self.backbone
        text = self.encode_text(None if c.context == "never" else f.image)
        logits = self.patch_logits(f, text)  # (l b n 2)
        score = self.image_logits(f, text, logits, tau=c.tau_loss)
        weight = c.seg_weight / len(self.layers)
        total = c.score_weight * F.cross_entropy(score, seen.truth.anomalous.to(b.device).long())
        known = seen.truth.known.nonzero().flatten()
        if len(known):
            masks = seen.truth.masks[known].to(b.device)
            for probs in logits[:, known.to(b.device)].softmax(-1)[..., 1]:  # (b n) of each layer
                maps = F.interpolate(probs.view(-1, 1, *f.grid), size=masks.shape[-2:], mode="nearest")[:, 0]
                total = total + weight * segmentation(maps, masks, both=False)
        return total

    def encode_text(self, tokens: torch.Tensor | None) -> torch.Tensor:
        """t_n and t_a: unit (2 d) without a context, unit (b 2 d) with the class tokens f (b d) in the sentences."""
        context = None if tokens is None else self.to_text(tokens)
        rounding = self.config.rounding
        return encode_sentences(
            self.backbone, self.templates, self.words, self.deep, context=context, rounding=rounding
        )

    def encode(self, images: torch.Tensor) -> Features:
        """Class tokens f (b d) and patches P_l {layer: (b n d)}, all unit, of images f32 (b 3 s s)."""
        b, path = self.backbone, ValuePath(self.attention_from, self.layers, of=self.config.correlate)
        f = b.encode_image(images, around=path)
        patches = {layer: unit(b.project(path.kept[layer][:, 1:])) for layer in self.layers}
        return Features(image=unit(f.image), patches=patches, cls={}, grid=f.grid)

    def patch_logits(self, f: Features, text: torch.Tensor) -> torch.Tensor:
        """z_l (l b n 2) of (normal, abnormal); text (2 d) or (b 2 d), f from :meth:`encode`."""
        return torch.stack([f.patches[layer] @ text.mT for layer in self.layers]) / self.config.tau

    def image_logits(self, f: Features, text: torch.Tensor, logits: torch.Tensor, *, tau: float) -> torch.Tensor:
        """Logits (b 2) of the image vector at temperature ``tau``; ``logits`` from :meth:`patch_logits`."""
        share = self.config.pooling
        weights = logits.mean(0).softmax(-1)[..., 1:]  # (b n 1)
        patches = torch.stack([f.patches[layer] for layer in self.layers]).mean(0)  # (b n d)
        pooled = unit((weights * patches).sum(1))
        vector = unit(share * pooled + (1 - share) * f.image)
        return (vector[:, None] @ text.mT)[:, 0] / tau

    def score(self, images: torch.Tensor) -> Scores:
        """Score and map, both in [0, 1], of images f32 (b 3 s s); the map has the model input's resolution."""
        c, size = self.config, self.backbone.size
        f = self.encode(images)
        text = self.encode_text(f.image) if c.context == "always" else self.text
        logits = self.patch_logits(f, text)
        maps = to_probability(logits, f.grid, size=size, up="probs").mean(0)
        score = self.image_logits(f, text, logits, tau=c.tau).softmax(-1)[:, 1]
        return Scores(score=score, map=smooth(maps, c.sigma * size / 518).clamp(0, 1))


METHOD = Crane
