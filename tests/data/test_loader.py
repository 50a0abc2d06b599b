"""Batches: labels, masks that are known and unknown, order, errors, and threads that end."""

from __future__ import annotations

import gc
import logging
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ultraad.data import loader
from ultraad.data.loader import array_batch, iterate, load_batch
from ultraad.data.prefetch import prefetch
from ultraad.data.preprocess import Preprocess
from ultraad.errors import Caught, DataError
from ultraad.types import PreprocessConfig, Region, Sample

CLASSES = ("normal", "benign", "malignant")
H, W = 24, 40


@pytest.fixture
def preprocess() -> Preprocess:
    return Preprocess(PreprocessConfig(size=16, mean=(0, 0, 0), std=(1, 1, 1), mode="pad"))


def write(path: Path, value: int, hw: tuple[int, int] = (H, W)) -> Path:
    Image.fromarray(np.full(hw, value, np.uint8)).save(path)
    return path


def sample(folder: Path, number: int, **known) -> Sample:
    name = f"{number:04d}.png"
    return Sample(id=name, image=write(folder / name, number % 256), **known)


@pytest.fixture
def run(tmp_path, preprocess):
    """``iterate`` over samples, collecting errors."""

    def iterate_(samples, **options):
        failed = []
        options = {"batch_size": 4, "on_error": lambda s, e: failed.append((s.id, str(e))), **options}
        return iterate(samples, preprocess, classes=CLASSES, normal_class="normal", **options), failed

    return iterate_


def loader_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("ultraad-loader")]


# ---- load_batch ---------------------------------------------------------------------------------------------------


def test_labels_masks_and_groups(tmp_path, preprocess):
    lesion = np.zeros((H, W), np.uint8)
    lesion[:, : W // 2] = 255
    Image.fromarray(lesion).save(tmp_path / "m.png")
    samples = [
        sample(tmp_path, 0, label="normal", group="p1"),
        sample(tmp_path, 1, label="benign", masks=(tmp_path / "m.png",)),
        sample(tmp_path, 2, label="malignant"),
        sample(tmp_path, 3, anomalous=False),
        sample(tmp_path, 4, label="malignant", anomalous=True, masks=(Region(size=(H, W), rle=(0, H * W)),)),
    ]
    batch = load_batch(samples, preprocess, classes=CLASSES, normal_class="normal")
    assert batch.ids == ("0000.png", "0001.png", "0002.png", "0003.png", "0004.png")
    assert batch.labels.tolist() == [0, 1, 2, -1, 2]
    assert batch.labels.dtype == torch.int64
    assert batch.anomalous.tolist() == [False, True, True, False, True]
    assert batch.mask_known.tolist() == [True, True, False, True, True]
    assert [int(m.sum()) for m in batch.masks] == [0, 80, 0, 0, 160]  # content is 10 x 16
    assert batch.masks[1, :, :8].sum() == 80
    assert batch.groups == ("p1", None, None, None, None)
    assert batch.classes == CLASSES
    assert batch.images.shape == (5, 3, 16, 16)
    assert batch.images[4, 0, 8, 8] == pytest.approx(4 / 255)
    assert {g.original_hw for g in batch.geometry} == {(H, W)}


def test_unlabelled_and_empty_batches(tmp_path, preprocess):
    batch = load_batch(
        [sample(tmp_path, 0), sample(tmp_path, 1, anomalous=True)], preprocess, classes=CLASSES, normal_class="normal"
    )
    assert batch.labels is None
    assert batch.anomalous is None  # unknown for one
    assert batch.mask_known.tolist() == [False, False]
    nothing = load_batch([], preprocess, classes=CLASSES, normal_class="normal")
    assert len(nothing) == 0
    assert nothing.images.shape == (0, 3, 16, 16)
    assert nothing.masks.shape == (0, 16, 16)


def test_misaligned_masks_are_unknown_with_one_warning(tmp_path, preprocess, caplog):
    fits, wrong = write(tmp_path / "fits.png", 255), write(tmp_path / "wrong.png", 255, (W, H))
    samples = [sample(tmp_path, i, label="benign", masks=(wrong,)) for i in range(7)]
    samples.append(sample(tmp_path, 7, label="benign", masks=(fits,), mask_aligned=False))
    samples.append(sample(tmp_path, 8, label="benign", masks=(fits,)))
    with caplog.at_level(logging.WARNING):
        batch = load_batch(samples, preprocess, classes=CLASSES, normal_class="normal")
    assert batch.mask_known.tolist() == [False] * 8 + [True]
    assert not batch.masks[:8].any()
    (record,) = caplog.records
    assert record.getMessage().startswith("8 mask(s)")
    assert "0000.png, 0001.png, 0002.png, 0003.png, 0004.png and 3 more" in record.getMessage()


def test_labels_outside_the_classes_are_unknown_with_a_warning(tmp_path, preprocess, caplog):
    with caplog.at_level(logging.WARNING):
        batch = load_batch(
            [sample(tmp_path, 0, label="Benign"), sample(tmp_path, 1, label="benign")],
            preprocess,
            classes=CLASSES,
            normal_class="normal",
        )
    assert batch.labels.tolist() == [-1, 1]
    assert batch.anomalous.tolist() == [True, True]
    (record,) = caplog.records
    assert "Benign" in record.getMessage()


def test_a_bad_mask_file_is_an_error(tmp_path, preprocess):
    (tmp_path / "m.png").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        load_batch(
            [sample(tmp_path, 0, label="benign", masks=(tmp_path / "m.png",))],
            preprocess,
            classes=CLASSES,
            normal_class="normal",
        )


# ---- array_batch --------------------------------------------------------------------------------------------------


def test_arrays_of_every_allowed_kind_agree(preprocess):
    rgb = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    grey = rgb[..., 0]
    kinds = [rgb, rgb / 255, (rgb / 255).astype(np.float32), grey, grey / 255, np.dstack([grey] * 3)]
    batch = array_batch(kinds, list("abcdef"), preprocess)
    assert batch.ids == tuple("abcdef")
    assert batch.labels is None
    assert batch.masks is None
    for i, j in ((0, 1), (0, 2), (3, 4), (3, 5)):
        assert torch.equal(batch.images[i], batch.images[j])
    assert torch.equal(batch.images[0], preprocess.image(rgb)[0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(20, np.uint8), r"the array x \(20,\) uint8 is no picture"),
        (np.zeros((20, 20), complex), "complex"),
        (np.zeros((20, 20), bool), "bool"),
        (np.full((20, 20), 255.0), r"wanted 0\.\.1"),
        (np.full((20, 20), np.nan), "NaN"),
        (np.zeros((3, 20), np.uint8), "at least 8 x 8"),
        (np.zeros((0, 0)), "is empty"),
    ],
)
def test_arrays_that_are_refused(preprocess, array, message):
    with pytest.raises(DataError, match=message):
        array_batch([array], ["x"], preprocess)


def test_every_array_needs_an_id(preprocess):
    with pytest.raises(DataError, match="1 images and 2 ids"):
        array_batch([np.zeros((9, 9), np.uint8)], ["a", "b"], preprocess)


# ---- iterate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_iterate_equals_load_batch(tmp_path, preprocess, run, workers):
    samples = [sample(tmp_path, i, label=CLASSES[i % 3], group=str(i)) for i in range(11)]
    batches, failed = run(samples, workers=workers)
    batches = list(batches)
    assert [len(b) for _, b in batches] == [4, 4, 3]
    assert [d.sample for part, _ in batches for d in part] == samples
    whole = load_batch(samples, preprocess, classes=CLASSES, normal_class="normal")
    for name in ("images", "labels", "anomalous", "masks", "mask_known"):
        assert torch.equal(torch.cat([getattr(b, name) for _, b in batches]), getattr(whole, name))
    assert [int(d.image[0, 0, 0]) for part, _ in batches for d in part] == list(range(11))
    assert batches[0][0][0].image.shape == (H, W, 3)
    assert not failed
    assert not loader_threads()


def test_bad_files_are_reported_and_skipped(tmp_path, run):
    samples = [sample(tmp_path, i) for i in range(10)]
    for i in (0, 3, 9):
        samples[i].image.write_bytes(b"no image")
    batches, failed = run(samples)
    assert [[d.sample.id for d in part] for part, _ in batches] == [
        ["0001.png", "0002.png", "0004.png", "0005.png"],
        ["0006.png", "0007.png", "0008.png"],
    ]
    assert [i for i, _ in failed] == ["0000.png", "0003.png", "0009.png"]
    assert "is not an image" in failed[0][1]


def test_no_samples_and_no_readable_samples_give_no_batches(tmp_path, run):
    assert list(run([])[0]) == []
    batches, failed = run([Sample(id="gone", image=tmp_path / "gone.png")])
    assert list(batches) == []
    assert len(failed) == 1


def test_prefetching_is_bounded(tmp_path, run, monkeypatch):
    path = write(tmp_path / "a.png", 1)
    decoded = []
    load = loader._load
    monkeypatch.setattr(loader, "_load", lambda s, *a, **k: (decoded.append(s.id), load(s, *a, **k))[1])
    endless = (Sample(id=str(i), image=path) for i in range(10**9))
    batches, _ = run(endless, batch_size=5)
    for consumed in (1, 2, 3):
        next(batches)
        time.sleep(0.05)
        assert 5 * consumed <= len(decoded) <= 5 * consumed + 10
    batches.close()
    assert not loader_threads()


@pytest.mark.parametrize("how", ["close", "break", "error in the loop", "error in on_error"])
def test_threads_end_however_the_consumer_stops(tmp_path, run, how):
    samples = [sample(tmp_path, i) for i in range(30)]
    batches, _ = run(samples)
    if how == "close":
        next(batches)
        assert loader_threads()
        batches.close()
    elif how == "break":
        for _ in batches:
            break
        del batches
        gc.collect()
    elif how == "error in the loop":

        def consume() -> None:
            for _ in run(samples)[0]:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:
            consume()
        del caught
        gc.collect()
        batches.close()
    else:

        def stop(*_) -> None:
            raise KeyboardInterrupt

        samples[5].image.write_bytes(b"bad")
        batches, _ = run(samples, on_error=stop)
        with pytest.raises(KeyboardInterrupt):
            list(batches)
    assert not loader_threads()


def test_any_error_of_one_image_is_reported_with_its_name(tmp_path, run, preprocess, monkeypatch):
    def broken(*_, **__) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(loader, "read_image", broken)
    batches, failed = run([sample(tmp_path, 0), sample(tmp_path, 1)])
    assert list(batches) == []
    assert len(failed) == 2
    with pytest.raises(DataError, match="cannot be prepared: ZeroDivisionError"):
        loader.load_batch([sample(tmp_path, 0)], preprocess, classes=(), normal_class="")
    assert not loader_threads()


def test_one_warning_for_the_whole_run(tmp_path, run, caplog):
    wrong = write(tmp_path / "wrong.png", 255, (W, H))
    samples = [sample(tmp_path, i, label="cyst", masks=(wrong,)) for i in range(9)]
    with caplog.at_level(logging.WARNING):
        list(run(samples)[0])
    assert [r.getMessage()[:9] for r in caplog.records] == ["9 mask(s)", "label(s) "]


REAL = Path(__file__).parents[3] / "shared" / "data" / "BUS-UCLM"


@pytest.mark.skipif(not REAL.is_dir(), reason="BUS-UCLM is not beside the repository")
def test_real_masks_and_misaligned_real_masks(preprocess):
    def real(name: str, **known) -> Sample:
        return Sample(id=name, image=REAL / "images" / name, masks=(REAL / "masks" / name,), **known)

    names = [*sorted(p.name for p in (REAL / "images").glob("HESN*"))[:20], "ALWI_000.png", "ALWI_001.png"]
    batch = load_batch([real(name) for name in names], preprocess, classes=CLASSES, normal_class="normal")
    assert batch.mask_known[-2:].all()
    assert not batch.mask_known.all()  # the cropped copies of HESN


def test_loading_can_be_ended_from_one_of_its_own_threads() -> None:
    """As the garbage collector does when it runs there."""
    first_is_out, ended = threading.Event(), []

    def load(item: int) -> int:
        if item == 1:
            first_is_out.wait(10)
            with Caught() as caught:
                batches.close()
            ended.append(caught.error)
        return item

    batches = prefetch(range(4), load, batch_size=1, workers=1)
    assert next(batches) == [0]
    first_is_out.set()
    while not ended:
        time.sleep(0.01)
    assert ended == [None]
