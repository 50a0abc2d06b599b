"""Caches of frozen features: each view of an image is encoded once, and so is each list of sentences.

The key of an image is its content: a prefix for weights, preprocessing and dtype, and the pixels themselves. So an
entry cannot become stale. The layers are not part of the key: if an entry lacks a layer, it is made again with that
layer and all it had before, so entries only grow.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ultraad.errors import Caught, brief
from ultraad.types import Features

_log = logging.getLogger(__name__)

Encode = Callable[[torch.Tensor, Sequence[int]], Features]
"""Images f32 (b 3 s s) and 1-based layers to features, on any device."""
_Row = dict[str, torch.Tensor]
_DETAIL = "detail"  # see Features, (k 2gh 2gw)
_SECONDS = "seconds"  # time the entry took, f64 ()
_GIST = "gist"  # what kind of picture it is (:mod:`._gist`), f32 (2w)
Hear = Callable[[], AbstractContextManager[list[torch.Tensor]]]
"""A block in which the tower puts the gists of the batches that enter it into a list."""


@dataclass(slots=True)
class Usage:
    """Counts and times of a cache.

    Attributes:
        encoded: Images that were encoded.
        spent: Seconds spent on encoding them.
        worth: Seconds that encoding would have taken without the cache.
    """

    encoded: int = 0
    spent: float = 0.0
    worth: float = 0.0


class FeatureCache:
    """Keeps the features of each image, in memory and, if wanted, on disk.

    Args:
        encode: Runs the frozen tower.
        prefix: Identifies the tower; part of every key.
        grid: (gh, gw) of the tower's patches.
        device: Where features are returned.
        folder: Keeps one safetensors file per image here; None for memory only. Processes may share it. If it takes no
            more, such as a full disk, a warning says so, and memory has to do.
        max_bytes: Memory bound; the least recently used images are dropped first.
        layers: Always kept besides the requested ones.
        hear: Keeps the gist of each image, too; None does not.
        detail: Whether features have one.

    Attributes:
        usage: Counts since the cache was made; the owner may reset it.
    """

    def __init__(
        self,
        encode: Encode,
        *,
        prefix: str,
        grid: tuple[int, int],
        device: torch.device,
        folder: Path | None = None,
        max_bytes: int = 2 << 30,
        layers: Sequence[int] = (),
        hear: Hear | None = None,
        detail: bool = False,
    ) -> None:
        self.detail = detail
        self.prefix = prefix
        self.grid = grid
        self.device = device
        self.folder = folder
        self.max_bytes = max_bytes
        self.usage = Usage()
        self._layers = tuple(layers)
        self._encode = encode
        self._hear = hear
        self._rows: OrderedDict[str, _Row] = OrderedDict()
        self._bytes = 0
        self._full = False  # whether the folder takes no more
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def encode(self, images: torch.Tensor, *, layers: Sequence[int], batch_size: int = 16) -> Features:
        """Features of images f32 (b 3 s s); the tower runs only on new images.

        Args:
            images: Preprocessed.
            layers: 1-based.
            batch_size: Images per pass of the tower. With 1, the result does not depend on the other images, not even
                in the last bit.

        Returns:
            On ``device``; equal to the tower's own features up to the rounding that comes with the batch size.
        """
        keys = [self._key(image) for image in images]
        rows: dict[str, _Row] = {}
        todo: dict[str, int] = {}
        wanted = set(layers) | set(self._layers)
        for i, key in enumerate(keys):
            row = rows.get(key) or self._get(key)
            if row is not None and set(layers) <= _layers_of(row):
                rows[key] = row
            elif key not in todo:
                todo[key] = i
                wanted |= _layers_of(row or {})
        items = list(todo.items())
        for start in range(0, len(items), batch_size):
            part = items[start : start + batch_size]
            fresh = self._run(images[[i for _, i in part]], sorted(wanted))
            for (key, _), row in zip(part, fresh, strict=True):
                rows[key] = self._put(key, row)
        self.usage.worth += sum(float(rows[key][_SECONDS]) for key in keys)

        def stack(name: str) -> torch.Tensor:
            return torch.stack([rows[key][name] for key in keys]).to(self.device)

        return Features(
            image=stack("image"),
            patches={layer: stack(f"patches.{layer}") for layer in layers},
            cls={layer: stack(f"cls.{layer}") for layer in layers},
            grid=self.grid,
            detail=stack(_DETAIL) if all(_DETAIL in rows[key] for key in keys) else None,
        )

    def gists(self, images: torch.Tensor) -> torch.Tensor | None:
        """The gists f32 (b 2w) of images (b 3 s s) that were encoded before; None if one is not known."""
        rows = [self._get(self._key(image)) or {} for image in images]
        return torch.stack([row[_GIST] for row in rows]).to(self.device) if all(_GIST in row for row in rows) else None

    def clear(self) -> None:
        """Drop the entries in memory; those on disk stay."""
        self._rows.clear()
        self._bytes = 0

    def _run(self, images: torch.Tensor, layers: Sequence[int]) -> list[_Row]:
        started = time.perf_counter()
        with self._hear() if self._hear else nullcontext([]) as gists:
            f = self._encode(images, layers)
        rows: list[_Row] = []
        for j in range(len(images)):
            row = {"image": f.image[j].cpu()}
            for layer in layers:
                row[f"patches.{layer}"] = f.patches[layer][j].cpu()
                row[f"cls.{layer}"] = f.cls[layer][j].cpu()
            if f.detail is not None:
                row[_DETAIL] = f.detail[j].float().cpu()
            if gists:
                row[_GIST] = gists[0][j].cpu()
            rows.append(row)
        seconds = time.perf_counter() - started
        for row in rows:
            row[_SECONDS] = torch.tensor(seconds / len(rows), dtype=torch.float64)
        self.usage.encoded += len(rows)
        self.usage.spent += seconds
        return rows

    def _key(self, image: torch.Tensor) -> str:
        digest = hashlib.blake2b(self.prefix.encode(), digest_size=20)
        digest.update(image.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _get(self, key: str) -> _Row | None:
        if key in self._rows:
            self._rows.move_to_end(key)
            return self._rows[key]
        if self.folder is not None and (self.folder / f"{key}.safetensors").is_file():
            with Caught():  # a damaged entry is made again
                row = load_file(self.folder / f"{key}.safetensors")
                if self._whole(row):
                    return self._keep(key, row)
        return None

    def _whole(self, row: _Row) -> bool:
        """Whether a row from the disk has what :meth:`_run` makes."""
        layers = _layers_of(row)
        dims = {"image": 1, _SECONDS: 0, **{f"cls.{n}": 1 for n in layers}, **{f"patches.{n}": 2 for n in layers}}
        if self._hear:
            dims[_GIST] = 1
        if self.detail:
            dims[_DETAIL] = 3
        patches = self.grid[0] * self.grid[1]
        return {name: t.ndim for name, t in row.items()} == dims and all(
            len(row[f"patches.{n}"]) == patches and row[f"patches.{n}"].shape[1:] == row[f"cls.{n}"].shape
            for n in layers
        )

    def _put(self, key: str, row: _Row) -> _Row:
        if self.folder is not None and not self._full:
            part = self.folder / f".{key}.{secrets.token_hex(4)}.tmp"  # another process may write the same entry
            with Caught() as caught:  # safetensors raises errors of several kinds
                save_file({name: t.contiguous() for name, t in row.items()}, part)
                part.replace(self.folder / f"{key}.safetensors")
            if caught.error is not None:
                self._full = True
                _log.warning("%s cannot be written (%s); features are kept in memory", self.folder, brief(caught.error))
                with suppress(OSError):
                    part.unlink(missing_ok=True)
        return self._keep(key, row)

    def _keep(self, key: str, row: _Row) -> _Row:
        self._bytes += _size(row) - _size(self._rows.pop(key, {}))
        self._rows[key] = row
        while self._bytes > self.max_bytes and len(self._rows) > 1:
            _, old = self._rows.popitem(last=False)
            self._bytes -= _size(old)
        return row


class TextCache:
    """Keeps the features of the last lists of sentences: every fold of a cross-validation reads the same ones.

    Args:
        encode: Runs the frozen text tower.
        most: Lists that are kept.
    """

    def __init__(self, encode: Callable[[Sequence[str]], torch.Tensor], *, most: int = 256) -> None:
        self.most = most
        self._encode = encode
        self._kept: OrderedDict[tuple[str, ...], torch.Tensor] = OrderedDict()

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Raw text features f32 (t d), the same bits each time: the tower always reads a list in one batch."""
        key = tuple(texts)
        found = self._kept.pop(key, None)
        if found is None:
            found = self._encode(texts)
        self._kept[key] = found
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)
        return found.clone()  # the caller may change it


def _layers_of(row: _Row) -> set[int]:
    return {int(name.removeprefix("cls.")) for name in row if name.startswith("cls.")}


def _size(row: _Row) -> int:
    return sum(t.nbytes for name, t in row.items() if name != _SECONDS)
