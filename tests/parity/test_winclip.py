"""WinCLIP against both re-implementations; they differ from each other, and ours agrees with each."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.parity import fixtures
from ultraad.methods.winclip import METHOD, WinCLIPConfig, fuse, spread, window_index
from ultraad.nn.key_value import distance
from ultraad.nn.maps import resize
from ultraad.nn.prompts import unit
from ultraad.types import Batch, Geometry

COMMUNITY = WinCLIPConfig(
    states="industrial",
    tau=0.01,
    scales="windows",
    harmonic_of="normal",
    spread="mean",
    fuse="harmonic",
    score="map",
)
ANOMALIB = WinCLIPConfig(states="industrial", templates="anomalib", tau=0.07)


def close(ours, golden, *, atol=1e-4):
    torch.testing.assert_close(ours, golden.to(ours.dtype), atol=atol, rtol=0)


def fitted(backbone, images, config):
    """Adapted on image 0 and its mirror image, as both references were."""
    method = METHOD(backbone, config, classes=("normal", "abnormal"), normal_class="normal")
    geometry = Geometry((112, 112), 112, (1.0, 1.0), pad=(0, 0), content_hw=(112, 112))
    support = Batch(
        ids=("0", "0 mirrored"),
        images=torch.stack([images[0], images[0].flip(-1)]),
        geometry=(geometry, geometry),
        classes=method.classes,
        labels=torch.tensor([0, 0]),
    )
    method.fit(support, seed=0)
    return method


@pytest.fixture(scope="module")
def backbone():
    return fixtures.mini()


@pytest.fixture(scope="module")
def images():
    return fixtures.golden("inputs")["image_clip"]


@pytest.fixture(scope="module")
def community(backbone, images):
    return fitted(backbone, images, COMMUNITY)


@pytest.fixture(scope="module")
def anomalib(backbone, images):
    return fitted(backbone, images, ANOMALIB)


@pytest.fixture(scope="module")
def encoded(community, images):
    """Class token, patches and windows: no option changes them."""
    return community._encode(images)


def by_size(method, windows):
    return dict(zip(method.config.windows, torch.split(windows, method.counts, 1), strict=True))


def test_community_text(community, backbone):
    golden = fixtures.golden("winclip")
    close(community.pair, golden["text_features"])
    config = COMMUNITY.model_copy(update={"text_average": "unit"})
    close(METHOD(backbone, config, classes=("a", "b"), normal_class="a").pair, golden["text_features_v2"])
    assert (golden["text_features"] - golden["text_features_v2"]).abs().max() > 2e-4  # so that a mix-up shows


@pytest.mark.parametrize("size", [2, 3])
def test_community_windows(community, encoded, size):
    golden = fixtures.golden("winclip")
    assert torch.equal(window_index((8, 8), size).int(), golden[f"window_index_{size}"])
    windows = by_size(community, encoded[2])[size].transpose(0, 1)  # (m b d)
    close(unit(windows), golden[f"window_features_{size}"])
    close(community._probability(windows), golden[f"window_probability_{size}"])


def test_community_zero_shot(community, encoded, images):
    golden = fixtures.golden("winclip")
    close(community._text_map(encoded[0], encoded[2]), golden["zero.patch_map"])
    zero = METHOD(community.backbone, COMMUNITY, classes=("a", "b"), normal_class="a").score(images)
    close(zero.score / 2, golden["zero.image_score"])  # the reference's map is halved
    close(zero.map, resize(golden["zero.patch_map"], 112, align_corners=False))


def test_community_gallery(community, encoded):
    golden = fixtures.golden("winclip")
    rows = [x.flatten(0, 1) for x in by_size(community, community.windows).values()]
    assert [len(x) for x in rows] == golden["few.gallery_rows"].tolist()
    close(community._visual_map(encoded[1], encoded[2]), golden["few.patch_map_own_scale_gallery"])


def test_community_gallery_mix_up(community, encoded):
    """The reference's first window of the second scale meets the first scale's gallery; put back, all else agrees."""
    golden = fixtures.golden("winclip")
    query, bank = by_size(community, encoded[2]), by_size(community, community.windows)
    v = {s: distance(query[s], bank[s].flatten(0, 1)) / 2 for s in query}
    v[3][:, 0] = distance(query[3][:, 0], bank[2].flatten(0, 1)) / 2
    mixed = sum(spread(x.view(3, 9 - s, 9 - s), s) for s, x in v.items()) / 2
    close(mixed, golden["few.patch_map"])
    difference = (golden["few.patch_map"] - golden["few.patch_map_own_scale_gallery"]).abs()
    assert difference.max() > 0.02
    assert difference[:, 3:].max() == difference[:, :, 3:].max() == 0


def test_community_few_shot(community, images):
    """On the reference's own visual map (mixed up), and end to end where the mix-up does not reach."""
    golden = fixtures.golden("winclip")
    combined = fuse(golden["zero.patch_map"], golden["few.patch_map"].clamp(min=0), "harmonic") / 2
    up = resize(combined, 112, align_corners=False)
    close(up[1:], golden["few.anomaly_map"])
    close(up.flatten(1).amax(1), golden["few.image_score"])
    scores = community.score(images)
    close(scores.map[1:, 56:] / 2, golden["few.anomaly_map"][:, 56:])
    close(scores.map[1:, :, 56:] / 2, golden["few.anomaly_map"][:, :, 56:])
    assert scores.map[0].max() < 1e-4  # its own support: distance 0 everywhere, once the mix-up is gone
    assert torch.equal(scores.score, scores.map.flatten(1).amax(1))


def test_anomalib_text(anomalib):
    close(anomalib.pair, unit(fixtures.golden("winclip_anomalib")["text_embeddings"]))


def test_anomalib_windows(anomalib, encoded):
    golden = fixtures.golden("winclip_anomalib")
    close(encoded[0], golden["image_embeddings"])
    for size, windows in by_size(anomalib, encoded[2]).items():
        close(windows, golden[f"window_embeddings_{size}"])


def test_anomalib_zero_shot(anomalib, encoded, images):
    golden = fixtures.golden("winclip_anomalib")
    close(anomalib._text_map(encoded[0], encoded[2]), golden["zero.patch_map"])
    zero = METHOD(anomalib.backbone, ANOMALIB, classes=("a", "b"), normal_class="a").score(images)
    close(zero.score, golden["zero.image_score"])
    close(zero.map, F.interpolate(golden["zero.patch_map"][:, None], size=112, mode="bilinear")[:, 0])


def test_anomalib_few_shot(anomalib, encoded, images):
    golden = fixtures.golden("winclip_anomalib")
    close(anomalib._visual_map(encoded[1], encoded[2]), golden["few.visual_patch_map"])
    scores = anomalib.score(images)
    close(scores.score, golden["few.image_score"])
    close(scores.map[1:], golden["few.anomaly_map"])
