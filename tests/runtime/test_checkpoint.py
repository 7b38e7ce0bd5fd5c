"""Folders of safetensors: whole, sharded, and those that do not fit their config.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from redline.errors import EnvironmentFault, Unsupported
from tests.runtime.families import Driver, asked, loaded, prompt, saved

Tensors = dict[str, torch.Tensor]
Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved("llama-gqa", tmp_path)
    return tmp_path


def changed(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_shards_give_the_same_model(folder: Path) -> None:
    tokens = prompt(12)
    whole = Driver(loaded(folder)).feed((asked(tokens, range(1, 9)), 12))[0]
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for i in range(3):
        file = f"model-{i}.safetensors"
        save_file({name: tensors[name].clone() for name in names[i::3]}, folder / file)
        weight_map.update(dict.fromkeys(names[i::3], file))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(Driver(loaded(folder)).feed((asked(tokens, range(1, 9)), 12))[0], whole)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(EnvironmentFault, match=r"model-1\.safetensors"):
        loaded(folder)


def test_missing_tensors_are_named(folder: Path) -> None:
    changed(folder, lambda t: t.pop(Q))
    with pytest.raises(EnvironmentFault, match=f"missing: {Q}"):
        loaded(folder)


def test_unknown_tensors_are_named(folder: Path) -> None:
    changed(folder, lambda t: t.update({"model.layers.0.mlp.experts.weight": torch.ones(2)}))
    with pytest.raises(EnvironmentFault, match=r"unknown: model\.layers\.0\.mlp\.experts\.weight"):
        loaded(folder)


def test_misshapen_tensors_are_named(folder: Path) -> None:
    changed(folder, lambda t: t.update({Q: t[Q][:-1].clone()}))
    with pytest.raises(EnvironmentFault, match=rf"{Q} is \[63, 64\], not \[64, 64\]"):
        loaded(folder)


def test_long_lists_are_cut(folder: Path) -> None:
    changed(folder, lambda t: [t.pop(name) for name in list(t) if "mlp" in name])
    with pytest.raises(EnvironmentFault, match="and 4 more"):
        loaded(folder)


def test_buffers_that_old_checkpoints_carry_are_fine(folder: Path) -> None:
    changed(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    loaded(folder)


def test_a_tied_head_may_be_stored_too(tmp_path: Path) -> None:
    saved("llama-mha-tied", tmp_path)
    changed(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    loaded(tmp_path)


def test_pickles_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Unsupported, match="pickles"):
        loaded(folder)


def test_a_cut_file_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(EnvironmentFault, match=r"model\.safetensors"):
        loaded(folder)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(EnvironmentFault, match="no \\*"):
        loaded(folder)
