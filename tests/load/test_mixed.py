"""Classes of requests in one stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.load.mixed import Deal
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.prompts import PromptSource, prompt_source
from redline.spec.workload import ClassSpec, LengthSpec, WorkloadSpec
from tests.load.servers import closed, fast, push, workload

CLASSES = [
    ClassSpec(name="chat", weight=3, api="chat", prompt_tokens=LengthSpec(mean=40)),
    ClassSpec(name="long", prompt_tokens=LengthSpec(mean=200), output_tokens=LengthSpec(mean=3), priority=2),
    ClassSpec(name="vector", weight=1, api="embeddings", prompt_tokens=LengthSpec(mean=20)),
]
weights = st.lists(st.floats(0.1, 50), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def server() -> Iterator[PacedServer]:
    with PacedServer(fast()) as made:
        yield made


def source(server: PacedServer, work: WorkloadSpec, seed: int = 1) -> PromptSource:
    return prompt_source(server.endpoint, work, seed=seed, tokenizer_path=None, needed=50)


@given(weights, st.integers(0, 2**40), st.integers(1, 3000))
def test_every_class_has_exactly_its_part(parts: list[float], key: int, count: int) -> None:
    deal = Deal(parts)
    whole = count // deal.block * deal.block
    got = Counter(deal.order(key, count)[:whole])
    for place, weight in enumerate(parts):
        assert abs(got[place] - whole * weight / sum(parts)) <= len(parts)
    assert deal.before(key, count) == [deal.order(key, count)[:count].count(place) for place in range(len(parts))]


@given(weights, st.integers(0, 99), st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_the_order_does_not_depend_on_how_it_is_asked_for(parts: list[float], key: int, steps: list[int]) -> None:
    deal = Deal(parts)
    for step in steps:
        deal.order(key, step)
    assert deal.order(key, 400)[:400] == Deal(parts).order(key, 400)[:400]


def test_whole_weights_are_met_exactly_and_not_in_step() -> None:
    order = Deal([3, 1]).order(7, 400)[:400]
    assert Counter(order) == {0: 300, 1: 100}
    gaps = [b - a for a, b in zip(*(lambda at: (at, at[1:]))([i for i, one in enumerate(order) if one]), strict=False)]
    assert len(set(gaps)) > 3
    assert order != Deal([3, 1]).order(8, 400)[:400]


def test_each_prompt_is_of_its_class(server: PacedServer) -> None:
    made = source(server, workload(classes=CLASSES))
    prompts = made.prompts(5, 0, 100)
    assert Counter(p.request_class for p in prompts) == {"chat": 60, "long": 20, "vector": 20}
    lengths = {"chat": 40, "long": 200, "vector": 20}
    for prompt in prompts:
        assert prompt.tokens == lengths[prompt.request_class]
        assert bool(prompt.messages) is (prompt.request_class == "chat")
        assert prompt.priority == (2 if prompt.request_class == "long" else 0)
    again = source(server, workload(classes=CLASSES))
    assert again.prompts(5, 0, 37) + again.prompts(5, 37, 63) == prompts


def test_no_two_classes_share_a_start(server: PacedServer) -> None:
    same = [ClassSpec(name=name) for name in ("a", "b")]
    prompts = source(server, workload(classes=same)).prompts(1, 0, 200)
    assert len({" ".join(prompt.text.split()[:4]) for prompt in prompts}) == 200


def test_a_mix_against_the_paced_server() -> None:
    with PacedServer(fast()) as server:
        result = push(server, closed(4), work=workload(classes=CLASSES), requests=50, warmup_requests=5)
    got = {(r.request_class, r.prompt_tokens, r.asked_prompt_tokens, r.output_tokens) for r in result.measured}
    assert got == {("chat", 40, 40, 8), ("long", 200, 200, 3), ("vector", 20, 20, 0)}
    assert not [record.error for record in result.records if record.error]
    assert Counter(r.request_class for r in result.records if r.index < 50) == {"chat": 30, "long": 10, "vector": 10}


def test_a_priority_that_the_server_does_not_take_is_not_sent_and_said() -> None:
    with PacedServer(Pace()) as server:
        able = server.endpoint
        dull = type(able)(able.base_url, able.model, able.engine, able.engine_version)
        work = workload(classes=[ClassSpec(name="a", priority=1)])
        made = prompt_source(dull, work, seed=1, tokenizer_path=None, needed=1)
        assert any("priorities are not sent" in note for note in made.notes)
        assert not source(server, work).notes
