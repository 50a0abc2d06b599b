"""The command line from outside: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from tests.adapted import QUICK
from tests.helpers import picture, save, write_bus_uclm, write_busi, write_csv, write_dicom, write_folder
from ultraad import __version__
from ultraad.cli import as_click, demo, main
from ultraad.data.sources import scan
from ultraad.data.support import load_support
from ultraad.model.adapt import adapt
from ultraad.results.folder import read_rows

TINY = ("--backbone", "tiny", "--device", "cpu")


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


Cli = Callable[..., Finished]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: object) -> Finished:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(w) for w in words])
        text = capsys.readouterr()
        code = end.value.code
        return Finished(code if isinstance(code, int) else 0, text.out, text.err)

    return run


@pytest.fixture(scope="module")
def saved(folder_bundle: Path) -> Path:
    return folder_bundle


def refused(done: Finished, *texts: str) -> None:
    """Exit 1 with one clear message on stderr, and no traceback."""
    assert done.code == 1, done
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    for text in texts:
        assert text in done.err, done.err


def misused(done: Finished, *texts: str) -> None:
    """Exit 2 with how the command is used."""
    assert done.code == 2, done
    assert "Usage: " in done.err
    for text in texts:
        assert text in " ".join(done.err.split()), done.err


def test_every_step_from_support_set_to_report(cli: Cli, folder_dir: Path, busi_dir: Path, tmp_path: Path) -> None:
    support, model, out = tmp_path / "support.json", tmp_path / "model", tmp_path / "out"
    done = cli("support", "draw", folder_dir, "--shots", 2, "--seed", 3, "-o", support, "--against", busi_dir)
    assert done.code == 0, done.err
    assert len(load_support(support).samples) == 6
    assert load_support(support).digest in cli("support", "show", support).out
    settings = [w for k, v in QUICK.items() for w in ("--set", f"{k}={v}")]
    done = cli("adapt", support, "-o", model, *TINY, *settings)
    assert done.code == 0, done.err
    assert "thresholds: image" in done.out
    done = cli("predict", model, busi_dir / "benign", "-o", out, "--device", "cpu")
    assert (done.code, len(list(read_rows(out)))) == (0, 4)
    assert "4 predicted, 0 failed" in done.out
    again = cli("predict", model, busi_dir, "-o", out, "--device", "cpu")
    assert "8 predicted, 4 were there already" in again.out
    done = cli("evaluate", model, busi_dir, "-o", tmp_path / "ev", "--device", "cpu", "--bootstrap", 10)
    assert done.code == 0, done.err
    assert "image_auroc" in done.out
    assert (tmp_path / "ev" / "report.html").is_file()
    assert json.loads((tmp_path / "ev" / "run.json").read_text())["data"]["layout"] == "busi"


def test_zero_shot_in_place_of_a_model(cli: Cli, busi_dir: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.yaml"
    texts.write_text(
        "organ: breast\nobject: breast ultrasound\nclasses:\n  normal: {sentences: [A normal image.]}\n"
        "  lesion: {sentences: [An image with a lesion.]}\n"
    )
    done = cli("predict", "zero-shot", busi_dir / "benign", "-o", tmp_path / "out", *TINY, "--texts", texts)
    assert done.code == 0, done.err
    assert set(next(iter(read_rows(tmp_path / "out"))).probs) == {"normal", "lesion"}
    done = cli("evaluate", "zero-shot", busi_dir, "-o", tmp_path / "ev", *TINY, "--bootstrap", 0)
    assert done.code == 0, done.err


def test_a_detector_from_an_auxiliary_set(cli: Cli, folder_dir: Path, busi_dir: Path, tmp_path: Path) -> None:
    words = ("--method", "april_gan", "--auxiliary", busi_dir, "--set", "epochs=1", *TINY)
    done = cli("adapt", "-o", tmp_path / "zero", *words)
    assert done.code == 0, done.err
    assert "note: trained on an auxiliary set" in done.err
    assert json.loads((tmp_path / "zero" / "config.json").read_text())["origin"]["protocol"] == "auxiliary"
    refused(
        cli("evaluate", tmp_path / "zero", busi_dir, "-o", tmp_path / "ev", "--device", "cpu"),
        "12 auxiliary image(s)",
        "adapt again with another auxiliary set",
    )
    cli("support", "draw", folder_dir, "--shots", 1, "-o", tmp_path / "s.json")
    done = cli("adapt", tmp_path / "s.json", "-o", tmp_path / "few", *words, "--auxiliary-layout", "busi")
    assert done.code == 0, done.err
    origin = json.loads((tmp_path / "few" / "config.json").read_text())["origin"]
    assert (origin["protocol"], origin["shots"], origin["auxiliary"]["images"]) == ("few-shot", 1, 12)


def test_adapt_refuses_what_cannot_work(cli: Cli, busi_dir: Path, tmp_path: Path) -> None:
    refused(cli("adapt", "-o", tmp_path / "m"), "no images to adapt ultraad to", "a support set, an auxiliary set")
    refused(cli("adapt", "-o", tmp_path / "m", "--auxiliary", busi_dir), "cannot use an auxiliary set", "april_gan")
    words = ("--auxiliary", busi_dir / "normal", "--method", "april_gan")
    refused(cli("adapt", "-o", tmp_path / "m", *words), "normal")
    assert not (tmp_path / "m").exists()


def test_zero_shot_by_another_method(cli: Cli, saved: Path, busi_dir: Path, tmp_path: Path) -> None:
    done = cli("predict", "zero-shot", busi_dir / "benign", "-o", tmp_path / "out", *TINY, "--method", "winclip")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["model"]["method"] == "winclip"
    done = cli("evaluate", "zero-shot", busi_dir, "-o", tmp_path / "ev", *TINY, "--method", "coop", "--bootstrap", 0)
    assert done.code == 0, done.err
    refused(
        cli("predict", "zero-shot", busi_dir, "-o", tmp_path / "no", "--method", "mvfa"),
        "mvfa learns from images and has no zero-shot form",
        "winclip",
    )
    refused(cli("predict", saved, busi_dir, "-o", tmp_path / "no", "--method", "winclip"), "brings its own")


def test_options_come_from_files_and_words(cli: Cli, folder_dir: Path, tmp_path: Path) -> None:
    cli("support", "draw", folder_dir, "--shots", 1, "-o", tmp_path / "s.json")
    (tmp_path / "o.yaml").write_text("train:\n  epochs: 1\n  views: 2\npost:\n  refine: off\n")
    done = cli(
        *("adapt", tmp_path / "s.json", "-o", tmp_path / "m", *TINY, "--no-calibrate"),
        *("--config", tmp_path / "o.yaml", "--set", "train.views=1", "--set", "post.sigma=0"),
    )
    assert done.code == 0, done.err
    options = json.loads((tmp_path / "m" / "config.json").read_text())["options"]
    assert (options["train"]["epochs"], options["train"]["views"]) == (1, 1)
    assert (options["post"]["refine"], options["post"]["sigma"]) == ("off", 0)


def test_data_check_reports_and_fails_on_errors(cli: Cli, busi_dir: Path, tmp_path: Path) -> None:
    done = cli("data", "check", busi_dir)
    assert (done.code, "layout busi" in done.out) == (0, True)
    root = write_busi(tmp_path / "broken")
    (root / "benign" / "benign (2).png").write_bytes(b"")
    assert cli("data", "check", root).code == 1
    report = json.loads(cli("data", "check", root, "--json").out)
    assert any(f["severity"] == "error" for f in report["findings"])


def test_data_list(cli: Cli) -> None:
    names = cli("data", "list").out
    assert all(name in names for name in ("bus_uclm", "busi", "folder", "csv", "coco"))
    one = cli("data", "list", "bus_uclm").out
    assert "INFO.csv" in one
    assert "licence:" in one
    refused(cli("data", "list", "busy"), "did you mean 'busi'")


def test_methods_and_backbones(cli: Cli, tmp_path: Path) -> None:
    assert "ultraad" in cli("methods").out
    one = cli("methods", "ultraad").out
    assert "train.epochs" in one
    assert "calibration.folds" in one
    refused(cli("methods", "nonsense"), "unknown method 'nonsense'", "available: ")
    listed = cli("backbones", "list").out
    assert all(name in listed for name in ("embedded", "embedded-simulated", "open_clip:ViT-L-14-336-quickgelu/openai"))
    known = cli("backbones", "verify", "embedded-simulated")
    assert known.code == 0
    assert "embedded-simulated.safetensors" in known.out
    assert "verified: this is the known sha256 (embedded-simulated.sha256)" in known.out
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"abc")
    refused(cli("backbones", "verify", weights), "holds no weights")
    weights.write_bytes((2).to_bytes(8, "little") + b"{}")  # whole, and empty
    unknown = cli("backbones", "verify", weights)
    assert unknown.code == 3
    assert len(unknown.out.split("sha256 ")[1].strip()) == 64
    assert "nothing was compared" in unknown.err
    assert "verified" not in unknown.out
    refused(cli("backbones", "verify", tmp_path / "none"), "no weights file")
    refused(cli("backbones", "fetch", "tiny"), "can be fetched")


def test_simulate(cli: Cli, tmp_path: Path) -> None:
    done = cli("simulate", "-n", 6, "--size", 64, "-o", tmp_path / "sim")
    assert done.code == 0, done.err
    assert len([p for p in (tmp_path / "sim").rglob("*.png") if "_mask" not in p.name]) == 6


def test_the_demo_command_on_your_own_folder(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "adapt", lambda support, **options: adapt(support, **{**options, "options": QUICK}))
    root = write_folder(tmp_path / "mine", classes=("normal", "lump"))
    done = cli("demo", "--data", root, "-o", tmp_path / "out", "--backbone", "tiny")
    assert done.code == 0, done.err
    assert f"report    {tmp_path / 'out' / 'evaluation' / 'report.html'}" in done.out
    assert "image_auroc" in done.out


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"ultraad {__version__}\n"


def test_frames_of_a_cine(cli: Cli, saved: Path, dicom_dir: Path, tmp_path: Path) -> None:
    cine = dicom_dir / "normal" / "b.dcm"
    cli("predict", saved, cine, "-o", tmp_path / "all", "--device", "cpu")
    assert [r.frame for r in read_rows(tmp_path / "all")] == [0, 1, 2]
    cli("predict", saved, cine, "-o", tmp_path / "one", "--frame", 1, "--device", "cpu")
    assert [r.frame for r in read_rows(tmp_path / "one")] == [1]


def test_the_list_of_commands_says_what_each_does_in_full(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    words = " ".join(cli("--help").out.partition("Try it:")[2].split())
    assert "demo Run every step once: data, support set, adaptation, prediction, evaluation, report. simulate" in words
    assert "..." not in words
    words = " ".join(cli("backbones", "--help").out.split())
    assert "fetch Download weights and verify them; no other command downloads weights. verify" in words


def truncated(path: Path) -> None:
    save(path, picture(1, lesion=False)[0])
    path.write_bytes(path.read_bytes()[:200])


def huge(path: Path) -> None:
    Image.new("1", (20000, 20000)).save(path)


def dicom_without_pixels(path: Path) -> None:
    write_dicom(path, patient="P")
    ds = dcmread(path)
    del ds.PixelData, ds.Rows, ds.Columns
    ds.save_as(path)


BAD_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated": ("x.png", truncated, "may be truncated"),
    "empty": ("x.png", lambda p: p.write_bytes(b""), "empty"),
    "text": ("x.png", lambda p: p.write_text("Dear doctor,"), "is not an image"),
    "one pixel": ("x.png", lambda p: save(p, np.zeros((1, 1), np.uint8)), "1 x 1"),
    "huge": ("x.png", huge, "20000 x 20000"),
    "no pixels": ("x.dcm", dicom_without_pixels, "without pixels"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_one_bad_file_among_good_ones(cli: Cli, saved: Path, tmp_path: Path, kind: str) -> None:
    name, write, reason = BAD_FILES[kind]
    folder, out = tmp_path / "in", tmp_path / "out"
    save(folder / "good.png", picture(1, lesion=False)[0])
    write(folder / name)
    words = ("predict", saved, folder, "-o", out, "--device", "cpu")
    done = cli(*words)
    assert done.code == 3
    assert "1 predicted, 1 failed" in done.out
    assert name in done.err
    assert reason in done.err
    assert "Traceback" not in done.err
    (line,) = (out / "errors.jsonl").read_text(encoding="utf-8").splitlines()
    assert reason in json.loads(line)["error"]
    assert cli(*words, "--strict").code == 1
    (folder / "good.png").unlink()
    assert cli("predict", saved, folder, "-o", tmp_path / "none", "--device", "cpu").code == 1


def test_nothing_found(cli: Cli, saved: Path, tmp_path: Path) -> None:
    refused(cli("predict", saved, tmp_path / "no.png", "-o", tmp_path / "out"), "does not exist")
    (tmp_path / "empty").mkdir()
    refused(cli("predict", saved, tmp_path / "empty", "-o", tmp_path / "out"), "no images or videos in")


def test_mask_of_another_size(cli: Cli, saved: Path, tmp_path: Path) -> None:
    root = write_busi(tmp_path / "busi")
    save(root / "benign" / "benign (2)_mask.png", np.zeros((10, 12), np.uint8))
    done = cli("data", "check", root)
    assert done.code == 1
    assert "benign (2).png" in done.out
    done = cli("evaluate", saved, root, "-o", tmp_path / "out", "--device", "cpu", "--bootstrap", 0)
    assert done.code == 0, done.err
    assert "do not fit their image's pixel grid" in done.err
    known = {r.id: r.mask_known for r in read_rows(tmp_path / "out")}
    assert [id_ for id_, ok in known.items() if not ok] == ["benign/benign (2).png"]


def test_csv_with_a_missing_column(cli: Cli, tmp_path: Path) -> None:
    root = write_csv(tmp_path / "csv")
    table = root if root.suffix == ".csv" else root / "samples.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("image", "imgae", 1), encoding="utf-8")
    refused(
        cli("data", "check", table, "--layout", "csv"), "has a column 'imgae'; did you mean 'image'?", "Wanted: image"
    )


def test_a_class_with_fewer_images_than_shots(cli: Cli, folder_dir: Path, tmp_path: Path) -> None:
    done = cli("support", "draw", folder_dir, "--shots", 9, "-o", tmp_path / "s.json")
    refused(done, "has 4 image(s) to draw from", "wanted 9 shots")
    assert not (tmp_path / "s.json").exists()


def test_support_that_leaks_into_the_evaluation(cli: Cli, saved: Path, folder_dir: Path, tmp_path: Path) -> None:
    words = ("support", "draw", folder_dir, "--shots", 1, "-o", tmp_path / "s.json", "--against", folder_dir)
    refused(cli(*words), "3 support image(s)")
    assert not (tmp_path / "s.json").exists()
    words = ("evaluate", saved, folder_dir, "-o", tmp_path / "out", "--device", "cpu", "--bootstrap", 0)
    refused(cli(*words), "6 support image(s)")
    done = cli(*words, "--drop-support")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["leakage"]["dropped"] == 6
    assert "6 image(s) left out: in the support set, or of one of its patients" in done.out


def test_subgroups_on_the_screen(cli: Cli, saved: Path, busi_dir: Path, tmp_path: Path) -> None:
    words = ("evaluate", saved, busi_dir, "-o", tmp_path / "out", "--device", "cpu", "--bootstrap", 20)
    table = tmp_path / "facts.csv"
    table.write_text("image,probe\n" + "".join(f"{s.id},{s.label}\n" for s in scan(busi_dir)) + "gone.png,x\n")
    done = cli(*words, "--by-table", table)
    assert done.code == 2
    assert "no fact to compare; name columns of it with by= (--by)" in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()
    done = cli(*words, "--by-table", table, "--by", "probe")
    assert done.code == 0, done.err
    assert "p: permutation test of images, as no patient is known, against all other images" in done.out
    assert "warning: the table facts.csv has 1 row(s) that name no image: gone.png" in done.err


def test_tags_patients_and_splits_are_left_out(cli: Cli, tmp_path: Path) -> None:
    root = write_bus_uclm(tmp_path / "uclm")
    file = tmp_path / "s.json"
    words = ("support", "draw", root, "--shots", 1, "-o", file, "--exclude-tags", "marks", "--exclude-patients", "HESN")
    done = cli(*words, "--per-patient")
    assert done.code == 0, done.err
    found = [(s.label, s.group, s.tags) for s in load_support(file).samples]
    assert [label for label, _, _ in found] == ["normal", "benign", "malignant"]
    assert not any(group in ("HESN", "COPE") or "marks" in tags for _, group, tags in found)
    assert {group for label, group, _ in found if label != "normal"} == {"MENE"}, "all lesions of ALWI are marked"
    cli("support", "draw", root, "--shots", 1, "-o", file, "--split", "test")
    assert {s.group for s in load_support(file).samples} == {"COPE"}
    refused(cli("support", "draw", root, "--shots", 1, "-o", file, "--exclude-tags", "markz"), "did you mean 'marks'")


@pytest.mark.parametrize("name", ["config.json", "adapter.safetensors"])
def test_a_corrupted_bundle(cli: Cli, saved: Path, busi_dir: Path, tmp_path: Path, name: str) -> None:
    model = Path(shutil.copytree(saved, tmp_path / "model"))
    data = (model / name).read_bytes()
    (model / name).write_bytes(data[: len(data) // 2])
    refused(cli("predict", model, busi_dir, "-o", tmp_path / "out"), name, "damaged")


def test_a_bundle_of_another_backbone(cli: Cli, saved: Path, busi_dir: Path, tmp_path: Path) -> None:
    done = cli("predict", saved, busi_dir, "-o", tmp_path / "out", "--backbone", "tiny:uneven", "--device", "cpu")
    refused(done, "was adapted on tiny with weights", "tiny:uneven has weights")


def test_unknown_keys_and_values(cli: Cli, folder_dir: Path, saved: Path, tmp_path: Path) -> None:
    cli("support", "draw", folder_dir, "--shots", 1, "-o", tmp_path / "s.json")
    words = ("adapt", tmp_path / "s.json", "-o", tmp_path / "m", *TINY)
    refused(cli(*words, "--set", "train.epoch=3"), "unknown option 'train.epoch'; did you mean train.epochs")
    refused(cli(*words, "--set", "train.epochs=many"), "train.epochs: wanted whole number >= 0, found 'many'")
    misused(cli(*words, "--set", "train.epochs"), "wanted key=value")
    refused(cli("adapt", tmp_path / "s.json", "-o", tmp_path / "m", "--backbone", "tinny"), "unknown backbone 'tinny'")
    refused(cli("predict", saved, folder_dir, "-o", tmp_path / "o", "--set", "post.sigma=1"), "brings its own")
    assert not (tmp_path / "m").exists()


ORDER = "demo simulate serve data deidentify support adapt predict evaluate export dicom bench methods backbones doctor"


def test_the_help_lists_commands_in_the_order_of_work(cli: Cli) -> None:
    text = cli("--help").out
    found = re.findall(r"^  ([a-z]+)  ", text.partition("Options:")[0], flags=re.M)
    assert [name for name in found if name in ORDER.split()] == ORDER.split()
    assert re.findall(r"^(\w.*):$", text, flags=re.M) == [
        *("Try it", "Mark and adapt in the browser", "Prepare", "Adapt and use", "Compare", "Look up"),
        *("Options", "Example"),
    ]


def every_command() -> Iterator[list[str]]:
    """The words of every group and every command."""
    queue: list[tuple[list[str], Any]] = [([], as_click())]
    for words, command in queue:
        yield words
        queue += [([*words, name], inner) for name, inner in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("words", list(every_command()), ids=lambda words: " ".join(words) or "ultraad")
def test_every_help_fits_the_window_and_ends_with_an_example(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = cli(*words, "--help").out.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[-2] == "Example:"
    assert lines[-1].startswith("  ultraad")
    assert lines[-1].split()[1 : 1 + len(words)] == words
    assert not [line for line in lines if "<" in line.partition("  ")[0]], "no type in brackets"
    assert not re.search(r"x>=|\{", "\n".join(lines))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["adpat"], "'adapt'"),
        (["data", "chekc", "x"], "'check'"),
        (["bench", "reprot"], "'report'"),
        (["predict", "--ovelays"], "'--overlays'"),
        (["adapt", "s.json", "--outptu", "x"], "'--output'"),
        (["--versoin"], "'--version'"),
    ],
)
def test_a_misspelt_command_or_option_exits_with_2_and_suggests_the_right_one(
    cli: Cli, words: list[str], meant: str
) -> None:
    done = cli(*words)
    assert done.code == 2
    assert f"Did you mean {meant}" in done.err


def test_a_misspelt_method_layout_or_backbone_suggests_the_right_one(cli: Cli, busi_dir: Path, tmp_path: Path) -> None:
    cli("support", "draw", busi_dir, "--shots", 1, "-o", tmp_path / "s.json")
    words = ("adapt", tmp_path / "s.json", "-o", tmp_path / "m")
    refused(cli("methods", "tip_adaptor"), "did you mean 'tip_adapter'?")
    refused(cli(*words, *TINY, "--method", "cop"), "did you mean 'coop'?")
    refused(cli("support", "draw", busi_dir, "-o", tmp_path / "t", "--layout", "bussi"), "did you mean 'busi'?")
    refused(cli(*words, "--backbone", "embeded"), "did you mean 'embedded'?")


@pytest.mark.parametrize(
    "words", [["nonsense"], ["predict", "--nonsense"], ["adapt"], ["adapt", "x", "--dtype", "int8"]]
)
def test_wrong_commands_and_options_exit_with_2(cli: Cli, words: list[str]) -> None:
    assert cli(*words).code == 2


def test_paths_with_spaces_and_other_alphabets(cli: Cli, saved: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "Mamma Ultraschall für 患者")
    model = Path(shutil.copytree(saved, tmp_path / "Modell ñ 1"))
    out = tmp_path / "Ergebnisse [ä]"
    assert cli("predict", model, root, f"{root}/benign/*.png", "-o", out, "--device", "cpu").code == 0
    rows = list(read_rows(out))
    assert len(rows) == 12
    assert all((out / r.overlay).is_file() for r in rows)
    assert "für 患者" in (out / "predictions.csv").read_text(encoding="utf-8")
    assert cli("support", "draw", root, "--shots", 1, "-o", out / "Stütze.json").code == 0


def test_output_that_cannot_be_written(cli: Cli, saved: Path, folder_dir: Path, busi_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    cli("support", "draw", folder_dir, "--shots", 1, "-o", tmp_path / "s.json")
    refused(cli("predict", saved, busi_dir, "-o", file, "--device", "cpu"), "a file is in its place")
    refused(cli("evaluate", saved, busi_dir, "-o", file, "--device", "cpu"), "a file is in its place")
    refused(cli("adapt", tmp_path / "s.json", "-o", file / "model", *TINY), "a file is in its place")
    assert file.read_text() == "in the way"


def test_save_names_what_is_written(cli: Cli, saved: Path, busi_dir: Path, tmp_path: Path) -> None:
    def folders(*words: object) -> list[str]:
        found = cli("predict", saved, busi_dir / "benign", "-o", tmp_path / "out", "--device", "cpu", *words)
        assert found.code == 0, found.err
        written = sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir() or p.name == "coco.json")
        shutil.rmtree(tmp_path / "out")
        return [*written, *re.findall(r"--no-\w+ is now --\w+ none", found.err)]

    assert folders() == ["maps", "overlays"]
    assert folders("--save", "masks, boxes,contours") == ["coco.json", "contours", "masks"]
    assert folders("--save", "none") == []
    assert folders("--no-maps") == ["overlays", "--no-maps is now --maps none"]
    assert folders("--overlays", "none", "--maps", "grid") == ["maps"]
    assert folders("--save", "boxes", "--overlays", "top:1") == ["coco.json", "overlays"]
    wrong = cli("predict", saved, busi_dir, "-o", tmp_path / "out", "--device", "cpu", "--save", "mask")
    misused(wrong, "'mask' cannot be saved; did you mean 'masks'?")
    words = ("--overlays", "top", "--device", "cpu")
    misused(cli("predict", saved, busi_dir, "-o", tmp_path / "out", *words), "top:N with N at least 1")
    refused(cli("predict", saved, busi_dir, "-o", tmp_path / "out", "--runtime", "onnx"), "there is 'ultraad export'")


def test_read_only_output(cli: Cli, saved: Path, busi_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write anywhere")
    refused(cli("predict", saved, busi_dir, "-o", folder / "out", "--device", "cpu"), "cannot be written to")


def test_a_traceback_only_on_demand(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultraad.errors import BundleError

    refused(cli("predict", tmp_path / "none", tmp_path, "-o", tmp_path / "out"), "no such folder")
    monkeypatch.setenv("ULTRAAD_DEBUG", "1")
    with pytest.raises(BundleError):
        main(["predict", str(tmp_path / "none"), str(tmp_path), "-o", str(tmp_path / "out")])


def test_messages_keep_brackets(cli: Cli, tmp_path: Path) -> None:
    refused(cli("predict", tmp_path / "[red]model[/red]", tmp_path, "-o", tmp_path / "o"), "[red]model[/red]")


def test_ctrl_c_in_the_middle_of_a_long_run(cli: Cli, saved: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    first = save(folder / "0.png", picture(1, lesion=False, size=(256, 256))[0])
    for n in range(1, 300):
        os.link(first, folder / f"{n}.png")
    words = ["predict", str(saved), str(folder), "-o", str(out), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ultraad.cli", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells start background jobs deaf to it
    )
    deadline = time.monotonic() + 120
    lines = out / "predictions.jsonl"
    while process.poll() is None and time.monotonic() < deadline and not (lines.exists() and lines.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Run the same command again to resume" in err
    assert "Traceback" not in err
    done = [r.id for r in read_rows(out)]
    assert 0 < len(done) < 300
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    for row in read_rows(out):
        with Image.open(out / row.overlay) as picture_:
            picture_.load()
    for n in range(20, 300):
        (folder / f"{n}.png").unlink()
    again = cli(*words)
    assert again.code == 0
    assert set(done) <= {r.id for r in read_rows(out)}


def test_the_contributed_command_works_in_two_files(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    patches = re.findall(r"^```diff\n(.*?)^```$", page, flags=re.M | re.S)
    (patch,) = [text for text in patches if "cli/papers.py" in text]
    shutil.copytree(root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=tmp_path, check=True)

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "ultraad.cli", *words]
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "winclip: " in run("papers")
    assert "List the paper of each method." in run("--help")
