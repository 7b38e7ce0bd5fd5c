"""What crosses from `engines` to `load` and `observe`: a server that answers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dialect:
    """Which of the OpenAI API's common extensions this server understands.

    The load generator never sends a field that the server would refuse or, worse, silently ignore.
    """

    ignore_eos: bool = False  # `ignore_eos: true` gives exactly `max_tokens` tokens
    min_tokens: bool = False
    token_id_prompts: bool = False  # `prompt: [1, 2, 3]` on /v1/completions
    tokenize: bool = False  # POST /tokenize and /detokenize beside /v1
    stream_usage: bool = True  # `stream_options: {"include_usage": true}`
    logprobs: bool = False  # `logprobs` gives the log-probabilities of the answer's tokens
    continuous_usage: bool = False  # `stream_options: {"continuous_usage_stats": true}`: usage on every chunk
    priority: bool = False  # `priority: 1`; whether it changes the order is the scheduler's matter
    responses: tuple[str, ...] = ()  # fields beyond OpenAI's that /v1/responses understands: `ignore_eos`, `min_tokens`


@dataclass(frozen=True)
class Endpoint:
    """A running server.

    `base_url` ends in `/v1`. `flags` are the values that the engine says it resolved (log or API), not the ones asked
    for. `pids` are processes that redline started; empty for a server that somebody else runs. `startup_ms` maps each
    start-up phase to its length and holds `total`. `command` is what ran; `added` names the flags (`--seed`) and
    environment variables that redline set without being asked.
    """

    base_url: str
    model: str
    engine: str
    engine_version: str
    flags: dict[str, str] = field(default_factory=dict)
    pids: tuple[int, ...] = ()
    metrics_url: str | None = None
    dialect: Dialect = field(default_factory=Dialect)
    startup_ms: dict[str, float] = field(default_factory=dict)
    max_model_len: int | None = None
    command: tuple[str, ...] = ()
    added: dict[str, str] = field(default_factory=dict)
