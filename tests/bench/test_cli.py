"""``ultraad bench`` on the command line."""

from __future__ import annotations

import pytest
import yaml

from tests.bench.conftest import TOY
from ultraad.bench.results import BenchFolder
from ultraad.cli import main


@pytest.fixture
def bench(recipe, tmp_path, data, capsys):
    """Runs ``ultraad bench run`` on a recipe; gives (exit code, stdout, stderr)."""

    def run(*words, output=tmp_path / "out", base=("--data", data), recipe_name=None, **changes):
        file = tmp_path / "trial.yaml"
        file.write_text(yaml.safe_dump(recipe(**changes).model_dump(mode="json")))
        capsys.readouterr()
        command = ["bench", "run", recipe_name or file, "-o", output, *base, "--jobs", 1, "--device", "cpu", *words]
        with pytest.raises(SystemExit) as end:
            main([str(w) for w in command])
        return end.value.code or 0, *capsys.readouterr()

    return run


def test_run_prints_each_row_and_a_summary(bench, tmp_path):
    code, out, _ = bench("--set", "seeds=[3, 4]", "--keep-features")
    assert code == 0
    assert "toy, 1 shots, seed 3, honest, busi: Image AUROC" in out
    assert "2 ok (0 from an earlier run)" in out
    assert BenchFolder.open(tmp_path / "out").bench.path.endswith("trial.yaml")
    assert any((tmp_path / "out" / "features").iterdir())
    assert "2 ok (2 from an earlier run)" in bench("--set", "seeds=3,4")[1]


def test_a_failed_row_is_reported_and_the_exit_code_is_1(bench):
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
        (["--set", "methods=ultrad"], "unknown method"),
        (["--set", "seeds=x"], "seeds: wanted list of whole numbers >= 0, e.g. 0,1,2, found "),
    ],
)
def test_mistakes_are_reported_before_any_work(bench, tmp_path, words, message):
    code, _, err = bench(*words, output=tmp_path / "new" / "out")
    assert code == 1
    assert message in err
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_a_shipped_recipe_runs_by_name(bench, data, tmp_path, capsys):
    code, out, err = bench(recipe_name="quick", base=(), output=tmp_path / "named")
    assert (code, out) == (1, "")
    assert "data set 'bus_uclm' has the relative root BUS-UCLM" in err
    code, _, err = bench(recipe_name="qiuck", output=tmp_path / "named")
    assert code == 1
    assert "there is no recipe 'qiuck'; did you mean 'quick'?" in err


def test_an_old_path_of_a_shipped_recipe_works_with_a_warning(bench, tmp_path):
    code, _, err = bench(recipe_name="recipes/quick.yaml", base=(), output=tmp_path / "named")
    assert code == 1
    assert "recipes/quick.yaml is now part of the package; write 'quick' instead" in err
    assert "data set 'bus_uclm' has the relative root BUS-UCLM" in err


def test_shipped_recipes_are_listed_with_their_titles(capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "recipes"])
    assert not end.value.code
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["quick", "A", "first", "look"] for line in lines)
    assert len(lines) >= 9


def test_roots_by_name_replace_the_data_folder(bench, data):
    code, out, _ = bench("--root", f"busi={data / 'busi'}", "--root", f"uclm={data / 'uclm'}", base=())
    assert code == 0
    assert "1 ok" in out


def test_compare_shows_the_differences(bench, tmp_path, capsys):
    bench(output=tmp_path / "a")
    bench("--set", "seeds=[1]", output=tmp_path / "b")
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "difference.html")])
    assert not end.value.code
    assert "Only in A" in capsys.readouterr().out
    assert "<html" in (tmp_path / "difference.html").read_text()
