"""What a request to the paced server wants, in the words of any of its APIs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redline.load.paced.pace import Asked, Pace, ToyTokenizer

APIS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
}
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def asked_of(api: str, body: dict[str, Any], tokenizer: ToyTokenizer, pace: Pace) -> Asked:
    """What is asked for. KeyError and its kin for a body that is none."""
    inputs: tuple[str, ...] = ()
    prompt: str | list[int] = ""
    if api == "embeddings":
        found = body["input"]
        inputs = tuple(found) if isinstance(found, list) else (str(found),)
        count = sum(tokenizer.count(text) for text in inputs)
    elif api == "completions":
        prompt = body["prompt"]
        count = tokenizer.count(prompt) if isinstance(prompt, str) else len(prompt)
    else:
        said = body["messages" if api == "chat" else "input"]
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        prompt = tokenizer.render([{**one, "content": text_of(one.get("content"))} for one in messages])
        count = tokenizer.count(prompt)
        count += pace.image_tokens * sum(1 for one in messages for _ in images_of(one.get("content")))
        count += pace.responses_extra_tokens if api == "responses" else 0
    tokens = 0 if api == "embeddings" else int(next(filter(None, map(body.get, _LENGTHS)), pace.tokens))
    options = body.get("stream_options") or {}
    return Asked(
        chat=api == "chat",
        stream=bool(body.get("stream")) and api != "embeddings",
        tokens=min(tokens, pace.most_tokens or tokens),
        prompt_tokens=count,
        include_usage=bool(options.get("include_usage")),
        continuous=bool(options.get("continuous_usage_stats")),
        api=api,
        prompt=prompt,
        inputs=inputs,
        base64=body.get("encoding_format") == "base64",
    )


def text_of(content: Any) -> str:
    """The text in a message, whose content is text or a list of parts."""
    if not isinstance(content, list):
        return content or ""
    return "".join(str(part["text"]) for part in content if part.get("type") in ("text", "input_text"))


def images_of(content: Any) -> Iterator[str]:
    """The URLs of a message's pictures. ValueError for one that is no data URL of a picture."""
    for part in content if isinstance(content, list) else ():
        if part.get("type") not in ("image_url", "input_image"):
            continue
        found = part["image_url"]
        url = found["url"] if isinstance(found, dict) else found
        if not url.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")):
            raise ValueError("an image that is no PNG and no JPEG in a data URL")
        yield url
