"""Lengths in mm: a phantom with lesions of known size, written with a known spacing, measured from the report alone."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from tests.dicom.made import ellipse, region, run_of, write_us
from ultraad.dicom.saving import write_objects
from ultraad.simulate import simulate

SIZE = (256, 256)


def measured_by_a_reader(report: Path, image: Path) -> list[dict[str, float]]:
    """Area and longest diameter in mm2 and mm, from the outline in the report and the region in the image."""
    item = pydicom.dcmread(image).SequenceOfUltrasoundRegions[0]
    mm = np.array([item.PhysicalDeltaX, item.PhysicalDeltaY]) * 10
    found = []
    for group in highdicom.sr.srread(report).content.get_planar_roi_measurement_groups()[:-1]:
        x, y = (group.roi.value * mm).T
        area = abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
        points = group.roi.value[:, None] - group.roi.value[None]
        said = {m.name.meaning: float(m.value) for m in group.get_measurements()}
        found.append({"area": area, "long": np.hypot(*(points * mm).T).max(), **said})
    return found


@pytest.mark.parametrize("spacing", [(0.1, 0.1), (0.05, 0.12), (0.3, 0.08)], ids=str)
def test_ellipses_of_known_size_are_measured_within_a_pixel(tmp_path: Path, spacing: tuple[float, float]) -> None:
    row, col = spacing
    lesions = [((70.0, 80.0), (40.0, 22.0)), ((180.0, 150.0), (25.0, 33.0)), ((120.5, 220.5), (12.0, 9.5))]
    scores = np.zeros(SIZE, np.float32)
    for n, (centre, axes) in enumerate(lesions):
        scores[ellipse(SIZE, centre, axes)] = 0.9 - 0.1 * n
    image = write_us(tmp_path / "phantom.dcm", size=SIZE, regions=[region((0, 0, *SIZE), spacing)])
    ds = pydicom.dcmread(image)
    ds.PixelData = np.ascontiguousarray(simulate(3, size=SIZE[0]).image[..., 0]).tobytes()
    ds.save_as(image)
    run_of(tmp_path / "out", [image], maps=lambda shape, frame: scores)
    assert write_objects(tmp_path / "out", ["sr"]) == {}
    found = measured_by_a_reader(next((tmp_path / "out" / "dicom").glob("*-sr.dcm")), image)
    assert len(found) == len(lesions)
    for one, (_, (a, b)) in zip(found, lesions, strict=True):
        across, down = 2 * a * col, 2 * b * row
        area, rim = np.pi * a * b * row * col, 2 * np.pi * max(a * col, b * row)
        pixel = max(row, col)
        assert abs(one["Area"] - area) <= rim * pixel
        assert abs(one["Area"] - area) / area < 0.02
        assert abs(one["Long Axis"] - max(across, down)) <= pixel
        assert abs(one["Short Axis"] - min(across, down)) <= pixel
        assert one["Area"] == pytest.approx(one["area"], abs=0.006)  # the reader's own area, from the outline
        assert abs(one["Long Axis"] - one["long"]) <= np.hypot(row, col)  # corners of pixels, not middles of edges


def test_the_lesion_of_a_simulated_phantom_has_the_area_of_its_mask(tmp_path: Path) -> None:
    phantom = next(p for p in (simulate(seed, size=SIZE[0]) for seed in range(20)) if p.mask.any())
    image = write_us(tmp_path / "phantom.dcm", size=SIZE, regions=[region((0, 0, *SIZE), (0.15, 0.15))])
    run_of(tmp_path / "out", [image], maps=lambda shape, frame: 0.9 * phantom.mask.astype(np.float32))
    write_objects(tmp_path / "out", ["sr"])
    found = measured_by_a_reader(next((tmp_path / "out" / "dicom").glob("*-sr.dcm")), image)
    assert sum(one["Area"] for one in found) == pytest.approx(phantom.mask.sum() * 0.15**2, abs=0.02)
    rows, cols = np.nonzero(phantom.mask)
    wide = np.hypot(np.ptp(rows) + 1, np.ptp(cols) + 1) * 0.15
    assert max(np.ptp(rows), np.ptp(cols)) * 0.15 <= found[0]["Long Axis"] <= wide
