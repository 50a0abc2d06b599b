"""A results folder as docs/bench-format.md says, with made-up predictions: nothing is fitted, all metrics are real."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers import picture
from ultraad.bench.pictures import pack_maps, small_map
from ultraad.bench.results import BenchFolder, Finished, npz
from ultraad.bench.row import FORMAT, Bench, parse_row
from ultraad.metrics.summary import Evaluation

CLASSES = ("normal", "benign", "malignant")
SIZE = (60, 80)
METHODS = {  # how well each one sees: image, class, map
    "ultraad": (0.75, 0.9, 0.26),
    "tip_adapter": (0.5, 0.8, None),
    "patch_core": (0.6, None, 0.2),
    "winclip": (0.2, None, 0.05),
    "mvfa": (0.55, None, 0.15),
}


@dataclass(frozen=True)
class Spec:
    """What to make up."""

    tests: Sequence[str] = ("busi", "udiat")
    private: Sequence[str] = ("buszs",)
    methods: Sequence[str] = tuple(METHODS)
    shots: Sequence[int] = (4, 8, 16)
    seeds: Sequence[int] = (0, 1, 2)
    protocols: Sequence[str] = ("honest",)
    images: int = 24
    grouped: Sequence[str] = ("udiat",)  # tests that name patients and devices
    failing: Sequence[tuple[str, int, int]] = (("mvfa", 8, 1),)  # method, shots, seed
    backbones: Sequence[str] = ("embedded",)
    name: str = "fake"
    lift: dict[str, float] = field(default_factory=dict)  # by method
    calibrated: bool = False
    bootstrap: int = 0
    map_methods: Sequence[str] | None = None


def write_bench(folder: Path, spec: Spec | None = None, **bench: Any) -> Path:
    """Write the folder; the same spec gives the same bytes."""
    s = spec or Spec()
    rows = [
        (backbone, protocol, shots, seed, method, test)
        for backbone in s.backbones
        for seed in s.seeds
        for shots in s.shots
        for method in s.methods
        for protocol in s.protocols
        if protocol == "honest" or method == "mvfa"
        for test in (*s.tests, *s.private)
    ]
    results = BenchFolder.create(folder, Bench.model_validate(_bench(s, [_code(*row) for row in rows]) | bench))
    for test in s.tests:
        scenes = [_scene(test, i, s) for i in range(s.images)]
        small = [[small_map(channel) for channel in np.moveaxis(x["image"], -1, 0).astype(np.float32)] for x in scenes]
        arrays = {
            "ids": np.array([x["id"] for x in scenes]),
            "images": np.moveaxis(np.array(small), 1, -1).astype(np.uint8),
            "masks": np.stack([small_map(x["mask"].astype(np.float32)) >= 0.5 for x in scenes]),
            "known": np.ones(len(scenes), bool),
            "sizes": np.tile(np.array(SIZE), (len(scenes), 1)),
        }
        (folder / "pictures" / f"{_key(test)}.npz").write_bytes(npz(arrays))
    for row in rows:
        results.add(_row(s, *row))
    results.update(status="complete", finished="2026-01-02T03:04:05+00:00", seconds=61.0)
    return folder


def change(folder: Path, edit: Any) -> None:
    """Rewrite every row through a function that changes it in place."""
    path = folder / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        edit(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _code(*facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _key(test: str) -> str:
    return _code("test", test)


def _rng(*facts: Any) -> np.random.Generator:
    return np.random.default_rng(int(_code(*facts), 16))


def _scene(test: str, i: int, s: Spec) -> dict[str, Any]:
    label = CLASSES[i % 3]
    image, mask = picture(int(_code(test, i)[:6], 16), lesion=label != "normal", size=SIZE)
    grouped = test in s.grouped
    return {
        "id": f"{label}/{label} ({i}).png",
        "image": image,
        "mask": mask,
        "label": label,
        "group": f"patient-{i // 4}" if grouped else None,
        "device": ("Acme 3", "Zeta <9>")[i // 6 % 2] if grouped else None,
        "tags": ["marks"] if i % 5 == 0 else [],
    }


def facts(s: Spec, backbone: str, protocol: str, shots: int, seed: int, method: str, test: str) -> dict[str, Any]:
    _, classes, map_ = METHODS[method]
    outputs = ["classes"] * (classes is not None) + ["map"] * (map_ is not None) + ["score"]
    code = _code(backbone, protocol, shots, seed, method, test)
    public = test in s.tests
    return {
        "format": FORMAT,
        "id": code,
        "job": _code(backbone, protocol, shots, seed, method),
        "status": "ok",
        "reason": None,
        "recipe": s.name,
        "method": method,
        "label": method,
        "title": f"{method}, made up",
        "given": {},
        "options": {"lr": 0.001, "depth": {"layers": [6, 12]}},
        "outputs": outputs,
        "shots": shots,
        "seed": seed,
        "protocol": protocol,
        "transductive": protocol == "published",
        "habits": ["best of 5 states of the training by image_auroc on the test set"] * (protocol == "published"),
        "backbone": {
            "name": backbone,
            "fingerprint": _code(backbone) * 4,
            "size": 224,
            "dtype": "float32",
            "parameters": 12_000_000,
        },
        "adapt": {
            "name": "bus_uclm",
            "layouts": ["bus_uclm"],
            "classes": list(CLASSES),
            "normal_class": "normal",
            "per_patient": False,
            "exclude_tags": ["doppler"],
            "images": 3 * shots,
            "patients": 2 * shots,
            "support": _code("support", shots, seed) * 4,
        },
        "test": {
            "name": test,
            "set": test,
            "title": test.upper(),
            "layout": ("busi" if test == "busi" else "folder") if public else None,
            "split": None,
            "include_tags": [],
            "exclude_tags": [],
            "transform": "none",
            "digest": _key(test) * 4 if public else None,
            "key": _key(test) if public else None,
            "images": s.images if public else None,
            "left_out": 0 if public else None,
            "failed": {},
        },
        **dict.fromkeys(("calibration", "fit", "timings", "metrics", "subsets", "curves", "confusion", "n")),
        "bootstrap": None,
        "peak_memory_mb": 812.5,
        "files": {**dict.fromkeys(("predictions", "pixels", "maps", "error")), "pictures": None},
        "versions": {"ultraad": "0.2.0", "torch": "2.9.0"},
        "machine": {"system": "Linux", "processor": "x86_64", "cores": 2, "threads": 1, "device": "cpu"},
        "finished": "2026-01-02T03:04:05+00:00",
    }


def _row(s: Spec, backbone: str, protocol: str, shots: int, seed: int, method: str, test: str) -> Finished:
    row = facts(s, backbone, protocol, shots, seed, method, test)
    if test in s.private:
        return Finished(parse_row({**row, "status": "not_public", "reason": "the data set is not public"}), {})
    if (method, shots, seed) in s.failing:
        row["files"]["error"] = f"errors/{row['id']}.txt"
        failed = parse_row({**row, "status": "error", "reason": "MemoryError: 3 GB <wanted>"})
        return Finished(failed, {f"errors/{row['id']}.txt": b"trace"})
    image, classes, sight = METHODS[method]
    gain = (0.75 + 0.1 * np.log2(shots)) * (1.15 if protocol == "published" else 1) + s.lift.get(method, 0)
    rng = _rng(shots, seed, method, test, backbone)
    found = Evaluation(CLASSES, "normal", image_threshold=0.5, pixel_threshold=0.5)
    lines, maps = [], {}
    for i in range(s.images):
        x = _scene(test, i, s)
        hard = _rng("hard", test, i).normal()  # shared by all methods
        lesion = x["label"] != "normal"
        score = float(1 / (1 + np.exp(-(gain * image * (1 if lesion else -1) + 0.8 * hard + 0.6 * rng.normal()))))
        probs = None
        if classes is not None:
            logits = gain * classes * (np.arange(3) == CLASSES.index(x["label"])) + 0.7 * rng.normal(size=3)
            e = np.exp(logits)
            probs = dict(zip(CLASSES, (e / e.sum()).tolist(), strict=True))
        map_ = None
        if sight is not None:
            noise = np.kron(rng.uniform(0, 1, (6, 8)), np.ones((10, 10)))  # SIZE
            map_ = np.clip(gain * sight * x["mask"] + 0.5 * noise, 0, 1).astype(np.float32)
            maps[x["id"]] = small_map(map_)
        pixels = found.add(
            id=x["id"], score=score, anomalous=lesion, map=map_, mask=x["mask"] if map_ is not None else None,
            probs=probs, label=x["label"], group=x["group"], tags=x["tags"],
        )  # fmt: skip
        lines.append(
            {"id": x["id"], "score": score, "probs": probs, "label": x["label"], "anomalous": lesion,
             "group": x["group"], "device": x["device"], "site": None, "tags": x["tags"], "pixels": pixels}
        )  # fmt: skip
    row |= found.result(bootstrap=s.bootstrap)
    row["calibration"] = {
        "calibrated": s.calibrated, "rule": "youden", "folds": 3 if s.calibrated else 0,
        "image_threshold": 0.5, "pixel_threshold": 0.5,
    }  # fmt: skip
    row["fit"] = {
        "selection": "last epoch", "epoch": None, "loss": [0.9, 0.5, 0.4], "learned": {"keys": 3 * shots * 64},
        "parameters": 0 if method == "winclip" else 3 * shots * 64, "notes": [],
    }  # fmt: skip
    row["timings"] = {"adapt_seconds": 1.5 * shots, "predict_ms": 40.0, "encode_ms": 31.0, "evaluate_seconds": 2.0}
    files = {f"predictions/{row['id']}.jsonl": "".join(json.dumps(x) + "\n" for x in lines).encode()}
    row["files"] |= {"predictions": f"predictions/{row['id']}.jsonl", "pictures": f"pictures/{_key(test)}.npz"}
    table = found.pixel_table(bins=64)
    if table is not None:
        row["files"]["pixels"] = f"pixels/{row['id']}.npz"
        files[row["files"]["pixels"]] = npz(
            {"groups": np.array(table.groups), "mass": table.mass.astype(np.float32), "wide": table.wide,
             "sums": table.sums, "stored": np.array(table.stored)}
        )  # fmt: skip
    if maps and seed == s.seeds[0]:
        row["files"]["maps"] = f"maps/{row['id']}.npz"
        files[row["files"]["maps"]] = npz(pack_maps(list(maps), list(maps.values())))
    return Finished(parse_row(row), files)


def _bench(s: Spec, ids: list[str]) -> dict[str, Any]:
    tests = [
        {
            **facts(s, s.backbones[0], "honest", 4, 0, s.methods[0], t)["test"],
            "lesions": 2 * s.images // 3, "normals": s.images // 3,
            "classes": dict.fromkeys(CLASSES, s.images // 3) if t in s.tests else {},
            "patients": s.images // 4 if t in s.grouped else 0,
            "devices": {"Acme 3": 12, "Zeta <9>": 12} if t in s.grouped else {},
            "public": t in s.tests, "reason": None if t in s.tests else "not public",
        }
        for t in (*s.tests, *s.private)
    ]  # fmt: skip
    return {
        "status": "running",
        "recipe": {"name": s.name, "title": "Few-shot methods on breast ultrasound", "shots": list(s.shots),
                   "data": {"bus_uclm": {"root": "BUS-UCLM", "layout": "bus_uclm", "title": "BUS-UCLM"},
                            **{t: {"root": t} for t in (*s.tests, *s.private)}},
                   "test": [*s.tests, *s.private], "methods": list(s.methods),
                   "seeds": list(s.seeds), "protocols": list(s.protocols), "bootstrap": s.bootstrap,
                   "adapt": {"on": "bus_uclm", "split": "train"}, "reference": "",
                   "backbones": [{"name": b, "dtype": "float32"} for b in s.backbones]},
        "path": "recipes/fake.yaml",
        "reference": s.methods[0],
        "roots": {t: f"/data/{t}" for t in s.tests},
        "tests": tests,
        "supports": [
            {"digest": _code("support", k, seed) * 4, "file": f"supports/{_code('support', k, seed)}.json",
             "source": "bus_uclm", "shots": k, "seed": seed, "images": 3 * k, "patients": 2 * k, "ids": ["a"],
             "duplicates": {t: [["x.png", "y.png"]] if (k, seed, t) == (8, 0, "busi") else [] for t in s.tests}}
            for k in s.shots for seed in s.seeds
        ],
        "methods": [
            {"label": m, "method": m, "title": f"{m}, made up", "paper": "A. Author, 2024",
             "url": "https://example.org/paper", "reference": "owner/repo @ 1234567", "licence": "MIT",
             "outputs": [], "deviations": ["the last epoch is taken"]}
            for m in s.methods
        ],
        "jobs": {"planned": len(ids), "rows": ids},
        "versions": {"ultraad": "0.2.0", "torch": "2.9.0"},
        "machine": {"system": "Linux", "cores": 2},
        "started": "2026-01-02T03:00:00+00:00",
        "finished": None,
        "seconds": None,
    }  # fmt: skip
