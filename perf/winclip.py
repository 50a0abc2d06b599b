"""WinCLIP against anomalib's, with the same weights, images and sentences: maps and scores equal within 1e-4.

    python -m perf.winclip --peer /path/to/peer/bin/python -o perf/results/winclip.json

Measured with anomalib 2.7.0 and open_clip 2.24.0. anomalib needs ``open_clip_torch<2.26.1``: it passes windows to
the tower with tokens first; newer towers expect the batch first, so that windows would attend to each other. ultraad
needs ``open_clip_torch>=3.3``. The peer therefore runs in its own environment, as a process that is called in turns:

    python -m venv peer
    peer/bin/pip install "torch==<the version installed here>" torchvision open_clip_torch==2.24.0
    peer/bin/pip install anomalib==2.7.0

Both sides use the tower that anomalib builds, ViT-B-16-plus-240, with the same random weights. Only one thing is
replaced in anomalib: its call of ``open_clip.create_model_and_transforms``, which would download weights. Texts and
references are set up before the clock starts; ``WinCLIP.score`` and ``WinClipModel.forward`` are timed. The images are
simulated.

``gflop_ours`` and ``gflop_peer`` count the operations of a tower for one image; ``gflop_ratio`` is the possible gain.
One turn with batch 8 takes 1e13 operations, so the default is batch 1; ``--batches 1 8`` adds it.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from perf.timing import Row, arguments, compared, finish, in_turns
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultraad.backbones._door import Backbone
    from ultraad.methods.winclip import WinCLIP
    from ultraad.types import Scores

BACKBONE = "ViT-B-16-plus-240"  # anomalib's
NEAR = 1e-4
WANTED = 'it needs anomalib and "open_clip_torch<2.26.1"; see the head of perf/winclip.py'
ROOT = Path(__file__).resolve().parents[1]


# These functions run in the environment of the peer.


def anomalib_model(weights: dict[str, torch.Tensor], class_name: str) -> Any:  # noqa: ANN401
    """The ``WinClipModel`` of anomalib with these weights of the tower.

    Raises:
        ImportError: If anomalib is missing, or open_clip is one that anomalib does not work with.
    """
    from ultraad.backbones._torchvision import ensure_torchvision

    ensure_torchvision()
    import open_clip
    from anomalib.models.image.winclip import torch_model

    if "batch_first" in inspect.signature(open_clip.transformer.Transformer).parameters:
        msg = "this open_clip takes tokens in another order than anomalib gives them"
        raise ImportError(msg)
    create = open_clip.create_model_and_transforms

    def without_download(name: str, *, pretrained: str) -> Any:  # noqa: ANN401, ARG001
        model, *transforms = create(name)
        model.load_state_dict(weights)
        return model, *transforms

    open_clip.create_model_and_transforms = without_download
    return torch_model.WinClipModel(class_name).eval()


def serve() -> None:
    """Answer requests, one JSON object per line, until standard input ends."""
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # keeps prints of anomalib out of the answers
    model, images = None, torch.empty(0)
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if request["do"] == "load":
            torch.set_num_threads(request["threads"])
            try:
                model = anomalib_model(load_file(request["weights"]), request["class_name"])
            except ImportError as e:
                answer["missing"] = str(e)
        elif request["do"] == "setup":
            model.setup(reference_images=load_file(request["file"])["images"])
        elif request["do"] == "images":
            images = load_file(request["file"])["images"]
        elif request["do"] == "run":
            result = model(images)
        elif request["do"] == "result":
            save_file({"score": result.pred_score, "map": result.anomaly_map.contiguous()}, request["file"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Peer:
    """The model of anomalib in a process of another interpreter.

    Args:
        process: Runs :func:`serve`.
        folder: For tensors in both directions.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def ask(self, do: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """One request and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            msg = f"the peer's process ended at {do!r}; its own words are above"
            raise SystemExit(msg)
        return json.loads(line)

    def give(self, do: str, images: torch.Tensor) -> None:
        """Send images f32 (b 3 s s)."""
        save_file({"images": images}, self._folder / "images.safetensors")
        self.ask(do, file=str(self._folder / "images.safetensors"))

    def result(self) -> dict[str, torch.Tensor]:
        """Score (b) and map (b s s) of the last run."""
        self.ask("result", file=str(self._folder / "result.safetensors"))
        return load_file(self._folder / "result.safetensors")


@contextmanager
def peer_process(python: str) -> Iterator[Peer]:
    """A :class:`Peer` inside the block; ``python`` is its interpreter."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [python, "-c", "from perf.winclip import serve; serve()"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process,
    ):
        yield Peer(process, Path(folder))
        process.stdin.close()  # it ends


def gflop(backbone: Backbone, sizes: tuple[int, ...], *, whole: bool) -> float:
    """Products of the transformer for one image and all its windows, in 1e9 operations (a multiply and an add are two).

    Per token and block: 4 w^2 in the projections, 8 w^2 in the MLP, 2 m w in the attention over m tokens.

    Args:
        backbone: The tower.
        sizes: Sides of the windows.
        whole: Whether the last block runs on all tokens of a window, or only on what the class token needs.
    """
    w, layers, (gh, gw) = backbone.width, backbone.layers, backbone.grid

    def block(m: int) -> int:
        return m * (12 * w * w + 2 * m * w)

    def last(m: int) -> int:
        return 2 * m * w * w + 10 * w * w + 2 * m * w  # keys and values of all tokens, the rest of one

    total = layers * block(1 + gh * gw)
    for size in sizes:
        m = 1 + size * size
        each = layers * block(m) if whole else (layers - 1) * block(m) + last(m)
        total += (gh - size + 1) * (gw - size + 1) * each
    return 2 * total / 1e9


def check(ours: Scores, peer: dict[str, torch.Tensor], what: str) -> dict[str, float]:
    """Largest differences of scores and maps, and the range of the maps.

    Random weights give flat maps, so a map may differ by :data:`NEAR` of its range, not of 1.

    Raises:
        SystemExit: If one differs by more: the times would not be comparable.
    """
    assert ours.map is not None
    found = {
        "score_difference": (ours.score - peer["score"]).abs().max().item(),
        "map_difference": (ours.map - peer["map"]).abs().max().item(),
        "map_range": (peer["map"].amax() - peer["map"].amin()).item(),
    }
    if not (found["score_difference"] <= NEAR and found["map_difference"] <= NEAR * found["map_range"]):
        msg = f"{what}: ours and anomalib's differ by more than {NEAR}: {found}"
        raise SystemExit(msg)
    return found


def pictures(backbone: Backbone, seeds: range, label: str | None = None) -> torch.Tensor:
    """Simulated images f32 (b 3 s s), preprocessed, one per seed."""
    from ultraad.data.preprocess import Preprocess
    from ultraad.simulate import simulate

    preprocess = Preprocess(backbone.preprocess)
    images = torch.zeros(len(seeds), 3, backbone.size, backbone.size)
    for image, seed in zip(images, seeds, strict=True):
        image.copy_(preprocess.image(simulate(seed, label=label).image)[0])
    return images


def fit(method: WinCLIP, references: torch.Tensor) -> None:
    """Adapt on normal images; zero-shot without any."""
    from ultraad.types import Batch, Geometry

    s = method.backbone.size
    geometry = Geometry((s, s), s, (1.0, 1.0), pad=(0, 0), content_hw=(s, s))
    ids = tuple(str(i) for i in range(len(references)))
    labels = torch.zeros(len(ids), dtype=torch.long)
    method.fit(Batch(ids, references, (geometry,) * len(ids), method.classes, labels), seed=0)


@torch.no_grad()
def rows_of(peer: Peer, *, threads: int, batches: list[int], shots: list[int], turns: int, folder: Path) -> list[Row]:
    """A row for every number of shots and batch size; none if a package of the peer is missing."""
    import ultraad
    from ultraad.methods.winclip import WinCLIP, WinCLIPConfig
    from ultraad.texts.bank import breast_texts

    backbone = ultraad.load_backbone(f"open_clip:{BACKBONE}")
    weights = folder / "weights.safetensors"
    save_file({name: x.contiguous() for name, x in backbone.model.state_dict().items()}, weights)
    answer = peer.ask("load", weights=str(weights), class_name=breast_texts().object, threads=threads)
    if "missing" in answer:
        print(f"no row: {answer['missing']}. {WANTED}")
        return []
    config = WinCLIPConfig(states="industrial", templates="anomalib", tau=0.07)  # anomalib's conventions
    method = WinCLIP(backbone, config, classes=("normal", "abnormal"), normal_class="normal")
    work = {whole: gflop(backbone, config.windows, whole=whole) for whole in (False, True)}
    rows = []
    for k in sorted(shots):  # anomalib cannot forget references
        references = pictures(backbone, range(100, 100 + k), "normal")
        fit(method, references)
        if k:
            peer.give("setup", references)
        for size in batches:
            images = pictures(backbone, range(size))
            peer.give("images", images)
            ours: list[Scores] = []
            seconds = in_turns(
                lambda images=images, ours=ours: ours.append(method.score(images)),
                lambda: peer.ask("run"),
                turns=turns,
            )
            what = f"WinCLIP predict, {BACKBONE}, {k} shots, batch {size}, fp32"
            detail = {
                **check(ours[-1], peer.result(), what),
                "gflop_ours": round(work[False], 1),
                "gflop_peer": round(work[True], 1),
                "gflop_ratio": round(work[True] / work[False], 3),
            }
            rows.append(compared(what, "anomalib WinClipModel", seconds, kind="speedup", must=3, aim=8, **detail))
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--peer", default=sys.executable, help="Python with anomalib; default: this one")
    parser.add_argument("--batches", type=int, nargs="+", default=[1], help="images per batch")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 1, 4], help="normal reference images")
    parser.add_argument("--turns", type=int, default=3, help="turns per row; each is one call of both sides")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder, peer_process(args.peer) as peer:
        rows = rows_of(
            peer,
            threads=torch.get_num_threads(),
            batches=args.batches,
            shots=args.shots,
            turns=args.turns,
            folder=Path(folder),
        )
    finish(rows, args.output if rows else None)


if __name__ == "__main__":
    main()
