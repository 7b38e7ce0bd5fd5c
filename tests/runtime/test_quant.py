"""Quantized checkpoints: what is loaded is, number by number, what was packed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from redline.errors import Unsupported
from redline.runtime.architecture import read_config
from redline.runtime.linear import Joined
from redline.runtime.model import Model
from redline.runtime.shapes import fused_parts
from tests.runtime import packers
from tests.runtime.families import Driver, asked, loaded, prompt, saved


class Case(NamedTuple):
    pack: Callable[[packers.Quantized], dict[str, torch.Tensor]]
    config: dict[str, Any]
    size: int
    symmetric: bool = True
    shuffled: bool = False
    family: str = "llama-gqa"
    dtype: torch.dtype = torch.float16


def gptq_config(size: int, **more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": 4, "group_size": size, "sym": True, "desc_act": False, **more}


def packed_config(size: int, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "group_size": size or None, **more}
    weights["strategy"] = "group" if size else "channel"
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": groups,
        "ignore": ["lm_head"],
    }


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}
CASES = {
    "awq": Case(packers.awq, AWQ, 16, symmetric=False),
    "awq-biases": Case(packers.awq, AWQ, 16, symmetric=False, family="qwen2-bias"),
    "gptq": Case(packers.gptq, gptq_config(32), 32),
    "gptq-asymmetric": Case(packers.gptq, gptq_config(32, sym=False), 32, symmetric=False),
    "gptq-act-order": Case(packers.gptq, gptq_config(16, desc_act=True), 16, shuffled=True),
    "gptq-per-channel": Case(packers.gptq, gptq_config(-1), 0),
    "gptq-v2": Case(packers.gptq_v2, gptq_config(32, checkpoint_format="gptq_v2"), 32, symmetric=False),
    "packed": Case(packers.packed, packed_config(32), 32, dtype=torch.bfloat16),
    "packed-asymmetric": Case(packers.packed, packed_config(32, symmetric=False), 32, symmetric=False),
    "packed-act-order": Case(packers.packed, packed_config(16, actorder="group"), 16, shuffled=True),
    "packed-per-channel": Case(packers.packed, packed_config(0), 0),
}


def write(case: Case, folder: Path, skip: str = "") -> dict[str, torch.Tensor]:
    """Replaces the linear layers of a saved model; returns their matrices, dequantized, by module."""
    saved(case.family, folder)
    tensors = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    matrices = {}
    for name in [n for n in tensors if n.endswith("_proj.weight")]:
        module = name.removesuffix(".weight")
        if skip and skip in module:
            continue
        out, inputs = tensors.pop(name).shape
        q = packers.drawn(
            out,
            inputs,
            case.size,
            symmetric=case.symmetric,
            shuffled=case.shuffled,
            seed=len(tensors),
            dtype=case.dtype,
        )
        tensors.update({f"{module}.{key}": value.contiguous() for key, value in case.pack(q).items()})
        matrices[module] = q.dequantized()
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = case.config
    (folder / "config.json").write_text(json.dumps(config))
    return matrices


def fused(model: Model, layer: int) -> dict[str, torch.Tensor]:
    at = model.layers[layer]
    named = {"qkv": at.qkv, "o": at.o, "gate_up": at.gate_up, "down": at.down}
    return {name: weight.dequantized() for name, weight in named.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_matrix_is_what_was_packed(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    matrices = write(case, tmp_path)
    model = loaded(tmp_path)
    for layer in range(model.config.num_layers):
        found = fused(model, layer)
        for key, parts in fused_parts(model.config, layer).items():
            assert torch.equal(found[key], torch.cat([matrices[part.module] for part in parts]))


@pytest.mark.parametrize("name", ["awq-biases", "gptq-act-order", "packed-asymmetric"])
def test_the_model_computes_as_the_plain_one(name: str, tmp_path: Path) -> None:
    """The same model stored plainly gives the same logits; biases included."""
    case, tokens = CASES[name], prompt(12)
    matrices = write(case, tmp_path)
    logits = Driver(loaded(tmp_path)).feed((asked(tokens, range(1, 9)), 12))[0]
    plain = saved(case.family, tmp_path)
    with torch.inference_mode():
        for module, matrix in matrices.items():
            plain.get_submodule(module).weight.copy_(matrix)
        wanted = plain(torch.tensor([tokens])).logits[0]
    assert (logits - wanted).abs().max() <= 1e-4


def test_parts_with_orders_of_their_own_stay_apart(tmp_path: Path) -> None:
    """The packer draws another order for each part, as a quantizer that looks at each alone does."""
    write(CASES["gptq-act-order"], tmp_path)
    assert isinstance(loaded(tmp_path).layers[0].qkv, Joined)


def test_a_layer_that_was_left_out(tmp_path: Path) -> None:
    case = CASES["awq"]._replace(config={**AWQ, "modules_to_not_convert": ["k_proj", "down_proj"]})
    matrices = write(case, tmp_path, skip="k_proj")
    with pytest.raises(Exception, match=r"down_proj\.weight"):
        loaded(tmp_path)
    case.config["modules_to_not_convert"] = ["k_proj"]
    matrices = write(case, tmp_path, skip="k_proj")
    stored = load_file(tmp_path / "model.safetensors")
    at = "model.layers.0.self_attn."
    wanted = [matrices[at + "q_proj"], stored[at + "k_proj.weight"], matrices[at + "v_proj"]]
    assert torch.equal(fused(loaded(tmp_path), 0)["qkv"], torch.cat(wanted))


@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("method", ["fp8", "compressed-tensors"])
def test_fp8_checkpoints(per: str, method: str, tmp_path: Path) -> None:
    saved("llama-gqa", tmp_path)
    tensors = {name: value.clone() for name, value in load_file(tmp_path / "model.safetensors").items()}
    matrices = {}
    for name in [n for n in tensors if n.endswith("_proj.weight")]:
        weight = tensors[name]
        largest = weight.abs().amax(1, keepdim=True) if per == "channel" else weight.abs().max()
        scale = largest / 448
        tensors[name] = (weight / scale).to(torch.float8_e4m3fn)
        tensors[name + "_scale"] = scale
        tensors[name.replace("weight", "input_scale")] = torch.tensor(1.0)
        matrices[name.removesuffix(".weight")] = tensors[name].float() * scale
    save_file(tensors, tmp_path / "model.safetensors")
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": per}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": {"dynamic": True}}}
    compressed = {"config_groups": groups, "format": "float-quantized", "ignore": ["lm_head"]}
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, **(compressed if method != "fp8" else {})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = loaded(tmp_path)
    parts = fused_parts(model.config, 1)
    for key, found in fused(model, 1).items():
        assert torch.equal(found, torch.cat([matrices[part.module] for part in parts[key]]))
    assert Driver(model).feed((asked(prompt(9), range(1, 9)), 9))[0].isfinite().all()


@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_quantizing_at_start_stays_near_the_plain_model(quantization: str, tmp_path: Path) -> None:
    """Logits correlate with those of the plain weights, and are not the same."""
    saved("qwen2-bias", tmp_path)
    tokens = prompt(40)
    plain, rounded = (
        Driver(loaded(tmp_path, quantization=q)).feed((asked(tokens, range(1, 12)), 40))[0].flatten()
        for q in ("none", quantization)
    )
    together = torch.corrcoef(torch.stack((plain, rounded)))[0, 1]
    assert 0.98 < together < 1
    assert not torch.equal(plain, rounded)


def test_quantizing_what_is_quantized_is_refused(tmp_path: Path) -> None:
    write(CASES["awq"], tmp_path)
    for quantization in ("none", "int8", "fp8"):
        with pytest.raises(Unsupported, match="stored as awq"):
            loaded(tmp_path, quantization=quantization)


def test_the_config_is_recognised(tmp_path: Path) -> None:
    layouts = {}
    for name in ("awq", "gptq-act-order", "packed-asymmetric"):
        (folder := tmp_path / name).mkdir()
        write(CASES[name], folder)
        stored = read_config(folder).quantization
        assert stored is not None
        layouts[name] = (stored.layout, stored.group_size, stored.symmetric, stored.act_order)
    assert layouts == {
        "awq": ("awq", 16, False, False),
        "gptq-act-order": ("gptq", 16, True, True),
        "packed-asymmetric": ("packed", 32, False, False),
    }
