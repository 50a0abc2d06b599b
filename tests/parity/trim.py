"""How the fixtures in this folder were cut from the full reference outputs (run: python tests/parity/trim.py FOLDER).

Kept: every weight of the 24-block reference CLIP in its float16 storage, but only those rows of the token embedding
that occur in a test's sentences (``token_rows`` names them; the rest is never read), and the reference tensors that a
test compares.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
EMBEDDING = "token_embedding.weight"


def main(folder: Path) -> None:
    weights = load_file(folder / "clip-mini.safetensors")
    reference = load_file(folder / "clip-mini-ref.safetensors")
    inputs = load_file(folder / "inputs.safetensors")
    rows = reference["token_ids"].long().unique()
    weights["token_rows"] = rows
    weights[EMBEDDING] = weights[EMBEDDING][rows].clone()
    save_file(weights, HERE / "clip-mini.safetensors")
    save_file({**reference, "image_clip": inputs["image_clip"]}, HERE / "clip-mini-ref.safetensors")
    shutil.copy(folder / "clip-mini.json", HERE / "clip-mini.json")
    texts = json.loads((folder / "clip-mini-ref.json").read_text())["reference_texts"]
    (HERE / "clip-mini-texts.json").write_text(json.dumps(texts, indent=1) + "\n")


def clip_mini() -> torch.nn.Module:
    """The reference CLIP as an open_clip model, rows of words that no test uses set to zero."""
    from ultraad.backbones._torchvision import ensure_torchvision

    ensure_torchvision()
    import open_clip

    model = open_clip.CLIP(**json.loads((HERE / "clip-mini.json").read_text()))
    state = {key: value.float() for key, value in load_file(HERE / "clip-mini.safetensors").items()}
    rows = state.pop("token_rows").long()
    full = torch.zeros_like(model.token_embedding.weight)
    full[rows] = state[EMBEDDING]
    model.load_state_dict({**state, EMBEDDING: full})
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]))
