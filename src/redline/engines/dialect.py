"""What a server understands beyond the OpenAI API, found out by asking: a dozen requests of a few tokens.

That a field is accepted proves nothing: many servers ignore what they do not know, and an ignored `ignore_eos` makes
answers of any length look like a fast server. So a field counts when it is accepted with a good value *and* refused
with a value of the wrong type: only who reads it can refuse it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from redline.engines.endpoint import Dialect
from redline.engines.http import Reply, streaming, try_fetch

TIMEOUT_S = 60.0
IDS = (5, 6, 7, 8, 9)
"""Token ids that any vocabulary has and that need no special treatment."""

DOCUMENTED = {"llama.cpp": frozenset({"ignore_eos"})}
"""Understood by its documentation, while a value of the wrong type silently becomes the default."""


@dataclass(frozen=True)
class Prober:
    root_url: str
    model: str
    headers: Mapping[str, str]
    chat_only: bool = False

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat_only else "/v1/completions"

    def body(self, **extra: object) -> dict[str, object]:
        prompt: dict[str, object] = (
            {"messages": [{"role": "user", "content": "Hello"}]} if self.chat_only else {"prompt": "Hello"}
        )
        return {"model": self.model, **prompt, "max_tokens": 2, "temperature": 0, **extra}

    def ask(self, **extra: object) -> Reply | None:
        return try_fetch(self.root_url + self.path, body=self.body(**extra), headers=self.headers, timeout_s=TIMEOUT_S)

    def reads_response(self, field: str, good: object, wrong: object) -> bool:
        """The same for /v1/responses, which need not understand what the other endpoints do."""
        body = {"model": self.model, "input": "Hello", "max_output_tokens": 16, "temperature": 0}

        def ask(value: object) -> Reply | None:
            url = self.root_url + "/v1/responses"
            return try_fetch(url, body={**body, field: value}, headers=self.headers, timeout_s=TIMEOUT_S)

        taken = ask(good)
        if taken is None or not taken.ok:
            return False
        refused = ask(wrong)
        return refused is not None and 400 <= refused.status < 500

    def reads(self, field: str, good: object, wrong: object) -> bool:
        """True when the field is taken with a good value and refused with a wrong one."""
        taken = self.ask(**{field: good})
        if taken is None or not taken.ok:
            return False
        refused = self.ask(**{field: wrong})
        return refused is not None and 400 <= refused.status < 500

    def counts_ids(self) -> bool:
        """True when a prompt of token ids is taken as these ids: usage says exactly as many."""
        if self.chat_only:
            return False
        reply = self.ask(prompt=list(IDS))
        return reply is not None and reply.ok and _usage(reply.json()).get("prompt_tokens") == len(IDS)

    def tokenizes(self) -> bool:
        body = {"model": self.model, "prompt": "Hello, how are you?"}
        reply = try_fetch(f"{self.root_url}/tokenize", body=body, headers=self.headers, timeout_s=TIMEOUT_S)
        found = reply.json() if reply and reply.ok else None
        return isinstance(found, dict) and isinstance(found.get("tokens"), list) and len(found["tokens"]) > 1

    def tells_logprobs(self) -> bool:
        reply = self.ask(logprobs=True if self.chat_only else 1)
        choices = reply.json().get("choices") if reply is not None and reply.ok else None
        return bool(choices and choices[0].get("logprobs"))

    def stream_usage(self, **options: bool) -> tuple[bool, bool]:
        """(usage came at the end, usage came with chunks that hold content) when asked for with these options."""
        events: list[Any] = []
        try:
            url = self.root_url + self.path
            with streaming(url, self.body(stream=True, stream_options=options), headers=self.headers) as stream:
                if stream.status != 200:
                    return False, False
                events = list(stream.events())
        except (OSError, orjson.JSONDecodeError):
            return False, False
        withal = [e for e in events if isinstance(e, dict) and _usage(e).get("completion_tokens") is not None]
        return bool(withal), any(e.get("choices") for e in withal[:-1])


def probe_dialect(prober: Prober, engine: str = "") -> Dialect:
    """What the server behind `prober` understands; `engine` as `identify` names it."""
    documented = DOCUMENTED.get(engine, frozenset())
    continuous = prober.stream_usage(include_usage=True, continuous_usage_stats=True)[1]
    return Dialect(
        ignore_eos="ignore_eos" in documented or prober.reads("ignore_eos", True, "neither"),
        min_tokens="min_tokens" in documented or prober.reads("min_tokens", 1, "few"),
        token_id_prompts=prober.counts_ids(),
        tokenize=prober.tokenizes(),
        stream_usage=prober.stream_usage(include_usage=True)[0],
        continuous_usage=continuous,
        logprobs=prober.tells_logprobs(),
        priority=prober.reads("priority", 1, "high"),
        responses=tuple(
            field
            for field, good, wrong in (("ignore_eos", True, "neither"), ("min_tokens", 1, "few"))
            if prober.reads_response(field, good, wrong)
        ),
    )


def _usage(event: Any) -> dict[str, Any]:
    usage = event.get("usage") if isinstance(event, dict) else None
    return usage if isinstance(usage, dict) else {}
