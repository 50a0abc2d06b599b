"""AdaCLIP: static and image-dependent prompts in both towers, trained on images with masks.

Paper      Cao et al., AdaCLIP: Adapting CLIP with Hybrid Learnable Prompts for Zero-Shot Anomaly Detection, ECCV 2024.
Equations  f            class token of the frozen tower (projected, not normalised)
           v_i          V_i + G_v(f)   r tokens after the patches of image block i = 1..J, passed on after block J
           w_i          W_i + G_t(f)   replace words 1..r before text block i = 2..J
           t_n, t_a     n(mean_j n(E_t(sentence_j; w)))   one pair per image
           z_l          100 n(A_l P_l) [t_n t_a]          A_l linear; P_l patch tokens of the prompted tower, no ln_post
           map          softmax(U(mean_l z_l))_a          bilinear, corners aligned, then smoothed
           h            hybrid semantic fusion: the most abnormal patches in k clusters; n(mean over the centres)
           score        softmax(100 n(0.2 h + 0.8 n(A_c f')) [t_n t_a])_a     f' class token of the prompted tower
Loss       focal(score) + sum_l (focal + dice_a + dice_n)(softmax(U(z_l)))
Reference  caoyunkang/AdaCLIP e27ee32 (MIT).
Learned    V, W, G_v, G_t, A_l, A_c; both towers stay frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, PositiveFloat
from torch import nn

from ultraad.errors import ConfigError
from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.deep_prompts import Replace, text_layers
from ultraad.nn.frozen import after_first_block, from_second_block, tokens_after
from ultraad.nn.labelled import Labelled, TrainingSet
from ultraad.nn.losses import focal, segmentation
from ultraad.nn.maps import smooth, to_probability
from ultraad.nn.prompts import unit
from ultraad.nn.templates import TEMPLATES_35, States, both_sides
from ultraad.texts.bank import TextBank
from ultraad.types import Batch, FitReport, Scores

INFO = MethodInfo(
    name="ada_clip",
    title="AdaCLIP: static and image-dependent prompts in both towers",
    paper="Cao et al., ECCV 2024",
    url="https://arxiv.org/abs/2407.15795",
    reference="caoyunkang/AdaCLIP e27ee32",
    licence="MIT",
    outputs=frozenset({"score", "map"}),
    needs=Needs(normal_images=True, abnormal_images=True, masks=True),
    idea="learns prompts for both towers, each with a fixed part and a part computed from the image",
    learned="prompt tokens, the linear maps from image to prompts, projections of patches and class token",
    auxiliary=True,
    auxiliary_alone=True,
    deviations=(
        "more epochs at a lower rate on the support (epochs, lr); at the reference's rate the loss does not fall",
        "with an auxiliary set, the support images are not used",
        "the logit scale is that of the backbone; the reference has 100, the value of OpenAI's weights (scale=100)",
        "sentences use medical words (states=industrial: the reference's words)",
        "dice is per image; the reference computes it per row, as its batch size is one (dice_reduction=row)",
        "prompts are float32; the reference rounds them to float16 (rounding=float16)",
        "k-means has a fixed seed; that of the reference is unseeded, so its scores change from run to run",
        "any batch size; the reference only supports one image at a time (batch_size=1)",
        "no text prompt for the first block; that of the reference is never used",
        "smoothing is scaled with the input; sigma is given for 518 px, as in the reference",
        "float32 instead of float16 autocast without a scaler; no mosaic of four images (reference: MVTec only)",
        "the last epoch is kept; the reference keeps the best one on the test set",
        "activation and positions as in the backbone; the reference has exact GELU and resizes without antialiasing",
    ),
)
PATCHES_PER_CLUSTER = 5  # reference method/adaclip.py: the top 5 k patches are clustered
ROWS = 384  # sentences per call of the text tower; limits memory use and does not change the result


class AdaCLIPConfig(MethodConfig):
    """Every option of AdaCLIP."""

    layers: tuple[int, ...] | None = Field(None, description="tapped layers; None: quarters of the tower (reference)")
    texts: TextBank | None = Field(None, description="text bank, for the object's words; None: breast ultrasound")
    states: States = Field("medical", description="words for normal and abnormal (reference: industrial)")
    depth: int = Field(4, ge=2, description="blocks with prompts, cut to each tower's length (reference: 4)")
    length: int = Field(5, ge=1, description="prompt tokens per block (reference: 5)")
    rounding: Literal["none", "float16"] = Field("none", description="of prompts (reference: float16)")
    scale: PositiveFloat | Literal["backbone"] = Field("backbone", description="of the logits (reference: 100)")
    clusters: int = Field(20, ge=1, description="k of the fusion, at most the number of patches (reference: 20)")
    fusion: float = Field(0.2, ge=0, lt=1, description="share of the clusters in the image vector (reference: 0.2)")
    sigma: float = Field(4.0, ge=0, description="smoothing in pixels at 518, scaled with the input (reference: 4)")
    dice_reduction: Literal["image", "row"] = Field("image", description="dice per image, or per row (reference)")
    epochs: int | None = Field(None, ge=0, description="None: 5 if auxiliary (reference), 20 on the support (ours)")
    batch_size: int = Field(1, ge=1, description="support images per step (reference: 1)")
    lr: PositiveFloat | None = Field(
        None, description="None: 0.01 if auxiliary (reference), 1e-3 on the support (ours)"
    )
    beta1: float = Field(0.5, ge=0, lt=1, description="of AdamW (reference: 0.5)")
    weight_decay: float = Field(0.01, ge=0, description="decoupled (torch's default, as in the reference)")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Output of the two prompted towers for some images.

    Attributes:
        patches: Unit f32 (b l n d), the projected patch tokens n(A_l P_l).
        token: Unit f32 (b d), the projected class token n(A_c f').
        text: Unit f32 (b 2 d), t_n and t_a of each image.
        logits: f32 (b l n 2), z.
    """

    patches: torch.Tensor
    token: torch.Tensor
    text: torch.Tensor
    logits: torch.Tensor


class AdaCLIP(Method):
    """AdaCLIP; see the module's header for the equations and :class:`AdaCLIPConfig` for every option."""

    info = INFO
    Config = AdaCLIPConfig
    untraceable = "it clusters the patches of every image with scikit-learn"
    config: AdaCLIPConfig

    def prepare(self) -> None:
        """The sentences after the first text block, which no prompt reaches."""
        c, b = self.config, self.backbone
        self.layers = b.check_layers(c.layers or b.default_layers)
        self.scale = b.logit_scale if c.scale == "backbone" else c.scale
        normal, abnormal = both_sides(c.texts, c.states, TEMPLATES_35[:4])
        self._normal = len(normal)  # sentences of the normal side, which comes first
        tokens = b.tokenize([*normal, *abnormal])
        self._eot = b.end_of_text(tokens)
        self._words = b.embed_text(tokens)[:, : int(self._eot.max()) + 1]
        self._first = after_first_block(b, self._words, self._eot)  # no prompt reaches block 1
        shortest = int(self._eot.min()) - 1
        if c.length > shortest:
            msg = f"length={c.length} prompt tokens replace a whole sentence of {shortest}; set {shortest} or less"
            raise ConfigError(msg)

    def build(self, *, seed: int) -> None:
        """Fresh prompts and projections."""
        b, r = self.backbone, self.config.length
        image, text = (min(self.config.depth, blocks) for blocks in (b.layers, text_layers(b)))
        self.image_static = nn.Parameter(0.02 * torch.randn(image, r, b.width))  # V
        self.text_static = nn.Parameter(0.02 * torch.randn(text - 1, r, b.text_width))  # W, from block 2 on
        self.image_dynamic = nn.Linear(b.dim, r * b.width)  # G_v: r maps in one
        self.text_dynamic = nn.Linear(b.dim, r * b.text_width)  # G_t
        self.patch_heads = nn.ModuleDict({str(layer): nn.Linear(b.width, b.dim) for layer in self.layers})  # A_l
        self.token_head = nn.Linear(b.dim, b.dim)  # A_c

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the auxiliary set if there is one, otherwise on the support."""
        c = self.config
        data = TrainingSet(support, auxiliary, normal_index=self.normal_index, batch_size=c.batch_size, seed=seed)
        epochs, lr = (5, 0.01) if data.auxiliary else (20, 1e-3)
        history = data.train(
            lambda batch: self.loss(batch, keep=not data.auxiliary),
            [{"params": [*self.parameters()], "lr": c.lr or lr}],
            epochs=epochs if c.epochs is None else c.epochs,
            optimiser="adamw",
            beta1=c.beta1,
            weight_decay=c.weight_decay,
            progress=self.progress,
        )
        return FitReport("last epoch", history)

    def loss(self, batch: Labelled, *, keep: bool = False) -> torch.Tensor:
        """The loss of the header, f32 (), mean over images; an unknown mask is left out of the pixel terms.

        ``keep`` also caches the tokens before the first block, which takes too much memory for many images.
        """
        device, size = self.backbone.device, self.backbone.size
        f = self.backbone.cache.encode(batch.images, layers=(0,) if keep else (), batch_size=1)
        tokens = tokens_after(f, 0).to(self.backbone.dtype) if keep else None  # (b 1+n w)
        seen = self.look(batch.images, f.image, tokens=tokens)
        score, anomalous = self.image_probability(seen).view(-1, 1, 1), batch.anomalous.to(device).view(-1, 1, 1)
        total = focal(score, anomalous).mean()
        known = batch.known.to(device)
        if bool(known.any()):
            masks = batch.masks.to(device)[known]
            for logits in seen.logits[known].unbind(1):  # (b n 2) per layer
                probs = to_probability(logits, self.backbone.grid, size=size)
                total = total + segmentation(probs, masks, both=True, reduction=self.config.dice_reduction)
        return total

    def look(self, images: torch.Tensor, frozen: torch.Tensor, *, tokens: torch.Tensor | None = None) -> Seen:
        """Both towers with prompts.

        Args:
            images: f32 (b 3 s s).
            frozen: f32 (b d), f: their class tokens from the tower without prompts.
            tokens: (b 1+n w), the result of ``backbone.embed_image``; None: computed here.
        """
        kept, image = self._encode_image(images, self.image_dynamic(frozen), tokens=tokens)
        heads = self.patch_heads.values()
        patches = torch.stack([unit(a(x)) for a, x in zip(heads, kept, strict=True)], 1)  # (b l n d)
        text = self.encode_text(self.text_dynamic(frozen))
        logits = self.scale * torch.einsum("blnd,btd->blnt", patches, text)
        return Seen(patches=patches, token=unit(self.token_head(image)), text=text, logits=logits)

    def _encode_image(
        self, images: torch.Tensor, dynamic: torch.Tensor, *, tokens: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The prompted tower: patch tokens P_l f32 (b n w) per layer, and class token f' f32 (b d)."""
        prompts = self._prompts(self.image_static, dynamic)
        tokens = self.backbone.embed_image(images) if tokens is None else tokens
        start = tokens.shape[1]  # 1 + n
        tokens = torch.cat([tokens, prompts[0].to(tokens.dtype)], 1)  # (b 1+n+r w)
        around = Replace(dict(enumerate(prompts[1:], start=2)), start=start)
        f = self.backbone.encode_tokens(tokens, layers=self.layers, around=around)
        return [f.patches[layer][:, : start - 1] for layer in self.layers], f.image

    def encode_text(self, dynamic: torch.Tensor) -> torch.Tensor:
        """t_n, t_a of each image: f32 (b r*text_width) to unit (b 2 d)."""
        count = len(self._words)
        pairs = []
        for part in torch.split(dynamic, max(1, ROWS // count)):
            prompts = self._prompts(self.text_static, part).repeat_interleave(count, 1)  # (l b*t r w)
            first, eot = self._first.repeat(len(part), 1, 1), self._eot.repeat(len(part))
            around = from_second_block(first, Replace(dict(enumerate(prompts, start=2))))
            text = unit(self.backbone.encode_prompts(first, eot, around=around))  # (b*t d)
            normal, abnormal = text.view(len(part), count, -1).tensor_split([self._normal], dim=1)
            pairs.append(unit(torch.stack([normal.mean(1), abnormal.mean(1)], 1)))
        return torch.cat(pairs)

    def _prompts(self, static: torch.Tensor, dynamic: torch.Tensor) -> torch.Tensor:
        """Static (l r w) plus dynamic (b r*w) prompts: (l b r w)."""
        prompts = static[:, None] + dynamic.view(-1, *static.shape[1:])
        return prompts.to(torch.float16).to(prompts.dtype) if self.config.rounding == "float16" else prompts

    def image_probability(self, seen: Seen) -> torch.Tensor:
        """Abnormal probability of each image, (b,) in [0, 1]."""
        c, vector = self.config, seen.token
        if c.fusion:
            h = torch.stack([self._fused(x, z) for x, z in zip(seen.patches, seen.logits, strict=True)])
            vector = unit(c.fusion * h + (1 - c.fusion) * vector)
        return (self.scale * torch.einsum("bd,btd->bt", vector, seen.text)).softmax(-1)[:, 1]

    def _fused(self, patches: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The vector h of one image: patches (l n d) and logits (l n 2) to unit (d,)."""
        k = self.config.clusters
        margin = logits.detach().mean(0).diff(dim=-1)[:, 0]  # (n,): the larger, the more abnormal
        chosen = margin.topk(min(len(margin), PATCHES_PER_CLUSTER * k)).indices.sort().values
        members = patches[:, chosen]  # (l m d)
        return centre(members, cluster(members.detach(), k))

    def score(self, images: torch.Tensor) -> Scores:
        """Score and map, both in [0, 1], of images f32 (b 3 s s); the map has the model input's resolution."""
        size, tokens = self.backbone.size, self.backbone.embed_image(images)
        seen = self.look(images, self.backbone.encode_image(images, tokens=tokens).image, tokens=tokens)
        maps = to_probability(seen.logits.mean(1), self.backbone.grid, size=size)
        maps = smooth(maps, self.config.sigma * size / 518).clamp(0, 1)
        return Scores(score=self.image_probability(seen), map=maps)


def cluster(members: torch.Tensor, k: int) -> torch.Tensor:
    """K-means labels int64 (m,) of tokens (l m d), all layers together; at most m clusters, with a fixed seed."""
    from sklearn.cluster import KMeans

    x = members.transpose(0, 1).flatten(1).cpu().numpy()  # (m l*d)
    labels = KMeans(min(k, len(x)), n_init=1, random_state=0).fit_predict(x)
    return torch.from_numpy(labels).long().to(members.device)


def centre(members: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over clusters of their mean over members and layers: (l m d) and labels (m,) to unit (d,)."""
    belongs = nn.functional.one_hot(labels).to(members.dtype)  # (m k)
    belongs = belongs[:, belongs.any(0)]
    means = belongs.T @ members.mean(0) / belongs.sum(0)[:, None]  # (k d)
    return unit(means.mean(0))


METHOD = AdaCLIP
