from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.engines.hf_server.ask import NEUTRAL, Ask, parse
from redline.engines.hf_server.fault import ApiError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        *("prompt", "messages", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream", "logprobs"),
        *(
            "stream_options",
            "min_tokens",
            "ignore_eos",
            "top_logprobs",
            "stop_token_ids",
            "model",
            "add_special_tokens",
        ),
        *("chat_template_kwargs", "max_completion_tokens"),
        *NEUTRAL,
    ]
)


def read(body: Any, chat: bool) -> Ask | ApiError:
    try:
        return parse(body, chat=chat, defaults={})
    except ApiError as error:
        return error


@given(json_values | st.dictionaries(names, json_values), st.booleans())
def test_any_json_is_read_or_refused(body: Any, chat: bool) -> None:
    ask = read(body, chat)
    if isinstance(ask, ApiError):
        assert ask.status == 400
        assert str(ask)
        return
    assert 0 <= ask.sampling.temperature <= 100
    assert 0 < ask.sampling.top_p <= 1
    assert ask.sampling.top_k >= 0


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_what_is_not_supported_is_refused_and_neutral_values_pass(name: str) -> None:
    for value in (None, *NEUTRAL[name]):
        parse({"prompt": "x", name: value}, chat=False, defaults={})
    with pytest.raises(ApiError, match=name):
        parse({"prompt": "x", name: "something"}, chat=False, defaults={})


def test_true_is_not_one() -> None:
    with pytest.raises(ApiError, match="n=True"):
        parse({"prompt": "x", "n": True}, chat=False, defaults={})


def test_defaults_of_the_checkpoint_hold_until_the_request_says_otherwise() -> None:
    defaults = {"temperature": 0.6, "top_p": 0.9, "top_k": 50.0}
    sampling = parse({"prompt": "x"}, chat=False, defaults=defaults).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.9, 50)
    body = {"prompt": "x", "temperature": 0, "top_p": 1, "top_k": -1}
    sampling = parse(body, chat=False, defaults=defaults).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0, 1, 0)
    assert parse({"prompt": "x"}, chat=False, defaults={}).sampling.temperature == 1


def test_limits() -> None:
    assert parse({"prompt": "x"}, chat=False, defaults={}).max_tokens == 16
    messages = [{"role": "user", "content": "x"}]
    assert parse({"messages": messages}, chat=True, defaults={}).max_tokens is None
    both = {"messages": messages, "max_tokens": 3, "max_completion_tokens": 4}
    assert parse(both, chat=True, defaults={}).max_tokens == 4


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("x", ("x",)),
        (["x", "y"], ("x", "y")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_forms_of_a_prompt(prompt: Any, expected: Any) -> None:
    assert parse({"prompt": prompt}, chat=False, defaults={}).prompts == expected
