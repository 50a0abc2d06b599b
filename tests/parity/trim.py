"""How the fixtures in this folder were cut from the full reference outputs (run: python -m tests.parity.trim FOLDER).

Kept: every weight of the 24-block reference CLIP in its float16 storage, but only those rows of the token embedding
that occur in a sentence of a fixture (``token_rows`` names them; the rest is never read), and of each method the
reference tensors that a test compares (``TENSORS``). Nothing is rounded or recomputed.
"""

from __future__ import annotations

import json
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
EMBEDDING = "token_embedding.weight"

TENSORS: dict[str, tuple[str, ...]] = {
    "inputs": ("label", "image_u8*", "mask"),
    "aprilgan": (
        *("param.*", "text_features", "image_features", "image_score", "patch_logits", "few.*", "train.*"),
        *("gradnorm.*", "quickgelu.*"),
    ),
    "mvfa": (
        *("param.*.fc1.*", "param.*.[012].fc2.*", "text_features", "zero.image_score", "zero.patch_logits"),
        *("few.memory_rows", "few.*.*det_score", "few.flips.combined_*", "augment.all_means", "augment.mask_sums"),
        *("train.*", "grad*", "res154.zero.*", "quickgelu.text_features", "quickgelu.zero.image_score"),
    ),
    "adaclip": (
        *("param.[vpcd]*", "param.text_prompter.static_prompts.[123]", "token_ids_first", "frozen_image_features"),
        *("prompted_image_features", "projected_class_token", "text_features", "patch_logits"),
        *("image_score*", "hsf.*", "train.*", "gradnorm.*", "res154.*", "quickgelu.image1.image_score*"),
        "norounding.*",
    ),
    "winclip": ("text_features*", "window_*", "zero.patch_map", "zero.image_score", "few.*"),
    "winclip_anomalib": ("image_embeddings", "window_*", "text_*", "zero.patch_map", "zero.image_score", "few.*"),
    "coop": ("shared.*", "class_specific.*", "init_words.*", "image_features", "labels"),
    "cocoop": ("param.*", "labels", "image_features", "meta_bias", "text_features", "logits*", "train.loss", "grad*"),
    "clip_adapter": ("*",),
    "tip_adapter": ("*",),
    "lpp": ("*",),
    "anomalyclip": (
        *("param.*", "text_features*", "image_features_raw", "patch_features_24", "patch_prob_*", "image_score"),
        *("anomaly_map", "last_layer_only.image_score", "train.*", "gradnorm.*", "grad.*"),
        *("res154.image_score", "res154.anomaly_map_upsampled"),
    ),
    "vcpclip": (
        *("param.*", "image_features", "class_vectors", "text_features", "post_text_features", "patch_logits_*"),
        *("anomaly_map_smoothed", "anomaly_map_minmax_range", "image_score_unnormalised", "train.*"),
        *("gradnorm.*", "grad.*", "res154.*"),
    ),
    "mediclip": (
        *("param.*", "text_features", "patch_logits", "image_score", "train.*", "gradnorm.*", "causal.text_features"),
        *("synthesis.*_u8", "synthesis.[!i]*.area_sorted", "synthesis.[!i]*.*change*", "synthesis.[!i]*.abs_in_sorted"),
        *("synthesis.[!i]*.[hw]_sorted", "synthesis.[!i]*.ncomp_sorted"),
    ),
}
"""{fixture: patterns of the tensors that its tests read}."""


def main(folder: Path) -> None:
    fixtures = {name: load_file(folder / f"{name}.safetensors") for name in TENSORS}
    reference = load_file(folder / "clip-mini-ref.safetensors")
    weights = load_file(folder / "clip-mini.safetensors")
    rows = token_rows(folder)
    weights["token_rows"] = rows
    weights[EMBEDDING] = weights[EMBEDDING][rows].clone()
    save_file(weights, HERE / "clip-mini.safetensors")
    save_file(reference, HERE / "clip-mini-ref.safetensors")
    shutil.copy(folder / "clip-mini.json", HERE / "clip-mini.json")
    texts = json.loads((folder / "clip-mini-ref.json").read_text())["reference_texts"]
    (HERE / "clip-mini-texts.json").write_text(json.dumps(texts, indent=1) + "\n")
    for name, patterns in TENSORS.items():
        unused = [p for p in patterns if not any(fnmatch(key, p) for key in fixtures[name])]
        assert not unused, f"{name} has no tensor {unused}"
        kept = {key: t for key, t in fixtures[name].items() if any(fnmatch(key, p) for p in patterns)}
        save_file(kept, HERE / f"{name}.safetensors")
    size = sum(path.stat().st_size for path in HERE.glob("*.safetensors"))
    print(f"{size / 1e6:.2f} MB")


def token_rows(folder: Path) -> torch.Tensor:
    """Every token id that a fixture's sentences can contain, sorted."""
    from ultraad.backbones._torchvision import ensure_torchvision

    ensure_torchvision()
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    ids: set[int] = set(tokenizer([""])[0].tolist())
    for path in sorted(folder.glob("*.json")):
        for text in strings(json.loads(path.read_text())):
            ids |= set(tokenizer.encode(text.replace("{}", " ").replace("_", " ")))
    for path in sorted(folder.glob("*.safetensors")):
        for key, value in load_file(path).items():
            if key.startswith("token_ids"):
                ids |= set(value.flatten().tolist())
    return torch.tensor(sorted(i for i in ids if i < 49408))


def strings(tree: object) -> list[str]:
    """All strings under a JSON file's ``prompts`` and ``reference_texts``, however deep."""

    def walk(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return [text for child in children for text in walk(child)]

    assert isinstance(tree, dict)
    return [text for key in ("prompts", "reference_texts") for text in walk(tree.get(key))]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
