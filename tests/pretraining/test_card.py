"""The numbers in the record of each shipped tower come out again, from images drawn anew."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pretraining.export import FEW
from pretraining.images import SHARD, SIZE, encode
from pretraining.prompts import VALIDATION_PAIRS
from pretraining.tower import Words, tokenizer
from pretraining.train import VALIDATION_SHARD
from pretraining.validate import KINDS, validate
from safetensors import safe_open

from ultraad.backbones._embedded_tower import load, side_of
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.backbones._towers import TOWERS
from ultraad.simulate import simulate


@cache
def drawn(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, masks and facts of the first validation images."""
    phantoms = [simulate(SHARD * VALIDATION_SHARD + i, size=size) for i in range(FEW)]
    return (
        np.stack([p.image for p in phantoms]),
        np.stack([p.mask for p in phantoms]).astype(np.uint8),
        np.array([encode(p.label, p.attributes) for p in phantoms], np.int8),
    )


@pytest.mark.parametrize("path", sorted({tower.weights for tower in TOWERS.values()}), ids=lambda path: path.stem)
def test_simulated_validation_is_reproduced(path: Path) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    recorded = json.loads(metadata[f"simulated_validation_{FEW}"])
    size = int(metadata.get("validation_size", SIZE))
    images, masks, facts = drawn(size)
    ensure_torchvision()
    model = load(path)
    sentences = [*KINDS, *(s for pair in VALIDATION_PAIRS for s in pair)]
    words = Words(sentences, tokenizer=tokenizer())
    table = model.token_embedding.weight[[max(i, 0) for i in words.ids]]
    found = validate(model, table, words, images, masks, facts, side=side_of(path))
    assert found == pytest.approx(recorded, abs=0.005)  # half-precision storage and another processor's rounding
