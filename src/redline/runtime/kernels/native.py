"""A whole forward pass in one call, for small dense models in bfloat16 on one core (`native.c`).

Decoding a model of a few million parameters with one library call per operation spends most of its time on the calls.
The call holds no interpreter lock, so the server's thread writes answers meanwhile.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from itertools import pairwise

import torch

from redline.runtime.batch import Batch, host
from redline.runtime.kernels import KV
from redline.runtime.kernels.compiled import library
from redline.runtime.linear import Packed, Plain, Weight
from redline.runtime.model import Model

LANES = 16
ROWS = 512
PAIRS = 32_768
"""Pairs of a prompt's token and one that it sees, up to which this is the quicker way: it reads K and V once per token,
where a library's attention multiplies blocks."""
_POINTERS = ctypes.c_void_p


class Unfit(Exception):
    """Why a model cannot be computed this way."""


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _POINTERS) for name in ("input_norm", "post_norm", "q_norm", "k_norm", "qkv", "o", "gate_up", "down")),
        *((name, _POINTERS) for name in ("qkv_bias", "o_bias", "gate_up_bias", "down_bias", "kv")),
        ("window", ctypes.c_int64),
    ]


class _Model(ctypes.Structure):
    _sizes = ("hidden", "heads", "kv_heads", "dim", "inner", "vocab", "layers", "page_size")
    _fields_ = [
        *((name, ctypes.c_int64) for name in _sizes),
        *((name, _POINTERS) for name in ("embedding", "norm", "head", "cos_sin", "layer")),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "wanted", "table_width")),
        *((name, _POINTERS) for name in ("ids", "positions", "slots", "wanted_at", "sequence", "tables")),
    ]


class _Room(ctypes.Structure):
    _fields_ = [(name, _POINTERS) for name in ("residual", "query", "seen", "scores", "into", "out")]


class NativePass:
    """`model` with its `kv` as `Model.allocate_kv` makes it on a CPU. Raises `Unfit` and `NoCompiler`.

    It keeps a second copy of the weights, in its own layout: longer steps go through `Model.forward`.
    """

    def __init__(self, model: Model, kv: list[KV]) -> None:
        _check(model)
        self._kept: list[torch.Tensor] = []
        lib = library()
        lib.forward.restype = None
        self._call = lib.forward
        c = model.config
        head = packed(model.head.dequantized())
        self._vocab, self._columns = c.vocab_size, head.shape[0] * LANES
        layers = (_Layer * c.num_layers)(*(self._layer(model, i, kv[i]) for i in range(c.num_layers)))
        sizes = (c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.intermediate_size, self._columns)
        pointers = (model.embedding, model.norm.float(), head, model.cos_sin)
        self._model = _Model(
            *sizes,
            c.num_layers,
            kv[0][0].shape[1],
            *(self._at(one) for one in pointers),
            ctypes.cast(layers, _POINTERS),
            c.rms_norm_eps,
            model.scale,
        )
        self._layers = layers
        self._room = self._made_room(model)

    def suits(self, batch: Batch) -> bool:
        """Whether the step is small enough; else `Model.forward` is to compute it."""
        if batch.ids.shape[0] > ROWS:
            return False
        starts, lengths = host(batch)
        news = (last - first for first, last in pairwise(starts))
        return sum(new * length for new, length in zip(news, lengths, strict=True) if new > 1) <= PAIRS

    def logits(self, batch: Batch) -> torch.Tensor:
        """[L, vocab] float32 of `batch.logits_at`; writes the step's K and V. For batches that suit."""
        starts, _ = host(batch)
        rows, wanted = batch.ids.shape[0], batch.logits_at.shape[0]
        if len(starts) == rows + 1:
            of_row = torch.arange(rows, dtype=torch.int32)
        else:
            counts = torch.tensor([last - first for first, last in pairwise(starts)])
            of_row = torch.repeat_interleave(torch.arange(len(counts), dtype=torch.int32), counts)
        found = torch.empty(wanted, self._columns, dtype=torch.bfloat16)
        parts = (batch.ids, batch.positions, batch.slots, batch.logits_at, of_row, batch.page_tables)
        step = _Step(rows, wanted, batch.page_tables.shape[1], *(part.data_ptr() for part in parts))
        self._call(ctypes.byref(self._model), ctypes.byref(step), ctypes.byref(self._room), _POINTERS(found.data_ptr()))
        return found[:, : self._vocab].float()

    def _layer(self, model: Model, i: int, kv: KV) -> _Layer:
        layer = model.layers[i]
        norms = (layer.input_norm, layer.post_norm, layer.q_norm, layer.k_norm)
        weights = (layer.qkv, layer.o, layer.gate_up, layer.down)
        return _Layer(
            *(None if norm is None else self._at(norm.float()) for norm in norms),
            *(self._at(packed(weight.dequantized())) for weight in weights),
            *(None if (bias := _bias(weight)) is None else self._at(bias.float()) for weight in weights),
            kv[0].data_ptr(),
            layer.window or 0,
        )

    def _made_room(self, model: Model) -> _Room:
        c = model.config
        width, group = c.num_heads * c.head_dim, c.num_heads // c.num_kv_heads
        floats = (ROWS * c.hidden_size, ROWS * width, ROWS * width, group * model.cos_sin.shape[0])
        into = ROWS * max(c.hidden_size, width, c.intermediate_size)
        out = ROWS * max(width + 2 * c.num_kv_heads * c.head_dim, 2 * c.intermediate_size, c.hidden_size)
        room = [torch.empty(size) for size in floats]
        room += [torch.empty(size, dtype=torch.bfloat16) for size in (into, out)]
        return _Room(*(self._at(one) for one in room))

    def _at(self, tensor: torch.Tensor) -> int:
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def packed(weight: torch.Tensor) -> torch.Tensor:
    """[out, in] -> [out / LANES, in / 2, LANES, 2]; outputs that fill the last vector are zero."""
    out, inputs = weight.shape
    if out % LANES:
        weight = torch.cat([weight, weight.new_zeros(-out % LANES, inputs)])
        out = weight.shape[0]
    return weight.view(out // LANES, LANES, inputs // 2, 2).transpose(1, 2).contiguous()


def _bias(weight: Weight) -> torch.Tensor | None:
    bias: torch.Tensor | None = getattr(weight, "bias", None)
    return bias


def _layered(model: Model) -> Iterable[Weight]:
    for layer in model.layers:
        yield from (layer.qkv, layer.o, layer.gate_up, layer.down)


def _check(model: Model) -> None:
    if model.dtype != torch.float32 or model.embedding.dtype != torch.bfloat16:
        raise Unfit("it takes weights in bfloat16 and activations in float32")
    for weight in (*_layered(model), model.head):
        if not isinstance(weight, Packed | Plain):
            raise Unfit(f"it takes no {type(weight).__name__} weights")
    for weight in _layered(model):
        out, inputs = weight.dequantized().shape
        if out % LANES or inputs % 2:
            raise Unfit(f"it takes no matrix of {out} x {inputs}")
