from __future__ import annotations

from typing import Any

import pytest

from redline.engines.hf_server.fault import ApiError
from redline.runtime.http.ask import Wish, read
from redline.runtime.params import Constraint

SCHEMA = {"type": "object"}


def ask(**body: Any) -> Wish:
    return read({"prompt": "x", **body}, chat=False, defaults={})


def chat(**body: Any) -> Wish:
    return read({"messages": [{"role": "user", "content": "x"}], **body}, chat=True, defaults={})


def test_everything_at_once() -> None:
    wish = ask(
        n=3, min_p=0.1, presence_penalty=1, frequency_penalty=-1, repetition_penalty=1.2, logit_bias={"5": -100},
        seed=4, stop=["a"], stop_token_ids=[9], logprobs=2, prompt_logprobs=1, min_tokens=2, max_tokens=5,
        ignore_eos=True, priority=-3, temperature=0.5, top_p=0.9, top_k=7,
    )  # fmt: skip
    params = wish.params
    assert (params.n, params.min_p, params.presence_penalty, params.frequency_penalty) == (3, 0.1, 1, -1)
    assert (params.repetition_penalty, params.logit_bias, params.seed) == (1.2, {5: -100.0}, 4)
    assert (params.stops, params.stop_token_ids, params.logprobs, params.prompt_logprobs) == (("a",), (9,), 2, 1)
    assert (params.min_tokens, params.max_tokens, params.ignore_eos) == (2, 5, True)
    assert (params.temperature, params.top_p, params.top_k, wish.priority) == (0.5, 0.9, 7, -3)


def test_the_checkpoint_fills_the_gaps() -> None:
    defaults = {"temperature": 0.7, "min_p": 0.05, "repetition_penalty": 1.1}
    params = read({"prompt": "x", "min_p": 0}, chat=False, defaults=defaults).params
    assert (params.temperature, params.min_p, params.repetition_penalty) == (0.7, 0.0, 1.1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint("json_object", None, "response_format")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            Constraint("json_schema", SCHEMA, "response_format"),
        ),
        ({"structured_outputs": {"json": SCHEMA}}, Constraint("json_schema", SCHEMA, "structured_outputs")),
        ({"structured_outputs": {"regex": "a+", "json": None}}, Constraint("regex", "a+", "structured_outputs")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Constraint("choice", ["a", "b"], "structured_outputs")),
        ({"structured_outputs": {"json_object": True}}, Constraint("json_object", True, "structured_outputs")),
        ({"guided_json": SCHEMA}, Constraint("json_schema", SCHEMA, "guided_json")),
        ({"guided_regex": "a"}, Constraint("regex", "a", "guided_regex")),
        ({"guided_choice": ["a"]}, Constraint("choice", ["a"], "guided_choice")),
        ({"guided_grammar": "start: 'a'"}, Constraint("grammar", "start: 'a'", "guided_grammar")),
    ],
)
def test_constraints(body: dict[str, Any], expected: Constraint | None) -> None:
    assert ask(**body).params.constraint == expected


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("n", {"n": 0}),
        ("n", {"n": "two"}),
        ("min_p", {"min_p": "x"}),
        ("logit_bias", {"logit_bias": [1]}),
        ("logit_bias", {"logit_bias": {"word": 1}}),
        ("logit_bias", {"logit_bias": {"1": True}}),
        ("priority", {"priority": "high"}),
        ("response_format", {"response_format": {"type": "yaml"}}),
        ("response_format", {"response_format": {"type": "json_schema"}}),
        ("structured_outputs", {"structured_outputs": {}}),
        ("structured_outputs", {"structured_outputs": {"regex": "a", "choice": ["b"]}}),
        ("structured_outputs", {"structured_outputs": {"structural_tag": "x"}}),
        ("guided_choice", {"guided_choice": []}),
        ("guided_regex", {"guided_regex": 5}),
        ("guided_regex", {"guided_regex": "a", "response_format": {"type": "json_object"}}),
        ("echo", {"echo": True, "logprobs": 1}),
        ("prompt_logprobs", {"prompt_logprobs": 1, "stream": True}),
        ("suffix", {"suffix": "x"}),
        ("bad_words", {"bad_words": ["x"]}),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(param: str, body: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        ask(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_tools_go_to_the_template_alone() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert chat(tools=tools).tools == tools
    assert chat(tools=tools, tool_choice="auto").tools == tools
    assert chat(tools=tools, tool_choice="none").tools == []
    for wrong in ({"tool_choice": "required"}, {"tool_choice": {"type": "function"}}, {"tools": "f"}):
        with pytest.raises(ApiError) as caught:
            chat(**wrong)
        assert caught.value.status == 400


def test_earlier_calls_reach_the_template_as_objects() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ]
    read_back = chat(messages=messages).ask.messages
    assert read_back is not None
    assert read_back[0]["content"] == "x"
    assert read_back[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert read_back[2] == messages[2]
    call["function"] = {"name": "f", "arguments": "{"}
    with pytest.raises(ApiError, match="not JSON"):
        chat(messages=messages)
