"""``dtype="auto"``: measured where it can be faster, float32 where it cannot, and never unless asked for."""

from __future__ import annotations

import inspect
import logging

import pytest
import torch
from typer.testing import CliRunner

import ultraad
from ultraad.backbones import _dtype as number_type
from ultraad.backbones import load_backbone
from ultraad.cli import app
from ultraad.simulate import write_dataset


@pytest.fixture
def capable(monkeypatch):
    monkeypatch.setattr(number_type, "has_bfloat16", lambda device: device.type == "cpu")


def times(monkeypatch, **taken):
    """Let the passes of each number type take so many seconds; returns what was timed."""
    timed = []

    def seconds(backbone, count):
        timed.append((str(backbone.dtype).removeprefix("torch."), count))
        return taken[timed[-1][0]]

    monkeypatch.setattr(number_type, "seconds", seconds)
    return timed


@pytest.mark.usefixtures("capable")
@pytest.mark.parametrize(("half", "chosen"), [(0.5, "bfloat16"), (0.95, "float32"), (2.0, "float32")])
def test_the_measurably_faster_one_is_taken_and_named(monkeypatch, caplog, half, chosen):
    timed = times(monkeypatch, float32=1.0, bfloat16=half)
    with caplog.at_level(logging.INFO, "ultraad"):
        backbone = load_backbone("tiny", dtype="auto")
    assert [name for name, _ in timed] == ["float32", "bfloat16"]
    assert backbone.dtype == getattr(torch, chosen)
    assert f"tiny runs in {chosen}" in caplog.text
    model = ultraad.zero_shot(backbone="tiny", dtype="auto")
    assert model.describe().backbone.dtype == chosen


def test_a_device_without_bfloat16_is_not_measured(monkeypatch, caplog):
    monkeypatch.setattr(number_type, "has_bfloat16", lambda _: False)
    timed = times(monkeypatch)
    with caplog.at_level(logging.INFO, "ultraad"):
        assert load_backbone("tiny", dtype="auto").dtype == torch.float32
    assert not timed
    assert "does not support bfloat16" in caplog.text


@pytest.mark.parametrize(
    ("found", "has"), [({}, False), ({"avx512_bf16": False, "avx2": True}, False), ({"amx_bf16": True}, True)]
)
def test_the_processor_is_asked(monkeypatch, found, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert number_type.has_bfloat16(torch.device("cpu")) is has


def test_a_pytorch_that_cannot_say_counts_as_no(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not number_type.has_bfloat16(torch.device("cpu"))
    assert not number_type.has_bfloat16(torch.device("mps"))


@pytest.mark.usefixtures("capable")
def test_it_measures_for_real(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(number_type.time, "perf_counter", lambda: next(clock))  # every pass takes a second
    assert load_backbone("tiny", dtype="auto").dtype == torch.float32
    assert next(clock) == 6  # one pass to see that it is long, and one of each


def test_a_copy_in_another_number_type_leaves_the_tower_alone():
    full = load_backbone("tiny")
    images = torch.rand(2, 3, full.size, full.size)
    want = full.encode_image(images, layers=(4,))
    half = full.in_dtype("bfloat16")
    got = half.encode_image(images, layers=(4,))
    assert torch.equal(full.encode_image(images, layers=(4,)).patches[4], want.patches[4])
    assert (full.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert half.fingerprint == full.fingerprint
    assert torch.equal(half.cache.encode(images, layers=(4,)).patches[4], got.patches[4])
    assert half.cache.prefix != full.cache.prefix
    loaded = load_backbone("tiny", dtype="bfloat16").encode_image(images, layers=(4,))
    assert torch.equal(got.patches[4], loaded.patches[4])


def test_nobody_gets_it_unasked(monkeypatch):
    monkeypatch.setattr(number_type, "fastest", lambda _: pytest.fail("measured without being asked"))
    for function in (load_backbone, ultraad.adapt, ultraad.zero_shot):
        assert inspect.signature(function).parameters["dtype"].default == "float32"
    assert inspect.signature(ultraad.load).parameters["dtype"].default is None  # what it was adapted in
    assert ultraad.zero_shot(backbone="tiny").backbone.dtype == torch.float32


@pytest.mark.usefixtures("capable")
def test_commands_take_it(monkeypatch, tmp_path):
    times(monkeypatch, float32=1.0, bfloat16=0.5)
    write_dataset(tmp_path / "data", n=3, size=64)
    words = ["predict", "zero-shot", str(tmp_path / "data"), "--backbone", "tiny", "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--dtype", "auto", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out")])  # float32: another model's results
    assert again.exit_code == 1
