"""Every option of UltraAD with its range and source.

The paper gives no code and few numbers. A1 to A22 are the ambiguous sentences that docs/ultraad.md explains, together
with the measurements behind our choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ultraad.methods._base import MethodConfig
from ultraad.nn.blocks import MiniNetType
from ultraad.nn.maps import Upsampling
from ultraad.texts.bank import TextBank


class PromptConfig(MethodConfig):
    """Image-aware prompts (section 2.1)."""

    fuse: Literal["add", "cat", "vcp_conv"] = Field(
        "add", description="A1: how global and instance tokens are combined"
    )
    n_global: int = Field(2, ge=1, le=16, description="A1: learnable prompt tokens r (VCP: 2)")
    init: Literal["words", "normal"] = Field(
        "words", description="start from the object words of the text bank, or N(0, 0.02)"
    )
    ctx: Literal["frozen", "learnable"] = Field("frozen", description="whether 'A photo of a' is learned too (CoCoOp)")
    share_global: bool = Field(default=True, description="one set of tokens for both prompts, or one each")
    norm_input: bool = Field(default=True, description="instance token from the unit class token (CoCoOp) or raw (VCP)")
    instance: Literal["phi", "fh", "none"] = Field(
        "phi", description="A2: MiniNet output, adapted class token, or none"
    )


class MiniNetConfig(MethodConfig):
    """MiniNet and the shared class token (sections 2.1, 2.2, 2.4)."""

    type: MiniNetType = Field("cocoop", description="network of CoCoOp, of CLIP-Adapter, or one linear layer")
    residual: Literal["ratio", "add_zero_init", "none"] = Field(
        "ratio", description="A3: how its output is added to the class token"
    )
    ratio: float = Field(0.2, ge=0, le=1, description="A3: share of the MiniNet in the sum (CLIP-Adapter: 0.2)")
    zero_init: bool = Field(default=True, description="start as the frozen class token (ours)")
    shared: bool = Field(default=True, description="A2: one network for prompts and class token, or two")


class MemoryConfig(MethodConfig):
    """Text and image memory (Eq. 1)."""

    text: Literal["us_aware", "generic", "generic_image"] = Field(
        "us_aware", description="sentences of the text bank, or those of the ablation"
    )
    text_variants: Literal["all", "1"] = Field("all", description="all sentences of a class, or its first")
    normal_affirmative_only: bool = Field(default=False, description="normal sentences without negations")
    text_per: Literal["class", "image"] = Field("class", description="A5: one text per class, or one drawn per image")
    text_select: Literal["all", "support"] = Field(
        "all", description="all sentences, or those of each class that its support images are nearest to (SD-MAD)"
    )
    text_keep: float = Field(0.5, gt=0, le=1, description="share of a class's sentences that 'support' keeps (ours)")
    keys: Literal["param", "via_mininet", "frozen"] = Field(
        "param", description="A4: learned (Tip-Adapter-F), recomputed, or frozen"
    )
    key_feature: Literal["f0", "fh"] = Field("f0", description="keys start from the frozen or the adapted class token")
    exclude_self: bool = Field(default=True, description="A7: in training, an image does not use its own key")


class ClassConfig(MethodConfig):
    """Memory-boosted classification (Eq. 2)."""

    enabled: bool = Field(default=True, description="ablation: false drops cross-entropy, memory and class output")
    scale: float | Literal["backbone"] = Field(
        "backbone", description="A6: lambda_t; that of the backbone (CLIP: 100), or a number"
    )
    alpha: float = Field(1.0, ge=0, description="A6: weight of the image memory (Tip-Adapter: 1)")
    beta: float = Field(5.5, gt=0, description="A6: sharpness (Tip-Adapter: 5.5)")
    cache_norm: Literal["sum", "mean"] = Field(
        "sum", description="A6: votes summed (Tip-Adapter) or averaged per class"
    )
    learn_ab: bool = Field(default=False, description="A6: learn alpha and beta")
    balance: bool = Field(
        default=True, description="classes count the same in votes and loss, whatever their number of images (ours)"
    )
    moments: Annotated[float, Field(ge=0)] | Literal["organ"] = Field(
        "organ",
        description="weight of a regression on mean and standard deviation of the patches before the first block, in "
        "log-probabilities; organ: 1 if the sentences are about another organ than the tower was trained on, else 0",
    )


class ProtoConfig(MethodConfig):
    """Normal and abnormal prototypes (section 2.3)."""

    mode: Literal["mean", "sum", "weighted", "concat_rows", "text_only", "prompt_only"] = Field(
        "mean", description="A8: how prompts and memory texts are combined"
    )
    weight: float = Field(0.5, ge=0, le=1, description="A8: share of the memory text in 'weighted'")
    reduce: Literal["max", "mean"] = Field("max", description="A8: reduction over the rows of 'concat_rows'")
    abn: Literal["mean", "max", "sum"] = Field(
        "mean", description="A9: all abnormal classes together, or the nearest one (max)"
    )


class AdapterConfig(MethodConfig):
    """Linear adapters on the tapped layers (section 2.3)."""

    input: Literal["ln_post", "raw"] = Field("ln_post", description="tokens after the tower's last norm, or raw (VAND)")
    init: Literal["projection", "default"] = Field(
        "projection", description="start as the projection of the tower (ours), or random"
    )


class FusionConfig(MethodConfig):
    """Patch-wise image-language fusion (Eq. 3)."""

    enabled: bool = Field(default=True, description="ablation: false scores patches against the prototypes")
    heads: int = Field(8, ge=1, description="M (VCP: 8)")
    kv: Literal["adapted", "raw"] = Field(
        "adapted", description="A10: keys and values from adapted or raw tokens (VCP)"
    )
    residual: Literal["add", "none"] = Field(
        "add", description="A11: add the attended patches to the prototypes, or replace them"
    )
    out_proj: bool = Field(default=False, description="A11: a fourth projection")
    scale: Literal["sqrt_d", "none"] = Field("sqrt_d", description="A11: attention scale; VCP has none")
    share_layers: Literal["shared", "per_layer", "last_only"] = Field(
        "shared", description="A12: one fusion for all layers, one per layer, or one for the last layer only"
    )


class MapConfig(MethodConfig):
    """From patch logits to the pixel map."""

    up: Upsampling = Field("logits", description="upsample logits (VAND) or probabilities (AnomalyCLIP)")
    layer_reduce: Literal["mean_prob", "mean_logit", "sum"] = Field(
        "mean_prob", description="A13: reduction over tapped layers"
    )
    fine: bool = Field(
        default=True, description="draw the map from the backbone's finer patches, if it has them (ours)"
    )
    location: float = Field(
        0.25, ge=0, description="weight of the backbone's prior of where lesions lie, if it has one (ours, measured)"
    )
    raw_weight: float = Field(0.0, ge=0, le=1, description="share of a branch without fusion (VCP: 0.2)")


class ScoreConfig(MethodConfig):
    """Temperature of the normal/abnormal pair."""

    tau: float | Literal["backbone", "learnable"] = Field(
        "learnable", description="A14: learned from 0.07 (VCP), that of the backbone, 0.01 (VAND), 0.07 (AnomalyCLIP)"
    )


class LossConfig(MethodConfig):
    """Multi-task loss (section 2.4)."""

    seg_on: Literal["per_layer", "averaged_map"] = Field(
        "per_layer", description="A17: losses on the map of each layer, or on their mean"
    )
    layer_reduce: Literal["mean", "sum"] = Field("mean", description="A17: reduction over layers")
    seg_weight: float = Field(1.0, ge=0, description="weight of focal + dice (AnomalyCLIP: 4)")
    cls_weight: float = Field(1.0, ge=0, description="lambda_c (the paper: equally weighted)")
    dice_skip_empty: bool = Field(default=True, description="A22: no abnormal dice on images without a lesion (ours)")
    upsample: int = Field(4, ge=0, description="loss at this many pixels per patch; 0 for the full input (ours)")


class PostConfig(MethodConfig):
    """Inference (sections 2.3, 2.4)."""

    refine: Literal["poe", "mix", "logit", "off"] = Field(
        "poe", description="A16: refinement of the adapted classes by the map, if masks trained it"
    )
    gamma: float = Field(1.0, ge=0, description="A16: weight of the map in 'logit'")
    sigma: float = Field(4.0, ge=0, description="A20: Gaussian smoothing, pixels at 336; scaled with the input")
    map_stat: Literal["max", "topk"] = Field("max", description="image statistic of the map")
    topk: float = Field(0.0075, gt=0, le=1, description="share of pixels in 'topk' (VCP: 0.75 %)")
    a_space: Literal["prob", "logit"] = Field("prob", description="statistic on probabilities or on cosine margins")


class BinaryConfig(MethodConfig):
    """Image-level anomaly score."""

    cls: Literal["memory", "clip_pair", "both"] = Field(
        "memory", description="A15: 1 - p(normal), the prompt pair, or both"
    )
    fuse: Literal["cls_only", "mean", "map_only", "product", "max"] = Field(
        "cls_only", description="A15: from the refined classes alone (ours), or together with the map (WinCLIP: mean)"
    )


CLASS_WORTH, GRADE_WORTH = 8, 128  # images per class that zero-shot counts as (measured)

Weight = Annotated[float, Field(ge=0, le=1)]


class PriorConfig(MethodConfig):
    """Weight w of the adapted model against zero-shot: log-odds are (1 - w) zero-shot + w adapted (ours).

    ``shots``: w = k / (k + z), k the mean number of images per class; the zero-shot model counts as z images. z was
    measured (docs/ultraad.md, seventh, tenth and twelfth to fourteenth round). Shots of one scanner teach little about
    grades on another, so zero-shot counts for more in p(class | lesion) than in p(normal). They make p(normal) surer,
    which ``cls_spread`` takes back. Lesions alone do not teach what only looks like one, so in the map zero-shot counts
    for more beside them.
    """

    map: Weight | Literal["shots"] = Field(
        "shots",
        description="w of the map; 0: zero-shot, 1: paper, 'shots': k / (k + map_worth), k masks per lesion class",
    )
    map_worth: int = Field(10, ge=1, description="masks per lesion class that zero-shot counts as in the map")
    map_worth_lesions: int | None = Field(
        40, ge=1, description="the same, if the support set has no normal image (ours, measured); none: map_worth"
    )
    cls: Weight | Literal["shots"] = Field(
        "shots",
        description=f"w of p(normal); 0: zero-shot, 1: paper, 'shots': k / (k + {CLASS_WORTH}), k images per class",
    )
    cls_spread: float = Field(
        2.3,
        ge=1,
        description="how many times as wide as zero-shot's the adapted log-odds of normal are; the mixture is divided "
        "by 1 + (cls_spread - 1) w, so that shots make it no surer (ours, measured); 1: it is not",
    )
    grade: Weight | Literal["shots", "cls"] = Field(
        "shots",
        description=f"w of p(class | lesion); 0: zero-shot, 1: paper, 'shots': k / (k + {GRADE_WORTH}); or 'cls'",
    )

    def worth_in_map(self, *, normal_seen: bool) -> int:
        """Masks per lesion class that zero-shot counts as in the map of a support set with or without normal images."""
        return self.map_worth if normal_seen else self.map_worth_lesions or self.map_worth


class TrainConfig(MethodConfig):
    """Training (A18); the paper gives none of these numbers."""

    epochs: int = Field(50, ge=0, description="MVFA few-shot: 50")
    batch_size: int = Field(8, ge=1, description="VAND, AnomalyCLIP: 8")
    lr: float = Field(3e-3, gt=0, description="adapters, prompts, MiniNet (ours, measured; VAND, AnomalyCLIP: 1e-3)")
    lr_pif: float = Field(1e-4, gt=0, description="fusion (between VCP's 4e-5 and 1e-3)")
    lr_keys: float = Field(1e-3, gt=0, description="image memory (Tip-Adapter-F: 1e-3)")
    lr_tau: float = Field(1e-2, gt=0, description="learnable temperature (VCP: 1e-2)")
    beta1: float = Field(0.5, ge=0, lt=1, description="of Adam (VAND, AnomalyCLIP, VCP: 0.5)")
    weight_decay: float = Field(0.0, ge=0, description="decoupled (VAND, AnomalyCLIP: 0)")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="Tip-Adapter-F, CoCoOp: cosine; VAND: constant"
    )
    warmup_epochs: int = Field(1, ge=0, description="CoCoOp: 1")
    views: int = Field(8, ge=1, description="views per image, each encoded once (ours, measured; Tip-Adapter: 10)")


PAPER: dict[str, Any] = {
    "prompt": {"init": "normal"},
    "mininet": {"residual": "none", "zero_init": False},
    "memory": {"exclude_self": False},
    "cls": {"scale": 100.0, "balance": False, "moments": 0.0},
    "adapter": {"input": "raw", "init": "default"},
    "pif": {"residual": "none"},
    "map": {"fine": False, "location": 0.0},
    "score": {"tau": 0.01},
    "loss": {"layer_reduce": "sum", "upsample": 0, "dice_skip_empty": False},
    "post": {"sigma": 0.0},
    "prior": {"map": 1.0, "cls": 1.0, "cls_spread": 1.0, "grade": 1.0},
    "train": {"lr": 1e-3, "views": 10},
}
"""The most literal reading of the paper."""


class UltraADConfig(MethodConfig):
    """All options of UltraAD; ``preset=paper`` changes many at once, and single options still win over it."""

    earlier: ClassVar[Mapping[str, Any]] = {
        "prior.grade": "cls",
        "cls.balance": False,
        "map.fine": False,
        "map.location": 0.0,
        "prior.map_worth": 2,
        "prior.map_worth_lesions": None,
        "prior.cls_spread": 1.0,
        "cls.moments": 0.0,
    }
    preset: Literal["default", "paper"] = Field("default", description="'paper' is the most literal reading")
    layers: tuple[int, ...] | None = Field(None, description="A13: tapped layers, 1-based; None: quarters of the tower")
    texts: TextBank | None = Field(None, description="text bank; None: breast ultrasound")
    prompt: PromptConfig = PromptConfig()
    mininet: MiniNetConfig = MiniNetConfig()
    memory: MemoryConfig = MemoryConfig()
    cls: ClassConfig = ClassConfig()
    proto: ProtoConfig = ProtoConfig()
    adapter: AdapterConfig = AdapterConfig()
    pif: FusionConfig = FusionConfig()
    map: MapConfig = MapConfig()
    score: ScoreConfig = ScoreConfig()
    loss: LossConfig = LossConfig()
    post: PostConfig = PostConfig()
    bin: BinaryConfig = BinaryConfig()
    prior: PriorConfig = PriorConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, data: Any) -> Any:  # noqa: ANN401
        if not isinstance(data, dict) or data.get("preset") != "paper":
            return data
        merged: dict[str, Any] = dict(data)
        for section, values in PAPER.items():
            own = merged.get(section, {})
            merged[section] = {**values, **(own.model_dump() if isinstance(own, MethodConfig) else own)}
        return merged

    @model_validator(mode="after")
    def _fits_together(self) -> UltraADConfig:
        if self.adapter.init == "projection" and self.adapter.input == "raw":
            msg = "adapter.init=projection needs adapter.input=ln_post, the tokens that the projection was trained on"
            raise ValueError(msg)
        if self.pif.kv == "raw" and self.pif.residual == "add":
            msg = "pif.kv=raw leaves the joint space; a residual needs pif.kv=adapted"
            raise ValueError(msg)
        return self
