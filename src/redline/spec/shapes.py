"""Published architectures with random weights: right for speed, memory and roofline, meaningless for quality.

A shape is a published config.json. Its model folder is written here: that config, and a tokenizer of exactly the same
vocabulary size that is free to ship.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from redline.errors import EnvironmentFault, ModelNotFound
from redline.spec.faults import did_you_mean
from redline.spec.shape_tokenizer import tokenizer_files


def shape_names() -> list[str]:
    """Every shape that `shape:NAME` can name."""
    return sorted(file.name.removesuffix(".json") for file in _shapes().iterdir() if file.name.endswith(".json"))


def shape_config(name: str) -> dict[str, Any]:
    """The published config.json. Raises ModelNotFound with the nearest names."""
    return dict(_shape(name)["config"])


def shape_source(name: str) -> str:
    """Where the architecture was published."""
    return str(_shape(name)["source"])


def parameter_count(config: dict[str, Any]) -> int:
    """Parameters of a dense decoder of the Llama family (Llama, Mistral, Qwen2, Qwen3); 0 for any other."""
    family = config.get("model_type")
    if family not in ("llama", "mistral", "qwen2", "qwen3"):
        return 0
    try:
        hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
        heads, layers, vocab = (int(config[key]) for key in ("num_attention_heads", "num_hidden_layers", "vocab_size"))
    except (KeyError, TypeError, ValueError):
        return 0
    groups = int(config.get("num_key_value_heads") or heads)
    head = int(config.get("head_dim") or hidden // heads)
    query, key = heads * head, groups * head
    attention = hidden * (query + 2 * key) + query * hidden
    if family == "qwen2" or config.get("attention_bias"):
        attention += query + 2 * key + (hidden if family == "llama" else 0)
    if family == "qwen3":
        attention += 2 * head
    layer = attention + 3 * hidden * inner + 2 * hidden
    return layers * layer + hidden + vocab * hidden * (1 if config.get("tie_word_embeddings") else 2)


def default_cache() -> Path:
    """Where written model folders are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "redline"


def materialise_shape(name: str, cache_dir: Path | None = None) -> Path:
    """The model folder of a shape (config, tokenizer, no weights), written when it is not there yet.

    The folder's name holds the hash of its content, so that a changed shape never meets an old folder. Raises
    ModelNotFound for an unknown name, EnvironmentFault when the cache cannot be written.
    """
    content = _content(name)
    digest = hashlib.sha256()
    for file in sorted(content):
        digest.update(f"{file}\0{len(content[file])}\0".encode() + content[file])
    folder = (cache_dir or default_cache()) / "shapes" / f"{name}-{digest.hexdigest()[:12]}"
    try:
        if not _holds(folder, content):
            _write(folder, content)
    except OSError as error:
        raise EnvironmentFault(
            f"the model folder {folder} cannot be written: {error.strerror or error}",
            fix="make room, or point XDG_CACHE_HOME at a folder that can be written",
        ) from None
    return folder


def _write(folder: Path, content: dict[str, bytes]) -> None:
    """All or nothing: a reader never sees half a folder, and whoever comes second uses the first one's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for file, data in content.items():
            (draft / file).write_bytes(data)
        draft.chmod(0o755)
        if folder.exists() and not _holds(folder, content):
            folder.rename(Path(tempfile.mkdtemp(prefix=f".{folder.name}.broken.", dir=folder.parent)))
        try:
            draft.rename(folder)
        except OSError:
            if not _holds(folder, content):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _holds(folder: Path, content: dict[str, bytes]) -> bool:
    return all((folder / file).is_file() and (folder / file).read_bytes() == data for file, data in content.items())


@lru_cache(maxsize=4)
def _content(name: str) -> dict[str, bytes]:
    """Every file of the model folder."""
    config = shape_config(name)
    base = files("redline") / "recipes" / "models" / "redline-tiny" / "tokenizer.json"
    pieces = tokenizer_files(config, json.loads(base.read_bytes()) if base.is_file() else None)
    config["pad_token_id"] = config["vocab_size"] - 1
    # the layout of the fields; without it transformers 5 suspects a broken Mistral tokenizer in any large vocabulary
    config["transformers_version"] = "4.57.0"
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    pieces |= {"config.json": config, "generation_config.json": ids}
    return {
        file: json.dumps(piece, indent=_indent(file), ensure_ascii=False).encode() for file, piece in pieces.items()
    }


def _indent(file: str) -> int | None:
    return None if file == "tokenizer.json" else 2


def _shapes() -> Any:
    return files("redline") / "recipes" / "shapes"


def _shape(name: str) -> dict[str, Any]:
    names = shape_names()
    if name not in names:
        near = did_you_mean(name, names)
        raise ModelNotFound(f"there is no shape {name!r}", fix=near or f"shapes: {', '.join(names)}")
    shape: dict[str, Any] = json.loads((_shapes() / f"{name}.json").read_bytes())
    return shape
