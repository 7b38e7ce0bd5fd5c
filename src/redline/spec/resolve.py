"""From a model's id to the folder that engines load, or to the hub id that they download."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from redline.errors import ModelNotFound, TokenizerMissing
from redline.spec.faults import did_you_mean
from redline.spec.hub import cached_snapshot, check_hub_reachable
from redline.spec.model import ModelSpec
from redline.spec.shapes import materialise_shape, parameter_count, shape_names

BUNDLED = {"tiny": "redline-tiny", "tiny-draft": "redline-tiny-draft"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "tekken.json", "vocab.json", "vocab.txt")
_TOKENIZER_RELATED = (
    *TOKENIZER_FILES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
_FULL_HASH_BELOW = 100_000_000


@dataclass(frozen=True)
class ResolvedModel:
    """Where a model is. Exactly one of `path` and `hub_id` is set; so of the tokenizer's two."""

    path: Path | None
    hub_id: str | None
    tokenizer_path: Path | None
    tokenizer_hub_id: str | None
    random_weights: bool
    config: dict[str, Any] = field(default_factory=dict)
    """The content of config.json; empty when the model is still on the hub."""
    description: str = ""

    @property
    def location(self) -> str:
        """What an engine takes as its model: a folder or a hub id."""
        return str(self.path or self.hub_id)

    @property
    def tokenizer_location(self) -> str:
        return str(self.tokenizer_path or self.tokenizer_hub_id)


def resolve_model(model: ModelSpec, cache: Path | None = None) -> ResolvedModel:
    """Finds a model without starting or downloading anything; a shape is written to `cache` first.

    Raises ModelNotFound or TokenizerMissing. A hub id that is not in the local cache comes back as `hub_id`, unasked:
    `check_hub_reachable` asks the hub.
    """
    scheme, _, name = model.id.partition(":")
    name = name.strip()
    if scheme == "shape" and name:
        return _at(model, materialise_shape(name, cache), f"shape {name}, random weights", random=True)
    if scheme == "bundled" and name:
        return _at(model, _bundled(name), f"bundled {name}", random=model.random_weights)
    folder = Path(model.id).expanduser()
    if folder.is_dir():
        return _at(model, folder.resolve(), f"folder {folder.resolve()}", random=model.random_weights)
    if folder.is_file():
        raise ModelNotFound(f"{model.id} is a file", why="a model is a folder that holds config.json")
    if ":" in model.id or _looks_like_path(model.id):
        raise ModelNotFound(f"the model folder {model.id} does not exist", fix=_siblings(folder))
    snapshot = cached_snapshot(model.id, model.revision)
    if snapshot is not None and (model.random_weights or not _missing_weights(snapshot)):
        return _at(model, snapshot, f"hub {model.id}, cached as {snapshot.name[:12]}", random=model.random_weights)
    path, hub_id = _tokenizer(model, None)
    return ResolvedModel(
        None, model.id, path, hub_id, model.random_weights, {}, f"hub {model.id}, to be downloaded by the engine"
    )


def ensure_available(model: ModelSpec, cache: Path | None = None) -> ResolvedModel:
    """`resolve_model`, and the hub is asked when the model is not here. Raises ModelNotFound, TokenizerMissing."""
    found = resolve_model(model, cache)
    if found.hub_id is not None:
        try:
            check_hub_reachable(found.hub_id, model.revision)
        except ModelNotFound as error:
            near = "" if "/" in model.id else _siblings(Path(model.id))
            if near:
                error.fix = f"{near} as a folder, or: {error.fix}"
            raise
    return found


def model_hashes(path: Path) -> dict[str, str]:
    """What identifies a model folder, by file name: SHA-256 of its config, tokenizer and weights.

    Weights of 100 MB and more together are identified by the hash of their safetensors headers (names, shapes,
    types, offsets) and their sizes: `header:HASH:BYTES`; other formats by the first MiB, `start:HASH:BYTES`.
    """
    hashes = {}
    for name in ("config.json", "generation_config.json", *_TOKENIZER_RELATED):
        if (path / name).is_file():
            hashes[name] = f"sha256:{_sha256(path / name)}"
    weights = sorted(file for pattern in _WEIGHTS for file in path.glob(pattern))
    small = sum(file.stat().st_size for file in weights) < _FULL_HASH_BELOW
    for file in weights:
        hashes[file.name] = f"sha256:{_sha256(file)}" if small else _quick_hash(file)
    return hashes


def _at(model: ModelSpec, folder: Path, description: str, *, random: bool) -> ResolvedModel:
    config = _config(folder)
    if not random and (missing := _missing_weights(folder)):
        raise ModelNotFound(
            f"the model folder {folder} has no weights: {missing}",
            fix="copy the whole model, or measure speed alone with random weights (--random-weights)",
        )
    path, hub_id = _tokenizer(model, folder)
    size = parameter_count(config)
    kind = (config.get("architectures") or [config.get("model_type", "unknown architecture")])[0]
    text = f"{description}: {kind}" + (f", {_count(size)} parameters" if size else "")
    return ResolvedModel(folder, None, path, hub_id, random, config, text)


def _count(number: int) -> str:
    return f"{number / 1e9:.3g} B" if number >= 1e9 else f"{number / 1e6:.3g} M"


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        inner = sorted(child.parent.name for child in folder.glob("*/config.json"))
        raise ModelNotFound(
            f"{folder} is no model folder: config.json is missing",
            why=f"it holds {', '.join(sorted(child.name for child in folder.iterdir())[:8]) or 'nothing'}",
            fix=f"did you mean {folder / inner[0]}?" if inner else "give the folder in the Hugging Face layout",
        )
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise ModelNotFound(f"{file} is not valid JSON: {error}", fix="download or write the model again") from None
    if not isinstance(config, dict):
        raise ModelNotFound(f"{file} holds no JSON object", fix="download or write the model again")
    return config


def _missing_weights(folder: Path) -> str:
    """What is missing, in words; '' when the weights are whole."""
    for index in folder.glob("*.safetensors.index.json"):
        try:
            shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            return f"{index.name} cannot be read"
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if absent:
            return f"{len(absent)} of {len(shards)} shards are missing, such as {absent[0]}"
    found = any(next(folder.glob(pattern), None) for pattern in _WEIGHTS)
    return "" if found else "no *.safetensors, *.bin or *.gguf"


def _tokenizer(model: ModelSpec, folder: Path | None) -> tuple[Path | None, str | None]:
    """(folder, hub id) of the tokenizer; one of them is None."""
    if not model.tokenizer:
        if folder is None:
            return None, model.id
        _check_tokenizer(folder, "")
        return folder, None
    own = Path(model.tokenizer).expanduser()
    if model.tokenizer.startswith("bundled:"):
        return _bundled(model.tokenizer.removeprefix("bundled:")), None
    if own.is_dir():
        _check_tokenizer(own, " given as tokenizer")
        return own.resolve(), None
    if _looks_like_path(model.tokenizer):
        raise TokenizerMissing(f"the tokenizer folder {model.tokenizer} does not exist", fix=_siblings(own))
    snapshot = _cached_tokenizer(model.tokenizer)
    return (snapshot, None) if snapshot else (None, model.tokenizer)


def _cached_tokenizer(hub_id: str) -> Path | None:
    snapshot = cached_snapshot(hub_id)
    return snapshot if snapshot and any((snapshot / name).is_file() for name in TOKENIZER_FILES) else None


def _check_tokenizer(folder: Path, role: str) -> None:
    # tokenizer_config.json alone can name one that lives elsewhere, which nobody finds offline
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        return
    config = (folder / "tokenizer_config.json").is_file()
    raise TokenizerMissing(
        f"the folder {folder}{role} has no tokenizer: none of {', '.join(TOKENIZER_FILES[:4])} is there",
        why="it has tokenizer_config.json, but no vocabulary" if config else "",
        fix="copy tokenizer.json and tokenizer_config.json into it, or name another one (--tokenizer FOLDER_OR_HUB_ID)",
    )


def _bundled(name: str) -> Path:
    if name not in BUNDLED:
        near = did_you_mean(name, BUNDLED)
        raise ModelNotFound(
            f"no bundled model is called {name!r}", fix=near or f"bundled models: {', '.join(sorted(BUNDLED))}"
        )
    folder = Path(str(files("redline") / "recipes" / "models" / BUNDLED[name]))
    if not (folder / "config.json").is_file():
        raise ModelNotFound(
            f"the bundled model {name} is not part of this installation",
            why=f"{folder} is missing",
            fix="install redline again from a whole checkout or wheel",
        )
    return folder


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.endswith("/") or text.count("/") > 1 or "\\" in text


def _siblings(folder: Path) -> str:
    """Folders beside it whose names are near; for a word with a colon, the ids that take one."""
    if ":" in folder.name:
        known = [*(f"bundled:{name}" for name in BUNDLED), *(f"shape:{name}" for name in shape_names())]
        return did_you_mean(folder.name, known) or f"ids with a colon: {', '.join(known)}"
    try:
        names = [child.name for child in folder.parent.iterdir() if child.is_dir()]
    except OSError:
        return f"{folder.parent} does not exist either"
    return did_you_mean(folder.name, names)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _quick_hash(file: Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if file.suffix == ".safetensors":
            length = int.from_bytes(stream.read(8), "little")
            if 0 < length <= min(size - 8, 100_000_000):
                return f"header:{hashlib.sha256(stream.read(length)).hexdigest()}:{size}"
            stream.seek(0)
        return f"start:{hashlib.sha256(stream.read(1 << 20)).hexdigest()}:{size}"
