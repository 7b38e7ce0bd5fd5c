"""A folder of safetensors, one file or sharded, checked against what the model needs before anything is copied."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError, safe_open

from redline.errors import EnvironmentFault, Unsupported
from redline.runtime.architecture import ModelConfig
from redline.runtime.quant import Shapes, quantized_names
from redline.runtime.shapes import Part, part_shapes, parts_of, plain_shapes

_HARMLESS = ("rotary_emb.inv_freq", ".k_scale", ".v_scale", ".input_scale", ".output_scale", ".kv_scale")
_SHOWN = 5


class Checkpoint:
    """Tensors by name, as views of the mapped files. Raises `EnvironmentFault` when names or shapes do not fit."""

    def __init__(self, folder: Path, model: ModelConfig) -> None:
        self.folder = folder
        files = [_opened(path) for path in _paths(folder)]
        self._where: dict[str, Any] = {name: file for file in files for name in file.keys()}  # noqa: SIM118
        self._check(model)

    def tensor(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self._where[name].get_tensor(name)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._where[name].get_slice(name).get_shape())

    def _check(self, model: ModelConfig) -> None:
        shapes: Shapes = {**plain_shapes(model)}
        optional: set[str] = set()
        for part in parts_of(model):
            needed, allowed = self._part(part, model)
            shapes.update(needed)
            optional |= allowed
        harmless = optional | ({"lm_head.weight"} if model.tied else set())
        missing = sorted(shapes.keys() - self._where.keys())
        extra = sorted(name for name in self._where.keys() - shapes.keys() - harmless if not name.endswith(_HARMLESS))
        wrong = [
            f"{name} is {list(self.shape(name))}, not {list(shape)}"
            for name, shape in shapes.items()
            if shape is not None and name in self._where and self.shape(name) != shape
        ]
        complaints = [_listed("missing", missing), _listed("unknown", extra), _listed("misshapen", wrong)]
        if any(complaints):
            raise EnvironmentFault(
                f"{self.folder}: the weights are not those of config.json",
                why="; ".join(filter(None, complaints)),
                fix="download the checkpoint again, or give the config.json that belongs to it",
            )

    def _part(self, part: Part, model: ModelConfig) -> tuple[Shapes, set[str]]:
        stored = model.quantization
        if stored is None or stored.skips(part.module):
            return {**part_shapes(part)}, set()
        return quantized_names(part, stored)


def _paths(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(orjson.loads(index.read_bytes())["weight_map"].values()))
        paths = [folder / name for name in names]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        raise EnvironmentFault(f"{folder}: {_listed('missing', absent)}", why=f"{index.name} names them")
    if paths:
        return paths
    if next(folder.glob("*.bin"), None):
        raise Unsupported(
            f"{folder}: weights as pickles (.bin)",
            why="a pickle runs code when it is read",
            fix="convert it: transformers' save_pretrained writes safetensors",
        )
    raise EnvironmentFault(f"{folder} has no *.safetensors", fix="--load-format random needs none")


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as wrong:
        raise EnvironmentFault(f"{path}: {wrong}", fix="download the file again") from None


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what}: {', '.join(names[:_SHOWN])}{more}" if names else ""
