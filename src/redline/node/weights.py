"""The files of a model folder in the order in which a loader reads them."""

from __future__ import annotations

import json
from pathlib import Path

from redline.errors import ModelNotFound

_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf")


def model_files(folder: Path) -> list[Path]:
    """The small files that every loader reads first, then the weights: safetensors as the index lists its shards, else
    by name. Where there are safetensors, other forms of the same weights are left out. Raises ModelNotFound."""
    if not folder.is_dir():
        raise ModelNotFound(f"{folder}: no such folder", fix="give the folder that holds the *.safetensors")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    shards = _in_order(folder, [path for path in files if path.suffix == ".safetensors"])
    weights = shards or [path for path in files if path.suffix in _OTHER_WEIGHTS]
    if not weights:
        raise ModelNotFound(f"{folder}: no weights (*.safetensors, *.bin, *.gguf)", fix="give the model's own folder")
    small = [path for path in files if path.suffix not in (".safetensors", *_OTHER_WEIGHTS)]
    return small + weights


def _in_order(folder: Path, shards: list[Path]) -> list[Path]:
    """As the index names them first; files that it does not name (a second set, adapters) come last."""
    named: list[str] = []
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            named += dict.fromkeys(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            continue  # the loader will say what is wrong with it
    places = {name: place for place, name in reversed(list(enumerate(named)))}
    return sorted(shards, key=lambda path: (places.get(path.name, len(named)), path.name))
