"""VCP-CLIP: words made from the image complete the sentences, and the sentences attend to the image patches.

Paper      Qu et al., VCP-CLIP: A visual context prompting model for zero-shot anomaly segmentation, ECCV 2024.
Equations  v_i(x)     Pre-VCP words     q_i + conv_i(f)   i = 1..r, in place of the object's name; f class token
           e_l        deep token        G(d_l) after the start token, replaced before every text block, no position
           T(x)       texts             n(E_t("a photo of a good v_1 .. v_r"; e)) and damaged, one pair per image,
                                        with a layer norm before the tower's last one
           raw_l      Pre-VCP map       softmax(U(exp(tau_1) n(A_l F_l) T^T))_a, A_l linear, F_l patches without ln_post
           T'_l       Post-VCP          n(O sum_n softmax(W_Q T . W_K n(F_l)) W_V n(F_l)), 8 heads, no scaling
           new_l      Post-VCP map      softmax(U(exp(tau_2) n(F_l) T'^T))_a, in the width of the image tower
           map        mean over layers of 0.2 raw + 0.8 new, smoothed
           score      mean of the largest 0.75 % of raw and of new
Loss       sum over layers and both branches of focal + dice_a
Reference  xiaozhen228/VCP-CLIP 4dd96ec (no licence file; written from the paper and facts, nothing copied).
Learned    q, conv, d, G, the layer norm, A_l, W_Q, W_K, W_V, O, tau_1 and tau_2; both towers stay frozen.
Deviations see ``INFO.deviations``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import nn

from ultraad.backbones._door import Around
from ultraad.errors import ConfigError
from ultraad.methods import Method, MethodConfig, MethodInfo, Needs
from ultraad.nn.blocks import PatchFusion
from ultraad.nn.deep_prompts import Replace, text_layers
from ultraad.nn.labelled import Labelled, TrainingSet
from ultraad.nn.losses import segmentation
from ultraad.nn.maps import largest, smooth, to_probability
from ultraad.nn.prompts import Template, together, unit
from ultraad.nn.templates import States
from ultraad.rng import torch_seeded
from ultraad.types import Batch, Features, FitReport, Scores

INFO = MethodInfo(
    name="vcp_clip",
    title="VCP-CLIP: visual context in the prompts, which then attend to the patches",
    paper="Qu et al., ECCV 2024",
    url="https://arxiv.org/abs/2407.12276",
    reference="xiaozhen228/VCP-CLIP 4dd96ec",
    licence="no licence file (MIT according to its readme)",
    outputs=frozenset({"score", "map"}),
    needs=Needs(abnormal_images=True, masks=True),
    idea="inserts words made from the image into the sentences, and lets the sentences attend to the patches",
    learned="prompt words, text tokens, one linear layer per tapped layer, one attention layer, two temperatures",
    auxiliary=True,
    auxiliary_alone=True,
    deviations=(
        "sentences say normal and abnormal (states=industrial: the reference's good and damaged)",
        "without an auxiliary set it is trained on the support, for more epochs at a higher rate (epochs, lr)",
        "scores and maps are not normalised; the reference min-max normalises both over the test set",
        "the score is the mean of both branches; that of the reference is their sum",
        "the score averages a share of the pixels; the reference averages 2000 for any map size (top)",
        "smoothing is scaled with the input; sigma is given for 518 px, as in the reference",
        "no biases whose gradient vanishes (of the convolution and of W_K), and no unused projection",
        "a linear layer maps the class token to the text width where it differs from the joint dimension",
        "images are not augmented; the reference rotates, blurs, brightens and tiles them",
        "dice is always per image; the reference computes it per row for a batch of one",
        "the activation is that of the backbone; the reference ran OpenAI's weights with exact GELU in both towers",
        "float32 and the last epoch; the reference trains with autocast and saves every epoch",
    ),
)

SENTENCES: dict[States, tuple[str, str]] = {
    "industrial": ("a photo of a good {}", "a photo of a damaged {}"),
    "medical": ("a photo of a normal {}", "a photo of an abnormal {}"),
}
"""Normal and abnormal; ``{}`` stands for the words made from the image. No object is named."""


class VCPCLIPConfig(MethodConfig):
    """Every option of VCP-CLIP."""

    layers: tuple[int, ...] | None = Field(
        None, description="tapped layers, 1-based; None: quarters of the tower (reference: 6 12 18 24 of 24)"
    )
    states: States = Field("medical", description="words for normal and abnormal (ours); 'industrial': the reference's")
    words: int = Field(2, ge=1, description="words made from the image (reference: 2)")
    deep: int = Field(1, ge=1, description="deep text tokens before each block (reference: 1)")
    dropout: float = Field(0.1, ge=0, lt=1, description="of deep text tokens during training (reference: 0.1)")
    heads: int = Field(8, ge=1, description="of Post-VCP; must divide the tower's width (reference: 8)")
    tau: PositiveFloat = Field(0.07, description="initial temperature of both branches (reference: 0.07)")
    new_weight: float = Field(0.8, ge=0, le=1, description="share of the Post-VCP branch in the map (reference: 0.8)")
    top: float = Field(0.0075, gt=0, le=1, description="share of pixels in the score (reference: 2000 of 518^2)")
    sigma: float = Field(8.0, ge=0, description="smoothing in pixels at 518, scaled with the input (reference: 8)")
    epochs: int | None = Field(
        None, ge=0, description="None: 10 on an auxiliary set (reference), 50 on the support (ours)"
    )
    batch_size: int = Field(8, ge=1, description="images per step from the support (ours; reference: 32)")
    lr: PositiveFloat | None = Field(
        None, description="of Adam, constant; None: 4e-5 on an auxiliary set (reference), 1e-3 on the support (ours)"
    )
    lr_tau: PositiveFloat = Field(0.01, description="learning rate of the two temperatures (reference: 0.01)")
    beta1: float = Field(0.5, ge=0, lt=1, description="first momentum of Adam (reference: 0.5)")


class VCPCLIP(Method):
    """VCP-CLIP; see the module's header for the equations and :class:`VCPCLIPConfig` for every option."""

    info = INFO
    Config = VCPCLIPConfig
    config: VCPCLIPConfig

    def prepare(self) -> None:
        """Tapped layers and sentence templates."""
        c, b = self.config, self.backbone
        self.layers = b.check_layers(c.layers or b.default_layers)
        if b.width % c.heads:
            msg = f"heads={c.heads} does not divide the width {b.width} of {b.name}; "
            raise ConfigError(msg + f"try {math.gcd(c.heads, b.width)}")
        self.templates = [Template(b, text) for text in SENTENCES[c.states]]

    def build(self, *, seed: int) -> None:
        """Fresh prompts, adapters and attention."""
        c, b = self.config, self.backbone
        width = b.text_width
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(c.words, width)))  # q (r text_width)
        self.conv = nn.Conv1d(1, c.words, 3, padding=1, bias=False)
        self.to_text = nn.Identity() if b.dim == width else nn.Linear(b.dim, width)
        self.deep = nn.Parameter(torch.empty(text_layers(b), c.deep, width).uniform_(-1, 1))  # d
        self.deep_proj = nn.Linear(width, width)  # G
        nn.init.kaiming_normal_(self.deep_proj.weight, mode="fan_out")
        self.prompt_norm = nn.LayerNorm(width, eps=1e-6)
        self.adapters = nn.ModuleDict({str(layer): nn.Linear(b.width, b.dim) for layer in self.layers})  # A_l
        self.post = PatchFusion(b.dim, b.width, heads=c.heads, scale="none", out_proj=True, init="default")
        self.log_scales = nn.Parameter(torch.full((2,), -math.log(c.tau)))  # tau_1 of raw, tau_2 of new

    def learn(self, support: Batch, *, auxiliary: Iterable[Batch] | None, seed: int) -> FitReport:
        """Train on the auxiliary set if there is one, otherwise on the support.

        Raises:
            DataError: If no training image has a lesion mask.
        """
        c = self.config
        data = TrainingSet(support, auxiliary, normal_index=self.normal_index, batch_size=c.batch_size, seed=seed)
        noise = torch_seeded(seed, "dropout")
        others = [p for name, p in self.named_parameters() if name != "log_scales"]
        history = data.train(
            lambda batch: self.loss(batch, noise=noise),
            [
                {"params": others, "lr": c.lr if c.lr is not None else (4e-5 if data.auxiliary else 1e-3)},
                {"params": [self.log_scales], "lr": c.lr_tau},
            ],
            epochs=c.epochs if c.epochs is not None else (10 if data.auxiliary else 50),
            beta1=c.beta1,
            masks_for=self.info.name,
            progress=self.progress,
        )
        return FitReport("last epoch", history)

    def loss(self, batch: Labelled, *, noise: torch.Generator | None = None) -> torch.Tensor:
        """The loss of the header, f32 (); every mask is known. ``noise`` draws the dropout; None: no dropout."""
        f = self.backbone.cache.encode(batch.images, layers=self.layers)
        target = batch.masks.to(self.backbone.device)
        branches = self.branch_maps(f, self.encode_text(f.image, noise=noise))
        return torch.stack([segmentation(probs, target, both=False) for probs in branches.flatten(0, 1)]).sum()

    def words(self, tokens: torch.Tensor) -> torch.Tensor:
        """v(x): raw class tokens (b d) to words (b r text_width)."""
        return torch.as_tensor(self.query + self.conv(self.to_text(tokens)[:, None]))

    def encode_text(self, tokens: torch.Tensor, *, noise: torch.Generator | None = None) -> torch.Tensor:
        """T(x) of raw class tokens (b d): unit (b 2 d), normal first."""
        words, deep = self.words(tokens), self.config.deep
        embeds, eot = together([template.fill(words) for template in self.templates])  # (2*b length text_width)
        embeds = F.pad(embeds, (0, 0, 0, deep))  # (2*b length+deep text_width): room for the deep tokens
        texts = self.backbone.encode_prompts(embeds, eot + deep, around=self._deep_tokens(tokens.shape[0], noise))
        return unit(texts.view(2, tokens.shape[0], -1).transpose(0, 1))

    def _deep_tokens(self, rows: int, noise: torch.Generator | None, *, sides: int = 2) -> Around:
        """An ``around`` of the text tower: deep tokens after the start token, and a layer norm after the last block.

        For ``sides`` times ``rows`` sentences: the first of all images, then the second of all, with the same tokens.
        """
        deep = self.deep_proj(self.deep)[:, None].expand(-1, rows, -1, -1)  # (l b r text_width)
        if noise is not None and self.config.dropout:
            kept = torch.rand(deep.shape, generator=noise) >= self.config.dropout
            deep = deep * kept.to(deep.device) / (1 - self.config.dropout)
        replace, count = Replace(dict(enumerate(deep.repeat(1, sides, 1, 1), start=1))), self.config.deep

        def around(layer: int, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            if layer == 1:  # insert after the positions were added, so that words keep theirs
                x = torch.cat([x[:, :1], x[:, -count:], x[:, 1:-count]], dim=1)
            x = replace(layer, x, block)
            return torch.as_tensor(self.prompt_norm(x)) if layer == len(deep) else x

        return around

    def patch_logits(self, f: Features, text: torch.Tensor) -> torch.Tensor:
        """Logits (2 l b n 2) of (normal, abnormal): the raw branch, then the new one; text from :meth:`encode_text`."""
        scale = self.log_scales.exp()
        adapted = unit(torch.stack([self.adapters[str(layer)](f.patches[layer]) for layer in self.layers]))
        tokens = torch.stack([f.patches[layer] for layer in self.layers])  # (l b n w)
        seen = self.seen_text(tokens.flatten(0, 1), text.repeat(len(tokens), 1, 1)).view(*tokens.shape[:2], 2, -1)
        return torch.stack([scale[0] * adapted @ text.mT, scale[1] * unit(tokens) @ seen.mT])

    def seen_text(self, tokens: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """T'_l (b 2 w), unit: the texts (b 2 d) after attending to the patches (b n w) of one layer."""
        return unit(self.post(text, unit(tokens)))

    def branch_maps(self, f: Features, text: torch.Tensor) -> torch.Tensor:
        """Abnormal probability (2 l b s s) of both branches and every layer, not smoothed."""
        return to_probability(self.patch_logits(f, text), f.grid, size=self.backbone.size)

    def score(self, images: torch.Tensor) -> Scores:
        """Score and map, both in [0, 1], of images f32 (b 3 s s); the map has the model input's resolution."""
        c = self.config
        f = self.backbone.encode_image(images, layers=self.layers)
        raw, new = self.branch_maps(f, self.encode_text(f.image)).mean(1)  # each (b s s)
        score = (largest(raw, share=c.top) + largest(new, share=c.top)) / 2
        mixed = (1 - c.new_weight) * raw + c.new_weight * new
        maps = smooth(mixed, c.sigma * self.backbone.size / 518)
        return Scores(score=score, map=maps.clamp(0, 1))


METHOD = VCPCLIP
