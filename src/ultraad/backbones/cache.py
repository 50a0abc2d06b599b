"""Frozen features are computed once per view and kept.

The key is the content: weights, preprocessing, dtype, layers and the pixels themselves. Neither a seed nor a file name
nor an order can make it stale.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from ultraad.types import Features

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ultraad.backbones.base import Backbone

_Row = dict[str, torch.Tensor]


class FeatureCache:
    """Remembers ``encode_image`` per image, in memory and, if asked, on disk.

    Args:
        backbone: The frozen tower.
        folder: Keeps one safetensors file per image here; None for memory only.
        max_bytes: Memory bound; the least recently used images go first.
    """

    def __init__(self, backbone: Backbone, *, folder: Path | None = None, max_bytes: int = 2 << 30) -> None:
        self.backbone = backbone
        self.folder = folder
        self.max_bytes = max_bytes
        self._rows: OrderedDict[str, _Row] = OrderedDict()
        self._bytes = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def encode(self, images: torch.Tensor, *, layers: Sequence[int], batch_size: int = 16) -> Features:
        """Features of images f32 (b 3 s s); the tower runs only on those not seen before.

        Args:
            images: Preprocessed.
            layers: 1-based.
            batch_size: Images per pass of the tower.

        Returns:
            On the backbone's device, equal to ``backbone.encode_image`` up to the batch size's rounding.
        """
        keys = [self._key(image, layers) for image in images]
        rows: dict[str, _Row] = {}
        for key in keys:
            row = self._get(key)
            if row is not None:
                rows[key] = row
        todo = list({key: i for i, key in enumerate(keys) if key not in rows}.items())
        for start in range(0, len(todo), batch_size):
            part = todo[start : start + batch_size]
            f = self.backbone.encode_image(images[[i for _, i in part]], layers=layers)
            for j, (key, _) in enumerate(part):
                row = {"image": f.image[j].cpu()}
                for layer in layers:
                    row[f"patches.{layer}"] = f.patches[layer][j].cpu()
                    row[f"cls.{layer}"] = f.cls[layer][j].cpu()
                rows[key] = self._put(key, row)

        def stack(name: str) -> torch.Tensor:
            return torch.stack([rows[key][name] for key in keys]).to(self.backbone.device)

        return Features(
            image=stack("image"),
            patches={layer: stack(f"patches.{layer}") for layer in layers},
            cls={layer: stack(f"cls.{layer}") for layer in layers},
            grid=self.backbone.grid,
        )

    def clear(self) -> None:
        """Forget what is in memory; what is on disk stays."""
        self._rows.clear()
        self._bytes = 0

    def _key(self, image: torch.Tensor, layers: Sequence[int]) -> str:
        b = self.backbone
        digest = hashlib.blake2b(digest_size=20)
        digest.update(f"{b.fingerprint}{b.size}{b.preprocess}{b.dtype}{sorted(layers)}".encode())
        digest.update(image.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _get(self, key: str) -> _Row | None:
        if key in self._rows:
            self._rows.move_to_end(key)
            return self._rows[key]
        if self.folder is not None and (self.folder / f"{key}.safetensors").is_file():
            return self._remember(key, load_file(self.folder / f"{key}.safetensors"))
        return None

    def _put(self, key: str, row: _Row) -> _Row:
        if self.folder is not None:
            part = self.folder / f"{key}.part"
            save_file({name: t.contiguous() for name, t in row.items()}, part)
            part.replace(self.folder / f"{key}.safetensors")
        return self._remember(key, row)

    def _remember(self, key: str, row: _Row) -> _Row:
        self._rows[key] = row
        self._bytes += sum(t.nbytes for t in row.values())
        while self._bytes > self.max_bytes and len(self._rows) > 1:
            _, old = self._rows.popitem(last=False)
            self._bytes -= sum(t.nbytes for t in old.values())
        return row
