"""One request body, checked. What would change the answer and cannot be honoured is refused, never ignored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .fault import ApiError, bad

COMPLETION_TOKENS = 16
"""OpenAI's default for /v1/completions; chat fills the context."""
MOST_LOGPROBS = 20
MOST_STOPS = 16
MOST_PROMPTS = 1024

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_p": (0,),
    "typical_p": (1,),
    "logit_bias": ({},),
    "use_beam_search": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "prompt_logprobs": (),
    "prompt_embeds": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "logits_processors": (),
    "truncate_prompt_tokens": (),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "continue_final_message": (False,),
    "return_token_ids": (False,),
    "chat_template": (),
    "documents": ([],),
    "audio": (),
    "prediction": (),
    "generation_config": (),
}
"""Fields that change the answer, with the values that ask for nothing (null always does)."""


@dataclass(frozen=True)
class Sampling:
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    top_logprobs: int | None = None
    """None: no log-probabilities; 0: only those of chosen tokens."""


@dataclass(frozen=True)
class Ask:
    """`prompts` holds text and token ids as they came; `messages` is set instead for chat."""

    chat: bool
    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    messages: list[dict[str, Any]] | None
    template_args: dict[str, Any]
    add_special_tokens: bool
    max_tokens: int | None
    sampling: Sampling
    """Its `max_tokens` counts only after the prompt's length is known (`app` puts it in)."""
    stream: bool
    include_usage: bool
    continuous_usage: bool

    @property
    def usage(self) -> str:
        """As `reply.Shape` takes it."""
        return "each" if self.continuous_usage else ("last" if self.include_usage else "")

    @property
    def size(self) -> int:
        """Characters, about."""
        return sum(len(one) for one in self.prompts if isinstance(one, str)) + len(str(self.messages or ""))


class Fields:
    """Typed reads of a JSON object; null is the same as absent. A wrong type is a 400 that names the field."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise bad(f"{name} must be true or false, not {_short(value)}", name)
        return value

    def whole(self, name: str, low: int, high: int = 2**63 - 1) -> int | None:
        value = self.body.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad(f"{name} must be a whole number, not {_short(value)}", name)
        if not low <= value <= high:
            raise bad(f"{name} must be from {low} to {high}, not {_short(value)}", name)
        return value

    def number(self, name: str, default: float) -> float:
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise bad(f"{name} must be a number, not {_short(value)}", name)
        return float(value)

    def text(self, name: str) -> str:
        value = self.body.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise bad(f"{name} must be text, not {_short(value)}", name)
        return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse(
    body: Any,
    *,
    chat: bool,
    defaults: dict[str, float],
    beyond: frozenset[str] = frozenset(),
    messages: list[dict[str, Any]] | None = None,
) -> Ask:
    """`defaults`: temperature, top_p and top_k of the checkpoint's generation_config.json, where it has them.

    `beyond`: fields that the caller understands and reads itself; `messages`: those of a chat, if it has read them.
    """
    if not isinstance(body, dict):
        raise bad("the body must be a JSON object")
    refuse_unsupported(body, beyond)
    fields = Fields(body)
    if chat and messages is None:
        messages = read_messages(body)
    stream = fields.flag("stream")
    include_usage, continuous = _stream_options(body, stream)
    names = ("max_completion_tokens", "max_tokens") if chat else ("max_tokens",)
    limits = [limit for name in names if (limit := fields.whole(name, 1)) is not None]
    limit = limits[0] if limits else (None if chat else COMPLETION_TOKENS)
    return Ask(
        chat=chat,
        model=fields.text("model"),
        prompts=() if chat else read_prompts(body.get("prompt")),
        messages=messages,
        template_args=_template_args(body, fields) if chat else {},
        add_special_tokens=fields.flag("add_special_tokens", not chat),
        max_tokens=limit,
        sampling=_sampling(fields, chat, defaults, limit),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous,
    )


def refuse_unsupported(body: dict[str, Any], beyond: frozenset[str] = frozenset()) -> None:
    for name, neutral in NEUTRAL.items():
        value = body.get(name)
        if value is None or name in beyond or any(_same(value, fine) for fine in neutral):
            continue
        allowed = f"; only {neutral[0]!r} is" if neutral else ""
        raise bad(f"{name}={_short(value)} is not supported by this server{allowed}", name)


def _same(value: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _stream_options(body: dict[str, Any], stream: bool) -> tuple[bool, bool]:
    options = body.get("stream_options")
    if options is None:
        return False, False
    if not stream:
        raise bad("stream_options needs stream: true", "stream_options")
    if not isinstance(options, dict):
        raise bad("stream_options must be an object", "stream_options")
    fields = Fields(options)
    continuous = fields.flag("continuous_usage_stats")
    return fields.flag("include_usage"), continuous


def _template_args(body: dict[str, Any], fields: Fields) -> dict[str, Any]:
    extra = body.get("chat_template_kwargs")
    if extra is not None and not isinstance(extra, dict):
        raise bad("chat_template_kwargs must be an object", "chat_template_kwargs")
    return {**(extra or {}), "add_generation_prompt": fields.flag("add_generation_prompt", True)}


def _sampling(fields: Fields, chat: bool, defaults: dict[str, float], limit: int | None) -> Sampling:
    temperature = fields.number("temperature", defaults.get("temperature", 1.0))
    if not 0 <= temperature <= 100:
        raise bad(f"temperature must be from 0 to 100, not {temperature:g}", "temperature")
    top_p = fields.number("top_p", defaults.get("top_p", 1.0))
    if not 0 < top_p <= 1:
        raise bad(f"top_p must be above 0 and at most 1, not {top_p:g}", "top_p")
    top_k = fields.whole("top_k", -1, 2**31 - 1)
    min_tokens = fields.whole("min_tokens", 0) or 0
    if limit is not None and min_tokens > limit:
        raise bad(f"min_tokens={min_tokens} is more than max_tokens={limit}", "min_tokens")
    return Sampling(
        max_tokens=limit or 0,
        min_tokens=min_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=max(0, int(defaults.get("top_k", 0)) if top_k is None else top_k),
        seed=fields.whole("seed", -(2**63)),
        stop=_stops(fields.body.get("stop")),
        stop_token_ids=frozenset(read_ids(fields.body.get("stop_token_ids") or [], "stop_token_ids")),
        ignore_eos=fields.flag("ignore_eos"),
        top_logprobs=_logprobs(fields, chat),
    )


def _logprobs(fields: Fields, chat: bool) -> int | None:
    if not chat:
        return fields.whole("logprobs", 0, MOST_LOGPROBS)
    wanted = fields.flag("logprobs")
    top = fields.whole("top_logprobs", 0, MOST_LOGPROBS)
    if top and not wanted:
        raise bad("top_logprobs needs logprobs: true", "top_logprobs")
    return (top or 0) if wanted else None


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise bad("stop must be text or a list of texts", "stop")
    if len(items) > MOST_STOPS:
        raise bad(f"stop has {len(items)} entries; at most {MOST_STOPS} are allowed", "stop")
    if "" in items:
        raise bad("stop must not hold empty text", "stop")
    return tuple(items)


def read_ids(value: Any, name: str) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise bad(f"{name} must be a list of token ids", name)
    return value


def read_prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """Text, token ids, or a list of either."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise bad("prompt must be text, a list of token ids, or a list of those", "prompt")
    if len(value) <= MOST_PROMPTS and all(isinstance(item, str) for item in value):
        return tuple(value)
    if all(type(item) is int for item in value):
        return (tuple(value),)
    if len(value) > MOST_PROMPTS:
        raise bad(f"prompt has {len(value)} entries; at most {MOST_PROMPTS} are allowed", "prompt")
    if all(isinstance(item, list) and item for item in value):
        return tuple(tuple(read_ids(item, "prompt")) for item in value)
    raise bad("prompt must be text, a list of token ids, or a list of those", "prompt")


def read_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages with their text parts joined: templates expect plain text."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("messages must be a list with at least one message", "messages")
    return [_message(message, number) for number, message in enumerate(messages)]


def _message(message: Any, number: int) -> dict[str, Any]:
    where = f"messages[{number}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise bad(f"{where} must be an object with a role", "messages")
    content = message.get("content")
    if isinstance(content, list):
        texts = [part["text"] for part in content if _is_text(part)]
        if len(texts) < len(content):
            raise bad(f"{where}.content: only parts of type text are supported", "messages")
        content = "\n".join(texts)
    if content is not None and not isinstance(content, str):
        raise bad(f"{where}.content must be text", "messages")
    if message.get("tool_calls"):
        raise bad(f"{where}.tool_calls is not supported by this server", "messages")
    return {**message, "content": content or ""}


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def need(condition: bool, message: str, param: str) -> None:
    if not condition:
        raise ApiError(400, message, param=param)


def fit(prompt_tokens: int, max_tokens: int | None, limit: int) -> int:
    """The number of tokens that an answer may have. 400 when prompt and answer together are more than `limit`."""
    need(prompt_tokens > 0, "the prompt has no tokens", "prompt")
    room = limit - prompt_tokens
    wanted = max(1, room) if max_tokens is None else max_tokens
    if wanted > room:
        raise ApiError(
            400,
            f"the prompt has {prompt_tokens} tokens and max_tokens is {wanted}: together {prompt_tokens + wanted}, "
            f"more than the model's {limit}",
            param="max_tokens",
            code="context_length_exceeded",
        )
    return wanted
