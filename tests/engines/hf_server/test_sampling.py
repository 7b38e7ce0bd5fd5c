from __future__ import annotations

from typing import Any

import pytest

from redline.engines.hf_server.ask import Sampling
from redline.engines.hf_server.job import Job
from redline.engines.hf_server.sampling import Row, choose

torch: Any = pytest.importorskip("torch")


def row(eos: frozenset[int] = frozenset(), **settings: Any) -> Row:
    sampling = Sampling(max_tokens=100, **settings)
    return Row(Job("j", [1], sampling, eos, eos, True, lambda tokens, finish, error: None))


def draws(count: int, scores: Any, **settings: Any) -> Any:
    rows = [row(**settings) for _ in range(count)]
    chosen = choose(scores.expand(count, -1).clone(), rows).argmax(-1)
    return torch.bincount(chosen, minlength=scores.shape[-1]) / count


def test_draws_follow_the_softmax() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, -9.0])
    for temperature in (0.5, 1.0, 2.0):
        expected = (scores / temperature).softmax(-1)
        assert draws(40_000, scores, temperature=temperature).tolist() == pytest.approx(expected.tolist(), abs=0.015)


def test_top_k_and_top_p_keep_what_they_should() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert (draws(2_000, scores, temperature=1.0, top_k=2) > 0).tolist() == [True, True, False, False]
    assert (draws(2_000, scores, temperature=1.0, top_p=0.7) > 0).tolist() == [True, True, False, False]
    assert (draws(2_000, scores, temperature=1.0, top_p=0.81) > 0).tolist() == [True, True, True, False]
    share = draws(20_000, scores, temperature=1.0, top_k=2)
    assert share.tolist() == pytest.approx([0.625, 0.375, 0, 0], abs=0.02)


def test_greedy_rows_pass_untouched_beside_others() -> None:
    scores = torch.randn(3, 11)
    out = choose(scores, [None, row(temperature=1.0), None])
    assert torch.equal(out[[0, 2]], scores[[0, 2]])
    assert not torch.equal(out[1], scores[1])


def test_a_seed_gives_the_same_noise_in_any_place() -> None:
    scores = torch.randn(1, 50)
    alone = choose(scores, [row(temperature=1.0, seed=3)])[0]
    others = choose(scores.expand(4, -1), [row(temperature=1.0), row(), row(temperature=1.0, seed=3), None])
    assert torch.allclose(alone, others[2])


def test_min_tokens_hides_the_end_until_then() -> None:
    one = row(eos=frozenset({2}), min_tokens=2)
    scores = torch.tensor([[0.0, 1.0, 5.0]])
    assert [int(choose(scores, [one]).argmax(-1)) for _ in range(3)] == [1, 1, 2]
    assert scores.tolist() == [[0.0, 1.0, 5.0]]


def test_only_rows_that_ask_for_more_need_it() -> None:
    assert not row().needed
    assert not row(min_tokens=5).needed, "nothing can end it early"
    assert row(eos=frozenset({1}), min_tokens=5).needed
    assert row(temperature=0.1).needed
    assert row(top_logprobs=0).needed
