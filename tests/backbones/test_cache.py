"""The feature cache runs the tower once per view and never returns stale features."""

from __future__ import annotations

import gc
import weakref

import torch

from ultraad.backbones import load_backbone
from ultraad.backbones._cache import FeatureCache, TextCache
from ultraad.backbones._door import Backbone


def cache_of(backbone, **options):
    return FeatureCache(
        lambda images, layers: backbone.encode_image(images, layers=layers),
        prefix=backbone.fingerprint,
        grid=backbone.grid,
        device=backbone.device,
        **options,
    )


def count_calls(backbone, monkeypatch):
    calls = []
    encode = backbone.encode_image

    def counting(images, **options):
        calls.append(len(images))
        return encode(images, **options)

    monkeypatch.setattr(backbone, "encode_image", counting)
    return calls


def test_each_view_is_encoded_once_and_equals_the_tower(monkeypatch, tmp_path):
    b = load_backbone("tiny")
    x = torch.rand(5, 3, 64, 64)
    plain = b.encode_image(x, layers=(2, 4))
    calls = count_calls(b, monkeypatch)
    cache = cache_of(b, folder=tmp_path)
    first = cache.encode(x[[0, 1, 1, 2]], layers=(2, 4), batch_size=2)
    assert calls == [2, 1]
    again = cache.encode(x, layers=(2, 4))
    assert calls == [2, 1, 2]
    torch.testing.assert_close(again.patches[2], plain.patches[2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again.cls[4], plain.cls[4], atol=1e-5, rtol=1e-5)
    assert torch.equal(first.image[1], again.image[1])
    from_disk = cache_of(b, folder=tmp_path).encode(x, layers=(2, 4))
    assert calls == [2, 1, 2]
    assert torch.equal(from_disk.image, again.image)


def test_other_weights_pixels_or_layers_miss(monkeypatch, tmp_path):
    a, b = load_backbone("tiny"), load_backbone("tiny:uneven", size=60)
    x = torch.rand(1, 3, 64, 64)
    cache_of(a, folder=tmp_path).encode(x, layers=(4,))
    calls = count_calls(a, monkeypatch)
    cache = cache_of(a, folder=tmp_path)
    cache.encode(x, layers=(4,))
    assert calls == []
    cache.encode(x + 1e-6, layers=(4,))
    cache.encode(x, layers=(3, 4))
    assert calls == [1, 1]
    assert cache_of(b, folder=tmp_path).encode(x[..., :60, :60], layers=(4,)).image.shape == (1, b.dim)


def test_memory_is_bounded():
    b = load_backbone("tiny")
    row = b.encode_image(torch.rand(1, 3, 64, 64), layers=(4,))
    size = row.image.nbytes + row.patches[4].nbytes + row.cls[4].nbytes
    cache = cache_of(b, max_bytes=3 * size)
    cache.encode(torch.rand(10, 3, 64, 64), layers=(4,))
    assert cache._bytes <= 3 * size
    assert len(cache._rows) == 3


def count_tower(backbone, monkeypatch):
    calls = []
    encode = backbone.encode_tokens

    def counting(tokens, **options):
        calls.append(len(tokens))
        return encode(tokens, **options)

    monkeypatch.setattr(backbone, "encode_tokens", counting)
    return calls


def test_all_callers_share_one_pass_per_image(monkeypatch, tmp_path):
    b = load_backbone("tiny")
    x = torch.rand(4, 3, 64, 64)
    plain = b.encode_image(x, layers=(2,))
    calls = count_tower(b, monkeypatch)
    with b.caching(b.new_cache(tmp_path)):
        first = b.encode_image(x[:3], layers=(2,))
        b.cache.encode(x, layers=b.default_layers)
        b.encode_image(x.flip(0), layers=(1, 4))
    assert calls == [1, 1, 1, 1]  # one at a time, each once
    torch.testing.assert_close(first.patches[2], plain.patches[2][:3], atol=1e-5, rtol=1e-5)
    b.encode_image(x)
    assert calls[4:] == [4]  # outside, the tower runs as usual
    with b.caching(b.new_cache(tmp_path)):  # another process, later
        again = b.encode_image(x[:3], layers=(2,))
    assert len(calls) == 5
    assert torch.equal(again.patches[2], first.patches[2])


def test_cached_features_do_not_depend_on_other_calls():
    b = load_backbone("tiny")
    x = torch.rand(5, 3, 64, 64)
    found = []
    for order in ([0, 1, 2, 3, 4], [4, 2], [2]):
        with b.caching(b.new_cache()):
            found.append(b.encode_image(x[order], layers=(3,)).patches[3][order.index(2)])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_another_layer_costs_one_more_pass_and_is_kept(monkeypatch):
    b = load_backbone("tiny:uneven")
    x = torch.rand(1, 3, 60, 60)
    extra = next(layer for layer in range(1, b.layers + 1) if layer not in b.default_layers)
    calls = count_tower(b, monkeypatch)
    with b.caching(b.new_cache()):
        b.encode_image(x, layers=b.default_layers)
        b.encode_image(x, layers=(extra,))
        b.encode_image(x, layers=(*b.default_layers, extra))
    assert calls == [1, 1]


def test_a_changed_tower_or_a_gradient_bypasses_the_cache(monkeypatch):
    b = load_backbone("tiny")
    x = torch.rand(2, 3, 64, 64)
    with b.caching(b.new_cache()):
        b.encode_image(x, layers=(1,))
        calls = count_tower(b, monkeypatch)
        twice = b.encode_image(x, layers=(1,), around=lambda layer, y, block: 2 * block(y))
        pixels = x.clone().requires_grad_()
        b.encode_image(pixels).image.sum().backward()
    assert calls == [2, 2]
    assert pixels.grad is not None
    assert not torch.allclose(twice.image, b.encode_image(x).image)


def test_usage_counts_images_and_seconds_spent_and_saved():
    b = load_backbone("tiny")
    cache = b.new_cache()
    with b.caching(cache):
        b.encode_image(torch.zeros(1, 3, 64, 64))
        spent = cache.usage.spent
        b.encode_image(torch.zeros(3, 3, 64, 64))
    assert cache.usage.encoded == 1
    assert cache.usage.spent == spent > 0
    assert abs(cache.usage.worth - 4 * spent) < 1e-9


def test_a_list_of_sentences_is_read_once(monkeypatch):
    read = []
    run = Backbone.encode_prompts

    def counting(self, embeds, eot, **options):
        read.append(len(embeds))
        return run(self, embeds, eot, **options)

    monkeypatch.setattr(Backbone, "encode_prompts", counting)
    b = load_backbone("tiny")
    tower = b.encode_text(b.tokenize(["a cyst", "a large dark mass"]))
    first = b.encode_text(["a cyst", "a large dark mass"])
    assert torch.equal(first, tower)
    first.zero_()  # what a caller does with them is not kept
    assert torch.equal(b.encode_text(("a cyst", "a large dark mass")), tower)
    assert read == [2, 2]
    torch.testing.assert_close(b.encode_text(["a large dark mass"])[0], tower[1], atol=1e-5, rtol=1e-5)
    assert read == [2, 2, 1]


def test_the_oldest_sentences_are_dropped():
    read = []
    cache = TextCache(lambda texts: read.append(texts) or torch.zeros(len(texts), 2), most=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        cache.encode([text])
    assert read == [["a"], ["b"], ["c"], ["b"]]


def test_a_backbone_ends_with_its_last_user():
    """Without a garbage collection: a process that loads many would grow until one happens to run."""
    gc.collect()
    gc.disable()
    try:
        backbone = load_backbone("tiny")
        other = backbone.in_dtype("bfloat16")
        for b in (backbone, other):
            b.cache.encode(torch.zeros(1, 3, b.size, b.size), layers=(1,))
            b.encode_text(["a mass"])
        gone = weakref.ref(backbone), weakref.ref(other)
        del backbone, other, b
        assert [g() for g in gone] == [None, None]
    finally:
        gc.enable()
