"""The feature cache runs the tower once per view and never returns stale features."""

from __future__ import annotations

import torch

from ultraad.backbones import load_backbone
from ultraad.backbones.cache import FeatureCache


def count_calls(backbone, monkeypatch):
    calls = []
    encode = backbone.encode_image

    def counting(images, **options):
        calls.append(len(images))
        return encode(images, **options)

    monkeypatch.setattr(backbone, "encode_image", counting)
    return calls


def test_each_view_once_and_equal_to_the_tower(monkeypatch, tmp_path):
    b = load_backbone("tiny")
    x = torch.rand(5, 3, 64, 64)
    plain = b.encode_image(x, layers=(2, 4))
    calls = count_calls(b, monkeypatch)
    cache = FeatureCache(b, folder=tmp_path)
    first = cache.encode(x[[0, 1, 1, 2]], layers=(2, 4), batch_size=2)
    assert calls == [2, 1]
    again = cache.encode(x, layers=(2, 4))
    assert calls == [2, 1, 2]
    torch.testing.assert_close(again.patches[2], plain.patches[2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again.cls[4], plain.cls[4], atol=1e-5, rtol=1e-5)
    assert torch.equal(first.image[1], again.image[1])
    from_disk = FeatureCache(b, folder=tmp_path).encode(x, layers=(2, 4))
    assert calls == [2, 1, 2]
    assert torch.equal(from_disk.image, again.image)


def test_other_weights_pixels_or_layers_miss(monkeypatch, tmp_path):
    a, b = load_backbone("tiny"), load_backbone("tiny:uneven", size=60)
    x = torch.rand(1, 3, 64, 64)
    FeatureCache(a, folder=tmp_path).encode(x, layers=(4,))
    calls = count_calls(a, monkeypatch)
    cache = FeatureCache(a, folder=tmp_path)
    cache.encode(x, layers=(4,))
    assert calls == []
    cache.encode(x + 1e-6, layers=(4,))
    cache.encode(x, layers=(3, 4))
    assert calls == [1, 1]
    assert FeatureCache(b, folder=tmp_path).encode(x[..., :60, :60], layers=(4,)).image.shape == (1, b.dim)


def test_memory_is_bounded():
    b = load_backbone("tiny")
    row = b.encode_image(torch.rand(1, 3, 64, 64), layers=(4,))
    size = row.image.nbytes + row.patches[4].nbytes + row.cls[4].nbytes
    cache = FeatureCache(b, max_bytes=3 * size)
    cache.encode(torch.rand(10, 3, 64, 64), layers=(4,))
    assert cache._bytes <= 3 * size
    assert len(cache._rows) == 3
