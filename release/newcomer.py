"""``python -m release.newcomer WHEEL``: the first commands of the README, by a new account without any cache.

Linux, as root: the account is made, with an empty home, and removed at the end. What pip would download is fetched
before, and timed by itself; then each line of the README's first block of commands is run as it is, with the wheel in
place of the name ``ultraad``. Variables ``PIP_...`` and ``SSL_...`` are handed on, nothing else.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ACCOUNT = "ultraad-newcomer"
LIMIT = 300  # seconds to the first report
_LINE = re.compile(r"^took (?P<real>[\d.]+) (?P<user>[\d.]+) (?P<system>[\d.]+)$", flags=re.M)


def first_commands(readme: str, wheel: str) -> list[str]:
    """The lines of the first block of commands below "Try it", which install from the wheel."""
    block = readme.partition("\n## Try it\n")[2].partition("```\n")[2].partition("\n```")[0]
    lines = [re.sub(r"\s{2,}#.*", "", line) for line in block.splitlines()]
    return [re.sub(r"^(pip install )ultraad$", rf"\g<1>{shlex.quote(wheel)}", line) for line in lines]


def timed(lines: list[str]) -> str:
    """A bash program that runs lines in one shell and says what each took; the first that fails ends it."""
    steps = (f"time {{ {line}\n}} 2>&1 || exit" for line in lines)
    return "\n".join(["TIMEFORMAT='took %R %U %S'", *steps])


def run(lines: list[str], home: Path, **more: str) -> list[tuple[float, float]]:
    """Run lines as the account, in its home; (seconds, seconds of the processor) of each.

    Raises:
        SystemExit: If one fails.
    """
    handed = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "LANG"))}
    variables = {**handed, "HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", **more}
    words = ["runuser", "-u", ACCOUNT, "--", "env", "-i", *(f"{k}={v}" for k, v in variables.items())]
    done = subprocess.run(
        [*words, "bash", "-c", timed(lines)],
        cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, flush=True)
    if done.returncode:
        sys.exit("the command above failed")
    return [(float(m["real"]), float(m["user"]) + float(m["system"])) for m in _LINE.finditer(done.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    given = parser.parse_args()
    subprocess.run(["useradd", "--create-home", ACCOUNT], check=True)
    try:
        home = Path(pwd.getpwnam(ACCOUNT).pw_dir)
        wheel = shutil.copy(given.wheel, home)
        fetch = f"python3 -m venv fetch && fetch/bin/pip download -q -d wheels {shlex.quote(str(wheel))}"
        ((seconds, _),) = run([fetch], home)
        print(
            f"downloads: {seconds:.0f} s, of {sum(p.stat().st_size for p in (home / 'wheels').iterdir()) / 1e6:.0f} MB"
        )
        lines = first_commands((ROOT / "README.md").read_text(encoding="utf-8"), str(wheel))
        took = run(["rm -rf fetch .cache", *lines], home, PIP_FIND_LINKS=str(home / "wheels"), PIP_NO_INDEX="1")[1:]
        if not list(home.rglob("report.html")):
            sys.exit("the commands above left no report")
        print("| command | seconds | of the processor |\n| --- | --- | --- |")
        for line, (real, busy) in zip(lines, took, strict=True):
            print(f"| `{line.replace(f'{wheel}', 'ultraad')}` | {real:.0f} | {busy:.0f} |")
        total = sum(real for real, _ in took)
        print(f"first report after {total:.0f} s without downloads; wanted at most {LIMIT}")
        if total > LIMIT:
            sys.exit(1)
    finally:
        subprocess.run(["userdel", "--remove", ACCOUNT], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
