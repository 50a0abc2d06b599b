"""Damaged files of ours give one short error of ours: never a traceback, whatever bytes are wrong."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.adapted import adapted
from tests.bench.fake import Spec, write_bench
from ultraad.backbones import load_backbone
from ultraad.backbones._door import Backbone
from ultraad.bench.recipe import read_recipe, shipped
from ultraad.bench.results import BenchFolder
from ultraad.data.support import draw_support, load_support, save_support
from ultraad.errors import UltraadError
from ultraad.model import bundle
from ultraad.model.adapt import zero_shot
from ultraad.model.model import load
from ultraad.report.run.page import render
from ultraad.results.folder import RunFolder, read_errors, read_rows, read_run
from ultraad.runs.evaluate import evaluate
from ultraad.runs.job import facts
from ultraad.texts.bank import load_texts

CASES = 40  # mutations of each file
DRAWN = 20  # of these, drawn as a report page, which takes longer
_TOKENS = (
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"[[",
    b'"\\ud800"',
    b"&a",
    b"*a",
    b"!!python/x",
    b": ",
    b"2020-13-45",
)


def mutation(whole: bytes, seed: int) -> bytes:
    """One damaged version of a file: cut, flipped, filled with noise, or with a value of another kind."""
    draw = random.Random(seed)
    data = bytearray(whole)
    for _ in range(draw.choice((1, 1, 1, 3))):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 2, 8, 64)))
        kind = draw.randrange(8)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at:end] = draw.randbytes(end - at)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * draw.choice((1, 50))
        elif kind == 4 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 5:
            data[at:end] = draw.choice(_TOKENS)
        elif kind == 6:
            values = [i for i, c in enumerate(data) if c == ord(":")]
            if values:
                at = draw.choice(values) + 1
                stop = next((i for i in range(at, len(data)) if data[i] in b",\n}"), len(data))
                data[at:stop] = b" " + draw.choice(_TOKENS)
        else:
            data[at:at] = draw.choice(
                (b"[" * 100_000, b"{" * 2000, b"\x00" * 9, b"\xff\xfe", b"\xef\xbb\xbf", b"9" * 5000)
            )
    return bytes(data)


@pytest.fixture(scope="module")
def good(folder_dir: Path, busi_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    model = adapted(folder_dir)
    model.save(root / "model")
    evaluate(model, busi_dir, output=root / "results", bootstrap=5)
    write_bench(root / "bench", Spec(tests=("busi",), methods=("ultraad", "mvfa"), shots=(4,), seeds=(0,), images=6))
    save_support(draw_support(folder_dir, shots=1), root / "support.json")
    (root / "texts.yaml").write_bytes(Path(bundle.__file__).parents[1].joinpath("texts", "breast.yaml").read_bytes())
    (root / "recipe.yaml").write_bytes(shipped()["quick"].read_bytes())
    return root


def read_results(folder: Path) -> None:
    read_run(folder)
    list(read_rows(folder))
    read_errors(folder)


def read_model(path: Path) -> None:
    """Load a model whose record names the damaged file's new hash."""
    record = path.with_name("config.json")
    if path != record:
        content = json.loads(record.read_bytes())
        content["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        record.write_text(json.dumps(content))
    load(path.parent, backbone=_tiny())


@cache
def _tiny() -> Backbone:
    return load_backbone("tiny")


def read_bench(folder: Path) -> None:
    results = BenchFolder.open(folder)
    for row in results.rows(all=True):
        results.predictions(row)
        results.pixels(row)
        results.maps(row)


READERS: dict[str, Callable[[Path], object]] = {
    "results/run.json": lambda p: read_results(p.parent),
    "results/predictions.jsonl": lambda p: read_results(p.parent),
    "model/config.json": read_model,
    "model/adapter.safetensors": read_model,
    "model/support.csv": read_model,
    "support.json": load_support,
    "bench/bench.json": lambda p: read_bench(p.parent),
    "bench/results.jsonl": lambda p: read_bench(p.parent),
    "texts.yaml": load_texts,
    "recipe.yaml": read_recipe,
}


def check(good: Path, tmp_path: Path, name: str, read: Callable[[Path], object], seeds: range) -> None:
    """``read`` raises nothing but short errors of ours for damaged versions of a file."""
    if "/" in name:
        shutil.copytree((good / name).parent, (tmp_path / name).parent)
    whole = (good / name).read_bytes()
    bad = {}
    for seed in seeds:
        (tmp_path / name).write_bytes(mutation(whole, seed))
        try:
            read(tmp_path / name)
        except UltraadError as e:
            if len(str(e)) > 3000:
                bad[seed] = f"{len(str(e))} characters: {str(e)[:100]}"
        except Exception as e:
            bad[seed] = repr(e)[:200]
    assert not bad, "\n".join(f"{seed}: {what}" for seed, what in bad.items())


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_gives_one_error_of_ours(good: Path, tmp_path: Path, name: str) -> None:
    check(good, tmp_path, name, READERS[name], range(CASES))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.slow
def test_many_damaged_files_give_one_error_of_ours(good: Path, tmp_path: Path, name: str) -> None:
    check(good, tmp_path, name, READERS[name], range(CASES, 2000))


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "predictions.jsonl"])
def test_a_report_of_damaged_results_gives_one_error_of_ours(good: Path, tmp_path: Path, name: str) -> None:
    check(good, tmp_path, f"results/{name}", lambda p: render(p.parent), range(DRAWN))


@pytest.mark.parametrize("name", ["run.json", "predictions.jsonl"])
def test_a_damaged_folder_is_continued_or_refused(good: Path, tmp_path: Path, name: str) -> None:
    run = facts(zero_shot(backbone="tiny"), "evaluate")
    check(
        good,
        tmp_path,
        f"results/{name}",
        lambda p: RunFolder(p.parent, run, resume=True).finish("complete"),
        range(DRAWN),
    )
