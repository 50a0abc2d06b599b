"""A mask file is opened once for each evaluated image: the metrics and the overlays share what the loader has read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import ultraad
from tests.helpers import picture, save
from ultraad.backbones._cache import Usage
from ultraad.bench import row
from ultraad.bench.run import data
from ultraad.bench.run.measure import Clock, measure
from ultraad.data.support import content_hash
from ultraad.types import Sample

EACH = 20


@pytest.fixture(scope="module")
def model(folder_bundle: Path) -> ultraad.Model:
    return ultraad.load(folder_bundle)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """40 images with a mask each."""
    root = tmp_path_factory.mktemp("forty")
    for c, label in enumerate(("normal", "benign")):
        for n in range(EACH):
            image, mask = picture(200_000 + 100 * c + n, lesion=c > 0)
            save(root / label / f"{n}.png", image)
            save(root / label / f"{n}_mask.png", mask)
    return ultraad.scan(root)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """{file: how often it was opened}; every file is opened by ``Path.open``."""
    count: Counter[Path] = Counter()
    path_open = Path.open

    def counting(self: Path, *args: Any, **options: Any) -> Any:
        count[self] += 1
        return path_open(self, *args, **options)

    monkeypatch.setattr(Path, "open", counting)
    return count


def masks_opened(opened: Counter[Path]) -> dict[Path, int]:
    return {path: n for path, n in opened.items() if path.stem.endswith("_mask")}


def test_evaluate_opens_each_mask_once(
    model: ultraad.Model, samples: list[Sample], opened: Counter[Path], tmp_path: Path
) -> None:
    found = ultraad.evaluate(model, samples, output=tmp_path / "out", bootstrap=10)
    assert not found["failed"]
    assert len(samples) == 2 * EACH
    assert masks_opened(opened) == {sample.masks[0]: 1 for sample in samples}


def test_the_benchmark_opens_each_mask_once(model: ultraad.Model, samples: list[Sample], opened: Counter[Path]) -> None:
    facts = row.TestSetFacts(name="forty", set="forty", title="forty", layout="folder")
    test = data.TestSet(facts, tuple(samples), tuple(map(content_hash, samples)))
    found = measure(model, test, clock=Clock(Usage()), batch_size=8)
    assert len(found.lines) == 2 * EACH
    assert masks_opened(opened) == {sample.masks[0]: 1 for sample in samples}
