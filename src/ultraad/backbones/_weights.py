"""Find weights on this machine, fetch them, and verify them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ultraad.backbones._torchvision import ensure_torchvision
from ultraad.backbones._towers import ABOUT, JOINED, TOWERS
from ultraad.errors import Caught, ConfigError, WeightsError

PAPER = "open_clip:ViT-L-14-336-quickgelu/openai"
"""The paper's backbone (section 3.1)."""
_COMMON = {
    PAPER: "the paper's backbone, 890 MB, 336 px",
    "open_clip:ViT-B-16-quickgelu/openai": "a smaller general CLIP, 350 MB, 224 px",
    "open_clip:ViT-L-14/laion2b_s32b_b82k": "LAION-2B, 224 px",
}
_WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
_PICKLE = b"\x80\x02"  # the start of PyTorch's older files; the others are zip archives


@dataclass(frozen=True, slots=True)
class WeightsStatus:
    """One row of ``ultraad backbones list``.

    Attributes:
        name: The name for ``--backbone``.
        path: The weights file; None if it is not on this machine.
        note: A short description.
    """

    name: str
    path: Path | None
    note: str


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def locate(name: str) -> Path:
    """The weights file of ``open_clip:<model>/<tag>`` on this machine.

    Raises:
        WeightsError: If there is none; the message says which places were tried and how to get the weights.
    """
    ensure_torchvision()
    import open_clip

    model, _, tag = name.removeprefix("open_clip:").partition("/")
    record = open_clip.get_pretrained_cfg(model, tag)
    looked: list[str] = []
    repo, _, filename = str(record.get("hf_hub") or "").rpartition("/")
    if repo:
        found = _in_hub_cache(repo, (filename,) if filename else _WEIGHT_FILES)
        if found:
            return found
        looked.append(f"{_hub_cache()}/models--{repo.replace('/', '--')}")
    url = str(record.get("url") or "")
    if url:
        path = Path("~/.cache/clip").expanduser() / url.rsplit("/", 1)[-1]
        if path.is_file():
            return path
        looked.append(str(path))
    msg = (
        f"the weights of {name} are not on this machine.\n"
        f"  looked in: {'; '.join(looked)}\n"
        f"  fetch once, where there is internet:  ultraad backbones fetch {name}\n"
        "  offline: copy that folder or file here, or put the weights and an open_clip_config.json into a folder and "
        "use --backbone open_clip:local-dir:<folder>\n"
        f"  the source is {f'Hugging Face repository {repo}' if repo else url}"
    )
    raise WeightsError(msg)


def hub_folder(repo: str) -> Path:
    """The local snapshot of a hub repository.

    Raises:
        WeightsError: If it is not in the hub cache.
    """
    config = _in_hub_cache(repo, ("open_clip_config.json",))
    if config is None:
        msg = (
            f"the repository {repo} is not in the hub cache of this machine ({_hub_cache()}).\n"
            f"  fetch once, where there is internet:  ultraad backbones fetch open_clip:hf-hub:{repo}\n"
            f"  offline: copy its folder here and use --backbone open_clip:local-dir:<folder>"
        )
        raise WeightsError(msg)
    return config.parent


def find_checkpoint(folder: Path) -> Path:
    """The weights file of a folder, safetensors first.

    Raises:
        WeightsError: If there is none or more than one candidate.
    """
    for known in _WEIGHT_FILES:
        if (folder / known).is_file():
            return folder / known
    found = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        msg = f"{folder}: wanted one weights file ({', '.join(_WEIGHT_FILES)}), found {names}"
        raise WeightsError(msg)
    return found[0]


def fetch(name: str) -> Path:
    """Download the weights of ``open_clip:<model>/<tag>`` or ``open_clip:hf-hub:<id>``, and verify them.

    Raises:
        ConfigError: If the name is not one of these.
        WeightsError: If the download fails.
    """
    ensure_torchvision()
    rest = name.removeprefix("open_clip:")
    if rest == name or rest.startswith("local-dir:") or ("/" not in rest):
        msg = f"only open_clip:<model>/<tag> and open_clip:hf-hub:<id> can be fetched, not {name!r}"
        raise ConfigError(msg)
    try:
        if rest.startswith("hf-hub:"):
            from huggingface_hub import snapshot_download

            patterns = ["*.json", "*.txt", "*.model", *_WEIGHT_FILES[:2]]
            return Path(snapshot_download(rest.removeprefix("hf-hub:"), allow_patterns=patterns))
        import open_clip

        model, _, tag = rest.partition("/")
        record: Mapping[str, Any] = open_clip.get_pretrained_cfg(model, tag)
        if not record:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
            msg = f"open_clip has no weights {tag!r} for {model}; tags: {tags}"
            raise ConfigError(msg)
        path = Path(open_clip.download_pretrained(record))
    except (OSError, RuntimeError, ValueError) as e:  # hub and http errors derive from these
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        msg = (
            f"could not fetch {name}: {reason}\n"
            "  behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT; without internet fetch it elsewhere "
            f"and copy the cache folder ({_hub_cache()})"
        )
        raise WeightsError(msg) from e
    verify_file(path)
    return path


class Verified(NamedTuple):
    """A weights file that is not damaged, as far as anybody knows.

    Attributes:
        path: The file.
        sha256: Hex digits.
        known_from: Where the sha256 that it has stands, such as ``"w.sha256"``; None if none is known, so that nothing
            was compared.
    """

    path: Path
    sha256: str
    known_from: str | None


def verify_file(path: Path) -> Verified:
    """Check a weights file against its sha256, if that is known.

    The hub cache names its blobs by their sha256; the weights in the package have a record beside them, and are known
    under any name.

    Raises:
        WeightsError: If the file is missing or damaged, or its sha256 is not known and it holds no weights.
    """
    if not path.is_file():
        msg = f"no such weights file: {path}"
        raise WeightsError(msg)
    got = sha256(path)
    blob = path.resolve().name
    record = path.with_suffix(".sha256")
    wanted, known_from = None, None
    if len(blob) == 64 and set(blob) <= set("0123456789abcdef"):
        wanted, known_from = blob, "the hub cache"
    elif record.is_file():
        wanted, known_from = _recorded(record), record.name
    if wanted is not None and got != wanted:
        msg = f"{path} is damaged: sha256 is {got}, should be {wanted}. Delete it and fetch it again"
        raise WeightsError(msg)
    if wanted is None:
        shipped = (name for name, tower in TOWERS.items() if got == _recorded(tower.weights.with_suffix(".sha256")))
        known_from = next((f"the weights of {name}, which ship with ultraad" for name in shipped), None)
    if known_from is None:
        _check_weights(path)
    return Verified(path, got, known_from)


def _recorded(record: Path) -> str | None:
    words = record.read_text(encoding="ascii", errors="replace").split() if record.is_file() else []
    return words[0] if words else None


def _check_weights(path: Path) -> None:
    """Refuse a file that is neither safetensors nor one of PyTorch, or is cut off.

    Raises:
        WeightsError: If it is something else.
    """
    from safetensors import safe_open

    with path.open("rb") as file:
        if file.read(2) == _PICKLE or zipfile.is_zipfile(path):
            return
    with Caught() as caught, safe_open(path, "np"):
        pass
    if caught.error is not None:
        msg = (
            f"{path} holds no weights, or only a part of them: it is no whole safetensors file and no file of PyTorch; "
            "give a weights file, or copy it again"
        )
        raise WeightsError(msg)


def verify(name: str) -> Verified:
    """Check the weights of a backbone name or a weights path; see :func:`verify_file`.

    Of towers that are joined, all are checked, and the last one is returned.

    Raises:
        WeightsError: If the weights are missing or damaged, or there are none in the file.
        ConfigError: If the name has no weights file.
    """
    rest = name.removeprefix("open_clip:")
    if name in JOINED:
        return [verify(tower) for tower in JOINED[name]][-1]
    if name in TOWERS:
        path = TOWERS[name].weights
        if TOWERS[name].finer:
            verify_file(TOWERS[name].decoder)
    elif rest.startswith("hf-hub:"):
        path = find_checkpoint(hub_folder(rest.removeprefix("hf-hub:")))
    elif rest.startswith("local-dir:"):
        path = find_checkpoint(Path(rest.removeprefix("local-dir:")))
    elif rest != name and "/" in rest:
        path = locate(name)
    elif Path(name).is_file():
        path = Path(name)
    elif Path(name).is_dir():
        path = find_checkpoint(Path(name))
    else:
        msg = f"{name!r} has no weights file to verify"
        raise ConfigError(msg)
    return verify_file(path)


def listing() -> list[WeightsStatus]:
    """The most common backbones, and whether their weights are on this machine."""
    return [
        *(WeightsStatus(name, _shipped(name), about) for name, about in ABOUT.items()),
        *(WeightsStatus(name, _located(name), note) for name, note in _COMMON.items()),
        WeightsStatus("tiny", None, "random weights, for tests only; nothing to fetch"),
    ]


def _shipped(name: str) -> Path | None:
    paths = [TOWERS[tower].weights for tower in JOINED.get(name, (name,))]
    return paths[-1] if all(path.is_file() for path in paths) else None


def _located(name: str) -> Path | None:
    try:
        return locate(name)
    except WeightsError:
        return None


def _hub_cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def _in_hub_cache(repo: str, names: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for filename in names:
        found = try_to_load_from_cache(repo, filename)
        if isinstance(found, str):
            return Path(found)
    return None
