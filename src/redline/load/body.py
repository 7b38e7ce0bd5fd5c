"""The JSON body of a request, with no field in it that the server would refuse or silently ignore."""

from __future__ import annotations

from typing import Any

import orjson

from redline.engines.endpoint import Endpoint
from redline.load.prompt import Prompt
from redline.spec.workload import WorkloadSpec

_PATHS = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
}


def path_of(workload: WorkloadSpec) -> str:
    return _PATHS[workload.api]


def streams(workload: WorkloadSpec) -> bool:
    """Whether answers come as a stream; embeddings never do, and classes do when all of them do."""
    return all(part.stream and part.api != "embeddings" for part in workload.parts.values())


def body_fields(
    endpoint: Endpoint, workload: WorkloadSpec, prompt: Prompt, *, seed: int = 0, logprobs: bool = False
) -> dict[str, Any]:
    """What the body of one request says. `seed` goes along only where sampling makes it matter, `logprobs` only where
    the server has them."""
    fields: dict[str, Any] = {"model": endpoint.model, **_asked(workload, prompt)}
    if prompt.priority and endpoint.dialect.priority:
        fields["priority"] = prompt.priority
    if workload.api == "embeddings":
        return fields
    fields["temperature"] = workload.temperature
    if workload.temperature > 0 and workload.api != "responses":
        fields["seed"] = seed
    if workload.ignore_eos and prompt.output_tokens:
        fields |= _exact_length(endpoint, workload, prompt.output_tokens)
    if logprobs and endpoint.dialect.logprobs:
        fields["logprobs"] = True if workload.api == "chat" else 1
    fields["stream"] = workload.stream
    if workload.api == "responses":
        fields["store"] = False
    elif workload.stream:
        fields |= _stream_options(endpoint)
    return fields


def _asked(workload: WorkloadSpec, prompt: Prompt) -> dict[str, Any]:
    """The prompt and how long the answer may be, in the words of the API."""
    fields: dict[str, Any] = {}
    if workload.api == "embeddings":
        inputs = list(prompt.inputs) or [prompt.text]
        return {"input": inputs if len(inputs) > 1 else inputs[0], "encoding_format": workload.embedding_format}
    if workload.api == "chat":
        fields["messages"] = list(prompt.messages)
    elif workload.api == "responses":
        fields["input"] = list(prompt.messages)
    else:
        fields["prompt"] = list(prompt.token_ids) if prompt.token_ids else prompt.text
    if prompt.output_tokens:
        fields["max_output_tokens" if workload.api == "responses" else "max_tokens"] = prompt.output_tokens
    return fields


def _exact_length(endpoint: Endpoint, workload: WorkloadSpec, tokens: int) -> dict[str, Any]:
    """What makes an answer exactly as long as asked, as far as this server understands it."""
    dialect = endpoint.dialect
    if workload.api == "responses":
        eos, least = "ignore_eos" in dialect.responses, "min_tokens" in dialect.responses
    else:
        eos, least = dialect.ignore_eos, dialect.min_tokens
    return {**({"ignore_eos": True} if eos else {}), **({"min_tokens": tokens} if least else {})}


def _stream_options(endpoint: Endpoint) -> dict[str, Any]:
    options: dict[str, bool] = {}
    if endpoint.dialect.stream_usage:
        options["include_usage"] = True
    if endpoint.dialect.continuous_usage:
        options["continuous_usage_stats"] = True
    return {"stream_options": options} if options else {}


def body(endpoint: Endpoint, workload: WorkloadSpec, prompt: Prompt, *, seed: int = 0, logprobs: bool = False) -> bytes:
    return orjson.dumps(body_fields(endpoint, workload, prompt, seed=seed, logprobs=logprobs))
