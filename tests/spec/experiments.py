"""Random valid experiments, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.slo import SloSpec
from redline.spec.stages import StageSpec
from redline.spec.workload import LengthSpec, WorkloadSpec

# words that YAML readers take for something else, and text that breaks naive quoting
TRAPS = [
    "on",
    "no",
    "Yes",
    "null",
    "~",
    "1e3",
    "0x1f",
    "010",
    "12:30",
    "1_0",
    ".5",
    "2026-01-01",
    "<<",
    "=",
    "- a",
    "#",
]
texts = st.one_of(st.sampled_from(TRAPS), st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
names = st.one_of(st.sampled_from(TRAPS), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
positive = st.floats(min_value=1e-6, max_value=1e12, allow_nan=False, allow_infinity=False)
values = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.lists(texts, max_size=3),
)
flag_names = names.filter(lambda name: name.strip() and not name.startswith("-") and "=" not in name)


@st.composite
def lengths(draw: st.DrawFn) -> LengthSpec:
    low, mean, high = sorted(draw(st.lists(st.integers(1, 10**6), min_size=3, max_size=3)))
    return LengthSpec(mean=mean, stddev=draw(st.one_of(st.just(0.0), positive)), min=low, max=high)


@st.composite
def workloads(draw: st.DrawFn) -> WorkloadSpec:
    kind = draw(st.sampled_from(["synthetic", "text", "jsonl", "sharegpt"]))
    prompt = draw(lengths())
    return WorkloadSpec(
        kind=kind,
        path="" if kind == "synthetic" else draw(names),
        api=draw(st.sampled_from(["chat", "completions"])),
        prompt_tokens=prompt,
        output_tokens=draw(lengths()),
        shared_prefix_tokens=draw(st.integers(0, prompt.mean - 1)) if kind == "synthetic" else 0,
        stream=draw(st.booleans()),
        temperature=draw(st.one_of(st.just(0.0), positive)),
        cache=draw(st.sampled_from(["cold", "natural"])),
    )


@st.composite
def stages(draw: st.DrawFn, *, open_loop: bool) -> StageSpec:
    to = draw(st.none() | st.integers(0, 100))
    if not open_loop:
        return StageSpec(concurrency=draw(st.integers(1, 1000)), to=to, duration_s=draw(positive))
    arrivals = draw(st.sampled_from(["poisson", "constant", "gamma"]))
    return StageSpec(rate=draw(positive), to=to, duration_s=draw(positive), arrivals=arrivals)


@st.composite
def loads(draw: st.DrawFn) -> LoadSpec:
    common: dict[str, Any] = {
        "duration_s": draw(positive),
        "requests": draw(st.integers(0, 10**9)),
        "drain_s": draw(positive),
    }
    kind = draw(st.sampled_from(["rate", "concurrency", "trace", "open stages", "closed stages"]))
    if kind == "trace":
        return LoadSpec(trace_speed=draw(st.lists(positive, min_size=1, max_size=3, unique=True)), **common)
    if kind.endswith("stages"):
        return LoadSpec(
            stages=draw(st.lists(stages(open_loop=kind == "open stages"), min_size=1, max_size=3)), **common
        )
    if kind == "rate":
        arrivals = draw(st.sampled_from(["poisson", "constant", "gamma"]))
        common |= {"arrivals": arrivals, "burstiness": draw(positive) if arrivals == "gamma" else 1.0}
        return LoadSpec(rate=draw(st.lists(positive, min_size=1, max_size=3, unique=True)), **common)
    points = draw(st.lists(st.integers(1, 10**5), min_size=1, max_size=4, unique=True))
    return LoadSpec(concurrency=points, **common)


@st.composite
def engines(draw: st.DrawFn, label: str) -> EngineSpec:
    kind = draw(st.sampled_from(["transformers", "vllm", "url"]))
    return EngineSpec(
        kind=kind,
        name=label,
        url="http://127.0.0.1:1/v1" if kind == "url" else "",
        python=draw(texts),
        flags=draw(st.dictionaries(flag_names, values, max_size=3)),
        env=draw(st.dictionaries(names, texts, max_size=2)),
        port=draw(st.integers(0, 65535)),
        startup_timeout_s=draw(positive),
    )


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    labels = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    served = draw(st.lists(names, min_size=1, max_size=2, unique=True))
    return Experiment(
        name=draw(texts),
        models=[
            ModelSpec(id=draw(names), name=name, dtype=draw(st.sampled_from(["auto", "bfloat16"]))) for name in served
        ],
        engines=[draw(engines(label)) for label in labels],
        workload=draw(workloads()),
        load=draw(loads()),
        slo=SloSpec(ttft_ms=draw(st.none() | positive), attainment=draw(st.floats(0.01, 1))),
        repeats=draw(st.integers(1, 100)),
        seed=draw(st.integers(0, 2**53)),
    )
