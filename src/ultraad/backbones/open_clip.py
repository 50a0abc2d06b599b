"""open_clip's ViTs: ``open_clip:<model>/<tag>``, ``open_clip:hf-hub:<id>``, ``open_clip:local-dir:<folder>`` or a file.

Their tower must have a class token. Loading downloads nothing. If weights are missing, the message names them and the
command that fetches them, so offline machines behave like all others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from ultraad.backbones import _weights as weights
from ultraad.backbones._door import Backbone, DType, check_side
from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.config import shortened
from ultraad.errors import Caught, ConfigError, UltraadError, WeightsError, one_line
from ultraad.registry import similar
from ultraad.types import PreprocessConfig

log = logging.getLogger(__name__)
CONFIG_NAME = "open_clip_config.json"
_MOST_LAYERS = 256  # of a tower; the largest published ViT has 64


def load(rest: str, *, name: str, device: str, dtype: DType, size: int | None) -> Backbone:
    """``<model>[/<tag>]``, ``local-dir:<path>`` or ``hf-hub:<id>``; see :func:`ultraad.backbones.load_backbone`."""
    ensure_torchvision()
    import open_clip

    if rest.startswith(("local-dir:", "hf-hub:")):
        kind, _, where = rest.partition(":")
        folder = weights.hub_folder(where) if kind == "hf-hub" else Path(where)
        return load_path(folder, name=name, device=device, dtype=dtype, size=size)
    model, _, tag = rest.partition("/")
    cfg = open_clip.get_model_config(model)
    if cfg is None:
        near = ", ".join(similar(model, open_clip.list_models(), count=5)) or "see open_clip.list_models()"
        msg = f"open_clip has no model {model!r}; similar names: {near}"
        raise ConfigError(msg)
    if not tag:
        log.warning("%s has no tag after '/', so its weights are random", name)
        random = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        return _build(cfg, None, random, model=model, name=name, device=device, dtype=dtype, size=size)
    record = open_clip.get_pretrained_cfg(model, tag)
    if not record:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        msg = f"open_clip has no weights {tag!r} for {model}; tags: {tags}"
        raise ConfigError(msg)
    trained, built = bool(record.get("quick_gelu")), bool(cfg.get("quick_gelu"))
    if trained != built:  # open_clip only warns, but it changes every result
        other = f"{model}-quickgelu" if trained else model.removesuffix("-quickgelu")
        msg = (
            f"{name}: the weights were trained with {'QuickGELU' if trained else 'GELU'}, but {model} is built with "
            f"{'QuickGELU' if built else 'GELU'}. Use open_clip:{other}/{tag}"
        )
        raise ConfigError(msg)
    return _build(cfg, weights.locate(name), record, model=model, name=name, device=device, dtype=dtype, size=size)


def load_path(path: Path, *, name: str, device: str, dtype: DType, size: int | None) -> Backbone:
    """Load a folder with ``open_clip_config.json`` and weights, or a weights file with that configuration beside it.

    For a file, ``<stem>.json`` is tried first.

    Raises:
        WeightsError: If config, weights or the normalisation record are missing.
    """
    ensure_torchvision()
    folder = path if path.is_dir() else path.parent
    configs = [folder / CONFIG_NAME] if path.is_dir() else [path.with_suffix(".json"), folder / CONFIG_NAME]
    config = next((c for c in configs if c.is_file()), None)
    if not path.exists() or config is None:
        wanted = " or ".join(str(c) for c in configs)
        msg = (
            f"{name}: no model configuration found; looked for {wanted}. "
            "It holds model_cfg and preprocess_cfg, as open_clip writes it"
        )
        raise WeightsError(msg)
    try:
        record = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        msg = f"{config} is not JSON: {one_line(e)}"
        raise WeightsError(msg) from e
    if not isinstance(record, dict) or "model_cfg" not in record:
        found = f"has keys {shortened(str(sorted(record)))}" if isinstance(record, dict) else "is no JSON object"
        msg = f"{config} {found}, but model_cfg is missing; open_clip's save format has model_cfg and preprocess_cfg"
        raise WeightsError(msg)
    checkpoint = path if path.is_file() else weights.find_checkpoint(path)
    cfg, preprocess = record["model_cfg"], record.get("preprocess_cfg")
    return _build(cfg, checkpoint, preprocess, model=None, name=name, device=device, dtype=dtype, size=size)


def _build(
    cfg: Mapping[str, Any],
    checkpoint: Path | None,
    record: Mapping[str, Any] | None,
    *,
    model: str | None,
    name: str,
    device: str,
    dtype: DType,
    size: int | None,
) -> Backbone:
    import open_clip
    from open_clip.factory import load_checkpoint

    with _blamed_on(f"the configuration of {name} describes no CLIP that can be built"):
        cfg = {k: (dict(v) if isinstance(v, dict) else v) for k, v in cfg.items()}
        if "timm_model_name" in cfg["vision_cfg"] or "hf_model_name" in cfg["text_cfg"]:
            msg = f"{name}: its towers come from timm or transformers; ultraad needs open_clip's own ViT and text tower"
            raise ConfigError(msg)
        custom = cfg.pop("custom_text", False)
        side = check_side(size or int(cfg["vision_cfg"]["image_size"]), int(cfg["vision_cfg"]["patch_size"]), name)
        cfg["vision_cfg"]["image_size"] = side
        preprocess = preprocess_from(record, size=side, where=name)
        kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        if checkpoint is not None:
            _check_held(_values(kind, cfg), checkpoint, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = kind(**cfg)
    if checkpoint is not None:
        with _blamed_on(f"{checkpoint} does not hold the weights of {name}"):
            load_checkpoint(net, str(checkpoint), strict=True, weights_only=True)
    tokenizer = open_clip.get_tokenizer(model or "ViT-B-32", context_length=cfg["text_cfg"].get("context_length", 77))
    return Backbone(net, tokenizer, name=name, preprocess=preprocess, device=device, dtype=dtype)


def _values(kind: Callable[..., torch.nn.Module], cfg: Mapping[str, Any]) -> int:
    """Number of values of a configuration, counted without memory for them."""
    layers = max(int(cfg[tower].get("layers", 12)) for tower in ("vision_cfg", "text_cfg"))
    if layers > _MOST_LAYERS:
        msg = f"it has {layers} layers; the limit is {_MOST_LAYERS}"
        raise ValueError(msg)
    with torch.device("meta"):
        net = kind(**cfg)
    return sum(t.numel() for t in (*net.parameters(), *net.buffers()))


def _check_held(values: int, checkpoint: Path, name: str) -> None:
    """Refuse a configuration with more values than the checkpoint can hold, before memory is taken for them."""
    held = checkpoint.stat().st_size
    if values > held:  # a value takes at least two bytes; position embeddings may grow with the input
        msg = (
            f"{checkpoint} has {held} bytes, but the configuration of {name} describes {values} values; one of them is "
            "damaged. Copy or download them again"
        )
        raise WeightsError(msg)


@contextmanager
def _blamed_on(what: str) -> Iterator[None]:
    """Damaged files make open_clip, torch and safetensors raise almost anything; here it becomes a WeightsError."""
    with Caught() as caught:
        yield
    if isinstance(caught.error, UltraadError):
        raise caught.error
    if caught.error is not None:
        pickled = isinstance(caught.error, UnpicklingError)  # torch's message advises to run the code in the file
        reason = "it is damaged or holds more than weights" if pickled else one_line(caught.error)
        msg = f"{what}: {reason}. Copy or download it again"
        raise WeightsError(msg) from caught.error


def preprocess_from(cfg: Any, *, size: int, where: str) -> PreprocessConfig:  # noqa: ANN401  # whatever the JSON holds
    """open_clip's preprocessing record as ours. Resizing to a square replaces its crop, which could cut lesions off.

    Raises:
        WeightsError: If mean or std are missing or unusable; guessed values would change every result silently.
    """
    if not isinstance(cfg, Mapping) or not (_is_colour(cfg.get("mean"), -1e3) and _is_colour(cfg.get("std"), 1e-6)):
        msg = (
            f"{where} does not say how its images were normalised (no preprocess_cfg with mean and std). "
            'Add "preprocess_cfg": {"mean": [...], "std": [...], "interpolation": "bicubic"} to its configuration'
        )
        raise WeightsError(msg)
    interpolation = cfg.get("interpolation", "bicubic")
    if interpolation not in ("bicubic", "bilinear"):
        interpolation = "bicubic"
    return PreprocessConfig(
        size=size, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]), interpolation=interpolation, mode="squash"
    )


def _is_colour(values: object, least: float) -> bool:
    """Whether this is a list of three numbers that are large enough."""
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        return False
    return all(isinstance(v, (int, float)) and least <= v <= 1e3 for v in values)


BACKBONE = load
