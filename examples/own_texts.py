"""Another organ in the words of its own text bank: zero-shot, then with your images; YAML in, model out.

python examples/own_texts.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ultraad
from ultraad.io import find_images
from ultraad.simulate import write_dataset
from ultraad.texts.bank import as_options, load_texts

THYROID = """\
organ: thyroid
object: thyroid ultrasound
classes:
  normal:
    sentences:
      - This is a normal thyroid ultrasound image with homogeneous bright parenchyma.
  benign:
    sentences:
      - This is a benign thyroid ultrasound image with a spongiform nodule.
      - This is a benign thyroid ultrasound image with an anechoic cyst and a smooth margin.
  malignant:
    sentences:
      - This is a malignant thyroid ultrasound image with a taller than wide hypoechoic nodule.
      - This is a malignant thyroid ultrasound image with microcalcifications and an irregular margin.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--output", type=Path, default=Path("example-output"))
    args = parser.parse_args()

    args.output.mkdir(exist_ok=True)
    (args.output / "thyroid.yaml").write_text(THYROID, encoding="utf-8")
    bank = load_texts(args.output / "thyroid.yaml")
    images = write_dataset(args.output / "images", n=12, seed=2, size=128)  # stand-ins: the simulator draws breasts

    model = ultraad.zero_shot(backbone=args.backbone, options={"texts": as_options(bank)})
    print(f"{model.classes}, '{model.normal_class}' means no lesion")
    paths = find_images(images)[:4]  # masks are left out
    for result in model.predict_many(paths):
        probs = result.prediction.probs or {}
        print(result.sample.image.name, {name: round(value, 2) for name, value in probs.items()})
    # with labelled images of your own: ultraad.adapt(support, options={"texts": as_options(bank)})


if __name__ == "__main__":
    main()
