"""``ultraad serve``: seconds from Adapt to the first map, and what boxes and scribbles are worth.

    python -m perf.page                                  # simulated images, the whole server over HTTP
    python -m perf.page --cycles 100                     # memory of server, worker and tab over 100 adaptations
    python -m perf.page --data ROOT --rules --boxes      # a labelled data set with masks: Dice of the rules, and
                                                         # adaptation to boxes and scribbles instead of masks

The speed is that of a user: a server in its own process, marks and jobs over HTTP, events as the page gets them. A
mark comes every second and a half, faster than any person; Adapt is pressed some seconds after the last one. The first
map is that of the first visible image. On a machine that does other work, ``worker_cpu_s`` says what a quiet one would
need at most: the processor time of the worker until the first map.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from perf.timing import Row, arguments, finish
from tests.e2e.serving import browsing, chromium

import ultraad
from ultraad.data.support import digest
from ultraad.io import read_image, read_mask
from ultraad.rng import seeded
from ultraad.serve.guess import from_box, from_scribble
from ultraad.serve.shapes import Mask, region, run_lengths
from ultraad.simulate import write_dataset
from ultraad.types import Sample, SupportSet

IMAGES = 248
VISIBLE = 24
BETWEEN = 1.5  # seconds between two marks
REST = 5.0  # seconds between the last mark and Adapt
GOALS = {4: 2.0, 16: 5.0}  # seconds to the first map, by images per class
RATE = 25.0  # images per second after the visible ones


class Client:
    """A browser, as far as the server can tell.

    Args:
        address: As the server prints it.
        server: Its process id.
    """

    def __init__(self, address: str, server: int) -> None:
        self.server = server
        found = re.fullmatch(r"http://([^/]+)/#code=(\S+)", address)
        assert found is not None
        self.host = found[1]
        self.cookie = ""
        _, headers, _ = self.ask("POST", "/api/session", {"code": found[2]})
        self.cookie = headers["set-cookie"].split(";")[0]
        self.events: list[tuple[float, float, str, dict[str, Any]]] = []  # at, processor seconds of the worker, ...
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection(self.host, timeout=600)
        headers = {"Cookie": self.cookie, "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(data) if data else None

    def _listen(self) -> None:
        connection = http.client.HTTPConnection(self.host)
        connection.request("GET", "/api/events", headers={"Cookie": self.cookie})
        answer, name = connection.getresponse(), ""
        while line := answer.readline().decode():
            key, _, value = line.strip().partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                self.events.append((time.perf_counter(), spent(self.worker), name, json.loads(value)))

    @property
    def worker(self) -> int | None:
        """Process id of the worker; None where /proc does not say it."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                parent = int(path.read_text().rpartition(")")[2].split()[1])
                if parent == self.server and b"serve.work" in path.with_name("cmdline").read_bytes():
                    return int(path.parent.name)
        return None

    def wait(self, done: Callable[[], bool], seconds: float = 600) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.05)


def spent(process: int | None) -> float:
    """Processor seconds of a process; not a number where /proc does not say it."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return float("nan")


def resident(process: int | None) -> float:
    """Megabytes of a process in memory."""
    with suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return float("nan")


@contextmanager
def server(data: Path, project: Path) -> Iterator[Client]:
    """A server on a new project."""
    command = [sys.executable, "-m", "ultraad.cli", "serve", str(data), "--project", str(project), "--no-browser"]
    process = subprocess.Popen([*command, "--device", "cpu", "--port", "8499"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = next(line for line in process.stdout if "code=" in line).split(": ", 1)[1].strip()
        yield Client(address, process.pid)
    finally:
        process.terminate()
        process.wait()


def rows_of(items: Sequence[dict[str, Any]], data: Path, *, shots: int) -> list[dict[str, Any]]:
    """Marks as a person makes them: a label for normal images, a brush stroke over the lesion of others."""
    counts: dict[str, int] = {}
    rows = []
    for item in items:
        label = item["name"].split("/")[0]
        counts[label] = counts.get(label, 0) + 1
        if counts[label] > shots:
            continue
        row = {"id": str(uuid.uuid4()), "image": item["id"], "frame": 0}
        if label == "normal":
            rows.append({**row, "kind": "label", "class": label})
            continue
        mask = read_mask([data / item["name"].replace(".png", "_mask.png")], shape=(item["height"], item["width"]))
        y, x = (float(v.mean()) for v in np.nonzero(mask))
        radius = float(np.sqrt(mask.sum() / np.pi))
        stroke = {"tool": "brush", "points": [x, y], "radius": radius, "lesion": str(uuid.uuid4()), "class": label}
        rows.append({**row, "kind": "stroke", **stroke})
    return rows


def speed(folder: Path, shots: int) -> list[Row]:
    """The rows of one adaptation."""
    data = folder / "data"
    if not data.is_dir():
        write_dataset(data, n=IMAGES, size=512, shares=(1, 1, 1))
    with server(data, folder / f"project-{shots}") as client:
        client.wait(lambda: client.ask("GET", "/api/project")[2]["images"] >= IMAGES)
        client.wait(lambda: (client.ask("GET", "/api/models")[2] or [{"predicted": 0}])[0]["predicted"] >= IMAGES)
        items = client.ask("GET", "/api/images?limit=1000")[2]["items"]
        rows = rows_of(items, data, shots=shots)
        for row in rows:
            client.ask("POST", "/api/marks", {"rater": "perf", "rows": [row]})
            time.sleep(BETWEEN)
        time.sleep(REST)
        marked = {row["image"] for row in rows}
        visible = [{"image": item["id"]} for item in items if item["id"] not in marked][:VISIBLE]
        client.events.clear()
        start, worked = time.perf_counter(), spent(client.worker)
        job = client.ask("POST", "/api/jobs", {"kind": "adapt", "visible": visible})[2]
        client.wait(lambda: client.ask("GET", f"/api/jobs/{job['number']}")[2]["state"] in ("done", "failed"))
        events = [(at - start, cpu - worked, name, what) for at, cpu, name, what in client.events]
    predicted = [(at, len(what["images"])) for at, _, name, what in events if name == "predictions"]
    models = [at for at, _, name, _ in events if name == "model"]
    first = predicted[0][0]
    seen = np.cumsum([n for _, n in predicted])
    all_visible = predicted[int(np.searchsorted(seen, VISIBLE))][0]
    rest = [(at, n) for (at, n), total in zip(predicted, seen, strict=True) if total > VISIBLE and at < models[-1]]
    rate = sum(n for _, n in rest) / (rest[-1][0] - all_visible)
    detail = {
        "first_map_s": round(first, 2),
        "worker_cpu_s": round(next(cpu for _, cpu, name, _ in events if name == "predictions"), 2),
        "visible_s": round(all_visible, 2),
        "thresholds_s": round(models[-1], 2),
        "marked": len(rows),
    }
    return [
        Row(
            f"page, {len(rows)} marked images: Adapt to the first visible map",
            f"{GOALS[shots]:g} s",
            "overhead",
            first / GOALS[shots],
            must=1.0,
            detail=detail,
        ),
        Row(f"page, {len(rows)} marked images: further images", "-", "rate", rate, must=RATE, detail=detail),
    ]


@contextmanager
def tab(client: Client) -> Iterator[Callable[[], float]]:
    """Gives the megabytes of a page that shows the results meanwhile: scripts and elements, after a collection.

    Not a number where there is no Chromium.
    """
    executable = chromium()
    if executable is None:
        yield lambda: float("nan")
        return
    name, _, value = client.cookie.partition("=")
    with browsing(executable) as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.add_cookies([{"name": name, "value": value, "url": f"http://{client.host}"}])
        page = context.new_page()
        page.goto(f"http://{client.host}/#/look")
        page.wait_for_selector(".tile img")
        session = context.new_cdp_session(page)
        session.send("Performance.enable")

        def megabytes() -> float:
            page.wait_for_timeout(500)  # answers to the news arrive
            session.send("HeapProfiler.collectGarbage")
            metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
            return float(metrics["JSHeapUsedSize"] / 1e6)

        yield megabytes


def memory(folder: Path, cycles: int) -> list[Row]:
    """Megabytes after as many cycles of a mark and an adaptation, against those after the tenth part of them."""
    data = folder / "data"
    data.parent.mkdir(parents=True)
    write_dataset(data, n=30, size=256, shares=(1, 1, 1))
    found: dict[int, tuple[float, float, float]] = {}
    with ExitStack() as stack:
        client = stack.enter_context(server(data, folder / "project"))
        client.wait(lambda: client.ask("GET", "/api/project")[2]["images"] >= 30)
        client.wait(lambda: (client.ask("GET", "/api/models")[2] or [{"predicted": 0}])[0]["predicted"] >= 30)
        items = client.ask("GET", "/api/images?limit=1000")[2]["items"]
        rows = rows_of(items, data, shots=4)
        client.ask("POST", "/api/marks", {"rater": "perf", "rows": rows})
        options = {"train.epochs": 2, "train.views": 2, "calibration.folds": 2}
        page = stack.enter_context(tab(client))
        for cycle in range(1, cycles + 1):
            dot = {"id": str(uuid.uuid4()), "tool": "brush", "points": [cycle, cycle], "radius": 3, "kind": "stroke"}
            stroke = {**rows[-1], **dot}
            client.ask("POST", "/api/marks", {"rater": "perf", "rows": [stroke]})
            job = client.ask("POST", "/api/jobs", {"kind": "adapt", "options": options})[2]
            client.wait(lambda n=job["number"]: client.ask("GET", f"/api/jobs/{n}")[2]["state"] in ("done", "failed"))
            for path in ("queue", "images?limit=200", f"models/{job['model']}", f"models/{job['model']}/changes"):
                client.ask("GET", f"/api/{path}")
            client.events.clear()
            found[cycle] = resident(client.server), resident(client.worker), page()
            print(cycle, *(round(mb, 1) for mb in found[cycle]), flush=True)
    early = max(1, cycles // 10)
    return [
        Row(
            f"page, memory of the {name} after {cycles} adaptations, against {early}",
            f"MB after {early}",
            "overhead",
            found[cycles][i] / found[early][i],
            must=1.1,
            detail={f"mb_{n}": round(found[n][i], 1) for n in (1, early, cycles // 2, cycles) if n in found},
        )
        for i, name in enumerate(("server", "worker", "tab"))
    ]


def box_of(mask: Mask, rng: np.random.Generator) -> list[float]:
    """A box as a hand draws it: each side off by about 5 % of the lesion."""
    rows, columns = np.nonzero(mask)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float64)
    size = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    return list(box + rng.normal(0, 0.05, 4) * size)


def scribble_of(mask: Mask, rng: np.random.Generator) -> list[float]:
    """A wavy line along the long axis, over half to nine tenths of the lesion."""
    rows, columns = np.nonzero(mask)
    points = np.stack([columns, rows], 1) + 0.5
    middle = points.mean(0)
    _, _, axes = np.linalg.svd(points - middle, full_matrices=False)
    along, across = (points - middle) @ axes[0], (points - middle) @ axes[1]
    share = rng.uniform(0.5, 0.9)
    centre = (along.min() + along.max()) / 2
    at = centre + (np.linspace(-0.5, 0.5, 12)) * np.ptp(along) * share
    off = np.sin(np.linspace(0, 7, 12)) * np.abs(across).max() * 0.25
    line = middle + at[:, None] * axes[0] + off[:, None] * axes[1]
    return [float(v) for v in line.ravel()]


def dice(a: Mask, b: Mask) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def marks_of(image: NDArray[np.uint8], mask: Mask, rng: np.random.Generator) -> dict[str, Mask]:
    """The same lesion marked in three quick ways."""
    from ultraad.serve.guess import _ellipse

    box = box_of(mask, rng)
    return {
        "ellipse in the box": _ellipse(mask.shape, tuple(box), 1.0),  # type: ignore[arg-type]
        "box": from_box(image, box),
        "scribble": from_scribble(image, scribble_of(mask, rng), 3.0),
    }


def lesions(root: Path, count: int) -> list[Sample]:
    """Some images with masks, in random order."""
    found = [s for s in ultraad.scan(root) if s.masks and s.mask_aligned and s.anomalous]
    return [found[i] for i in seeded(0, "page").permutation(len(found))[:count]]


def rules(root: Path, count: int) -> list[Row]:
    """Dice of each way of marking with the mask that experts drew."""
    found: dict[str, list[float]] = {}
    for sample in lesions(root, count):
        image = read_image(sample.image, frame=sample.frame)
        mask = read_mask(sample.masks, shape=image.shape[:2])
        for name, guess in marks_of(image, mask, seeded(0, sample.id)).items():
            found.setdefault(name, []).append(dice(guess, mask))
    return [
        Row(
            f"page, {name}: Dice with the expert's mask, {root.name}",
            "-",
            "report",
            float(np.mean(values)),
            float(np.quantile(values, 0.1)),
            float(np.quantile(values, 0.9)),
            detail={"images": len(values), "interval": "10 % to 90 % of the images"},
        )
        for name, values in found.items()
    ]


def with_marks(support: SupportSet, kind: str) -> SupportSet:
    """A support set whose masks are those that quick marks give."""
    samples = []
    for sample in support.samples:
        if not sample.anomalous or not sample.masks:
            samples.append(sample)
            continue
        image = read_image(sample.image, frame=sample.frame)
        mask = read_mask(sample.masks, shape=image.shape[:2])
        guess = marks_of(image, mask, seeded(0, sample.id))[kind]
        samples.append(replace(sample, masks=(region(run_lengths(guess), guess.shape),)))  # type: ignore[arg-type]
    hashes = [ultraad.data.support.content_hash(s) for s in samples]
    return replace(support, samples=tuple(samples), digest=digest((s.id for s in samples), hashes))


def boxes(root: Path, *, shots: int, seeds: int, tested: int) -> list[Row]:
    """How much worse a model is that was adapted to quick marks."""
    backbone = ultraad.load_backbone("embedded")
    cache = backbone.new_cache()
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        support = ultraad.draw_support(root, shots=shots, seed=seed, split=None)
        groups = {s.group for s in support.samples if s.group}
        ids = {s.id for s in support.samples}
        rest = [s for s in ultraad.scan(root) if s.id not in ids and s.group not in groups and s.mask_aligned]
        some = [rest[i] for i in seeded(0, "tested").permutation(len(rest))[:tested]]
        for kind in ("mask", "ellipse in the box", "box", "scribble"):
            given = support if kind == "mask" else with_marks(support, kind)
            model = ultraad.adapt(given, backbone=backbone, calibrate=False)
            with backbone.caching(cache):
                metrics = ultraad.evaluate(model, some, leaks="drop", bootstrap=0)["metrics"]
            found.setdefault(kind, []).append((metrics["image_auroc"]["value"], metrics["pixel_ap"]["value"]))
    base = np.array(found["mask"])
    return [
        Row(
            f"page, {shots} shots marked by {kind}: pixel AP, {root.name}",
            "masks",
            "report",
            float(np.mean(values, 0)[1]),
            detail={
                "difference_ap": round(float((np.array(values) - base).mean(0)[1]), 3),
                "difference_auroc": round(float((np.array(values) - base).mean(0)[0]), 3),
                "draws": seeds,
                "images": tested,
            },
        )
        for kind, values in found.items()
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="a labelled data set with masks, for --rules and --boxes")
    parser.add_argument("--rules", action="store_true", help="Dice of boxes and scribbles with masks")
    parser.add_argument("--boxes", action="store_true", help="adapt to boxes and scribbles instead of masks")
    parser.add_argument("--number", type=int, default=100, help="images for --rules, and evaluated for --boxes")
    parser.add_argument("--cycles", type=int, help="adapt so many times, and report memory")
    parser.add_argument("--shots", type=int, default=4, help="for --boxes")
    parser.add_argument("--seeds", type=int, default=3, help="draws for --boxes")
    args = parser.parse_args()
    rows: list[Row] = []
    if args.rules:
        rows += rules(args.data, args.number)
    if args.boxes:
        rows += boxes(args.data, shots=args.shots, seeds=args.seeds, tested=args.number)
    with tempfile.TemporaryDirectory() as folder:
        if args.cycles:
            rows += memory(Path(folder) / "cycles", args.cycles)
        if not (args.rules or args.boxes or args.cycles):
            rows = [row for shots in GOALS for row in speed(Path(folder), shots)]
    finish(rows, args.output)


if __name__ == "__main__":
    main()
