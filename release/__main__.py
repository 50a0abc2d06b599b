"""``python -m release``: build wheel and sdist, try them in clean environments, and write what goes with them.

Every step is printed with what it measured; the first that fails ends the release. Nothing is uploaded.

    python -m release                      everything, into dist/
    python -m release --key ~/.ssh/id_ed25519    and a signature of the digests
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from release.licences import Package, listed, refused

ROOT = Path(__file__).parents[1]
LARGEST = 60e6  # bytes of the wheel
CPU_TORCH = "https://download.pytorch.org/whl/cpu"
EXTRAS = "deidentify,dicom,dicom-codecs,export,onnx,openvino,ray,serve,voice,xlsx"  # what users may add
MUST_SHIP = ("serve/static/assets/licences.txt", "data/bus_bra/LICENSE.txt", "backbones/pretrained/embedded.md")
NAMESPACE = "ultraad-release"  # of the signature: what ssh-keygen calls what is signed
SUMS = "SHA256SUMS"


def say(text: str) -> None:
    print(text, flush=True)


def call(*words: str | Path, cwd: Path = ROOT, **more: str) -> str:
    """The output of a command; its messages and the end of the release if it fails."""
    say(f"$ {' '.join(map(str, words))}")
    environment = {**os.environ, **more}
    environment.pop("PYTHONPATH", None)  # what is tried is the wheel, not this tree
    done = subprocess.run([*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}\nthe command above failed: nothing was released")
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """(wheel, sdist), with the time of the last commit in every file."""
    moment = call("git", "log", "-1", "--format=%ct").strip()
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT, SOURCE_DATE_EPOCH=moment)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_wheel(wheel: Path) -> None:
    """Size, notices, and a description whose links work on a page of the package index."""
    size = wheel.stat().st_size
    if size > LARGEST:
        sys.exit(f"{wheel.name} has {size / 1e6:.1f} MB; wanted at most {LARGEST / 1e6:.0f}")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (metadata,) = (packed.read(n).decode() for n in names if n.endswith(".dist-info/METADATA"))
    if missing := [name for name in MUST_SHIP if f"ultraad/{name}" not in names]:
        sys.exit(f"{wheel.name} does not hold {', '.join(missing)}")
    if "](docs/" in metadata or "](src/" in metadata:
        sys.exit("the description has a relative link, which leads nowhere on the package index")
    say(f"{wheel.name}: {size / 1e6:.1f} MB, {len(names)} files")


def environment(folder: Path) -> Path:
    """The scripts of a new, empty virtual environment."""
    call(sys.executable, "-m", "venv", folder)
    return folder / ("Scripts" if os.name == "nt" else "bin")


def install(scripts: Path, *what: str | Path) -> None:
    """Install with the versions that were tested, and on Linux torch without CUDA."""
    more = ["--extra-index-url", CPU_TORCH] if sys.platform == "linux" else []
    call(scripts / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *more, *what)


def try_wheel(wheel: Path, folder: Path) -> Path:
    """Install with all dependencies, run doctor and demo; the scripts of the environment."""
    scripts = environment(folder / "whole")
    install(scripts, wheel)
    for words in (["--version"], ["doctor"], ["demo", "-o", "demo"]):
        say(call(scripts / "ultraad", *words, cwd=folder))
    return scripts


def try_uvx(wheel: Path, folder: Path) -> None:
    """Run the demo by uv with an empty cache: nothing is installed. UV_FIND_LINKS says where torch for the CPU lies."""
    backend = [] if "UV_FIND_LINKS" in os.environ else ["--torch-backend", "cpu"]
    words = [sys.executable, "-m", "uv", "tool", "run", "--constraints", ROOT / "constraints.txt", *backend]
    more = {"UV_CACHE_DIR": str(folder / "uv-cache"), "UV_TOOL_DIR": str(folder / "uv-tools")}
    say(call(*words, "--from", wheel, "ultraad", "demo", "-o", "by-uv", cwd=folder, **more))


def try_light(wheel: Path, folder: Path) -> None:
    """Install without torch, and predict with what the package holds."""
    scripts = environment(folder / "light")
    call(scripts / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    needs = ROOT / "requirements-edge.txt"
    install(scripts, "-r", needs, "onnxruntime")
    call(scripts / "ultraad", "data", "samples", "-o", "samples", cwd=folder)
    say(call(scripts / "ultraad", "doctor", cwd=folder))
    say(call(scripts / "ultraad", "predict", "zero-shot", "samples/Images", "-o", "light", cwd=folder))


def describe(scripts: Path, bill: Path) -> list[Package]:
    """Write the SBOM of an environment; its packages and their licences.

    Raises:
        SystemExit: If a package is under the GPL or AGPL, or says no licence.
    """
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    call(*tool, "--pyproject", ROOT / "pyproject.toml", "-o", bill, scripts / "python")
    packages = listed(json.loads(bill.read_text(encoding="utf-8")))
    if found := refused(packages):
        sys.exit(f"under a licence that must not be needed at run time, or under none: {'; '.join(found)}")
    say(f"{bill.name}: {len(packages)} packages; none under the GPL or AGPL")
    return packages


def sign(out: Path, key: Path | None) -> None:
    """Digests of all files and, with a key, their signature."""
    files = sorted(path for path in out.iterdir() if not path.name.startswith(SUMS))
    (out / SUMS).write_text("".join(f"{digest(path)}  {path.name}\n" for path in files), encoding="utf-8")
    if key is None:
        say(f"{SUMS} is not signed: give --key")
    else:
        call("ssh-keygen", "-Y", "sign", "-f", key, "-n", NAMESPACE, out / SUMS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="an older release in it is replaced")
    parser.add_argument("--key", type=Path, help="private SSH key that signs the digests")
    given = parser.parse_args()
    out = given.output.resolve()
    if call("git", "status", "--porcelain").strip():
        sys.exit("there are changes that are not committed; a release is made of a commit")
    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]
    if "example.org" in address:
        say(f"warning: the address of the repository is a placeholder ({address}); see docs/releasing.md")
    if "unreleased" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"):
        say("warning: CHANGELOG.md calls this version unreleased; see docs/releasing.md")
    with tempfile.TemporaryDirectory() as scratch:
        first, second, tried = (Path(scratch) / name for name in ("first", "second", "tried"))
        tried.mkdir()
        pair, again = build(first), build(second)
        if different := [a.name for a, b in zip(pair, again, strict=True) if digest(a) != digest(b)]:
            sys.exit(f"built twice with different bytes: {', '.join(different)}")
        say("built twice: the same bytes")
        call(sys.executable, "-m", "twine", "check", "--strict", *pair)
        check_wheel(pair[0])
        scripts = try_wheel(pair[0], tried)
        try_uvx(pair[0], tried)
        try_light(pair[0], tried)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(first, out)
        shutil.copy(ROOT / "requirements-edge.txt", out)
        describe(scripts, out / "sbom.cdx.json")
        install(scripts, f"{pair[0]}[{EXTRAS}]")
        packages = describe(scripts, out / "sbom-extras.cdx.json")
        (out / "licences.csv").write_text("".join(f"{','.join(p)}\n" for p in packages), encoding="utf-8")
        call(scripts / "python", "-m", "pip", "uninstall", "--yes", "ultraad")
        if left := [path.name for path in (tried / "whole").rglob("ultraad*")]:
            sys.exit(f"uninstalling left {', '.join(left)}")
        say("uninstalled: nothing is left")
    sign(out, given.key)
    say(f"released into {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


if __name__ == "__main__":
    main()
