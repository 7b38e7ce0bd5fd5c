"""What each class of requests is promised, from an experiment as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TERMS = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")


@dataclass(frozen=True)
class Promise:
    """`terms` are limits by metric name; `attainment` is the share of requests that must meet all of them."""

    terms: Mapping[str, float]
    attainment: float


def class_promises(experiment: Mapping[str, Any]) -> dict[str, Promise]:
    """By the name of the class; what a class does not say is as in the experiment. Empty without classes."""
    around = experiment.get("slo") or {}
    found = {}
    for one in (experiment.get("workload") or {}).get("classes") or ():
        own = {name: value for name, value in (one.get("slo") or {}).items() if value is not None}
        merged = {**around, **own}
        terms = {name: float(merged[name]) for name in TERMS if merged.get(name)}
        found[str(one["name"])] = Promise(terms, float(merged.get("attainment") or 0.95))
    return found


def exact_output(experiment: Mapping[str, Any]) -> bool:
    """Whether every answer was to be exactly as long as asked, whichever its class."""
    work = experiment.get("workload") or {}
    around = bool(work.get("ignore_eos", True))
    own = [one.get("ignore_eos") for one in work.get("classes") or ()]
    return all(around if value is None else bool(value) for value in own) if own else around
