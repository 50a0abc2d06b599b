"""AA-CLIP: sentences learn first what an anomaly is, and patches then learn to agree with them.

Paper      Ma et al., AA-CLIP: Enhancing Zero-shot Anomaly Detection via Anomaly-Aware CLIP, CVPR 2025,
           arXiv 2503.06661.
Equations  x'         residual adapter   0.1 a |x| / |a| + 0.9 x, a = lrelu(W x): after the first blocks of both towers
           t_n, t_a   text anchors       n(mean n(lrelu(P_t x_end))) over sentences, x_end after the last norm
           V          stage 1            n(proj(ln_post(h))) + n(f), h from blocks that attend by value
           F_l        stage 2            n(P_l ln_post(h_l)), h_l patches of the adapted tower
           D          stage 2            mean over patches of n(P_d ln_post(h_L))
           map        1/2 + U(smoothed mean_l F_l (t_a - t_n)) / (2 |t_a - t_n|)
           score      largest value of the map (image_score)
Loss       stage 1, text tower: (focal + dice_a + dice_n)(softmax(U(scale V [t_n t_a]))) + 0.1 <t_n, t_a>^2
           stage 2, image tower: sum_l (focal + dice_a + dice_n)(softmax(U(scale F_l [t_n t_a]))) + CE(D [t_n t_a])
Reference  Mwxinnn/AA-CLIP 53db195 (Apache-2.0).
Learned    W of the first blocks and P_t, then W of the first blocks, P_l and P_d; the towers stay frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import nn

from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.deep_prompts import text_layers
from ultraad.nn.frozen import tokens_after
from ultraad.nn.labelled import Labelled, TrainingSet
from ultraad.nn.loop import minimise
from ultraad.nn.losses import segmentation
from ultraad.nn.maps import largest, resize, smooth, to_probability
from ultraad.nn.prompts import unit
from ultraad.nn.seen import Seen, seen_batches
from ultraad.nn.templates import ABNORMAL_STATES, NORMAL_STATES, States, compose
from ultraad.nn.value_path import value_blocks
from ultraad.texts.bank import TextBank, breast_texts
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="aa_clip",
    title="AA-CLIP: anomaly-aware text anchors, then patches that agree with them",
    paper="Ma et al., CVPR 2025",
    url="https://arxiv.org/abs/2503.06661",
    reference="Mwxinnn/AA-CLIP 53db195",
    licence="Apache-2.0",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True, abnormal_images=True, masks=True),
    idea="adapts the text tower until normal and abnormal sentences differ, and then the image tower to the sentences",
    learned="small adapters in the first blocks of both towers, and the projections of sentences, patches and images",
    auxiliary=True,
    auxiliary_alone=True,
    deviations=(
        "sentences use medical words (states=industrial: the reference's words)",
        "the logit scale is that of the backbone; the reference has 100, the value of OpenAI's weights (scale=100)",
        "in stage 1, patches attend by value to patches, as in the paper; the reference swaps two axes there, and its "
        "patches attend to the other images of the batch",
        "stage 1 uses the last tapped layer alone, as the reference's loop keeps only the last of its losses",
        "scores and maps are moved to [0, 1] by the distance of the two anchors; the reference min-max normalises both "
        "over the test set",
        "adapters end after a quarter of each tower; blocks 6 of 24 and 3 of 12 in the reference (image_blocks, "
        "text_blocks)",
        "smoothing is scaled with the grid, cut at 4 sigma; the reference cuts it at 4 patches (sigma)",
        "images are not augmented; the reference rotates, moves, mirrors and recolours them",
        "the rate is constant; the reference halves it after 16,000 and 32,000 steps",
        "dice is always per image; the reference computes it per row for a batch of one",
        "the last epoch is kept; the reference evaluates every epoch of stage 2 on the test set",
        "the activation is that of the backbone; the reference ran OpenAI's weights with exact GELU at 518 px",
    ),
)
SIDES: dict[States, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "industrial": (
        ("{}", "a {}", "the {}"),
        ("a damaged {}", "a broken {}", "a {} with flaw", "a {} with defect", "a {} with damage"),
    ),
    "medical": (NORMAL_STATES["medical"], ABNORMAL_STATES["medical"]),
}
TEMPLATES = ("{}.", "a photo of {}.")  # reference dataset/constants.py
GRID = 37  # patches a side in the reference, for which sigma is given


class AACLIPConfig(MethodConfig):
    """Every option of AA-CLIP."""

    layers: tuple[int, ...] | None = Field(
        None, description="tapped layers, 1-based; None: quarters of the tower (reference: 6 12 18 24 of 24)"
    )
    value_from: int | None = Field(
        None, ge=1, description="first block that attends by value; None: after a quarter (reference: 6 of 24)"
    )
    texts: TextBank | None = Field(None, description="text bank that names the object; None: breast ultrasound (ours)")
    states: States = Field("medical", description="words for normal and abnormal (ours); 'industrial': the reference's")
    scale: PositiveFloat | Literal["backbone"] = Field(
        "backbone", description="logits per unit of cosine: that of the backbone, or a number (reference: 100)"
    )
    text_blocks: int | None = Field(
        None, ge=0, description="text blocks with an adapter; None: a quarter of the tower (reference: 3 of 12)"
    )
    image_blocks: int | None = Field(
        None, ge=0, description="image blocks with an adapter; None: a quarter of the tower (reference: 6 of 24)"
    )
    text_share: float = Field(0.1, gt=0, lt=1, description="share of an adapter in the text stream (reference: 0.1)")
    image_share: float = Field(0.1, gt=0, lt=1, description="share of an adapter in the image stream (reference: 0.1)")
    apart: float = Field(0.1, ge=0, description="weight of the squared cosine of the anchors (reference: 0.1)")
    sigma: float = Field(
        1.5, ge=0, description="smoothing in patches of a grid of 37, scaled with the grid (reference, medical: 1.5)"
    )
    image_score: Literal["map", "both"] = Field(
        "map", description="largest map value (reference, medical), or its mean with that of D (reference, industrial)"
    )
    text_epochs: int | None = Field(
        None, ge=0, description="of stage 1; None: 5 on an auxiliary set (reference), 20 on the support (ours)"
    )
    epochs: int = Field(20, ge=0, description="of stage 2 (reference: 20)")
    text_batch_size: int = Field(16, ge=1, description="support images per step of stage 1 (reference: 16)")
    batch_size: int = Field(2, ge=1, description="support images per step of stage 2 (reference: 2)")
    text_lr: PositiveFloat = Field(1e-5, description="learning rate of Adam in stage 1 (reference: 1e-5)")
    lr: PositiveFloat = Field(5e-4, description="learning rate of Adam in stage 2 (reference: 5e-4)")
    beta1: float = Field(0.5, ge=0, lt=1, description="first momentum of Adam (reference: 0.5)")


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer without bias, drawn as in the reference (Xavier, uniform)."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def mixed(adapter: nn.Module, x: torch.Tensor, share: float) -> torch.Tensor:
    """Tokens x' (b m w) from x: the adapter's output at the length of x, mixed with x."""
    h = x.float()
    a = F.leaky_relu(adapter(h))
    longer: torch.Tensor = a * h.norm(dim=-1, keepdim=True) / a.norm(dim=-1, keepdim=True)
    return (share * longer + (1 - share) * h).to(x.dtype)


class AACLIP(Method):
    """AA-CLIP; see the module's header for the equations and :class:`AACLIPConfig` for every option."""

    info = INFO
    Config = AACLIPConfig
    config: AACLIPConfig
    text: torch.Tensor

    def prepare(self) -> None:
        """Tapped layers and sentences; the normal ones come first."""
        c, b = self.config, self.backbone
        self.layers = tuple(sorted(set(b.check_layers(c.layers or b.default_layers))))
        self.scale = b.logit_scale if c.scale == "backbone" else c.scale
        quarter = max(1, round(b.layers / 4))
        (self.value_from,) = b.check_layers([c.value_from or quarter])
        self.image_blocks = quarter if c.image_blocks is None else c.image_blocks
        b.check_layers([self.image_blocks], first=0)
        name = (c.texts or breast_texts()).object
        normal, abnormal = (compose(name, states, TEMPLATES) for states in SIDES[c.states])
        self._normals = len(normal)  # sentences of the normal side
        tokens = b.tokenize([*normal, *abnormal])
        self._eot = b.end_of_text(tokens)
        self._words = b.embed_text(tokens)[:, : int(self._eot.max()) + 1]

    def build(self, *, seed: int) -> None:
        """Fresh adapters and projections."""
        c, b = self.config, self.backbone
        blocks = text_layers(b)
        count = max(1, round(blocks / 4)) if c.text_blocks is None else min(c.text_blocks, blocks)
        self.text_adapters = nn.ModuleList([linear(b.text_width, b.text_width) for _ in range(count)])
        self.text_head = linear(b.text_width, b.dim)  # P_t
        self.image_adapters = nn.ModuleList([linear(b.width, b.width) for _ in range(self.image_blocks)])
        self.seg_heads = nn.ModuleDict({str(layer): linear(b.width, b.dim) for layer in self.layers})  # P_l
        self.det_head = linear(b.width, b.dim)  # P_d
        self.register_buffer("text", torch.zeros(2, b.dim), persistent=False)  # set by _encode

    @torch.no_grad()
    def _encode(self) -> None:
        """Encode the sentences with the adapted text tower once, for stage 2 and :meth:`score`."""
        self.text.copy_(self.encode_text())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        """Strict load; encodes the sentences with the loaded adapters."""
        found = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self._encode()
        return found

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train text tower, then image tower, on the auxiliary set if there is one, otherwise on the support."""
        c, normal = self.config, self.normal_index
        first = c.text_epochs if c.text_epochs is not None else (20 if auxiliary is None else 5)
        batches, steps = seen_batches(
            support, auxiliary, self.see, normal_index=normal, batch_size=c.text_batch_size, seed=seed
        )
        text = [*self.text_adapters.parameters(), *self.text_head.parameters()]
        history = minimise(
            lambda seen, _: self.text_loss(seen),
            [{"params": text, "lr": c.text_lr}],
            batches,
            steps=steps,
            epochs=first,
            optimiser="adam",
            betas=(c.beta1, 0.999),
            schedule="constant",
            progress=self._progress(0, first + c.epochs),
        )
        self._encode()
        parts = (self.image_adapters, self.seg_heads, self.det_head)
        data = TrainingSet(support, auxiliary, normal_index=normal, batch_size=c.batch_size, seed=seed)
        history += data.train(
            lambda batch: self.image_loss(batch, frozen=not data.auxiliary),
            [{"params": [p for part in parts for p in part.parameters()], "lr": c.lr}],
            epochs=c.epochs,
            beta1=c.beta1,
            progress=self._progress(first, first + c.epochs),
        )
        return FitReport("last epoch of both stages", history)

    def _progress(self, before: int, total: int) -> Callable[[int, int], None] | None:
        """Progress of one stage as a part of both."""
        tell = self.progress
        return None if tell is None else lambda done, _: tell(before + done, total)

    def see(self, images: torch.Tensor) -> Features:
        """n(f) (b d) and n(proj(ln_post(h))) of the last tapped layer (b n d), for images f32 (b 3 s s) of stage 1."""
        b, last = self.backbone, self.layers[-1]
        f = b.encode_image(images, layers=(last,), around=value_blocks(self.value_from))
        token = b.encode_image(images).image
        return Features(image=unit(token), patches={last: unit(b.project(f.patches[last]))}, cls={}, grid=f.grid)

    def text_loss(self, seen: Seen) -> torch.Tensor:
        """The loss of stage 1, f32 (); an unknown mask is left out of the pixel terms."""
        text, device = self.encode_text(), self.backbone.device
        total = self.config.apart * (text[0] @ text[1]) ** 2
        known = seen.truth.known.to(device)
        if bool(known.any()):
            f = seen.features
            v = f.patches[self.layers[-1]][known] + f.image[known][:, None]  # (b n d), not normalised again
            total = total + segmentation(self.maps(v, text), seen.truth.masks.to(device)[known], both=True)
        return total

    def image_loss(self, batch: Labelled, *, frozen: bool = False) -> torch.Tensor:
        """The loss of stage 2, f32 (); an unknown mask is left out of the pixel terms."""
        device = self.backbone.device
        patches, image = self.encode(batch.images, frozen=frozen)
        total = F.cross_entropy(image @ self.text.T, batch.anomalous.to(device).long())
        known = batch.known.to(device)
        if bool(known.any()):
            masks = batch.masks.to(device)[known]
            for own in patches[:, known]:
                total = total + segmentation(self.maps(own, self.text), masks, both=True)
        return total

    def encode_text(self) -> torch.Tensor:
        """t_n and t_a, unit f32 (2 d)."""

        def around(layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            x = block(x)
            if layer > len(self.text_adapters):
                return x
            return mixed(self.text_adapters[layer - 1], x, self.config.text_share)

        ends = self.backbone.encode_prompts(self._words, self._eot, around=around, project=False)
        texts = unit(F.leaky_relu(self.text_head(ends)))  # (t d)
        return unit(torch.stack([texts[: self._normals].mean(0), texts[self._normals :].mean(0)]))

    def encode(self, images: torch.Tensor, *, frozen: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """F, unit f32 (l b n d), and D, f32 (b d), of images f32 (b 3 s s); ``frozen`` takes block 1 from the cache."""
        b, deepest, kept = self.backbone, self.layers[-1], []
        done = int(frozen)

        def around(layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            if done < layer <= deepest:
                x = block(x)
            if layer <= min(self.image_blocks, deepest):
                x = mixed(self.image_adapters[layer - 1], x, self.config.image_share)
            if layer in self.layers:
                kept.append(b.post_norm(x[:, 1:]))  # (b n w)
            return x

        start = tokens_after(b.cache.encode(images, layers=(1,)), 1) if frozen else b.embed_image(images)
        b.encode_tokens(start.to(b.dtype), around=around)
        patches = torch.stack([unit(self.seg_heads[str(k)](x)) for k, x in zip(self.layers, kept, strict=True)])
        return patches, unit(self.det_head(kept[-1])).mean(1)

    def maps(self, patches: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Abnormal probability (b s s) in the loss, of patches (b n d) against (normal, abnormal)."""
        return to_probability(self.scale * patches @ text.T, self.backbone.grid, size=self.backbone.size)

    def margins(self, patches: torch.Tensor) -> torch.Tensor:
        """F_l (t_a - t_n), averaged over layers: (l b n d) to (b n); the reference sums 100 times this."""
        return (patches @ (self.text[1] - self.text[0])).mean(0)

    def score(self, images: torch.Tensor) -> Scores:
        """Score and map, both in [0, 1], of images f32 (b 3 s s); the map has the model input's resolution."""
        b, c = self.backbone, self.config
        patches, image = self.encode(images)
        coarse = smooth(self.margins(patches).view(-1, *b.grid), c.sigma * b.grid[0] / GRID)
        distance = (self.text[1] - self.text[0]).norm().clamp(min=1e-6)  # no margin is larger
        maps = (0.5 + resize(coarse, b.size, align_corners=True) / (2 * distance)).clamp(0, 1)
        score = largest(maps)
        if c.image_score == "both":
            score = (score + (1 + image @ self.text[1]) / 2) / 2
        return Scores(score=score, map=maps)


METHOD = AACLIP
