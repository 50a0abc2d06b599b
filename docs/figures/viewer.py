"""The pictures of docs/dicom.md: our objects in OHIF over Orthanc, as the slow test opens them.

    python -m docs.figures.viewer                # some minutes; needs Orthanc, npm, Chromium and Playwright

A simulated cine with a lesion that moves; nothing of a patient. To be run again when the objects change.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from tests.node.test_orthanc import running
from tests.node.test_viewer import fetched, show, study

OUT = Path(__file__).parent / "viewer"
SHOWN = {  # file: words in the name of the series
    "segmentation": "ultraad lesions, research",
    "report": "ultraad measurements",
    "capture": "ultraad overlay cine",
}
WIDTH = 720  # pixels of a picture in the documents


def main() -> None:
    """Open each series, and keep its picture."""
    OUT.mkdir(exist_ok=True)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running(folder) as orthanc, study(fetched(folder), orthanc, folder) as (browser, address):
            for name, words in SHOWN.items():
                pixels, _, errors = show(browser, address, words)
                if errors:
                    message = f"OHIF says of {words!r}: {errors[0]}"
                    raise RuntimeError(message)
                picture = Image.fromarray(pixels.astype(np.uint8))
                picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
                picture.save(OUT / f"{name}.webp", quality=70, method=6)


if __name__ == "__main__":
    main()
