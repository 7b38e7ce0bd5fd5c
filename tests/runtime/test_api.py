"""`LLM` on the bundled model: what a library user does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from redline.runtime.api import LLM, Constraint, SamplingParams

pytest.importorskip("torch")
pytest.importorskip("tokenizers")
GREEDY = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True)
PROMPTS = ["The list", "def main(", "import"]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("bundled:tiny", device="cpu", threads=1, kv_cache_tokens=8192) as llm:
        yield llm


def test_answers_come_in_the_order_of_the_prompts(llm: LLM) -> None:
    alone = [llm.generate(prompt, GREEDY)[0] for prompt in PROMPTS]
    together = llm.generate(PROMPTS, GREEDY)
    assert [one.text for one in together] == [one.text for one in alone]
    assert all(len(one.tokens) == 24 and one.finish == "length" for one in together)
    assert [one.prompt_tokens for one in together] == [llm.engine.encode(prompt) for prompt in PROMPTS]


def test_token_ids_are_a_prompt(llm: LLM) -> None:
    ids = llm.engine.encode(PROMPTS[0])
    assert llm.generate(ids, GREEDY)[0].text == llm.generate(PROMPTS[0], GREEDY)[0].text
    assert len(llm.generate([ids, ids], GREEDY)) == 2


def test_text_is_the_tokens_text(llm: LLM) -> None:
    answer = llm.generate(PROMPTS[1], GREEDY)[0]
    assert answer.text == llm.engine.tokenizer.decode(answer.tokens)


def test_a_stop_string_ends_text_and_tokens(llm: LLM) -> None:
    whole = llm.generate(PROMPTS[0], GREEDY)[0]
    stop = whole.text[10:14]
    params = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True, stop=stop)
    answer = llm.generate(PROMPTS[0], params)[0]
    assert answer.text == whole.text[: whole.text.index(stop)]
    assert (answer.finish, answer.choices[0].stop) == ("stop", stop)
    assert answer.tokens == whole.tokens[: len(answer.tokens)]
    assert len(answer.tokens) < 24
    assert stop in llm.engine.tokenizer.decode(answer.tokens)


def test_a_stop_token_is_counted_and_not_shown(llm: LLM) -> None:
    whole = llm.generate(PROMPTS[0], GREEDY)[0]
    end = whole.tokens[6]
    at = whole.tokens.index(end)
    params = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True, stop_token_ids=[end])
    answer = llm.generate(PROMPTS[0], params)[0]
    assert answer.tokens == whole.tokens[: at + 1]
    assert answer.text == llm.engine.tokenizer.decode(whole.tokens[:at])
    assert answer.finish == "stop"


def test_choices_differ_and_can_be_repeated(llm: LLM) -> None:
    params = SamplingParams(max_tokens=12, n=3, seed=5, ignore_eos=True)
    first, again = (llm.generate(PROMPTS[0], params)[0] for _ in range(2))
    texts = [choice.text for choice in first.choices]
    assert len(set(texts)) == 3
    assert [choice.text for choice in again.choices] == texts
    alone = llm.generate(PROMPTS[0], SamplingParams(max_tokens=12, seed=6, ignore_eos=True))[0]
    assert alone.text == texts[1], "choice k has the seed + k"


def test_logprobs(llm: LLM) -> None:
    params = SamplingParams(max_tokens=5, temperature=0, ignore_eos=True, logprobs=2, prompt_logprobs=0)
    answer = llm.generate(PROMPTS[0], params)[0]
    told = answer.choices[0].logprobs
    assert [one.token for one in told] == answer.tokens
    assert all(len(one.top) == 2 and one.top[0] == (one.token, one.logprob) and one.logprob < 0 for one in told)
    assert answer.prompt_logprobs is not None
    assert answer.prompt_logprobs[0] is None
    known = [one.token for one in answer.prompt_logprobs if one is not None]
    assert known == answer.prompt_tokens[1:]


def test_params_for_each_prompt(llm: LLM) -> None:
    each = [SamplingParams(max_tokens=length, temperature=0, ignore_eos=True) for length in (3, 9)]
    assert [len(one.tokens) for one in llm.generate(PROMPTS[:2], each)] == [3, 9]
    with pytest.raises(ValueError, match="3 prompts and 2 params"):
        llm.generate(PROMPTS, each)


@pytest.mark.parametrize(
    ("prompt", "params", "says"),
    [
        ("x", SamplingParams(temperature=-1), "temperature"),
        ("x", SamplingParams(max_tokens=10**6), "more than the model's"),
        ([10**6], SamplingParams(), "outside the vocabulary"),
    ],
)
def test_what_cannot_be(llm: LLM, prompt: str | list[int], params: SamplingParams, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        llm.generate(prompt, params)
    assert llm.generate("x", GREEDY)[0].finish == "length"


def test_stream(llm: LLM) -> None:
    async def gather(params: SamplingParams) -> tuple[list[str], str, int]:
        pieces = [piece async for piece in llm.stream(PROMPTS[0], params)]
        return [piece.text for piece in pieces], pieces[-1].finish, pieces[-1].tokens

    texts, finish, tokens = asyncio.run(gather(GREEDY))
    assert "".join(texts) == llm.generate(PROMPTS[0], GREEDY)[0].text
    assert len(texts) > 3
    assert (finish, tokens) == ("length", 24)


def test_a_stream_that_is_left_gives_its_place_back(llm: LLM) -> None:
    async def leave() -> None:
        pieces = llm.stream(PROMPTS[0], SamplingParams(max_tokens=3000, ignore_eos=True))
        assert (await anext(pieces)).tokens == 1
        await pieces.aclose()
        for _ in range(500):
            if not llm.engine.loop.stats().running:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it still runs")

    asyncio.run(leave())


def test_a_grammar(llm: LLM) -> None:
    pytest.importorskip("llguidance")
    params = SamplingParams(max_tokens=20, seed=1, constraint=Constraint("choice", ["yes", "no"]))
    assert llm.generate("Is it?", params)[0].text in ("yes", "no")
    with pytest.raises(ValueError, match="structured_outputs"):
        llm.generate("x", SamplingParams(constraint=Constraint("regex", "(")))


def test_an_engine_that_fails_says_so(llm: LLM) -> None:
    with LLM("bundled:tiny", device="cpu", threads=1, kv_cache_tokens=1024) as other:

        def broken(*_: object) -> object:
            raise RuntimeError("planted")

        other.engine.loop.runner.launch = broken  # type: ignore[method-assign, union-attr]
        with pytest.raises(RuntimeError, match="planted"):
            other.generate("x", GREEDY)
        with pytest.raises((RuntimeError, ValueError), match="planted"):
            other.generate("x", GREEDY)
