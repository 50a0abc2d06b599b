"""WinCLIP beyond parity: windows, zero-shot, references, options."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import ultraad.methods.winclip as module
from tests.methods.conftest import CLASSES, empty_batch, make_batch
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.errors import ConfigError, DataError
from ultraad.methods import get
from ultraad.methods.winclip import (
    ANOMALIB_TEMPLATES,
    WinCLIP,
    WinCLIPConfig,
    class_token_alone,
    fuse,
    inverse,
    spread,
    window_index,
)
from ultraad.nn.key_value import distance
from ultraad.nn.templates import TEMPLATES_22
from ultraad.texts.bank import breast_texts


def build(backbone, **options):
    return WinCLIP(backbone, WinCLIPConfig(**options), classes=CLASSES, normal_class="normal")


def fitted(backbone, batch=None, **options):
    method = build(backbone, **options)
    method.fit(make_batch(backbone) if batch is None else batch, seed=0)
    return method


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_spread_is_the_mean_over_covering_windows(size):
    gh, gw = 4, 6
    values = torch.rand(2, gh - size + 1, gw - size + 1, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((2, gh, gw))
    for i, j in itertools.product(range(gh), range(gw)):
        covering = [
            values[:, y, x].numpy()
            for y, x in itertools.product(range(gh - size + 1), range(gw - size + 1))
            if y <= i < y + size and x <= j < x + size
        ]
        expected[:, i, j] = np.mean(covering, axis=0)
    np.testing.assert_allclose(spread(values, size).numpy(), expected, atol=1e-6)


def test_windows_are_row_major():
    assert window_index((2, 3), 2).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5]]
    assert window_index((2, 3), 1).tolist() == [[i] for i in range(6)]


def test_harmonic_mean_with_a_zero_is_zero():
    x = torch.tensor([0.0, 0.5])
    assert inverse(inverse(x).mean()) < 1e-11
    assert fuse(x[0], x[1], "harmonic") < 1e-11
    torch.testing.assert_close(fuse(torch.tensor(0.2), torch.tensor(0.6), "harmonic"), torch.tensor(0.3))
    torch.testing.assert_close(fuse(torch.tensor(0.2), torch.tensor(0.6), "mean"), torch.tensor(0.4))


def test_a_window_of_the_whole_grid_is_the_image(backbone):
    method = build(backbone, windows=(backbone.grid[0],))
    image, _, windows = method._encode(make_batch(backbone).images)
    torch.testing.assert_close(windows[:, 0], image)
    text = method._text_map(image, windows)
    expected = method._probability(image)[:, 1, None, None].expand_as(text)
    torch.testing.assert_close(text, expected)


def test_a_window_sees_its_own_patches_only(backbone):
    """Everything outside the first 2 x 2 window changes; the window does not."""
    method = build(backbone)
    images = make_batch(backbone).images
    changed = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    changed[:, :, : 2 * backbone.patch, : 2 * backbone.patch] = images[:, :, : 2 * backbone.patch, : 2 * backbone.patch]
    before, after = method._encode(images)[2], method._encode(changed)[2]
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert (before[:, 1] - after[:, 1]).abs().max() > 1e-3


def test_windows_are_a_plain_loop(backbone):
    """One window at a time, cut out with two slices, through every block whole."""
    images = make_batch(backbone, 1).images
    tokens, (gh, gw) = backbone.embed_image(images), backbone.grid
    field = tokens[:, 1:].unflatten(1, backbone.grid)  # (b gh gw w)
    expected = []
    for size in (2, 3):
        for i, j in itertools.product(range(gh - size + 1), range(gw - size + 1)):
            patches = field[:, i : i + size, j : j + size].flatten(1, 2)
            expected.append(backbone.encode_tokens(torch.cat([tokens[:, :1], patches], 1)).image)
    torch.testing.assert_close(build(backbone)._encode(images)[2], torch.stack(expected, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer_scale", [None, 0.3])
@pytest.mark.parametrize("kind", ["ResidualAttentionBlock", "CustomResidualAttentionBlock"])
def test_class_token_alone_is_the_block(kind, layer_scale):
    ensure_torchvision()
    from open_clip import transformer

    torch.manual_seed(0)
    block = getattr(transformer, kind)(64, 4, ls_init_value=layer_scale).eval().requires_grad_(requires_grad=False)
    for norm in (block.ln_1, block.ln_2):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    x = torch.randn(3, 5, 64)
    torch.testing.assert_close(class_token_alone(block, x), block(x)[:, :1])


def test_windows_per_pass_do_not_matter(tiny, monkeypatch):
    method, images = build(tiny), make_batch(tiny, 1).images
    expected = method._encode(images)[2]
    monkeypatch.setattr(module, "WINDOWS_PER_PASS", 7)
    torch.testing.assert_close(method._encode(images)[2], expected)


def test_zero_shot(backbone):
    method = fitted(backbone, empty_batch(backbone))
    images = make_batch(backbone).images
    scores = method.score(images)
    f = backbone.encode_image(images)
    torch.testing.assert_close(scores.score, method._probability(f.image)[:, 1])
    assert scores.map.shape == (6, backbone.size, backbone.size)
    assert scores.logits is None
    assert len(method.windows) == 0


def test_references_are_the_normal_images(backbone):
    support, images = make_batch(backbone), make_batch(backbone, 1, seed=3).images
    method = fitted(backbone, support)
    assert method.windows.shape == (2, sum(method.counts), backbone.dim)
    assert method.patches.shape == (2, backbone.grid[0] * backbone.grid[1], backbone.width)
    alone = fitted(backbone, support.select([0, 1]))
    assert torch.equal(method.score(images).map, alone.score(images).map)
    method.fit(empty_batch(backbone), seed=0)  # a refit forgets them
    assert torch.equal(method.score(images).score, fitted(backbone, empty_batch(backbone)).score(images).score)


def test_stored_references_have_distance_zero(backbone):
    support = make_batch(backbone)
    method = fitted(backbone, support)
    image, patches, windows = method._encode(support.images[:2])
    assert method._visual_map(patches, windows).abs().max() < 1e-6
    scores = method.score(support.images[:2])
    torch.testing.assert_close(scores.score, method._probability(image)[:, 1] / 2, atol=1e-6, rtol=0)


def test_single_patches_join_the_visual_map(backbone):
    support, images = make_batch(backbone), make_batch(backbone, 1, seed=3).images
    with_patches, without = fitted(backbone, support), fitted(backbone, support, scales="windows")
    _, patches, windows = with_patches._encode(images)
    near = distance(patches, with_patches.patches.flatten(0, 1)).view(-1, *backbone.grid) / 2
    expected = (2 * without._visual_map(patches, windows) + near) / 3
    torch.testing.assert_close(with_patches._visual_map(patches, windows), expected)


def test_every_option_keeps_scores_and_maps_in_range(backbone):
    support, images = make_batch(backbone), make_batch(backbone, 1, seed=3).images
    choices = [("all", "windows"), ("abnormal", "normal"), ("harmonic", "mean"), ("mean", "harmonic"), ("map",)]
    names = ("scales", "harmonic_of", "spread", "fuse", "score")
    seen = []
    method = fitted(backbone, support)
    for values in itertools.product(*choices):
        method.config = WinCLIPConfig(**dict(zip(names, values, strict=True)))
        scores = method.score(images)
        for x in (scores.score, scores.map):
            assert torch.isfinite(x).all()
            assert x.min() >= 0
            assert x.max() <= 1
        torch.testing.assert_close(scores.score, scores.map.flatten(1).amax(1))
        seen.append(scores.map)
    assert all((a - b).abs().max() > 1e-6 for a, b in itertools.combinations(seen, 2))  # no option is dead


def test_texts(tiny):
    default = build(tiny).pair
    other = breast_texts().model_copy(update={"object": "kidney"})
    for options in (
        {"texts": other},
        {"states": "industrial"},
        {"templates": "anomalib"},
        {"text_average": "unit"},
    ):
        assert (build(tiny, **options).pair - default).abs().max() > 1e-6, options
    assert len(TEMPLATES_22) == 22
    assert len(ANOMALIB_TEMPLATES) == 21
    assert len(set(ANOMALIB_TEMPLATES)) == 20  # as lost and doubled there
    assert build(tiny, tau=0.5)._probability(default)[0, 0] < build(tiny)._probability(default)[0, 0]


def test_state(tiny):
    method = fitted(tiny)
    assert set(method.state_dict()) == {"patches", "windows"}
    other = build(tiny)
    other.load_state_dict(method.state_dict())
    images = make_batch(tiny, 1, seed=3).images
    assert torch.equal(other.score(images).map, method.score(images).map)


def test_errors(tiny):
    with pytest.raises(ConfigError, match="at most 8"):
        build(tiny, windows=(2, 9))
    for options in ({"windows": ()}, {"windows": (0,)}, {"tau": 0}):
        with pytest.raises(ValidationError):
            WinCLIPConfig(**options)
    with pytest.raises(DataError, match="needs normal images"):
        fitted(tiny, make_batch(tiny).select([2, 3]))


def test_report_and_name(tiny):
    assert get("winclip") is WinCLIP
    report = build(tiny).fit(make_batch(tiny), seed=0)
    assert (report.selection, dict(report.learned)) == ("nothing is learned", {})
