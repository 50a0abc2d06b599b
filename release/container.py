"""``python -m release.container``: build the images of the Containerfile, try them, and write their SBOMs.

Linux, as root, with buildah, which keeps the images ``ultraad`` and ``ultraad:light``. Settings of pip in the
environment (``PIP_...``) and this machine's certificates are lent to the build.

    python -m release.container                              both, on the base that the Containerfile names
    python -m release.container --debian bookworm light      one, on a Debian of debootstrap, without any registry
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from release.__main__ import ROOT, call, say
from release.licences import listed, refused

IMAGES = {"light": ("ultraad:light", "no"), "whole": ("ultraad:latest", "cpu")}
CERTIFICATES = Path("/etc/ssl/certs")
USER = "10001:10001"
PATIENCE = 120  # seconds until a server must listen
_UNUSED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/locale", "usr/share/man", "usr/share/info", "var/log")


def debian(suite: str) -> str:
    """The name of an image with a minimal Debian and Python; notices stay, manuals and translations do not."""
    name = f"localhost/debian:{suite}"
    if subprocess.run(["buildah", "inspect", name], capture_output=True, check=False).returncode == 0:
        return name
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        call("debootstrap", "--variant=minbase", "--include=python3,python3-venv", suite, root)
        for path in (path for folder in _UNUSED for path in (root / folder).iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (root / "usr/share/doc").rglob("*"):
            if not path.is_dir() and path.name != "copyright":
                path.unlink()
        made = call("buildah", "from", "scratch").strip()
        call("buildah", "add", "--quiet", made, root, "/")
        call("buildah", "commit", "--quiet", "--rm", made, name)
    return name


def build(image: str, torch: str, base: str | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        settings = Path(scratch) / "pip.conf"
        lines = [f"{k[4:].lower().replace('_', '-')} = {v}" for k, v in os.environ.items() if k.startswith("PIP_")]
        settings.write_text("\n".join(["[global]", *lines, ""]))
        lent = {settings: Path("/etc/pip.conf"), CERTIFICATES: CERTIFICATES}
        lent |= {path: path for path in map(Path, os.environ.get("PIP_FIND_LINKS", "").split()) if path.is_dir()}
        volumes = (word for there, here in lent.items() for word in ("--volume", f"{there}:{here}:ro"))
        of = [] if base is None else ["--build-arg", f"BASE={base}"]
        words = ["buildah", "build", "--isolation", "chroot", "--format", "docker", "--build-arg", f"TORCH={torch}"]
        call(*words, *of, *volumes, "--tag", image, ROOT)


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The files of an image."""
    container = call("buildah", "from", "--pull-never", f"localhost/{image}").strip()
    try:
        yield Path(call("buildah", "mount", container).strip())
    finally:
        call("buildah", "rm", container)


def inside(root: Path, data: Path, *words: str) -> list[str]:
    """A command as a container runs it: on a root that is read-only, as a user without rights."""
    mounts = (
        f"mount --bind {root} {root} && mount -o remount,bind,ro {root} && mount -t tmpfs tmpfs {root}/tmp "
        f"&& mount --bind {data} {root}/data && mount --rbind /proc {root}/proc && mount --rbind /dev {root}/dev"
    )
    start = f'{mounts} && exec chroot --userspec={USER} {root} env -i PATH=/ultraad/bin:/usr/bin:/bin HOME=/tmp "$@"'
    return ["unshare", "--mount", "sh", "-c", start, "sh", "sh", "-c", 'cd /data && exec "$@"', "sh", *words]


def healthy(root: Path, data: Path) -> bool:
    (check,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", (ROOT / "Containerfile").read_text(), flags=re.M)
    return subprocess.run(inside(root, data, *json.loads(check)), capture_output=True, check=False).returncode == 0


def listens(root: Path, data: Path, *words: str) -> None:
    """Start a server, and see that the health check finds it, and finds nothing before and after.

    Raises:
        SystemExit: If not.
    """
    say(f"$ {' '.join(words)}")
    if healthy(root, data):
        sys.exit("healthy before anything was started: is a port in use?")
    with subprocess.Popen(inside(root, data, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        end = time.monotonic() + PATIENCE
        while not (well := healthy(root, data)) and time.monotonic() < end and server.poll() is None:
            time.sleep(1)
        server.terminate()
        told = server.communicate()[0].decode()
    if not well or healthy(root, data):
        sys.exit(f"{told}\nnot healthy while it ran, or healthy after it")


def try_image(root: Path, *, page: bool) -> None:
    """Run the commands that a container is made for."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        os.chown(data, *map(int, USER.split(":")))
        for words in (
            ["doctor"],
            ["data", "samples", "-o", "samples"],
            ["predict", "zero-shot", "samples", "-o", "out"],
        ):
            say(f"$ ultraad {' '.join(words)}")
            done = subprocess.run(inside(root, data, "ultraad", *words), capture_output=True, text=True, check=False)
            say(done.stdout)
            if done.returncode:
                sys.exit(done.stderr[-4000:])
        listens(root, data, "ultraad", "node", "zero-shot", "--folder", "node", "--port", "11112")
        if page:
            listens(root, data, "ultraad", "serve", "samples", "--project", "project", "--port", "8417", "--no-browser")


def describe(root: Path, bill: Path) -> None:
    """Write the SBOM of an image: its Python packages, with their licences checked, and those of Debian."""
    (packages,) = (root / "ultraad/lib").glob("python3*/site-packages")
    with tempfile.TemporaryDirectory() as scratch:
        python = Path(scratch) / "python"  # says where the packages are, as that of the image would
        python.write_text(f"#!/bin/sh\necho '{json.dumps([str(packages)])}'\n")
        python.chmod(0o755)
        tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
        call(*tool, "--pyproject", ROOT / "pyproject.toml", "-o", bill, python)
    told = json.loads(bill.read_text(encoding="utf-8"))
    if found := refused(listed(told)):
        sys.exit(f"under a licence that must not be needed at run time, or under none: {'; '.join(found)}")
    system = debian_packages(call("chroot", root, "dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\\n"))
    say(f"{bill.name}: {len(told['components'])} Python packages, {len(system)} of Debian")
    told["components"] += system
    bill.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def debian_packages(told: str) -> list[dict[str, Any]]:
    """Components of a bill of materials from lines of name, version and architecture."""
    lines = (line.split() for line in told.splitlines())
    urls = ((n, v, f"pkg:deb/debian/{n}@{quote(v, safe=':~')}?arch={a}") for n, v, a in lines)
    return [{"type": "library", "bom-ref": url, "name": n, "version": v, "purl": url} for n, v, url in urls]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="*", choices=[*IMAGES, []], help="default: both")
    parser.add_argument("--debian", metavar="SUITE", help="as base, by debootstrap")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the SBOMs")
    given = parser.parse_args()
    given.output.mkdir(exist_ok=True)
    base = debian(given.debian) if given.debian else None
    for name in given.which or IMAGES:
        image, torch = IMAGES[name]
        build(image, torch, base)
        with mounted(image) as root:
            try_image(root, page=torch != "no")
            describe(root, given.output / f"sbom-container-{name}.cdx.json")
        size = call("buildah", "images", "--format", "{{.Size}}", f"localhost/{image}").strip()
        say(f"{image}: {size}")


if __name__ == "__main__":
    main()
