"""The API over the three ways of batching, with a real model."""

from __future__ import annotations

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.engines.hf_server.live import NAME, Live, Reply, wait_for
from tests.engines.hf_server.tiny_llama import CONTEXT

PROMPTS = ["The quick brown fox", "def build(", "你好，", "x", "The lazy dog sleeps on and on and on " * 6]


def greedy(reference: Any, prompt: str, count: int) -> tuple[list[int], str]:
    """transformers' own generate, one prompt alone, past the end-of-sequence token."""
    import torch

    model, tokenizer = reference
    ids = tokenizer.encode(prompt)
    with torch.no_grad():
        out = model.generate(
            torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
    new = out[0, len(ids) :].tolist()
    return new, tokenizer.decode(new, skip_special_tokens=True)


def test_against_generate(server: Live, reference: Any) -> None:
    for prompt in PROMPTS:
        _, text = greedy(reference, prompt, 24)
        assert server.ask(prompt=prompt, max_tokens=24, ignore_eos=True).text == text


def test_the_company_of_a_batch_changes_no_greedy_text(server: Live) -> None:
    alone = [server.ask(prompt=prompt, max_tokens=16, ignore_eos=True).text for prompt in PROMPTS]
    with ThreadPoolExecutor(len(PROMPTS) * 2) as pool:
        asked = [pool.submit(server.ask, prompt=p, max_tokens=16, ignore_eos=True, stream=True) for p in PROMPTS * 2]
        together = [future.result().text for future in asked]
    assert together == alone * 2


def test_twenty_streams_at_once(servers: dict[str, Live]) -> None:
    server = servers["continuous"]
    server.metric("steps_total")
    before = server.metric("steps_total")

    def one(number: int) -> Reply:
        usage = {"include_usage": True}
        return server.ask(prompt=f"Number {number}", max_tokens=20, ignore_eos=True, stream=True, stream_options=usage)

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(one, range(20)))
    assert [reply.chunks[-1]["usage"]["completion_tokens"] for reply in replies] == [20] * 20
    assert server.metric("steps_total") - before < 20 * 20 / 2, "the streams did not share steps"


@pytest.mark.parametrize("count", [1, 2, 33])
def test_exact_length(server: Live, reference: Any, count: int) -> None:
    whole = server.ask(prompt="The quick", max_tokens=count, ignore_eos=True)
    prompt = len(reference[1].encode("The quick"))
    expected = {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}
    assert whole.body["usage"] == expected
    assert whole.body["choices"][0]["finish_reason"] == "length"
    assert whole.body["model"] == NAME


def test_a_stream_says_the_same_as_a_whole_answer(server: Live) -> None:
    for prompt in PROMPTS:
        whole = server.ask(prompt=prompt, max_tokens=30, ignore_eos=True)
        streamed = server.ask(prompt=prompt, max_tokens=30, ignore_eos=True, stream=True)
        assert streamed.text == whole.text
        assert streamed.events[-1] == "[DONE]"
        finishes = [choice["finish_reason"] for chunk in streamed.chunks for choice in chunk["choices"]]
        assert finishes == [None] * (len(finishes) - 1) + ["length"]


def test_usage_comes_in_a_chunk_of_its_own(server: Live) -> None:
    reply = server.ask(prompt="x", max_tokens=5, ignore_eos=True, stream=True, stream_options={"include_usage": True})
    *content, last = reply.chunks
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}, "x is one token"
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in content)


def test_continuous_usage_counts_every_chunk(server: Live) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    reply = server.ask(prompt="你好", max_tokens=40, ignore_eos=True, stream=True, stream_options=options)
    *content, last = reply.chunks
    assert [chunk["usage"]["completion_tokens"] for chunk in content] == list(range(1, 41))
    assert last["usage"]["completion_tokens"] == 40


def test_no_usage_unless_asked(server: Live) -> None:
    reply = server.ask(prompt="x", max_tokens=3, ignore_eos=True, stream=True)
    assert all("usage" not in chunk for chunk in reply.chunks)


def test_end_of_sequence_ends_unless_ignored(server: Live, reference: Any) -> None:
    _, tokenizer = reference
    ids, _ = greedy(reference, "The quick brown fox", 24)
    # A token of the greedy path plays the end of sequence: the model has random weights and never says </s>.
    end = ids[5]
    count = ids.index(end) + 1
    asked: dict[str, Any] = {"prompt": "The quick brown fox", "max_tokens": 24, "ignore_eos": True}
    reply = server.ask(**asked, stop_token_ids=[end])
    assert reply.body["usage"]["completion_tokens"] == count
    assert reply.body["choices"][0]["finish_reason"] == "stop"
    assert reply.text == tokenizer.decode(ids[:count], skip_special_tokens=True)


def test_min_tokens_keeps_the_end_away(server: Live, reference: Any) -> None:
    ids, _ = greedy(reference, "The quick brown fox", 24)
    asked: dict[str, Any] = {"prompt": "The quick brown fox", "max_tokens": 24, "stop_token_ids": [ids[3]]}
    assert server.ask(**asked).body["usage"]["completion_tokens"] == ids.index(ids[3]) + 1
    assert server.ask(**asked, min_tokens=12).body["usage"]["completion_tokens"] >= 12


def test_stop_strings(server: Live) -> None:
    text = server.ask(prompt="def build(", max_tokens=40, ignore_eos=True).text
    stop = next(text[at : at + 3] for at in range(6, len(text)) if text.find(text[at : at + 3]) == at)
    for stream in (False, True):
        asked: dict[str, Any] = {"prompt": "def build(", "max_tokens": 40, "ignore_eos": True, "stop": ["\0", stop]}
        reply = server.ask(**asked, stream=stream)
        assert reply.text == text[: text.index(stop)]
        choice = (reply.chunks[-1] if stream else reply.body)["choices"][0]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    assert reply.body is None or reply.body["usage"]["completion_tokens"] < 40
    wait_for(lambda: not server.service.live, 5)


def test_chat_renders_the_template(server: Live, reference: Any) -> None:
    _, text = greedy(reference, "system: be short\nuser: a\nb\nassistant:", 12)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "system", "content": "be short"}, {"role": "user", "content": parts}]
    whole = server.ask(chat=True, messages=messages, max_completion_tokens=12, ignore_eos=True)
    assert whole.text == text
    assert whole.body["object"] == "chat.completion"
    streamed = server.ask(chat=True, messages=messages, max_tokens=12, ignore_eos=True, stream=True)
    assert streamed.text == text
    assert streamed.chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_several_prompts_and_token_ids(server: Live, reference: Any) -> None:
    _, tokenizer = reference
    expected = [server.ask(prompt=prompt, max_tokens=9, ignore_eos=True).text for prompt in PROMPTS]
    ids = [tokenizer.encode(prompt) for prompt in PROMPTS]
    by_ids = server.ask(prompt=ids, max_tokens=9, ignore_eos=True)
    assert [choice["text"] for choice in by_ids.body["choices"]] == expected
    assert by_ids.body["usage"]["completion_tokens"] == 9 * len(PROMPTS)
    assert server.ask(prompt=ids[1], max_tokens=9, ignore_eos=True).text == expected[1]
    streamed = server.ask(prompt=PROMPTS, max_tokens=9, ignore_eos=True, stream=True)
    texts = [""] * len(PROMPTS)
    for chunk in streamed.chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == expected


def test_logprobs_against_the_model(server: Live, reference: Any) -> None:
    import torch

    model, tokenizer = reference
    ids, _ = greedy(reference, "The quick brown fox", 6)
    prompt = tokenizer.encode("The quick brown fox")
    with torch.no_grad():
        logs = model(torch.tensor([prompt + ids])).logits[0].float().log_softmax(-1)
    reply = server.ask(prompt="The quick brown fox", max_tokens=6, ignore_eos=True, logprobs=3)
    found = reply.body["choices"][0]["logprobs"]
    expected = [float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(ids)]
    assert found["token_logprobs"] == pytest.approx(expected, abs=1e-3)
    words = [tokenizer.decode([token]) for token in ids]
    assert found["tokens"] == [
        f"token_id:{t}" if "\ufffd" in word else word for t, word in zip(ids, words, strict=True)
    ]
    assert all(len(top) == 3 for top in found["top_logprobs"])
    assert [max(top.values()) for top in found["top_logprobs"]] == pytest.approx(expected, abs=1e-3)


def test_chat_logprobs_while_streaming(server: Live) -> None:
    messages = [{"role": "user", "content": "你好"}]
    asked: dict[str, Any] = {"messages": messages, "max_tokens": 20, "ignore_eos": True, "logprobs": True}
    whole = server.ask(chat=True, **asked, top_logprobs=2).body["choices"][0]["logprobs"]["content"]
    streamed = server.ask(chat=True, **asked, top_logprobs=2, stream=True)
    entries = [
        entry for chunk in streamed.chunks for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert len(whole) == 20
    assert [entry["token"] for entry in entries] == [entry["token"] for entry in whole]
    assert [e["logprob"] for e in entries] == pytest.approx([e["logprob"] for e in whole], abs=1e-4)
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)


def test_a_seed_repeats_and_company_does_not_matter(server: Live) -> None:
    asked: dict[str, Any] = {"prompt": "The quick", "max_tokens": 12, "ignore_eos": True, "temperature": 1.0}
    first = server.ask(**asked, seed=7).text
    assert server.ask(**asked, seed=8).text != first
    with ThreadPoolExecutor(6) as pool:
        others = [pool.submit(server.ask, **asked) for _ in range(4)]
        greedy_one = pool.submit(server.ask, prompt="The quick", max_tokens=12, ignore_eos=True)
        again = pool.submit(server.ask, **asked, seed=7)
        assert again.result().text == first
        assert len({future.result().text for future in others}) > 1
    assert greedy_one.result().text == server.ask(prompt="The quick", max_tokens=12, ignore_eos=True).text


def test_top_k_of_one_is_greedy(server: Live) -> None:
    asked: dict[str, Any] = {"prompt": "The quick", "max_tokens": 10, "ignore_eos": True}
    expected = server.ask(**asked).text
    assert server.ask(**asked, temperature=5.0, top_k=1).text == expected
    assert server.ask(**asked, temperature=1.0, top_p=1e-6).text == expected


def test_a_client_that_leaves_frees_its_place(server: Live) -> None:
    before = server.metric("request_cancelled_total")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    body = {"prompt": "x", "max_tokens": CONTEXT - 1, "ignore_eos": True, "stream": True, "temperature": 0}
    connection.request("POST", "/v1/completions", json.dumps(body))
    assert connection.getresponse().read(20)
    connection.close()
    wait_for(lambda: server.metric("request_cancelled_total") == before + 1, 10)
    wait_for(lambda: server.metric("num_requests_running") == 0, 10)
    assert not server.service.live
    assert server.ask(prompt="x", max_tokens=2, ignore_eos=True).status == 200


def test_a_client_that_leaves_before_the_whole_answer(server: Live) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    body = {"prompt": "x", "max_tokens": CONTEXT - 1, "ignore_eos": True, "temperature": 0}
    connection.request("POST", "/v1/completions", json.dumps(body))
    wait_for(lambda: server.service.live, 10)
    connection.close()
    wait_for(lambda: not server.service.live, 10)
    wait_for(lambda: server.metric("num_requests_running") == 0, 10)


def test_waiting_requests_show(servers: dict[str, Live]) -> None:
    server = servers["plain"]
    with ThreadPoolExecutor(3) as pool:
        long = [pool.submit(server.ask, prompt="x", max_tokens=400, ignore_eos=True) for _ in range(3)]
        wait_for(lambda: (server.metric("num_requests_running"), server.metric("num_requests_waiting")) == (1, 2), 10)
        assert all(future.result().status == 200 for future in long)
    assert server.metric("num_requests_waiting") == 0


def test_too_long(server: Live) -> None:
    reply = server.ask(prompt="x " * 300, max_tokens=CONTEXT)
    assert reply.status == 400
    assert "600" in reply.message
    assert str(CONTEXT) in reply.message
    assert reply.body["error"]["code"] == "context_length_exceeded"
    assert server.ask(prompt=[5] * (CONTEXT - 3), max_tokens=3, ignore_eos=True).status == 200
    assert server.ask(prompt=[5] * (CONTEXT - 3), max_tokens=4).status == 400


def test_chat_fills_the_context(servers: dict[str, Live]) -> None:
    reply = servers["continuous"].ask(chat=True, messages=[{"role": "user", "content": "hi"}], ignore_eos=True)
    assert reply.body["usage"]["total_tokens"] == CONTEXT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        {},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": ""},
        {"prompt": {"a": 1}},
        {"prompt": [1, "x"]},
        {"prompt": [-1]},
        {"prompt": [10**9]},
        {"prompt": [True]},
        {"prompt": "x", "n": 2},
        {"prompt": "x", "max_tokens": 0},
        {"prompt": "x", "max_tokens": "3"},
        {"prompt": "x", "temperature": -1},
        {"prompt": "x", "top_p": 0},
        {"prompt": "x", "stop": [""]},
        {"prompt": "x", "stop": 5},
        {"prompt": "x", "logprobs": 100},
        {"prompt": "x", "echo": True},
        {"prompt": "x", "presence_penalty": 0.5},
        {"prompt": "x", "logit_bias": {"5": 1}},
        {"prompt": "x", "stream": "yes"},
        {"prompt": "x", "stream_options": {"include_usage": True}},
        {"prompt": "x", "min_tokens": 5, "max_tokens": 2},
        {"prompt": "x", "stop_token_ids": [10**9]},
    ],
)
def test_garbage_is_a_400(servers: dict[str, Live], body: Any) -> None:
    reply = servers["plain"].request("POST", "/v1/completions", body)
    assert reply.status == 400
    assert reply.body["error"]["type"] == "invalid_request_error"


def test_other_refusals(servers: dict[str, Live]) -> None:
    server = servers["plain"]
    assert server.ask(model="another", prompt="x").status == 404
    assert server.request("POST", "/v1/nothing", {}).status == 404
    assert server.request("GET", "/v1/completions").status == 405
    assert server.ask(chat=True, messages=[{"role": "robot", "content": "x"}]).status == 400
    assert server.ask(chat=True, messages=[]).status == 400
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    assert server.ask(chat=True, messages=image).status == 400
    assert server.ask(model=NAME, prompt="x", max_tokens=1, user="me", unknown_field=3).status == 200


def test_a_body_may_not_be_endless(tiny: Any) -> None:
    with Live(tiny, "--max-body-mib", "0.1") as server:
        assert server.request("POST", "/v1/completions", {"prompt": "x" * 200_000}).status == 413
        assert server.ask(prompt="x", max_tokens=1).status == 200


def test_tokenize_and_back(servers: dict[str, Live], reference: Any) -> None:
    server, tokenizer = servers["plain"], reference[1]
    text = "Ünïcödé 🙂 the dog"
    reply = server.request("POST", "/tokenize", {"model": NAME, "prompt": text, "add_special_tokens": False})
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert reply.body == {"count": len(ids), "max_model_len": CONTEXT, "tokens": ids}
    assert server.request("POST", "/detokenize", {"tokens": ids}).body == {"prompt": text}
    chat = server.request("POST", "/tokenize", {"messages": [{"role": "user", "content": "hi"}]})
    assert chat.body["tokens"] == tokenizer.encode("user: hi\nassistant:")
    assert server.request("POST", "/tokenize", {"prompt": 5}).status == 400
    assert server.request("POST", "/detokenize", {"tokens": "x"}).status == 400


def test_models_version_health(server: Live) -> None:
    models = server.request("GET", "/v1/models").body["data"]
    assert [(model["id"], model["max_model_len"]) for model in models] == [(NAME, CONTEXT)]
    import importlib

    assert server.request("GET", "/version").body["version"] == importlib.import_module("transformers").__version__
    assert server.request("GET", "/health").status == 200


def test_a_long_queue_is_refused(tiny: Any) -> None:
    with Live(tiny, "--max-waiting", "1") as server, ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(server.ask, prompt="x", max_tokens=500, ignore_eos=True)]
        wait_for(lambda: server.metric("num_requests_running") == 1, 10)
        futures.append(pool.submit(server.ask, prompt="x", max_tokens=500, ignore_eos=True))
        wait_for(lambda: server.metric("num_requests_waiting") == 1, 10)
        assert server.ask(prompt="x", max_tokens=1).status == 503
        assert [future.result().status for future in futures] == [200, 200]


def test_threads_are_gone_after_the_end(tiny: Any) -> None:
    before = set(threading.enumerate())
    with Live(tiny, "--batching", "continuous") as server:
        assert server.ask(prompt="x", max_tokens=2).status == 200
        assert any("_run_generation_loop" in thread.name for thread in set(threading.enumerate()) - before)
    assert server.code == 0
    wait_for(lambda: not any("_run_generation_loop" in one.name for one in set(threading.enumerate()) - before), 10)
