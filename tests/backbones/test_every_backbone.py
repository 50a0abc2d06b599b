"""What holds for every backbone of the package."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from ultraad import registry
from ultraad.backbones import available, load_backbone

LOADABLE = [name for name in available() if name != "open_clip"]  # that one needs a model's name


@pytest.mark.parametrize("name", registry.names("ultraad.backbones"))
def test_its_module_has_a_loader_and_says_in_one_line_what_it_is(name: str) -> None:
    module = import_module(f"ultraad.backbones.{name}")
    assert callable(module.BACKBONE)
    assert module.__doc__.partition("\n")[0].endswith(".")


@pytest.mark.parametrize("name", LOADABLE)
def test_it_loads_the_same_frozen_weights_every_time(name: str) -> None:
    backbone = load_backbone(name)
    assert backbone.name == name
    assert backbone.fingerprint == load_backbone(name).fingerprint
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert not any(module.training for module in backbone.model.modules())


@pytest.mark.parametrize("name", LOADABLE)
def test_its_features_have_the_sizes_it_states(name: str) -> None:
    backbone = load_backbone(name)
    images = torch.rand(2, 3, backbone.size, backbone.size, generator=torch.Generator().manual_seed(0))
    layers = backbone.default_layers
    with torch.no_grad():
        found = backbone.encode_image(images, layers=layers)
        text = backbone.encode_text(["a photo of a lesion"])
    gh, gw = backbone.grid
    assert found.image.shape == (2, backbone.dim)
    assert text.shape == (1, backbone.dim)
    assert set(found.patches) == set(layers)
    for layer in layers:
        assert found.patches[layer].shape == (2, gh * gw, backbone.width)
        assert found.cls[layer].shape == (2, backbone.width)
        assert bool(torch.isfinite(found.patches[layer]).all())
    assert found.image.dtype == text.dtype == torch.float32


@pytest.mark.parametrize("name", LOADABLE)
def test_it_resizes_its_position_embeddings(name: str) -> None:
    backbone = load_backbone(name)
    larger = load_backbone(name, size=backbone.size + 2 * backbone.patch)
    assert larger.grid == (backbone.grid[0] + 2, backbone.grid[1] + 2)
