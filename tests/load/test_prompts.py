from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.engines.endpoint import Dialect, Endpoint
from redline.errors import SpecError, UsageError
from redline.load import prompts as prompts_module
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.prompts import PromptSource, prompt_source
from redline.load.record import TokenSource
from redline.load.synthetic import Composer
from redline.load.vocabulary import learn
from redline.spec.workload import LengthSpec, WorkloadSpec
from tests.load.servers import closed, push, workload
from tests.load.tokenizers import FakeTokenizer, across_words, by_character, by_word, in_pairs, never_odd

ENDPOINT = Endpoint("http://127.0.0.1:1/v1", "m", "e", "1", dialect=Dialect())


def source(
    monkeypatch: pytest.MonkeyPatch, tokenizer: FakeTokenizer, endpoint: Endpoint = ENDPOINT, **work: Any
) -> PromptSource:
    monkeypatch.setattr(prompts_module, "best_tokenizer", lambda *_: (tokenizer, []))
    values: dict[str, Any] = {"prompt_tokens": LengthSpec(mean=64), **work}
    return prompt_source(endpoint, WorkloadSpec(**values), seed=1, tokenizer_path=None, needed=10)


def length(tokenizer: FakeTokenizer, prompt: Any) -> int:
    if prompt.messages:
        return tokenizer.chat_counts([prompt.messages])[0]
    return tokenizer.counts([prompt.text])[0]


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("split", [by_word, by_character, across_words, in_pairs])
def test_lengths_are_exact_for_any_tokenizer(monkeypatch: pytest.MonkeyPatch, split: Any, api: str) -> None:
    tokenizer = FakeTokenizer(split)
    made = source(monkeypatch, tokenizer, api=api)
    prompts = made.prompts(5, 0, 60)
    assert [length(tokenizer, prompt) for prompt in prompts] == [64] * 60
    assert (made.off, made.made) == (0, 60)
    assert all(prompt.exact and prompt.tokens == 64 for prompt in prompts)


def test_most_need_no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = FakeTokenizer(by_word)
    made = source(monkeypatch, tokenizer)
    tokenizer.asked = 0
    made.prompts(5, 0, 500)
    assert tokenizer.asked <= 510


def test_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(monkeypatch, FakeTokenizer(never_odd, bos=0), prompt_tokens=LengthSpec(mean=65))
    prompts = made.prompts(5, 0, 20)
    assert made.off == 20
    assert not any(prompt.exact for prompt in prompts)


def test_token_ids_help_where_text_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    able = replace(ENDPOINT, dialect=Dialect(token_id_prompts=True))
    made = source(monkeypatch, FakeTokenizer(never_odd, bos=0), able, prompt_tokens=LengthSpec(mean=65))
    prompts = made.prompts(5, 0, 20)
    assert made.off == 0
    assert all(len(prompt.token_ids) == prompt.tokens == 65 for prompt in prompts)


@pytest.mark.parametrize("split", [by_word, by_character])
def test_every_prompt_starts_differently(monkeypatch: pytest.MonkeyPatch, split: Any) -> None:
    made = source(monkeypatch, FakeTokenizer(split))
    texts = [prompt.text for key in (1, 2) for prompt in made.prompts(key, 0, 300)]
    assert len({" ".join(text.split()[:3]) for text in texts}) == 600
    firsts = [text.split()[0] for text in texts[:300]]
    assert len(set(firsts)) > 90


def test_a_salt_key_changes_the_starts_and_nothing_else() -> None:
    tokenizer = FakeTokenizer(by_word)
    vocabulary = learn(tokenizer, chat=False)
    one, two = (Composer(vocabulary, seed=1, salt=True, salt_key=key) for key in ("run-1", "run-2"))
    a, b = (composer.draft(4, 7, 64).words for composer in (one, two))
    salt = one._salt_length
    assert a[:salt] != b[:salt]
    assert a[salt:] == b[salt:]


def test_without_salt_nothing_unique_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(monkeypatch, FakeTokenizer(by_word), cache="natural")
    assert made.composer.draft(1, 0, 64).fixed == 0


def test_a_shared_prefix_is_shared_to_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = FakeTokenizer(by_word)
    made = source(monkeypatch, tokenizer, shared_prefix_tokens=20)
    texts = [prompt.text for prompt in made.prompts(1, 0, 50) + made.prompts(2, 0, 50)]
    prefix = made.composer.prefix(0)
    assert len(by_word(" " + " ".join(prefix))) == 20
    assert all(text.startswith(" ".join(prefix) + " ") for text in texts)
    assert len({text.split()[len(prefix)] for text in texts}) > 50  # the salt comes right behind it


def test_text_reads_like_text(monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(monkeypatch, FakeTokenizer(by_word), prompt_tokens=LengthSpec(mean=400))
    text = made.prompts(1, 0, 1)[0].text
    assert re.fullmatch(r"[a-z ]+", text)
    assert len(set(text.split())) > 80


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(0, 10_000), st.integers(0, 40), st.integers(1, 30))
def test_where_a_batch_begins_does_not_matter(key: int, seed: int, start: int, count: int) -> None:
    tokenizer = FakeTokenizer(across_words)  # needs repairs
    work = WorkloadSpec(prompt_tokens=LengthSpec(mean=40, stddev=9, min=20, max=60))
    composer = Composer(learn(tokenizer, chat=False), seed=seed, salt=True)
    made = PromptSource(ENDPOINT, work, tokenizer, composer)
    assert made.prompts(key, 0, start + count)[start:] == made.prompts(key, start, count)


def test_lengths_follow_their_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    work: dict[str, Any] = {
        "prompt_tokens": LengthSpec(mean=60, stddev=15, min=30, max=90),
        "output_tokens": LengthSpec(mean=20, stddev=5, min=10, max=40),
    }
    prompts = source(monkeypatch, FakeTokenizer(by_word), **work).prompts(1, 0, 600)
    tokens = [prompt.tokens for prompt in prompts]
    assert 30 <= min(tokens) < 40
    assert 80 < max(tokens) <= 90
    assert sum(tokens) / 600 == pytest.approx(60, abs=3)
    assert sum(prompt.output_tokens for prompt in prompts) / 600 == pytest.approx(20, abs=1)


def test_a_model_too_small_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(ENDPOINT, max_model_len=100)
    with pytest.raises(UsageError, match="do not fit into 100"):
        source(monkeypatch, FakeTokenizer(by_word), small, output_tokens=LengthSpec(mean=37))
    made = source(
        monkeypatch, FakeTokenizer(by_word), small, output_tokens=LengthSpec(mean=30, stddev=20, min=1, max=90)
    )
    assert max(prompt.tokens + prompt.output_tokens for prompt in made.prompts(1, 0, 300)) <= 100
    with pytest.raises(UsageError, match="cannot be made"):
        source(monkeypatch, FakeTokenizer(by_word, bos=9), prompt_tokens=LengthSpec(mean=9))


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_server_without_tokenizer_teaches_by_its_usage(api: str) -> None:
    with PacedServer(Pace(ttft_ms=0.1, itl_ms=0.1, tokenizer=False)) as server:
        work = WorkloadSpec(api=api, prompt_tokens=LengthSpec(mean=48))
        made = prompt_source(server.endpoint, work, seed=1, tokenizer_path=None, needed=10)
        asked = len(server.truth())
        assert made.tokenizer is not None
        prompts = made.prompts(1, 0, 40)
        counts = (
            made.tokenizer.counts([prompt.text for prompt in prompts])
            if api == "completions"
            else made.tokenizer.chat_counts([prompt.messages for prompt in prompts])
        )
    assert asked < 70
    assert (made.verified, made.count_texts, made.token_source) == (False, None, TokenSource.CHUNKS)
    assert sum(abs(count - 48) <= 1 for count in counts) == 40
    assert any("learnt from the usage" in note for note in made.notes)


def test_a_thousand_prompts_through_a_server_take_a_moment() -> None:
    import time

    with PacedServer() as server:
        work = WorkloadSpec(prompt_tokens=LengthSpec(mean=128))
        began = time.monotonic()
        made = prompt_source(server.endpoint, work, seed=1, tokenizer_path=None, needed=1000)
        assert made.composer.vocabulary.questions < 30
        assert len(made.prompts(1, 0, 1000)) == 1000
        took = time.monotonic() - began
    assert (made.off, made.loads_server) == (0, True)
    assert took < 10


# -- files


def write(path: Path, *rows: object) -> str:
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return str(path)


def test_lines_of_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("one two three\n\nfour five\n", encoding="utf-8")
    tokenizer = FakeTokenizer(by_word)
    made = source(monkeypatch, tokenizer, kind="text", path=str(file), output_tokens=LengthSpec(mean=9))
    prompts = made.prompts(1, 0, 3)
    assert [prompt.text.split()[-2:] for prompt in prompts] == [["two", "three"], ["four", "five"], ["two", "three"]]
    assert len({prompt.text for prompt in prompts}) == 3  # the salt tells repeats apart
    assert [prompt.tokens for prompt in prompts] == [length(tokenizer, prompt) for prompt in prompts]
    assert {prompt.output_tokens for prompt in prompts} == {9}
    assert any("used again" in note for note in made.notes)


def test_without_salt_a_file_is_taken_word_for_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "one two", "output_tokens": 5}, {"prompt": "three"})
    made = source(monkeypatch, FakeTokenizer(by_word), kind="jsonl", path=path, cache="natural")
    prompts = made.prompts(1, 0, 2)
    assert [prompt.text for prompt in prompts] == ["one two", "three"]
    assert [prompt.output_tokens for prompt in prompts] == [5, 64]


def test_conversations_keep_their_messages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    path = write(tmp_path / "p.jsonl", {"messages": chat}, {"prompt": "hello"})
    made = source(monkeypatch, FakeTokenizer(by_word), kind="jsonl", path=path, api="chat")
    first, second = made.prompts(1, 0, 2)
    assert [message["role"] for message in first.messages] == ["system", "user"]
    assert first.messages[0]["content"].endswith(" be brief")
    assert second.messages[0]["role"] == "user"
    with pytest.raises(SpecError, match=r"p\.jsonl:1: messages: .*completions"):
        source(monkeypatch, FakeTokenizer(by_word), kind="jsonl", path=path, api="completions")


def test_sharegpt_takes_output_lengths_from_its_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": f"question {i}"}, {"from": "gpt", "value": "a " * (i + 1)}]}
        for i in range(20)
    ] + [{"conversations": [{"from": "gpt", "value": "no question"}]}]
    file = tmp_path / "s.json"
    file.write_bytes(orjson.dumps(rows))
    tokenizer = FakeTokenizer(by_word)
    made = source(monkeypatch, tokenizer, kind="sharegpt", path=str(file))
    prompts = made.prompts(1, 0, 20)
    numbers = [int(prompt.text.split()[-1]) for prompt in prompts]
    assert sorted(numbers) == list(range(20))
    assert numbers != sorted(numbers)  # shuffled
    for number, prompt in zip(numbers, prompts, strict=True):
        assert prompt.output_tokens == tokenizer.counts(["a " * (number + 1)], special=False)[0]


def test_prompts_that_do_not_fit_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "short"}, {"prompt": "long " * 200})
    small = replace(ENDPOINT, max_model_len=128)
    made = source(monkeypatch, FakeTokenizer(by_word), small, kind="jsonl", path=path)
    assert len(made.items) == 1
    assert any("1 prompts do not fit into 128 tokens" in note for note in made.notes)
    path = write(tmp_path / "q.jsonl", {"prompt": "long " * 200})
    with pytest.raises(UsageError, match="no prompt"):
        source(monkeypatch, FakeTokenizer(by_word), small, kind="jsonl", path=path)


@pytest.mark.parametrize("skew", [0.0, 1.2])
def test_several_shared_prefixes_are_exact_distinct_and_as_popular_as_asked(
    monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    tokenizer = FakeTokenizer(by_word)
    made = source(monkeypatch, tokenizer, shared_prefix_tokens=20, prefixes=50, prefix_skew=skew)
    prompts = made.prompts(1, 0, 1000)
    words = {which: " ".join(made.composer.prefix(which)) for which in range(50)}
    assert len(set(words.values())) == 50
    assert len({tuple(text.split()[:3]) for text in words.values()}) == 50
    assert {len(by_word(" " + text)) for text in words.values()} == {20}
    assert {length(tokenizer, prompt) for prompt in prompts} == {64}
    assert all(prompt.text.startswith(words[prompt.prefix] + " ") for prompt in prompts)
    counts = [sum(prompt.prefix == which for prompt in prompts) for which in range(50)]
    if skew:
        assert counts[0] > 3 * counts[5] > 0
        assert counts[0] == pytest.approx(1000 / sum((i + 1) ** -skew for i in range(50)), rel=0.25)
    else:
        assert max(counts) < 3 * min(counts)


def test_the_prefixes_in_use_are_counted() -> None:
    with PacedServer(Pace(ttft_ms=1, itl_ms=1)) as server:
        work = workload(shared_prefix_tokens=8, prefixes=5)
        result = push(server, closed(4), work=work, requests=60, warmup_requests=4)
    assert result.outcome.prefixes_used == 5
    assert any("5 shared prefixes in use" in note for note in result.outcome.notes)
    assert {record.prompt_tokens for record in result.measured} == {32}
