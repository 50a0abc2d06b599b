"""Use the embedded CLIP without ultraad: export it once, then use plain open_clip.

    ultraad backbones export embedded -o example-output/tower     # this script does it too
    python examples/embedded_tower.py

ultraad is used only to simulate an image and to show that both give the same vector.
"""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F

import ultraad
from ultraad.backbones.embedded import export
from ultraad.simulate import simulate

SENTENCES = [
    "a normal breast ultrasound image",
    "a benign breast ultrasound image",
    "a malignant breast ultrasound image",
]
FOLDER = Path("example-output/tower")

export(FOLDER)
ours = ultraad.load_backbone("embedded")
picture = torch.from_numpy(simulate(3, label="malignant").image)  # u8 (h w 3)

# From here on: torch, open_clip, timm, safetensors, and the exported files.
spec = importlib.util.spec_from_file_location("embedded_tower", FOLDER / "embedded_tower.py")
tower = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tower)
weights = FOLDER / "open_clip_model.safetensors"
model, side = tower.load(weights), tower.side_of(weights)

import open_clip  # noqa: E402

x = F.interpolate(picture.permute(2, 0, 1)[None] / 255, (side, side), mode="bicubic", antialias=True)
x = (x.clamp(0, 1) - torch.tensor(tower.MEAN).view(3, 1, 1)) / torch.tensor(tower.STD).view(3, 1, 1)
with torch.inference_mode():
    vector = model.encode_image(x, normalize=True)
    texts = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(SENTENCES), normalize=True)
    for sentence, p in zip(SENTENCES, (model.logit_scale.exp() * vector @ texts.T).softmax(-1)[0], strict=True):
        print(f"{p:.3f}  {sentence}")
    difference = (vector - F.normalize(ours.encode_image(x).image, dim=-1)).abs().max()
print(f"largest difference from ultraad's own: {difference:.0e}")
