"""The only door to CLIP: one class over any open_clip ViT, so that no method needs its own copy.

    embed_image -> encode_tokens(around=...) -> Features        embed_text -> encode_prompts(around=...) -> (t d)

``around(layer, x, block)`` wraps every transformer block; ``block(x)`` is the block itself. Deep prompts are
concatenated before the block and cut off after it, residual adapters mix after it, a value-value path runs beside it.
Layers are 1-based, as in the papers. Returned tensors are float32 and raw: nothing is normalised here, and patch tokens
are projected only by an explicit call of ``project`` (ln_post and projection).

The class uses two private names of open_clip, ``visual._embeds`` and ``visual._pool``. A test checks that
``encode_image`` equals open_clip's own, bit for bit.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from ultraad.backbones._cache import Encode, FeatureCache, Hear, TextCache
from ultraad.backbones._gist import gist_of, gists_of, listening
from ultraad.backbones._vit import fingerprint_of, require_vit
from ultraad.errors import ConfigError
from ultraad.types import Features, PreprocessConfig

Around = Callable[[int, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]
DType = Literal["float32", "bfloat16", "float16"]
DTypeChoice = Literal["float32", "bfloat16", "float16", "auto"]
"""What a user may ask for; loading resolves ``"auto"``, see :mod:`ultraad.backbones._dtype`."""
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def quarter_layers(layers: int) -> tuple[int, ...]:
    """Layers L/4, L/2, 3L/4 and L, 1-based: (6, 12, 18, 24) for L = 24, the layers of the paper (section 3.1)."""
    return tuple(sorted({max(1, round(layers * q / 4)) for q in (1, 2, 3, 4)}))


class Backbone:
    """A frozen CLIP with patch tokens.

    Args:
        model: An open_clip ``CLIP`` or ``CustomTextCLIP`` with a ViT image tower and open_clip's own text tower.
        tokenizer: open_clip's: ``tokenizer(texts, context_length=...)`` gives int64 (t, context_length).
        name: The name it was loaded by; saved with every model.
        preprocess: The preprocessing the weights were trained with.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        dtype: Of the image tower. The text tower stays float32: it is small, and prompts learn through it.
        quicken: Called with the model after the fingerprint is computed, to make it faster without changing its
            function.

    Attributes:
        size: Input side in pixels.
        patch: Patch side in pixels.
        grid: (gh, gw) patches.
        layers: Number of image-tower blocks.
        width: Channels w of the image tower.
        text_width: Channels of the text tower.
        dim: Joint dimension d.
        context: Longest text in tokens.
        logit_scale: exp of the learned temperature (100 for OpenAI's weights).
        cache: Features of the images used in ``fit``, shared by all methods and folds on this backbone.
        fingerprint: sha256 over all weights in float32; a saved model checks it.
        weights: The same, whatever is done with the features.
        detail: Channels k of the detail that :meth:`finer` needs (:class:`Features`); 0: there are no finer patches.
        organ: What the weights were trained on; None if on pictures of all kinds.
        location: Prior of where lesions lie: log-odds (h w) over the input; None if the backbone has none.

    Raises:
        ConfigError: If the tower is not a class-token ViT or the text tower is not open_clip's.
    """

    detail: int = 0
    organ: str | None = None
    location: torch.Tensor | None = None

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[..., torch.Tensor],
        *,
        name: str,
        preprocess: PreprocessConfig,
        device: str = "cpu",
        dtype: DType = "float32",
        quicken: Callable[[Any], None] | None = None,
    ) -> None:
        m = cast("Any", model)
        visual = m.visual
        text = m if hasattr(m, "token_embedding") else m.text
        require_vit(name, visual, text)
        self.name = name
        self.preprocess = preprocess
        self.fingerprint = self.weights = fingerprint_of(model, name)
        self.device = torch.device(device)
        self.dtype = DTYPES[dtype]
        if quicken is not None:
            quicken(model)
        model.eval().requires_grad_(requires_grad=False)
        model.to(self.device)
        visual.to(self.dtype)
        self.model = model
        self._visual = visual
        self._text = text
        self._tokenizer = tokenizer
        self.size = int(visual.image_size[0])
        self.patch = int(visual.patch_size[0])
        self.grid = (int(visual.grid_size[0]), int(visual.grid_size[1]))
        self.layers = len(visual.transformer.resblocks)
        self.width = int(visual.class_embedding.shape[0])
        self.dim = int(visual.proj.shape[1]) if visual.proj is not None else self.width
        self.text_width = int(text.token_embedding.weight.shape[1])
        self.context = int(text.context_length)
        self.logit_scale = float(m.logit_scale.detach().float().exp())
        self._own_caches()
        self._serving: FeatureCache | None = None

    def _own_caches(self) -> None:
        """Caches of this backbone's features that do not keep the backbone alive: no waiting for the collector."""
        backbone = weakref.proxy(self)
        self.cache = self._new_cache(lambda images, layers: backbone.encode_image(images, layers=layers))
        self._texts = TextCache(lambda texts: backbone.encode_text(backbone.tokenize(texts)))

    def __repr__(self) -> str:
        return (
            f"Backbone({self.name!r}, size={self.size}, patch={self.patch}, layers={self.layers}, width={self.width}, "
            f"dim={self.dim}, device={self.device}, dtype={self.dtype})"
        )

    @property
    def lead(self) -> Backbone:
        """The tower whose first step tells what kind of picture an image is (:mod:`._gist`)."""
        return self

    @property
    def parameters(self) -> int:
        """Number of values in both towers."""
        return sum(p.numel() for p in self.model.parameters())

    def in_dtype(self, dtype: DType) -> Backbone:
        """A copy whose image tower runs in another number type; the precision a narrower type loses is not restored."""
        other = copy.deepcopy(self)
        other.dtype = DTYPES[dtype]
        other._visual.to(other.dtype)
        other._own_caches()
        return other

    @property
    def default_layers(self) -> tuple[int, ...]:
        """The four layers that methods read by default."""
        return quarter_layers(self.layers)

    def check_layers(self, layers: Iterable[int], *, first: int = 1) -> tuple[int, ...]:
        """The layers, checked against the image tower.

        Args:
            layers: As they were asked for.
            first: 0 also allows the embedding of the patches, before the first block.

        Raises:
            ConfigError: If one is outside ``first``..``self.layers``.
        """
        wanted = tuple(layers)
        bad = [layer for layer in wanted if not first <= layer <= self.layers]
        if bad:
            msg = f"{self.name} has image-tower layers {first}..{self.layers}, but {bad} were asked for"
            raise ConfigError(msg)
        return wanted

    def embed_image(self, images: torch.Tensor) -> torch.Tensor:
        """Images f32 (b 3 s s) to tokens (b 1+n w) in the tower's dtype: class token, positions and ln_pre included."""
        return self._embedded(images)[0]

    def _embedded(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The tokens of :meth:`embed_image`, and the detail of :class:`Features`."""
        tokens, detail = self._look(images.to(self.device, self.dtype))
        if (kept := gists_of(self)) is not None:
            kept.append(gist_of(tokens))
        return tokens, detail

    def _look(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens and detail of images in the tower's dtype: the one place where an image enters the tower."""
        return cast("torch.Tensor", self._visual._embeds(images)), None

    def finer(self, features: Features) -> Features:
        """The features with four times as many patches, if the backbone can tell them; otherwise as they are.

        Args:
            features: Of :meth:`encode_image`, or of a cache; after the tower's own blocks.
        """
        return features

    def encode_tokens(
        self, tokens: torch.Tensor, *, layers: Sequence[int] = (), around: Around | None = None
    ) -> Features:
        """Run the blocks over tokens (b 1+m w); m may be any subset of the patches.

        Args:
            tokens: From :meth:`embed_image`.
            layers: 1-based blocks whose output is kept; 0 keeps the tokens themselves.
            around: Wraps each block; the default is the block itself.
        """
        wanted = set(self.check_layers(layer for layer in layers if layer))
        kept = {0: tokens.float()} if 0 in layers else {}
        x = tokens
        for layer, block in enumerate(self._visual.transformer.resblocks, start=1):
            x = block(x) if around is None else around(layer, x, block)
            if layer in wanted:
                kept[layer] = x.float()
        pooled, _ = self._visual._pool(x)
        if self._visual.proj is not None:
            pooled = pooled @ self._visual.proj
        return Features(
            image=pooled.float(),
            patches={layer: kept[layer][:, 1:] for layer in layers},
            cls={layer: kept[layer][:, 0] for layer in layers},
            grid=self.grid,
        )

    def encode_image(
        self,
        images: torch.Tensor,
        *,
        layers: Sequence[int] = (),
        around: Around | None = None,
        tokens: torch.Tensor | None = None,
    ) -> Features:
        """Both steps: images f32 (b 3 s s) to raw features; see also :meth:`caching`.

        Args:
            images: Preprocessed.
            layers: As in :meth:`encode_tokens`.
            around: As in :meth:`encode_tokens`.
            tokens: What :meth:`embed_image` returned for these images, to skip the first step.
        """
        if self._serving is not None and around is None and not images.requires_grad:
            found = self._serving.encode(images, layers=layers, batch_size=1)
            if (kept := gists_of(self)) == [] and (gists := self._serving.gists(images)) is not None:
                kept.append(gists)
            return found
        if tokens is not None:
            return self.encode_tokens(tokens, layers=layers, around=around)
        return self._run_tower(images, layers=layers, around=around)

    def _run_tower(self, images: torch.Tensor, *, layers: Sequence[int], around: Around | None = None) -> Features:
        tokens, detail = self._embedded(images)
        return replace(self.encode_tokens(tokens, layers=layers, around=around), detail=detail)

    def new_cache(self, folder: Path | None = None) -> FeatureCache:
        """A cache for :meth:`caching`; it always keeps ``default_layers`` too.

        Args:
            folder: Keeps the features on disk, for other processes; None for memory only.
        """
        run, hear = self._run_tower, partial(listening, self)
        return self._new_cache(lambda images, layers: run(images, layers=layers), folder, self.default_layers, hear)

    def _new_cache(
        self, encode: Encode, folder: Path | None = None, layers: Sequence[int] = (), hear: Hear | None = None
    ) -> FeatureCache:
        prefix = f"{self.fingerprint}{self.size}{self.preprocess}{self.dtype}"
        return FeatureCache(
            encode,
            prefix=prefix,
            grid=self.grid,
            device=self.device,
            folder=folder,
            layers=layers,
            hear=hear,
            detail=self.detail > 0,
        )

    @contextmanager
    def caching(self, cache: FeatureCache) -> Iterator[None]:
        """Inside, ``encode_image`` without ``around`` is served from a cache, so the tower sees no image twice.

        Callers need no change. Images are encoded one at a time, so the results are the same bit for bit for any batch
        and any order of calls; they differ from those of whole batches by the rounding that comes with the batch size.
        An image is encoded again only for a layer outside ``default_layers`` that was not asked for before.

        Args:
            cache: From :meth:`new_cache`; it can be used again later.
        """
        outer, self._serving = self._serving, cache
        try:
            yield
        finally:
            self._serving = outer

    def post_norm(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tower's last layer norm (ln_post) on any tokens: (... w) to f32 (... w)."""
        return cast("torch.Tensor", self._visual.ln_post(tokens.to(self.device, self.dtype)).float())

    @property
    def projection(self) -> torch.Tensor:
        """The matrix into the joint space, f32 (w d)."""
        proj = self._visual.proj
        return torch.eye(self.width, device=self.device) if proj is None else cast("torch.Tensor", proj.float())

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """ln_post and the projection, explicitly: (... w) to f32 (... d)."""
        return self.post_norm(tokens) @ self.projection

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts to int64 (t ctx).

        Raises:
            ConfigError: If a text has more tokens than the tower takes; open_clip would cut it silently.
        """
        tokens = self._tokenizer(list(texts), context_length=self.context + 1)
        long = tokens[:, self.context].nonzero().flatten().tolist()
        if long:
            msg = f"text is longer than the {self.context} tokens of {self.name}; shorten it: {texts[long[0]]!r}"
            raise ConfigError(msg)
        return tokens[:, : self.context].to(self.device)

    def embed_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids int64 (t ctx) to word embeddings f32 (t ctx text_width); no positions yet."""
        return cast("torch.Tensor", self._text.token_embedding(tokens).float())

    def end_of_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Position int64 (t,) of the end token, where the text tower reads out its result."""
        return tokens.argmax(dim=-1)  # the end token has the highest id

    def encode_prompts(
        self, embeds: torch.Tensor, eot: torch.Tensor, *, around: Around | None = None, project: bool = True
    ) -> torch.Tensor:
        """Word embeddings to raw text features; gradients flow through.

        The mask is causal, so tokens after the read-out position cannot change the result. The sequence is cut there,
        which is exact and several times cheaper than all 77 positions.

        Args:
            embeds: f32 (t m text_width), m <= context.
            eot: int64 (t,), read-out position of each sentence.
            around: Wraps each text block.
            project: Apply the projection into the joint space, or stop after the last norm.

        Returns:
            f32 (t d), or (t text_width) before the projection.
        """
        length = embeds.shape[1] if torch.compiler.is_compiling() else int(eot.max()) + 1  # a graph has no values
        positions = self._text.positional_embedding[:length]
        x = embeds[:, :length] + positions
        mask = self._text.attn_mask[:length, :length]

        for layer, block in enumerate(self._text.transformer.resblocks, start=1):

            def run(y: torch.Tensor, block: nn.Module = block) -> torch.Tensor:
                return cast("torch.Tensor", block(y, attn_mask=mask))

            x = run(x) if around is None else around(layer, x, run)
        x = self._text.ln_final(x[torch.arange(x.shape[0], device=x.device), eot])  # (t text_width)
        projection = self._text.text_projection if project else None
        if isinstance(projection, nn.Linear):
            x = projection(x)
        elif projection is not None:
            x = x @ projection
        return cast("torch.Tensor", x)

    def encode_text(self, texts: Sequence[str] | torch.Tensor) -> torch.Tensor:
        """Sentences (or token ids) to raw text features f32 (t d); the features of sentences are kept."""
        if not isinstance(texts, torch.Tensor) and not torch.compiler.is_compiling():
            return self._texts.encode(texts)
        tokens = texts if isinstance(texts, torch.Tensor) else self.tokenize(texts)
        return self.encode_prompts(self.embed_text(tokens), self.end_of_text(tokens))


def check_side(side: int, patch: int, name: str) -> int:
    """The input side in pixels.

    Raises:
        ConfigError: If it is not a multiple of the patch side.
    """
    if side % patch:
        msg = f"size {side} is not a multiple of the patch size {patch} of {name}; use {side // patch * patch}"
        raise ConfigError(msg)
    return side
