"""OpenAI's own client against a real server with the bundled model, in a process of its own."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from redline.engines.http import fetch
from redline.engines.identify import identify
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model

openai = pytest.importorskip("openai")
pytest.importorskip("torch")
FOLDER = resolve_model(ModelSpec(id="bundled:tiny")).path
KEY = "s3cret"
PROMPT = "The list"
GREEDY: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Say it"}], "max_tokens": 16}
EXACT = {"ignore_eos": True}


class Process:
    def __init__(self, *flags: str, **variables: str) -> None:
        command = [sys.executable, "-m", "redline.runtime.serve", "--model", str(FOLDER), "--served-model-name", "tiny"]
        self.log: list[str] = []
        self.popen = subprocess.Popen(
            [*command, "--port", "0", "--threads", "1", "--kv-cache-tokens", "16384", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **variables},
        )
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.log.append(line)
            if line.startswith("redline-engine-ready "):
                break
        else:
            raise AssertionError("".join(self.log))
        self.ready: dict[str, Any] = json.loads(self.log[-1].removeprefix("redline-engine-ready "))
        self.root = f"http://127.0.0.1:{self.ready['port']}"

    def client(self, key: str = KEY) -> Any:
        return openai.OpenAI(base_url=f"{self.root}/v1", api_key=key, max_retries=0, timeout=40)

    def series(self, name: str) -> float:
        lines = fetch(f"{self.root}/metrics", timeout_s=20).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))

    def until(self, name: str, value: float) -> None:
        end = time.monotonic() + 20
        while self.series(name) != value:
            assert time.monotonic() < end, f"{name} is {self.series(name)}"
            time.sleep(0.02)

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait(10)
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles")


@pytest.fixture(scope="module")
def server(profiles: Path) -> Iterator[Process]:
    server = Process(
        *("--max-num-seqs", "4", "--max-waiting", "2", "--max-body-bytes", "100000", "--profile-dir", str(profiles)),
        REDLINE_API_KEY=KEY,
    )
    yield server
    server.end()


@pytest.fixture(scope="module")
def client(server: Process) -> Iterator[Any]:
    with server.client() as client:
        yield client


def test_models(client: Any) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by, model.max_model_len) == ("tiny", "redline", 4096)


def test_a_completion(client: Any) -> None:
    answer = client.completions.create(**GREEDY, extra_body=EXACT)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text
    assert (answer.usage.completion_tokens, answer.usage.prompt_tokens) == (16, 3)
    again = client.completions.create(**GREEDY, extra_body=EXACT)
    assert again.choices[0].text == answer.choices[0].text


def test_a_stream_says_the_same(client: Any) -> None:
    whole = client.completions.create(**GREEDY, extra_body=EXACT)
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(client.completions.create(**GREEDY, stream=True, stream_options=options, extra_body=EXACT))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 16
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"


def test_chat(client: Any) -> None:
    whole = client.chat.completions.create(**CHAT, temperature=0, extra_body=EXACT)
    assert whole.choices[0].message.role == "assistant"
    chunks = list(client.chat.completions.create(**CHAT, temperature=0, stream=True, extra_body=EXACT))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert all(chunk.usage is None for chunk in chunks)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    answer = client.chat.completions.create(**CHAT, temperature=0, tools=tools, tool_choice="auto", extra_body=EXACT)
    assert answer.choices[0].message.content == text, "this template knows no tools"


def test_logprobs(client: Any) -> None:
    choice = client.chat.completions.create(**CHAT, temperature=0, logprobs=True, top_logprobs=3).choices[0]
    entries = choice.logprobs.content
    assert all(len(entry.top_logprobs) == 3 and entry.logprob == entry.top_logprobs[0].logprob for entry in entries)
    told = client.completions.create(**GREEDY, logprobs=2).choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset)
    whole = client.completions.create(**GREEDY, extra_body={"prompt_logprobs": 1}).choices[0]
    assert whole.prompt_logprobs[0] is None
    assert all(entry for entry in whole.prompt_logprobs[1:])


def test_several_choices_and_prompts(client: Any) -> None:
    answer = client.completions.create(**{**GREEDY, "prompt": [PROMPT, "def"], "temperature": 1}, n=2, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in answer.choices}) == 4
    assert answer.usage.prompt_tokens == 3 + 2
    chunks = client.completions.create(
        **{**GREEDY, "prompt": [PROMPT, "def"], "temperature": 1}, n=2, seed=7, stream=True
    )
    texts = ["", "", "", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in answer.choices]


def test_echo_and_stop(client: Any) -> None:
    whole = client.completions.create(**GREEDY, extra_body=EXACT).choices[0].text
    assert client.completions.create(**GREEDY, echo=True, extra_body=EXACT).choices[0].text == PROMPT + whole
    stop = whole[8:11]
    for stream in (False, True):
        answer = client.completions.create(**GREEDY, stop=[stop], stream=stream, extra_body=EXACT)
        choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
        assert "".join(choice.text for choice in choices) == whole[: whole.index(stop)]
        assert (choices[-1].finish_reason, choices[-1].stop_reason) == ("stop", stop)


def test_penalties_and_biases_change_the_text(client: Any) -> None:
    whole = client.completions.create(**GREEDY, extra_body=EXACT).choices[0].text
    first = client.completions.create(**{**GREEDY, "max_tokens": 1}, extra_body=EXACT).choices[0].text
    (token,) = fetch_ids(client, first)
    biased = client.completions.create(**GREEDY, logit_bias={str(token): -100}, extra_body=EXACT).choices[0].text
    assert not biased.startswith(first)
    longer = {**GREEDY, "max_tokens": 60}
    whole = client.completions.create(**longer, extra_body=EXACT).choices[0].text
    assert client.completions.create(**longer, extra_body={**EXACT, "repetition_penalty": 3}).choices[0].text != whole
    assert client.completions.create(**longer, presence_penalty=2, extra_body=EXACT).choices[0].text != whole


def fetch_ids(client: Any, text: str) -> list[int]:
    url = str(client.base_url).removesuffix("/v1/") + "/tokenize"
    body = {"prompt": text, "add_special_tokens": False}
    headers = {"Authorization": f"Bearer {client.api_key}"}
    ids: list[int] = fetch(url, body=body, headers=headers, timeout_s=20).json()["tokens"]
    back = fetch(url.replace("tokenize", "detokenize"), body={"tokens": ids}, headers=headers, timeout_s=20)
    assert back.json()["prompt"] == text
    return ids


def test_json_by_a_schema(client: Any) -> None:
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["a", "b"]}},
        "required": ["name"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}
    for stream in (False, True):
        told = {**CHAT, "max_tokens": 400, "seed": 3, "response_format": form}
        answer = client.chat.completions.create(**told, stream=stream)
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in answer)
            if stream
            else answer.choices[0].message.content
        )
        assert json.loads(text)["name"] in ("a", "b")
    number = client.completions.create(**GREEDY, extra_body={"guided_regex": "[0-9]{3}"})
    assert number.choices[0].text.isdigit()
    assert number.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**GREEDY, extra_body={"structured_outputs": {"regex": "("}})
    assert caught.value.body["param"] == "structured_outputs"


@pytest.mark.parametrize(
    ("param", "wrong"),
    [
        ("temperature", {"temperature": -1}),
        ("n", {"n": 1000}),
        ("max_tokens", {"max_tokens": 100_000}),
        ("logit_bias", {"logit_bias": {"100000": 1}}),
        ("stop_token_ids", {"extra_body": {"stop_token_ids": [-1]}}),
        ("prompt", {"prompt": [[5, 10**6]]}),
    ],
)
def test_bad_values_are_named(client: Any, param: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{**GREEDY, **wrong})
    assert caught.value.body["param"] == param


def test_the_key_is_asked_for(server: Process) -> None:
    with pytest.raises(openai.AuthenticationError), server.client("wrong") as client:
        client.models.list()
    assert fetch(f"{server.root}/v1/models", timeout_s=20).status == 401
    for path in ("/health", "/metrics", "/version"):
        assert fetch(server.root + path, timeout_s=20).status == 200


def test_other_names_and_large_bodies(client: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(**{**GREEDY, "model": "other"})
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(**{**GREEDY, "prompt": "x" * 100_001})
    assert caught.value.status_code == 413


def test_too_many_and_those_that_leave(server: Process, client: Any) -> None:
    """Four places and two that wait; the seventh is told to come back; whoever leaves gives the place back."""
    long = {**GREEDY, "max_tokens": 3000, "stream": True, "extra_body": EXACT}
    streams = [client.completions.create(**long) for _ in range(4)]
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.completions.create, **{**GREEDY, "max_tokens": 2}) for _ in range(2)]
        server.until("vllm:num_requests_waiting", 2)
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(**GREEDY)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        for stream in streams:
            stream.close()
        assert all(future.result().choices for future in waiting)
    server.until("vllm:num_requests_running", 0)
    assert server.series("vllm:kv_cache_usage_perc") == 0


def test_the_observer_knows_it(server: Process, client: Any) -> None:
    metrics = fetch(f"{server.root}/metrics", timeout_s=20).text
    card = client.models.list().data[0].model_dump()
    found = identify(server.root, card, {"Authorization": f"Bearer {KEY}"}, metrics)
    assert (found.engine, found.max_model_len) == ("redline", 4096)
    assert found.flags["device"] == "cpu"
    assert found.flags["max-num-seqs"] == "4"


def test_a_profile(server: Process, client: Any, profiles: Path) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    assert fetch(f"{server.root}/start_profile", body={}, headers=headers, timeout_s=30).status == 200
    client.completions.create(**GREEDY)
    reply = fetch(f"{server.root}/stop_profile", body={}, headers=headers, timeout_s=50)
    assert reply.status == 200, reply.error
    path = Path(reply.json()["file"])
    assert path.parent == profiles
    assert b"aten::" in gzip.decompress(path.read_bytes()), "it saw the engine's thread"


def test_it_may_hold_as_many_streams_as_the_system_allows(server: Process) -> None:
    soft, hard = psutil.Process(server.popen.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard


def test_it_is_one_process(server: Process) -> None:
    """So that whatever ends it, nothing is left."""
    assert psutil.Process(server.popen.pid).children(recursive=True) == []


def test_sigterm_under_load_truncates_nothing() -> None:
    server = Process("--drain-s", "40")
    begun = threading.Semaphore(0)

    def one(_: int) -> tuple[int, str]:
        asked = {**GREEDY, "max_tokens": 200, "stream": True, "extra_body": EXACT}
        with server.client() as client:
            chunks = []
            for chunk in client.completions.create(**asked, stream_options={"include_usage": True}):
                chunks.append(chunk)
                if len(chunks) == 1:
                    begun.release()
        return chunks[-1].usage.completion_tokens, chunks[-2].choices[0].finish_reason

    try:
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(one, number) for number in range(4)]
            assert all(begun.acquire(timeout=20) for _ in range(4))
            server.popen.send_signal(signal.SIGTERM)
            assert [future.result() for future in answers] == [(200, "length")] * 4
        assert server.popen.wait(15) == 0
    finally:
        server.end()
