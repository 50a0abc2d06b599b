"""Kills: what was acknowledged is there afterwards, and nothing is half there."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import Client, wait_for
from tests.serve.killing import IMAGE, PICTURE, marking, stroke
from ultraad.serve.project import Project

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_lose_no_acknowledged_stroke(kills: int, tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.add([(PICTURE, b"")])
    project.close()
    command = [sys.executable, "-m", "tests.serve.killing", str(tmp_path), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    acknowledged = done.stdout.split()
    assert len(acknowledged) >= kills
    project = Project(tmp_path)
    try:
        rows = marking(project).rows((IMAGE, 0))
        saved = [row.id for row in rows]
        assert set(acknowledged) <= set(saved)
        assert len(saved) - len(acknowledged) <= kills, "at most the stroke in the air of each kill"
        assert len(set(saved)) == len(saved)
        assert project.summaries[IMAGE, 0].row == rows[-1].row, "the summary belongs to the last row"
        assert project.database.read("PRAGMA integrity_check") == [("ok",)]
    finally:
        project.close()


@pytest.mark.slow
def test_kills_of_the_whole_server_lose_no_acknowledged_stroke(tmp_path: Path, scans: Path) -> None:
    """The same over HTTP, with imports and predictions going on; the client replays what it got no answer to."""
    command = [sys.executable, "-m", "ultraad.cli", "serve", str(scans), "--project", str(tmp_path / "p")]
    command += ["--no-browser", "--backbone", "tiny", "--device", "cpu"]
    rng = random.Random(1)
    waiting: list[dict[str, Any]] = []
    acknowledged: set[str] = set()
    for _ in range(12):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        try:
            address = next(line for line in process.stdout if "code=" in line).split(": ", 1)[1].strip()
            client = Client(address).enter()
            images = wait_for(lambda c=client: c.get("/api/images?limit=1000")["items"])
            end = time.monotonic() + rng.uniform(0.3, 2.0)
            for turn in range(10_000):
                waiting.append(stroke(image=rng.choice(images)["id"], lesion=str(uuid.uuid4())))
                if turn > 5 and time.monotonic() > end:
                    process.kill()
                try:
                    answer = client.post("/api/marks", {"rater": "anna", "rows": waiting})
                except OSError:
                    break
                acknowledged |= {s["id"] for s in answer["saved"] if s["status"] != "refused"}
                waiting.clear()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    project = Project(tmp_path / "p")
    try:
        assert acknowledged <= {id_ for (id_,) in project.database.read("SELECT id FROM row")}
        assert len(acknowledged) > 50
    finally:
        project.close()
