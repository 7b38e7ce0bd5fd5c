from __future__ import annotations

from typing import Any

import pytest

from redline.engines.endpoint import Dialect, Endpoint
from redline.load.body import body_fields, path_of
from redline.load.prompt import Prompt
from redline.spec.workload import WorkloadSpec

PROMPT = Prompt(text="hi", output_tokens=9)
CHAT = Prompt(messages=({"role": "user", "content": "hi"},), output_tokens=9)


def fields(dialect: Dialect, prompt: Prompt = PROMPT, seed: int = 3, **work: Any) -> dict[str, Any]:
    endpoint = Endpoint("http://h/v1", "m", "e", "1", dialect=dialect)
    return body_fields(endpoint, WorkloadSpec(**work), prompt, seed=seed)


def test_a_plain_server_gets_only_what_the_api_knows() -> None:
    plain = Dialect(stream_usage=False)
    assert fields(plain) == {"model": "m", "prompt": "hi", "max_tokens": 9, "temperature": 0, "stream": True}
    assert fields(plain, CHAT, api="chat")["messages"] == [{"role": "user", "content": "hi"}]


def test_each_extension_only_where_it_is_understood() -> None:
    assert fields(Dialect())["stream_options"] == {"include_usage": True}
    able = Dialect(ignore_eos=True, min_tokens=True, continuous_usage=True)
    made = fields(able)
    assert (made["ignore_eos"], made["min_tokens"]) == (True, 9)
    assert made["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    free = fields(able, ignore_eos=False)
    assert "ignore_eos" not in free
    assert "min_tokens" not in free
    assert "stream_options" not in fields(able, stream=False)


def test_the_seed_goes_along_only_where_sampling_makes_it_matter() -> None:
    assert "seed" not in fields(Dialect())
    assert fields(Dialect(), temperature=0.7)["seed"] == 3


def test_no_length_asked_no_length_sent() -> None:
    made = fields(Dialect(ignore_eos=True), Prompt(text="hi"))
    assert "max_tokens" not in made
    assert "ignore_eos" not in made


def test_token_ids() -> None:
    assert fields(Dialect(), Prompt(token_ids=(1, 2)))["prompt"] == [1, 2]


@pytest.mark.parametrize(("api", "path"), [("chat", "/chat/completions"), ("completions", "/completions")])
def test_paths(api: Any, path: str) -> None:
    assert path_of(WorkloadSpec(api=api)) == path
