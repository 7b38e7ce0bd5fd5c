"""A request body beyond what every server here reads: choices, penalties, grammars, tools, priorities."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redline.engines.hf_server.ask import MOST_LOGPROBS, Ask, Fields, need, parse, read_messages
from redline.engines.hf_server.fault import bad
from redline.runtime.params import MOST_CHOICES, Constraint, Kind, SamplingParams

GUIDED: dict[str, Kind] = {
    "guided_json": "json_schema",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
STRUCTURED: dict[str, Kind] = {
    "json": "json_schema",
    "regex": "regex",
    "choice": "choice",
    "grammar": "grammar",
    "json_object": "json_object",
}
BEYOND = frozenset(
    {
        *("n", "echo", "presence_penalty", "frequency_penalty", "repetition_penalty", "min_p", "logit_bias"),
        *("tools", "tool_choice", "response_format", "structured_outputs", "prompt_logprobs", *GUIDED),
    }
)
"""Fields that are read here."""


@dataclass(frozen=True)
class Wish:
    """`ask` as every server reads it; `tools` are for the chat template alone, `trace` is the traceparent that it came
    with."""

    ask: Ask
    params: SamplingParams
    echo: bool
    priority: int
    tools: list[dict[str, Any]]
    trace: str = ""


def read(body: dict[str, Any], *, chat: bool, defaults: Mapping[str, float]) -> Wish:
    """400 for what cannot be honoured; the error names the field."""
    messages = read_messages(_plain_calls(body)) if chat else None
    if messages is not None:
        messages = [_with_calls(*pair) for pair in zip(messages, body["messages"], strict=True)]
    ask = parse(body, chat=chat, defaults=dict(defaults), beyond=BEYOND, messages=messages)
    fields = Fields(body)
    params = _params(fields, ask, defaults)
    echo = not chat and fields.flag("echo")
    need(not (echo and params.logprobs is not None), "echo with logprobs is not supported; prompt_logprobs is", "echo")
    need(
        not (ask.stream and params.prompt_logprobs is not None),
        "prompt_logprobs needs stream: false",
        "prompt_logprobs",
    )
    return Wish(ask, params, echo, fields.whole("priority", -(2**31), 2**31) or 0, _tools(body) if chat else [])


def _params(fields: Fields, ask: Ask, defaults: Mapping[str, float]) -> SamplingParams:
    one = ask.sampling
    return SamplingParams(
        max_tokens=ask.max_tokens,
        min_tokens=one.min_tokens,
        n=fields.whole("n", 1, MOST_CHOICES) or 1,
        temperature=one.temperature,
        top_p=one.top_p,
        top_k=one.top_k,
        min_p=fields.number("min_p", defaults.get("min_p", 0.0)),
        repetition_penalty=fields.number("repetition_penalty", defaults.get("repetition_penalty", 1.0)),
        presence_penalty=fields.number("presence_penalty", 0.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0),
        logit_bias=_biases(fields.body.get("logit_bias")),
        seed=one.seed,
        stop=one.stop,
        stop_token_ids=tuple(one.stop_token_ids),
        ignore_eos=one.ignore_eos,
        logprobs=one.top_logprobs,
        prompt_logprobs=fields.whole("prompt_logprobs", 0, MOST_LOGPROBS),
        constraint=_constraint(fields.body),
    )


def _biases(value: Any) -> dict[int, float]:
    if value is None:
        return {}
    need(isinstance(value, dict), "logit_bias must be an object of token ids and numbers", "logit_bias")
    found = {}
    for token, bias in value.items():
        need(token.isdigit(), f"logit_bias: {token!r} is no token id", "logit_bias")
        need(isinstance(bias, int | float) and not isinstance(bias, bool), "logit_bias must hold numbers", "logit_bias")
        found[int(token)] = float(bias)
    return found


def _constraint(body: dict[str, Any]) -> Constraint | None:
    """At most one of OpenAI's `response_format`, vLLM's `structured_outputs` and its older `guided_…`."""
    found = [Constraint(kind, body[name], name) for name, kind in GUIDED.items() if body.get(name) is not None]
    found += _structured(body.get("structured_outputs")) + _response_format(body.get("response_format"))
    need(
        len(found) < 2,
        f"{' and '.join(one.param for one in found)} cannot go together",
        found[0].param if found else "",
    )
    for one in found:
        _check(one)
    return found[0] if found else None


def _structured(value: Any) -> list[Constraint]:
    name = "structured_outputs"
    if value is None:
        return []
    need(isinstance(value, dict), f"{name} must be an object", name)
    unknown = sorted(key for key in value if key not in STRUCTURED and value[key] not in (None, False))
    need(not unknown, f"{name}: {', '.join(unknown)} is not supported", name)
    found = [
        Constraint(kind, value[key], name) for key, kind in STRUCTURED.items() if value.get(key) not in (None, False)
    ]
    need(len(found) == 1, f"{name} must hold exactly one of {', '.join(STRUCTURED)}", name)
    return found


def _response_format(value: Any) -> list[Constraint]:
    name = "response_format"
    if value is None:
        return []
    need(isinstance(value, dict), f"{name} must be an object", name)
    kind = value.get("type")
    if kind == "text":
        return []
    if kind == "json_object":
        return [Constraint("json_object", None, name)]
    need(kind == "json_schema", f"{name}: type {kind!r} is not supported", name)
    schema = value.get("json_schema")
    need(isinstance(schema, dict) and "schema" in schema, f"{name} needs json_schema with a schema", name)
    return [Constraint("json_schema", schema["schema"], name)]


def _check(one: Constraint) -> None:
    fine: dict[Kind, Callable[[Any], bool]] = {
        "json_object": lambda value: True,
        "json_schema": lambda value: isinstance(value, dict | str | bool),
        "regex": lambda value: isinstance(value, str),
        "grammar": lambda value: isinstance(value, str),
        "choice": lambda value: isinstance(value, list) and bool(value) and all(isinstance(c, str) for c in value),
    }
    need(fine[one.kind](one.value), f"{one.param}: this is no {one.kind}", one.param)


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Those to tell the template of: none where the model is not to call any."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    need(
        choice in (None, "none", "auto"),
        f"tool_choice={json.dumps(choice)[:60]} is not supported by this server; 'auto' and 'none' are",
        "tool_choice",
    )
    if tools is None:
        return []
    if not isinstance(tools, list) or not all(isinstance(one, dict) for one in tools):
        raise bad("tools must be a list of objects", "tools")
    return [] if choice == "none" else tools


def _plain_calls(body: dict[str, Any]) -> dict[str, Any]:
    """The body with messages that call no tools."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body
    plain = [
        {key: value for key, value in one.items() if key != "tool_calls"} if isinstance(one, dict) else one
        for one in messages
    ]
    return {**body, "messages": plain}


def _with_calls(message: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """Earlier calls, with their arguments as templates expect them: as an object, while the API has JSON text."""
    calls = told.get("tool_calls")
    if not calls:
        return message
    need(
        isinstance(calls, list) and all(isinstance(one, dict) for one in calls), "tool_calls must be a list", "messages"
    )
    read = []
    for call in calls:
        function = dict(call.get("function") or {})
        if isinstance(function.get("arguments"), str):
            try:
                function["arguments"] = json.loads(function["arguments"] or "{}")
            except ValueError:
                raise bad("tool_calls: the arguments are not JSON", "messages") from None
        read.append({**call, "function": function})
    return {**message, "tool_calls": read}
