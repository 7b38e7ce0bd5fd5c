"""The floor of a step: what no engine can beat on this card with this model, and what it is that holds it there.

A step is two parts that run one after the other: the matrix products, whose weights are read once for all tokens, and
attention, whose KV cache is read by each sequence for itself. Each takes as long as the slower of its bytes and its
FLOPs. Activations, norms and sampling are left out: this is a floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from redline.analyse.architecture import Architecture

Regime = Literal["memory-bound", "compute-bound", "host-bound", "below the ceiling", "unknown"]
FLIP_LIMIT = 1 << 20
NEAR = 0.6
"""From this share of the ceiling on, the ceiling is what holds the step."""
HOST_SHARE = 0.5
"""Of the time that is lost: when gaps are more of it than this, the host holds the step."""


@dataclass(frozen=True)
class Precision:
    """Bytes per element. `head` is of the matrix that makes logits, which is rarely quantised."""

    weights: float = 2.0
    kv: float = 2.0
    head: float = 2.0


@dataclass(frozen=True)
class Limits:
    """Bytes and FLOPs per second that the card was measured to reach."""

    read: float
    flops: float

    def times(self, cards: int) -> Limits:
        """Of so many cards together."""
        return Limits(self.read * cards, self.flops * cards)

    @property
    def ridge(self) -> float:
        """FLOPs per byte at which reading and computing take equally long."""
        return self.flops / self.read


@dataclass(frozen=True)
class Part:
    flops: float
    bytes: float

    def seconds(self, limits: Limits) -> float:
        return max(self.flops / limits.flops, self.bytes / limits.read)

    def memory_bound(self, limits: Limits) -> bool:
        return self.bytes / limits.read >= self.flops / limits.flops


@dataclass(frozen=True)
class StepCost:
    """Of one step over the whole batch."""

    linear: Part
    attention: Part

    @property
    def flops(self) -> float:
        return self.linear.flops + self.attention.flops

    @property
    def bytes(self) -> float:
        return self.linear.bytes + self.attention.bytes

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes if self.bytes else math.inf

    def floor_s(self, limits: Limits) -> float:
        return self.linear.seconds(limits) + self.attention.seconds(limits)

    def bound(self, limits: Limits) -> Regime:
        """What the larger share of the floor is."""
        parts = (self.linear, self.attention)
        memory = sum(part.seconds(limits) for part in parts if part.memory_bound(limits))
        return "memory-bound" if memory >= self.floor_s(limits) / 2 else "compute-bound"


def kv_bytes_per_token(model: Architecture, precision: Precision) -> float:
    """Of a token in all layers, windows not yet full."""
    return (model.layers - model.layer_fixed_state) * model.kv_elements * precision.kv


def kv_bytes(model: Architecture, precision: Precision, context: float) -> float:
    """Of one sequence: layers with a window hold no more than the window."""
    return model.seen(context) * model.kv_elements * precision.kv


def decode(model: Architecture, precision: Precision, batch: float, context: float) -> StepCost:
    """One token for each of `batch` sequences that are `context` tokens long."""
    body, head = model.read_body(batch), model.head_parameters
    linear = Part(
        2.0 * batch * (model.active_body + head),
        body * precision.weights + head * precision.head,
    )
    seen = model.seen(context)
    attention = Part(batch * seen * model.pair_flops, batch * seen * model.kv_elements * precision.kv)
    return StepCost(linear, attention)


def prefill(model: Architecture, precision: Precision, batch: float, length: float) -> StepCost:
    """`batch` prompts of `length` tokens; logits are made for the last token of each."""
    tokens = batch * length
    linear = Part(
        2.0 * (tokens * model.active_body + batch * model.head_parameters),
        model.read_body(tokens) * precision.weights + model.head_parameters * precision.head,
    )
    written = tokens * kv_bytes_per_token(model, precision)
    flops = batch * model.causal(length) * _prefill_pair_flops(model)
    return StepCost(linear, Part(flops, 2.0 * written))


def _prefill_pair_flops(model: Architecture) -> float:
    """MLA expands keys and values for a prompt: that is cheaper than working in the compressed space."""
    return 2.0 * model.heads * (model.head + model.value_head)


def linear_flip(model: Architecture, precision: Precision, limits: Limits) -> int | None:
    """The smallest batch at which the matrix products of a decode step are compute-bound; None beyond 2^20."""
    return _first_batch(lambda batch: not decode(model, precision, batch, 1).linear.memory_bound(limits))


def whole_flip(model: Architecture, precision: Precision, limits: Limits, context: float) -> int | None:
    """The smallest batch at which a whole decode step at this context does more FLOPs per byte than the ridge; None
    when no batch does: the KV cache grows with the batch, too."""
    return _first_batch(lambda batch: decode(model, precision, batch, context).intensity >= limits.ridge)


def longest_flip(model: Architecture, precision: Precision, limits: Limits) -> float:
    """Context beyond which a decode step is memory-bound at any batch: 2N/(S·k), the intensity of an endless batch,
    falls below the ridge there. inf when it never does."""
    per_token = kv_bytes_per_token(model, precision)
    slack = limits.ridge * per_token - model.pair_flops * (model.layers - model.layer_fixed_state)
    return 2.0 * (model.active_body + model.head_parameters) / slack if slack > 0 else math.inf


def _first_batch(holds: object) -> int | None:
    assert callable(holds)
    low, high = 1, 1
    while not holds(high):
        low, high = high + 1, high * 2
        if high > FLIP_LIMIT:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


@dataclass(frozen=True)
class Standing:
    """How far a measured step is from its floor, and what holds it. `why` says it in words."""

    regime: Regime
    share: float
    """Floor over measured: 1 is the ceiling."""
    floor_s: float
    measured_s: float
    bound: Regime
    why: str


def standing(cost: StepCost, limits: Limits, measured_s: float, gap_s: float | None = None) -> Standing:
    """`gap_s`: of the measured step, time in which the device had nothing to do; None when nobody looked.

    Near the ceiling the floor's own bound holds the step. Below it, the host does when gaps make up most of what is
    lost; else kernels do that reach less than the card can, which is `below the ceiling`.
    """
    floor, bound = cost.floor_s(limits), cost.bound(limits)
    share = floor / measured_s if measured_s > 0 else math.nan
    lost = measured_s - floor
    text = f"{share:.0%} of the ceiling"
    if not math.isfinite(share):
        return Standing("unknown", share, floor, measured_s, bound, "nothing was measured")
    if share > 1.02:
        why = f"{text}: more than the card can, so a ceiling, a length or the precision assumed is wrong"
        return Standing("unknown", share, floor, measured_s, bound, why)
    if gap_s is not None and gap_s > HOST_SHARE * measured_s:
        return Standing("host-bound", share, floor, measured_s, bound, f"{text}; gaps are {gap_s / measured_s:.0%}")
    if share >= NEAR:
        return Standing(bound, share, floor, measured_s, bound, text)
    if gap_s is None:
        why = f"{text}; a profile tells whether the host or the kernels lose the rest"
        return Standing("below the ceiling", share, floor, measured_s, bound, why)
    if lost > 0 and gap_s / lost >= HOST_SHARE:
        why = f"{text}; gaps are {gap_s / lost:.0%} of what is lost"
        return Standing("host-bound", share, floor, measured_s, bound, why)
    why = f"{text}; gaps are only {gap_s / lost:.0%} of what is lost: kernels are slower than the card"
    return Standing("below the ceiling", share, floor, measured_s, bound, why)


@dataclass(frozen=True)
class CurvePoint:
    batch: int
    floor_s: float
    tokens_per_s: float
    intensity: float
    bound: Regime


def curve(
    model: Architecture, precision: Precision, limits: Limits, context: float, batches: Sequence[int]
) -> list[CurvePoint]:
    """The ceiling of decoding over batch size."""
    found = []
    for batch in batches:
        cost = decode(model, precision, batch, context)
        floor = cost.floor_s(limits)
        found.append(CurvePoint(batch, floor, batch / floor, cost.intensity, cost.bound(limits)))
    return found
