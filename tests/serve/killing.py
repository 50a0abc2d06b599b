"""Run as a program: as often as wanted, a child saves strokes until it is killed. Prints the acknowledged ids.

A program of its own, because a process with threads should not fork.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from ultraad.serve.marking import Marking
from ultraad.serve.project import Picture, Project, now
from ultraad.serve.schemas import Rows

IMAGE = "a" * 16
PICTURE = Picture(
    id=IMAGE, name="a.png", path="/nowhere/a.png", sample="a.png", source="folder:/x", size=(40, 60), added=now()
)


def stroke(**more: Any) -> dict[str, Any]:
    what = {"kind": "stroke", "tool": "brush", "points": [20, 20], "radius": 4, "lesion": "lesion-1", "class": "benign"}
    return {"id": str(uuid.uuid4()), "image": IMAGE, "frame": 0, **what, **more}


def marking(project: Project) -> Marking:
    def guess(*_: object) -> Any:
        raise AssertionError

    return Marking(project, guess=guess, opinion=lambda _: None)


def save_forever(folder: Path, acknowledged: int) -> None:
    """In the child: save strokes, and write the id of each once the server would have answered."""
    saving = marking(Project(folder))
    while True:
        row = stroke()
        saving.save(Rows.model_validate({"rater": "anna", "rows": [row]}))
        os.write(acknowledged, f"{row['id']}\n".encode())


def main() -> None:
    folder, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
    for _ in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                save_forever(folder, writing)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            for _ in range(rng.randint(1, 3)):  # so that something is saved, however slow the machine
                print(pipe.readline().strip())
            time.sleep(rng.uniform(0, 0.01))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            for line in pipe:
                if line.endswith("\n"):
                    print(line.strip())


if __name__ == "__main__":
    main()
