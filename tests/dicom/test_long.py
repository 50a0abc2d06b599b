"""A cine of 5,000 frames: all of them predicted, in memory that does not grow with their number. Run with -m slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dicom.made import write_us
from ultraad.results.folder import read_rows

FEW, MANY = 50, 5000
SIZE = (240, 320)
CODE = """
import json, resource, sys
from ultraad.model.adapt import zero_shot
from ultraad.runs.predict import predict

model, found = zero_shot(backbone="tiny"), []
for cine, out in (sys.argv[1:3], sys.argv[3:5]):
    done = predict(model, cine, out, save=["dicom"], objects=["seg", "sr", "ko"], smooth=0.2, fan="auto")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found.append([done.predicted, len(done.failed), done.without_objects, peak * 1024])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_five_thousand_frames_need_hardly_more_memory_than_fifty(tmp_path: Path) -> None:
    words = []
    for frames in (FEW, MANY):
        cine = write_us(tmp_path / f"{frames}.dcm", frames=frames, size=SIZE)
        words += [str(cine), str(tmp_path / f"out-{frames}")]
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True)
    (few, _, _, before), (many, failed, without, after) = json.loads(done.stdout.splitlines()[-1])
    assert (few, many, failed, without) == (FEW, MANY, 0, {})
    pixels = MANY * SIZE[0] * SIZE[1]
    assert after - before < pixels // 2  # neither the frames nor their maps, which have four times as many bytes
    assert [row.frame for row in read_rows(tmp_path / f"out-{MANY}")] == list(range(MANY))
    assert len(list((tmp_path / f"out-{MANY}" / "dicom").glob("*.dcm"))) >= 1
