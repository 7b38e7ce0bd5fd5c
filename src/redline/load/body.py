"""The JSON body of a request, with no field in it that the server would refuse or silently ignore."""

from __future__ import annotations

from typing import Any

import orjson

from redline.engines.endpoint import Endpoint
from redline.load.prompt import Prompt
from redline.spec.workload import WorkloadSpec


def path_of(workload: WorkloadSpec) -> str:
    return "/chat/completions" if workload.api == "chat" else "/completions"


def body_fields(
    endpoint: Endpoint, workload: WorkloadSpec, prompt: Prompt, *, seed: int = 0, logprobs: bool = False
) -> dict[str, Any]:
    """What the body of one request says. `seed` goes along only where sampling makes it matter, `logprobs` only where
    the server has them."""
    dialect = endpoint.dialect
    fields: dict[str, Any] = {"model": endpoint.model}
    if workload.api == "chat":
        fields["messages"] = list(prompt.messages)
    else:
        fields["prompt"] = list(prompt.token_ids) if prompt.token_ids else prompt.text
    if prompt.output_tokens:
        fields["max_tokens"] = prompt.output_tokens
    fields["temperature"] = workload.temperature
    if workload.temperature > 0:
        fields["seed"] = seed
    if workload.ignore_eos and prompt.output_tokens:
        if dialect.ignore_eos:
            fields["ignore_eos"] = True
        if dialect.min_tokens:
            fields["min_tokens"] = prompt.output_tokens
    if logprobs and dialect.logprobs:
        fields["logprobs"] = True if workload.api == "chat" else 1
    fields["stream"] = workload.stream
    options: dict[str, bool] = {}
    if workload.stream and dialect.stream_usage:
        options["include_usage"] = True
    if workload.stream and dialect.continuous_usage:
        options["continuous_usage_stats"] = True
    if options:
        fields["stream_options"] = options
    return fields


def body(endpoint: Endpoint, workload: WorkloadSpec, prompt: Prompt, *, seed: int = 0, logprobs: bool = False) -> bytes:
    return orjson.dumps(body_fields(endpoint, workload, prompt, seed=seed, logprobs=logprobs))
