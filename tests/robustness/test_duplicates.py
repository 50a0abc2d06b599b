"""Near-duplicates are pictures of one scene, not pictures by one scanner."""

from __future__ import annotations

import cv2
import numpy as np

from tests import helpers
from ultraad.data.audit import audit

H, W = 240, 320
Y, X = np.mgrid[:H, :W].astype(np.float64)
RADIUS, ANGLE = np.hypot(X - 160, Y + 60), np.abs(np.arctan2(X - 160, Y + 60))
FAN = (RADIUS > 80) & (RADIUS < 270) & (ANGLE < 0.55)


def tissue(rng, scale):
    grain = cv2.GaussianBlur(rng.normal(size=(H, W)), (0, 0), scale)
    return grain / grain.std()


def scan(seed):
    """A scene in the scanner's fan: skin layers, fading with depth, a logo and a depth scale are always the same."""
    rng = np.random.default_rng(seed)
    skin = 40 * np.sin(RADIUS / 3) * (RADIUS < 105)
    grey = 90 - 0.2 * (RADIUS - 80) + skin + 16 * tissue(rng, 9) + 10 * tissue(rng, 3)
    grey = np.where(FAN, grey, 0)
    grey[10:30, 10:60:4] = 200
    grey[40:230:20, 300:308] = 220
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def with_calipers(image):
    marked = image.copy()
    cv2.drawMarker(marked, (140, 120), (255, 255, 255), cv2.MARKER_CROSS, 9)
    cv2.drawMarker(marked, (180, 150), (255, 255, 255), cv2.MARKER_CROSS, 9)
    _, jpeg = cv2.imencode(".jpg", marked, [cv2.IMWRITE_JPEG_QUALITY, 50])
    return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)


def near(root):
    return [item for f in audit(root).findings if f.kind.startswith("near_duplicate") for item in f.items]


def test_the_frame_of_a_scanner_makes_no_near_duplicates(tmp_path):
    for n in range(40):
        helpers.save(tmp_path / ("normal", "benign")[n % 2] / f"{n}.png", scan(n))
    assert near(tmp_path) == []
    helpers.save(tmp_path / "benign" / "again.png", with_calipers(scan(6)))
    (item,) = near(tmp_path)
    assert item.startswith(("normal/6.png ~ benign/again.png", "benign/again.png ~ normal/6.png"))


def test_few_images_of_one_frame(tmp_path):
    for n in range(3):
        helpers.save(tmp_path / "normal" / f"{n}.png", scan(n))
    helpers.save(tmp_path / "benign" / "again.png", with_calipers(scan(1)))
    assert len(near(tmp_path)) == 1
