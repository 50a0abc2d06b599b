"""The documents are true: links resolve, commands parse, options exist, code runs, generated pages are current."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.build import pages

from tests import helpers
from ultraad import backbones, methods
from ultraad.cli import as_click
from ultraad.config import options, parse_assignments, resolve
from ultraad.data import sources
from ultraad.methods.ultraad.config import PAPER, UltraADConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
QUICK = {"train.epochs": 1, "train.views": 1, "calibration.folds": 2}


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code of one language ("" for none)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [code for name, code in found if name == language]


def prose(page: Path) -> str:
    """The page without fenced code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_relative_to(ROOT), f"{target} leaves the repository"
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}; there: {sorted(anchors(file))}"


def test_the_markdown_helpers_find_anchors_and_blocks(tmp_path: Path) -> None:
    page = tmp_path / "x.md"
    page.write_text(
        "# A `b` & c?\n\n```\n# no heading\n[no](link)\n```\n\n## 7. Own: words\n\n"
        "```python\nx = 1\n```\n\n```\ny\n```\n"
    )
    assert anchors(page) == {"a-b--c", "7-own-words"}
    assert blocks(page, "python") == ["x = 1\n"]
    assert blocks(page, "") == ["# no heading\n[no](link)\n", "y\n"]
    assert "link" not in prose(page)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every ``ultraad ...`` line in fenced code; ``\\`` goes on in the next line."""
    for block in [*blocks(page, ""), *blocks(page, "bash")]:
        for line in block.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ")
            if line.startswith("ultraad "):
                yield shlex.split(line, comments=True)[1:]


def parse(words: list[str]) -> dict[str, Any]:
    """The parameters a command line gives, without running it."""
    command: Any = as_click()
    while hasattr(command, "commands"):
        if words[0] in ("--version", "--help"):
            return {}
        command = command.commands[words[0]]
        words = words[1:]
    return dict(command.make_context(command.name, list(words)).params)


LINES = [(page_name(page), shlex.join(words)) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "line"), LINES)
def test_command_lines_parse(page: str, line: str) -> None:
    found = parse(shlex.split(line))
    if ":" not in (found.get("method") or ""):  # a method from outside is tested with its code
        config = methods.get(found.get("method") or "ultraad").Config
        resolve(config, _own(parse_assignments(found.get("settings") or ())))


def _own(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if not key.startswith("calibration.")}


def test_a_wrong_command_line_is_noticed() -> None:
    for line in ("adapt support.json", "predict model", "data chekc x", "evaluate model x -o y --shotz 3"):
        with pytest.raises(Exception, match=r"(?i)missing|chekc|shotz"):
            parse(shlex.split(line))


def test_enough_command_lines_were_found() -> None:
    pages = [page for page, _ in LINES]
    assert pages.count("README.md") >= 8
    assert pages.count("docs/tutorial.md") >= 15


def test_every_switch_of_the_method_page_exists() -> None:
    text = prose(ROOT / "docs" / "ultraad.md")
    sections = {o.key.partition(".")[0] for o in options(UltraADConfig) if "." in o.key}
    known = {o.key for o in options(UltraADConfig)}
    named = re.findall(rf"`((?:{'|'.join(sorted(sections))})\.(?:\w+|\*))(?:=([^`]+))?`", text)
    assert len(named) > 50
    for key, value in named:
        if key.endswith(".*"):
            continue
        assert key in known, key
        if value:
            more = [f"{key}={value}"]
            if more == ["pif.kv=raw"]:
                more += ["pif.residual=none"]
            if more == ["adapter.input=raw"]:
                more += ["adapter.init=default"]
            resolve(UltraADConfig, parse_assignments(more))


def test_every_row_of_the_ambiguity_register_is_there() -> None:
    text = prose(ROOT / "docs" / "ultraad.md")
    rows = re.findall(r"^\| (A\d+) \|.*$", text, flags=re.M)
    assert rows == [f"A{n}" for n in range(1, 23)]
    in_code = {a for o in options(UltraADConfig) for a in re.findall(r"\bA\d+\b", o.description)}
    assert in_code <= set(rows)


def test_defaults_and_presets_are_as_described() -> None:
    text = (ROOT / "docs" / "ultraad.md").read_text(encoding="utf-8")
    training = text[text.index("Training (A18)") :].partition("\n\n")[0]
    rows = re.findall(r"^\| [^|]+ \| ([^|]*`[a-z]+\.[^|]*) \| ([^|]*`[a-z]+\.[^|]*) \|$", text, flags=re.M)
    assert len(rows) == 15
    described = {"default": " ".join([*(ours for ours, _ in rows), training]), "paper": " ".join(p for _, p in rows)}
    for preset, words in described.items():
        config = UltraADConfig(preset=preset)
        given = re.findall(r"`([a-z]+\.\w+=[^`]+)`", words)
        assert len(given) >= 15
        for key, value in parse_assignments(list(dict.fromkeys(given))).items():
            section, _, name = key.partition(".")
            assert getattr(getattr(config, section), name) == value, f"{preset}: {key}"
    changed = {f"{section}.{name}" for section, values in PAPER.items() for name in values}
    assert not {key for key in changed if f"`{key}=" not in described["paper"]}


def test_every_switch_is_explained_somewhere_on_the_method_page() -> None:
    text = prose(ROOT / "docs" / "ultraad.md")
    starred = set(re.findall(r"`(\w+)\.\*`", text))
    missing = [
        o.key
        for o in options(UltraADConfig)
        if f"`{o.key}" not in text and not (o.key.partition(".")[0] in starred and "." in o.key)
    ]
    assert not missing


def test_the_readme_names_all_methods_layouts_and_backbones() -> None:
    text = prose(ROOT / "README.md")
    for package in (backbones, methods):
        for name in package.available():
            assert re.search(rf"^\|.*`{re.escape(name)}[`:]", text, flags=re.M), name
    (layouts,) = re.findall(r"^<!-- layouts -->\n(.*)\n<!-- /layouts -->$", text, flags=re.M)
    assert re.findall(r"`(\w+)`", layouts) == sources.available()


def run_block(block: str, replacements: dict[str, str]) -> dict[str, Any]:
    """The names a block leaves behind, with sizes and towers that a test can afford."""
    for there, here in replacements.items():
        assert there in block
        block = block.replace(there, here)
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def test_the_readme_block_runs_without_any_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in block.splitlines() if line and "import" not in line]) == 5
    quick = f'adapt(support, backbone="tiny", options={QUICK})'
    names = run_block(block, {"adapt(support)": quick})
    p, metrics = names["p"], names["metrics"]
    assert p.map.shape == (288, 213), "of the file, not of the model"
    assert 0 <= p.score <= 1
    assert sum(p.probs.values()) == pytest.approx(1, abs=1e-5)
    assert 0 < metrics["n"]["images"] < 48, "the patients of the support set are left out"
    assert metrics["metrics"]["pixel_auroc"]["value"] is not None
    assert metrics["metrics"]["benign_malignant_auroc"]["value"] is not None


def test_the_readme_is_short_and_keeps_its_warning() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    by_hand = re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", "", text, flags=re.S)
    assert len(by_hand.splitlines()) < 120, "with the generated tables, 150"
    assert "**For research only.** ultraad is not a medical device." in text
    assert "docs/images/report.png" in text


def test_the_tutorial_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    helpers.write_bus_uclm(tmp_path / "DATA" / "BUS-UCLM")
    helpers.write_busi(tmp_path / "DATA" / "Dataset_BUSI_with_GT")
    helpers.save(tmp_path / "scans" / "a.png", helpers.picture(7, lesion=True)[0])
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / "docs" / "tutorial.md", "python")
    quick = f'backbone="tiny", options={{"prior.cls": 0.25, **{QUICK}}}'
    model = run_block(block, {"shots=16": "shots=1", 'options={"prior.cls": 0.25}': quick, '"auto"': '"cpu"'})["model"]
    assert model.method.config.prior.cls == 0.25
    assert (tmp_path / "results" / "report.html").is_file()
    assert re.match(r"scans/a\.png 0\.\d+ (True|False)\n", capsys.readouterr().out)


def test_the_text_bank_of_the_tutorial_is_valid(tmp_path: Path) -> None:
    from ultraad.texts.bank import load_texts

    (block,) = blocks(ROOT / "docs" / "tutorial.md", "yaml")
    (tmp_path / "thyroid.yaml").write_text(block, encoding="utf-8")
    bank = load_texts(tmp_path / "thyroid.yaml")
    assert (bank.organ, list(bank.classes)) == ("thyroid", ["normal", "nodule"])


@pytest.fixture
def contributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path with the modules of CONTRIBUTING.md, named as the page says for outside the tree."""
    outside = {'name="nearest"': 'name="mylab.nearest:Nearest"', 'name="flat"': 'name="mylab.flat:SOURCE"'}
    for block in blocks(ROOT / "CONTRIBUTING.md", "python"):
        name = re.match(r"# (?:src/ultraad/[\w/]+|tests)/(\w+\.py)\n", block)
        assert name, "a python block of CONTRIBUTING.md begins with the file's path"
        path = tmp_path / "mylab" / name[1]
        path.parent.mkdir(exist_ok=True)
        for inside, name_outside in outside.items():
            block = block.replace(inside, name_outside)
        path.write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in [m for m in sys.modules if m.partition(".")[0] == "mylab"]:
        del sys.modules[module]


def test_the_contributed_method_works(contributed: Path, synthetic_dir: Path) -> None:
    import ultraad

    support = ultraad.draw_support(synthetic_dir, shots=1)
    model = ultraad.adapt(support, method="mylab.nearest:Nearest", backbone="tiny", options={"sharpness": 5.0})
    for sample in support.samples:  # with one image per class, each is its own class's mean
        p = model.predict(sample)
        assert p.probs is not None
        assert max(p.probs, key=lambda c: p.probs[c]) == sample.label
        assert p.score == pytest.approx(1 - p.probs["normal"], abs=1e-6)
        assert p.map is None
    model.save(contributed / "model")
    again = ultraad.load(contributed / "model").predict(support.samples[0])
    assert again.probs == model.predict(support.samples[0]).probs


def test_the_contributed_layout_works(contributed: Path) -> None:
    import ultraad

    root = contributed / "scans"
    for n, label in enumerate(("normal", "benign", "malignant")):
        image, mask = helpers.picture(50 + n, lesion=n > 0)
        helpers.save(root / f"{label}-p{n}-0.png", image)
        if n:
            helpers.save(root / f"{label}-p{n}-0.mask.png", mask)
    samples = ultraad.scan(root, layout="mylab.flat:SOURCE")
    assert [(s.label, s.group, s.anomalous, len(s.masks)) for s in samples] == [
        ("benign", "p1", True, 1),
        ("malignant", "p2", True, 1),
        ("normal", "p0", False, 0),
    ]
    assert ultraad.draw_support(root, shots=1, layout="mylab.flat:SOURCE").classes == ("normal", "benign", "malignant")


def test_the_contributed_backbone_works(contributed: Path, synthetic_dir: Path) -> None:
    import ultraad

    tower = ultraad.load_backbone("mylab.wide:BACKBONE")
    assert (tower.width, tower.size, tower.grid) == (128, 96, (6, 6))
    p = ultraad.zero_shot(backbone=tower).predict(next((synthetic_dir / "benign").glob("*0001.png")))
    assert p.map is not None


def test_every_written_field_is_described(tmp_path: Path, synthetic_dir: Path, folder_dir: Path) -> None:
    import ultraad
    from ultraad.data.support import save_support
    from ultraad.runs.predict import predict

    text = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    support = ultraad.draw_support(synthetic_dir, shots=2)
    save_support(support, tmp_path / "support.json")
    model = ultraad.adapt(support, backbone="tiny", options=QUICK)
    model.save(tmp_path / "model")
    predict(model, [synthetic_dir / "normal"], tmp_path / "run")
    metrics = ultraad.evaluate(model, folder_dir, bootstrap=0)
    metrics.pop("failed")  # for the caller; errors.jsonl has it

    def read(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / name).read_text(encoding="utf-8").splitlines()[0])
        return found

    def read_all(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        return found

    written = {
        "support.json": read_all("support.json"),
        "a sample": read_all("support.json")["samples"][0],
        "config.json": read_all("model/config.json"),
        "calibration": read_all("model/config.json")["calibration"],
        "origin": read_all("model/config.json")["origin"],
        "predictions.jsonl": read("run/predictions.jsonl"),
        "run.json": read_all("run/run.json"),
        "metrics.json": metrics,
        "metrics": metrics["metrics"],
        "counts": metrics["n"],
        "one metric": metrics["metrics"]["image_auroc"],
    }
    missing = {f"{what}: {key}" for what, record in written.items() for key in record if f"`{key}`" not in text}
    assert not missing


def test_citation_is_valid() -> None:
    from ultraad import __version__

    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cff.keys()  # the required keys of the standard
    assert cff["version"] == __version__
    assert len(cff["preferred-citation"]["authors"]) == 6


def test_the_changelog_knows_this_version() -> None:
    from ultraad import __version__

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{__version__}]" in text


def test_the_drawn_tree_is_the_tree() -> None:
    """Every path that docs/architecture.md draws exists, and every package and module of the top level is drawn."""
    (drawing,) = (b for b in blocks(ROOT / "docs" / "architecture.md", "") if b.startswith("pyproject.toml"))
    folder, drawn = ROOT, set()
    for line in drawing.splitlines():
        name = re.match(r"( {0,2})(\S+)", line)
        if name is None or line.startswith("   "):
            continue
        path = (folder if name[1] else ROOT) / name[2]
        folder = path if not name[1] and name[2].endswith("/") else folder
        assert list(path.parent.glob(path.name)) or path.is_dir(), f"{name[2]} is drawn but not there"
        drawn.add(path.resolve())
    package = ROOT / "src" / "ultraad"
    there = {p for p in package.iterdir() if p.name[0] not in "_." and p.suffix in ("", ".py")}
    assert not {p.name for p in there - drawn}


@pytest.mark.parametrize(("page", "text"), list(pages()), ids=lambda x: x.name if isinstance(x, Path) else "")
def test_generated_pages_are_current(page: Path, text: str) -> None:
    assert page.read_text(encoding="utf-8") == text, "run python -m docs.build"


def test_the_methods_page_has_every_method_and_the_results() -> None:
    page = ROOT / "docs" / "methods.md"
    found = page.read_text(encoding="utf-8")
    assert re.search(r"<!-- results -->\n.*<!-- /results -->\n", found, flags=re.S), "where the benchmark writes"
    assert set(methods.available()) <= anchors(page)


def test_every_method_is_listed_in_third_party_and_readme() -> None:
    third, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("THIRD_PARTY.md", "README.md"))
    for name in methods.available():
        info = methods.get(name).info
        assert re.search(rf"^\|.*`methods/{name}`", third, flags=re.M), name
        for commit in re.findall(r"\b[0-9a-f]{7}\b", info.reference):
            assert commit in third, f"{name}: {commit}"
        assert f"(docs/methods.md#{name})" in readme, name


def test_every_layout_with_a_citation_is_listed_in_third_party() -> None:
    section = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8").partition("\n## Data sets\n")[2]
    for name in sources.available():
        citation = sources.get(name).citation
        author = re.split(r" and | et al|,", citation)[0]
        assert not citation or author in section, f"{name}: {citation}"


@pytest.mark.parametrize("page", ["file-formats.md", "bench-format.md"])
def test_every_field_and_metric_is_described(page: str) -> None:
    rows = re.findall(r"^\| `[^`]+` \|.*\|$", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.M)
    assert len(rows) > 50
    assert not [row for row in rows if re.search(r"\| *\|", row)]


def test_every_promise_about_odd_files_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    page = re.sub(r"<!-- (\w+) -->.*<!-- /\1 -->", "", page, flags=re.S)  # what commands of perf/ have written
    folders = (".", "robustness", "serve", "e2e")
    source = "".join(p.read_text(encoding="utf-8") for f in folders for p in (ROOT / "tests" / f).glob("test_*.py"))
    promises = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    for line in promises:
        named = re.findall(r"`(test_\w+)`", line)
        assert named or line == "| promise | test |", line
        assert all(f"def {name}(" in source for name in named), line
    assert len(promises) > 20


def test_every_test_that_a_page_names_exists() -> None:
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")):
            assert f"def {name}(" in source, f"{page.name} names {name}"
