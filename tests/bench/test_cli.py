"""``ultraad bench run`` from outside."""

from __future__ import annotations

import pytest
import yaml

from tests.bench.conftest import TOY
from ultraad.bench.results import Results
from ultraad.cli import main


@pytest.fixture
def bench(recipe, tmp_path, data, capsys):
    """Runs ``ultraad bench run`` on a recipe; gives (exit code, stdout, stderr)."""

    def run(*words, output=tmp_path / "out", base=("--data", data), **changes):
        file = tmp_path / "trial.yaml"
        file.write_text(yaml.safe_dump(recipe(**changes).model_dump(mode="json")))
        capsys.readouterr()
        command = ["bench", "run", file, "-o", output, *base, "--jobs", 1, "--device", "cpu", *words]
        with pytest.raises(SystemExit) as end:
            main([str(w) for w in command])
        return end.value.code or 0, *capsys.readouterr()

    return run


def test_run(bench, tmp_path):
    code, out, _ = bench("--set", "seeds=[3, 4]", "--keep-features")
    assert code == 0
    assert "toy, 1 shots, seed 3, honest, busi: image AUROC" in out
    assert "2 ok (0 were there already)" in out
    assert Results.open(tmp_path / "out").bench["path"].endswith("trial.yaml")
    assert any((tmp_path / "out" / "features").iterdir())
    assert "2 ok (2 were there already)" in bench("--set", "seeds=[3, 4]")[1]


def test_a_failed_row_is_said_and_ends_with_1(bench):
    methods = [{"name": "tests.bench.toys:Failing", "label": "bad"}, {"name": TOY, "label": "good"}]
    code, out, err = bench(methods=methods)
    assert code == 1
    assert "RuntimeError: this method always fails" in err
    assert "--retry-errors" in err
    assert "1 error, 1 ok" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--root", "busi"], "wanted NAME=DIR"),
        (["--root", "mvtec=x"], "the recipe has no data set mvtec"),
        (["--set", "seedz=[1]"], "did you mean seeds"),
        (["--set", "methods=[ultrad]"], "unknown method"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(bench, tmp_path, words, message):
    code, _, err = bench(*words)
    assert code == 1
    assert message in err
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_roots_by_name_are_enough(bench, data):
    code, out, _ = bench("--root", f"busi={data / 'busi'}", "--root", f"uclm={data / 'uclm'}", base=())
    assert code == 0
    assert "1 ok" in out


def test_compare_shows_what_differs(bench, tmp_path, capsys):
    bench(output=tmp_path / "a")
    bench("--set", "seeds=[1]", output=tmp_path / "b")
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "difference.html")])
    assert not end.value.code
    assert "Only in A" in capsys.readouterr().out
    assert "<html" in (tmp_path / "difference.html").read_text()
