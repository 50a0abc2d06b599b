"""AnomalyCLIP: two learned sentences, compared with patches from a value-value attention path.

Paper      Zhou et al., AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection, ICLR 2024.
Equations  g_n, g_a   sentences      "V_1 .. V_12 object." and "W_1 .. W_12 damaged object.", V and W learned
           u_l        deep tokens    4 learned vectors replace words 1..4 before text block l = 2..9
           a_l        value path     a_l = a_(l-1) + Attn(v, v, v)(ln_1(h_(l-1))), beside the blocks h_l of the tower
           P_l        patches        n(proj(ln_post(a_l)))
           map        mean over layers of U(softmax(P_l [t_n t_a] / 0.07))_a, then smoothed; t = n(E_t(g; u))
           score      softmax(n(proj(h_L[class])) [t_n t_a] / 0.07)_a
Loss       CE(score) + 4 sum_l (focal + dice_a + dice_n)(map_l)
Reference  zqhang/AnomalyCLIP 45ed4dd (MIT).
Learned    V, W and u; both towers stay frozen, so each image is encoded once.
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
    name="anomaly_clip",
    title="AnomalyCLIP: object-agnostic prompts and value-value attention of patches",
    paper="Zhou et al., ICLR 2024",
    url="https://arxiv.org/abs/2310.18961",
    reference="zqhang/AnomalyCLIP 45ed4dd",
    licence="MIT",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True, abnormal_images=True, masks=True),
    idea="learns one sentence for normal and one for abnormal, and compares patches with both",
    learned="the words of two sentences, and text tokens of the first blocks",
    auxiliary=True,
    auxiliary_alone=True,
    deviations=(
        "sentences name the object and say normal and abnormal (states=industrial: the reference's words)",
        "without an auxiliary set it is trained on the support (epochs); with one, the support is not used",
        "the map is the mean over layers; that of the reference is their sum",
        "four layers are tapped, as in the paper; the scripts of the reference use the last one alone (layers)",
        "the value-value path starts after a quarter of the tower; block 6 of 24 in the reference (value_from)",
        "the class token is projected without ln_post, as in the reference (class_token=ln_post: with it)",
        "deep text tokens are float32; the reference rounds them to float16 (rounding=float16)",
        "no projections of the deep tokens; the reference has some that are never used",
        "smoothing is scaled with the input; sigma is given for 518 px, as in the reference",
        "dice is always per image; the reference computes it per row for a batch of one",
        "position embeddings are resized once, by the backbone; the reference overwrites its own, bilinearly",
    ),
)


class AnomalyCLIPConfig(MethodConfig):
    """Every option of AnomalyCLIP."""

    layers: tuple[int, ...] | None = Field(
        None, description="tapped layers, 1-based; None: quarters of the tower (paper: 6 12 18 24 of 24)"
    )
    value_from: int | None = Field(
        None, ge=1, description="first block of the value-value path; None: after a quarter (reference: 6 of 24)"
    )
    texts: TextBank | None = Field(None, description="text bank that names the object; None: breast ultrasound (ours)")
    states: States = Field("medical", description="words for normal and abnormal (ours); 'industrial': the reference's")
    words: int = Field(12, ge=1, description="learned words per sentence (paper sec. 4.1: 12)")
    depth: int = Field(9, ge=2, description="text blocks 2..depth get deep tokens, cut to the tower (paper: 9)")
    length: int = Field(4, ge=1, description="deep tokens per block; they replace the first words (paper: 4)")
    rounding: Rounding = Field("none", description="of deep tokens (reference: float16)")
    class_token: Literal["raw", "ln_post"] = Field(
        "raw", description="project the class token as it is (reference), or after the last norm as in CLIP"
    )
    tau: PositiveFloat = Field(0.07, description="temperature (reference: 0.07)")
    seg_weight: float = Field(
        4.0, ge=0, description="weight of focal and dice relative to cross-entropy (reference: 4)"
    )
    sigma: float = Field(4.0, ge=0, description="smoothing in pixels at 518, scaled with the input (reference: 4)")
    epochs: int | None = Field(
        None, ge=0, description="None: 15 on an auxiliary set (reference), 50 on the support (ours)"
    )
    batch_size: int = Field(8, ge=1, description="images per step from the support (reference: 8)")
    lr: PositiveFloat = Field(1e-3, description="learning rate of Adam, constant (reference: 1e-3)")
    beta1: float = Field(0.5, ge=0, lt=1, description="first momentum of Adam (reference: 0.5)")

    @model_validator(mode="after")
    def _fits_together(self) -> AnomalyCLIPConfig:
        if self.length > self.words:
            msg = f"length={self.length} deep tokens do not fit into words={self.words}; set length to at most that"
            raise ValueError(msg)
        return self


class AnomalyCLIP(Method):
    """AnomalyCLIP; see the module's header for the equations and :class:`AnomalyCLIPConfig` for every option."""

    info = INFO
    Config = AnomalyCLIPConfig
    config: AnomalyCLIPConfig
    text: torch.Tensor

    def prepare(self) -> None:
        """Tapped layers and sentence templates."""
        c, b = self.config, self.backbone
        self.layers = b.check_layers(c.layers or b.default_layers)
        (self.value_from,) = b.check_layers([c.value_from or max(1, round(b.layers / 4))])
        self.templates = learned_pair(b, c.texts, c.states)

    def build(self, *, seed: int) -> None:
        """Fresh words and deep tokens."""
        c, width = self.config, self.backbone.text_width
        depth = min(c.depth, text_layers(self.backbone))
        self.words = nn.Parameter(0.02 * torch.randn(2, c.words, width))  # V and W (2 r text_width)
        self.deep = nn.Parameter(0.02 * torch.randn(depth - 1, c.length, width))  # u, from block 2 on
        self.register_buffer("text", torch.zeros(2, self.backbone.dim), persistent=False)  # set by _encode

    @torch.no_grad()
    def _encode(self) -> None:
        """Encode the sentences of the learned words once, for :meth:`score`."""
        self.text.copy_(self.encode_text())

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
            epochs=c.epochs if c.epochs is not None else (50 if auxiliary is None else 15),
            optimiser="adam",
            betas=(c.beta1, 0.999),
            schedule="constant",
            progress=self.progress,
        )
        self._encode()
        return FitReport("last epoch", history)

    def loss(self, seen: Seen) -> torch.Tensor:
        """The loss of the header, f32 (); an unknown mask is left out of the pixel terms."""
        device = self.backbone.device
        text = self.encode_text()
        total = F.cross_entropy(self.logits(seen.features.image, text), seen.truth.anomalous.to(device).long())
        known = seen.truth.known.nonzero().flatten()
        if len(known):
            masks = seen.truth.masks[known].to(device)
            for probs in self.layer_maps(seen.features.select(known), text):
                total = total + self.config.seg_weight * segmentation(probs, masks, both=True)
        return total

    def encode_text(self) -> torch.Tensor:
        """t_n and t_a, unit f32 (2 d)."""
        return encode_sentences(self.backbone, self.templates, self.words, self.deep, rounding=self.config.rounding)

    def encode(self, images: torch.Tensor) -> Features:
        """Class tokens (b d), raw, and patches P_l, unit {layer: (b n d)}, of images f32 (b 3 s s)."""
        b, path = self.backbone, ValuePath(self.value_from, self.layers)
        f = b.encode_image(images, layers=(b.layers,), around=path)
        token = f.image if self.config.class_token == "ln_post" else f.cls[b.layers] @ b.projection
        patches = {layer: unit(b.project(path.kept[layer][:, 1:])) for layer in self.layers}
        return Features(image=token, patches=patches, cls={}, grid=f.grid)

    def logits(self, tokens: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Logits (... 2) of (normal, abnormal) of tokens (... d) of any length; text from :meth:`encode_text`."""
        return unit(tokens) @ text.T / self.config.tau

    def layer_maps(self, f: Features, text: torch.Tensor) -> torch.Tensor:
        """Abnormal probability (l b s s) of every layer, not smoothed; the reference's map is their sum."""
        size = self.backbone.size
        return torch.stack(
            [to_probability(self.logits(f.patches[k], text), f.grid, size=size, up="probs") for k in self.layers]
        )

    def score(self, images: torch.Tensor) -> Scores:
        """Score and map, both in [0, 1], of images f32 (b 3 s s); the map has the model input's resolution."""
        f = self.encode(images)
        maps = smooth(self.layer_maps(f, self.text).mean(0), self.config.sigma * self.backbone.size / 518)
        return Scores(score=self.logits(f.image, self.text).softmax(-1)[:, 1], map=maps.clamp(0, 1))


METHOD = AnomalyCLIP
