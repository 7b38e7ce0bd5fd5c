from __future__ import annotations

import json
from pathlib import Path

import pytest

from redline.errors import ModelNotFound
from redline.node.weights import model_files


def names(folder: Path) -> list[str]:
    return [path.name for path in model_files(folder)]


def touch(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).write_text("{}")


def test_small_files_first_then_shards_as_the_index_names_them(tmp_path: Path) -> None:
    touch(tmp_path, "b.safetensors", "a.safetensors", "extra.safetensors", "config.json", "pytorch_model.bin", ".lock")
    index = {"weight_map": {"embed": "b.safetensors", "layer.0": "a.safetensors", "head": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert names(tmp_path) == [
        "config.json", "model.safetensors.index.json", "b.safetensors", "a.safetensors", "extra.safetensors",
    ]  # fmt: skip


def test_without_safetensors_the_other_weights(tmp_path: Path) -> None:
    touch(tmp_path, "model-Q4.gguf", "config.json")
    assert names(tmp_path) == ["config.json", "model-Q4.gguf"]


def test_a_broken_index_is_the_loaders_matter(tmp_path: Path) -> None:
    touch(tmp_path, "b.safetensors", "a.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": [')
    assert names(tmp_path)[1:] == ["a.safetensors", "b.safetensors"]


def test_links_into_a_hub_cache_count(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("x")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to("../blob")
    assert names(tmp_path / "snapshot") == ["model.safetensors"]


def test_no_model(tmp_path: Path) -> None:
    touch(tmp_path, "config.json")
    with pytest.raises(ModelNotFound, match="no weights"):
        model_files(tmp_path)
    with pytest.raises(ModelNotFound, match="no such folder"):
        model_files(tmp_path / "nothing")
