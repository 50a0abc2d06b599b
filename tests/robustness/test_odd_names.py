"""Names that are no text, break the line, or command the terminal: the results are those of plain names."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapted import QUICK
from tests.helpers import picture, save
from ultraad.cli import main
from ultraad.data import sources
from ultraad.data.support import draw_support, load_support, save_support
from ultraad.errors import BundleError, LeakageError, printable
from ultraad.export import write
from ultraad.model.adapt import adapt, zero_shot
from ultraad.model.model import load
from ultraad.results.folder import read_errors, read_rows
from ultraad.runs.evaluate import evaluate
from ultraad.runs.predict import predict

ODD = {
    b"\xff": "\\xff",
    b"line\nbreak": "line\\nbreak",
    b"\x1b[31mred\x1b[0m": "\\x1b[31mred\\x1b[0m",
    "\u202egnp".encode(): "\\u202egnp",
    "a\u2028b".encode(): "a\\u2028b",
    b"-o": "-o",
    "\u00e9\u00a0\u0645\u200c.".encode(): "\u00e9\u00a0\u0645\u200c.",
}
"""{stem of a file: how it is shown}."""


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same pictures of two classes, with odd names in an odd folder, and with plain names in the same order.

    The order decides which pictures are in a batch together, and their places in it the last bit of a probability.
    """
    place = {shown: n for n, shown in enumerate(sorted(ODD.values()))}
    root = tmp_path_factory.mktemp("names")
    odd, plain = root / os.fsdecode(b"odd \xfe\n"), root / "plain"
    for c, label in enumerate(("normal", "benign")):
        for n, stem in enumerate(ODD):
            image = picture(1000 * c + n, lesion=label == "benign")[0]
            try:
                save(odd / label / (os.fsdecode(stem) + ".png"), image)
            except (OSError, UnicodeError):
                pytest.skip("this file system takes only names that are text")
            save(plain / label / f"{place[ODD[stem]]}.png", image)
    return odd, plain


def test_printable() -> None:
    assert {printable(os.fsdecode(name)): shown for name, shown in ODD.items()} == {s: s for s in ODD.values()}
    assert printable("a\nb\x07", keep="\n") == "a\nb\\x07"
    assert printable("\ud800") == "\\ud800"


def test_ids_and_classes_are_text_in_one_line(twins: tuple[Path, Path]) -> None:
    found = sources.scan(twins[0])
    assert {s.id for s in found} == {f"{label}/{s}.png" for label in ("normal", "benign") for s in ODD.values()}
    assert all(s.image.is_file() for s in found)
    assert {s.label for s in sources.scan(twins[0].parent, layout="folder")} == {"odd \\xfe", "plain"}


def test_odd_names_give_the_results_of_plain_ones(twins: tuple[Path, Path], tmp_path: Path) -> None:
    scores = []
    for root in twins:
        out = tmp_path / root.name
        found = evaluate(zero_shot(backbone="tiny"), root, output=out, bootstrap=0)
        assert (out / "report.html").read_text(encoding="utf-8")
        scores.append((found["metrics"], sorted(row.score for row in read_rows(out))))
    assert scores[0] == scores[1]


def test_a_model_of_odd_names_knows_its_images(twins: tuple[Path, Path], tmp_path: Path) -> None:
    support = draw_support(twins[0], shots=2)
    save_support(support, tmp_path / os.fsdecode(b"support\xff.json"))
    assert load_support(tmp_path / os.fsdecode(b"support\xff.json")) == support
    folder = adapt(support, backbone="tiny", options=QUICK).save(tmp_path / os.fsdecode(b"\xff\n"))
    model = load(folder)
    with pytest.raises(LeakageError, match=r"4 support image\(s\)"):
        evaluate(model, twins[0])
    assert evaluate(model, twins[0], leaks="drop", bootstrap=0)["n"]["images"] == 2 * len(ODD) - 4
    with pytest.raises(BundleError, match="no valid text"):
        write.export(model, tmp_path / os.fsdecode(b"\xff"))


def test_a_run_over_odd_names_is_written_listed_and_resumed(
    twins: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / os.fsdecode(b"in\xff"), tmp_path / os.fsdecode(b"out\xff")
    root.mkdir()
    for path in (twins[0] / "benign").iterdir():
        (root / path.name).write_bytes(path.read_bytes())
    bad = root / os.fsdecode(b"bad\n\x1b[2J\xff.png")
    bad.write_bytes(b"no picture")
    with pytest.raises(SystemExit) as end:
        main(["predict", "zero-shot", str(root), "-o", str(out), "--backbone", "tiny", "--save", "boxes"])
    told = capsys.readouterr()
    assert end.value.code == 3
    assert f"{len(ODD)} predicted, 1 failed" in told.out
    assert "/bad\\n\\x1b[2J\\xff.png is not an image" in told.err
    assert "\x1b[2J" not in told.err + told.out
    ((id_, reason),) = read_errors(out)
    assert id_.endswith("/bad\\n\\x1b[2J\\xff.png")
    assert "\n" not in reason
    rows = list(read_rows(out))
    assert {Path(row.image).name for row in rows} == {os.fsdecode(name) + ".png" for name in ODD}, "paths stay exact"
    listed = json.loads((out / "coco.json").read_text(encoding="utf-8"))["images"]
    assert all((out / image["file_name"]).is_file() for image in listed)
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as table:
        assert [line["id"] for line in csv.DictReader(table)] == [row.id for row in rows]
    again = predict(zero_shot(backbone="tiny"), root, out, save=["boxes"])
    assert (again.predicted, again.skipped, len(again.failed)) == (0, len(ODD), 1)


@pytest.mark.parametrize("words", [("predict", "zero-shot", "NAME", "-o", "out"), ("data", "check", "NAME")])
def test_a_name_that_is_too_long_is_one_error(words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([word.replace("NAME", "x" * 300) for word in words])
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "cannot be looked up" in told


def test_letters_that_the_terminal_lacks_are_escapes(tmp_path) -> None:
    save(tmp_path / "in" / "b\u00e9nin" / "1.png", picture(1, lesion=True)[0])
    told = subprocess.run(
        [sys.executable, "-m", "ultraad.cli", "data", "check", str(tmp_path / "in")],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert b"b\\xe9nin" in told.stdout
    assert b"Traceback" not in told.stderr
