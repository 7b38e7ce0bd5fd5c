"""Who can count tokens: the server's own tokenizer, a tokenizer.json, or the usage of real answers."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from redline.engines.endpoint import Endpoint
from redline.engines.http import connect
from redline.errors import EnvironmentFault, TokenizerMissing, Unsupported
from redline.load.answer import error_text
from redline.load.record import TokenSource

_CONNECTIONS = 8
_TIMEOUT_S = 60.0
_RESPONSE_MIN = 16  # the least that OpenAI's Responses API takes as max_output_tokens

Messages = Sequence[dict[str, Any]]


class Tokenizer(Protocol):
    """Counts as the endpoint counts: `special` adds what the server adds to a completions prompt (BOS and so on)."""

    source: TokenSource

    def counts(self, texts: Sequence[str], *, special: bool = True) -> list[int]: ...

    def chat_counts(self, chats: Sequence[Messages]) -> list[int]:
        """Tokens of each conversation, rendered with the generation prompt. Unsupported without a chat template."""
        ...

    def ids(self, text: str, *, special: bool = True) -> list[int] | None:
        """Token ids; None when only counts can be had."""
        ...


class _Poster:
    """POSTs JSON. Many at once share a few connections, which are closed when all have been answered."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        self._base_url = base_url
        self._secret = api_key
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def __call__(self, path: str, body: object) -> Any:
        return self.map(path, [body])[0]

    def map(self, path: str, bodies: Sequence[object]) -> list[Any]:
        ways = min(_CONNECTIONS, len(bodies))
        if ways < 2:
            return self._in_turn(path, bodies)
        shares = [bodies[first::ways] for first in range(ways)]
        with ThreadPoolExecutor(ways, thread_name_prefix="tokenize") as pool:
            answered = list(pool.map(lambda share: self._in_turn(path, share), shares))
        return [answered[at % ways][at // ways] for at in range(len(bodies))]

    def _in_turn(self, path: str, bodies: Sequence[object]) -> list[Any]:
        with closing(connect(self._base_url, _TIMEOUT_S)) as connection:
            return [self._post(connection, path, orjson.dumps(body)) for body in bodies]

    def _post(self, connection: http.client.HTTPConnection, path: str, data: bytes) -> Any:
        for attempt in (1, 2):
            try:
                connection.request("POST", path, body=data, headers=self._headers)
                answer = connection.getresponse()
                reply = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()  # the server may have dropped a kept connection; the next request opens a new one
                if attempt == 2:
                    raise EnvironmentFault(f"{path} did not answer: {error!r}", fix="is the server up?") from error
        if not 200 <= answer.status < 300:
            said = error_text(reply)
            said = said.replace(self._secret, "***") if self._secret else said
            raise EnvironmentFault(f"{path} answered {answer.status}: {said}")
        try:
            return orjson.loads(reply)
        except orjson.JSONDecodeError as error:
            said = reply[:200].decode("utf-8", "replace")
            raise EnvironmentFault(f"{path} answered {answer.status}, but not in JSON: {said!r}") from error


class ServerTokenizer:
    """POST /tokenize beside /v1, as vLLM, SGLang's compatible servers and redline's own runtime have it."""

    source = TokenSource.SERVER_TOKENIZER

    def __init__(self, endpoint: Endpoint, api_key: str | None = None) -> None:
        self._post = _Poster(endpoint.base_url, api_key)
        self._path = urlsplit(endpoint.base_url).path.rstrip("/").removesuffix("/v1") + "/tokenize"
        self._model = endpoint.model

    def _ask(self, asks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        replies = self._post.map(self._path, [{"model": self._model, **ask} for ask in asks])
        for reply in replies:
            if not isinstance(reply, dict) or not isinstance(reply.get("tokens"), list):
                raise EnvironmentFault(f"{self._path} gave no tokens: {str(reply)[:200]}")
        return replies

    def counts(self, texts: Sequence[str], *, special: bool = True) -> list[int]:
        asks = [{"prompt": text, "add_special_tokens": special} for text in texts]
        return [len(reply["tokens"]) for reply in self._ask(asks)]

    def chat_counts(self, chats: Sequence[Messages]) -> list[int]:
        asks = [{"messages": list(chat), "add_generation_prompt": True} for chat in chats]
        return [len(reply["tokens"]) for reply in self._ask(asks)]

    def ids(self, text: str, *, special: bool = True) -> list[int] | None:
        return list(self._ask([{"prompt": text, "add_special_tokens": special}])[0]["tokens"])


class FileTokenizer:
    """tokenizer.json of the model, in our own process; the chat template beside it, rendered with Jinja."""

    source = TokenSource.TOKENIZER

    def __init__(self, path: Path) -> None:
        """`path` is tokenizer.json or the folder that holds it."""
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise TokenizerMissing(f"no tokenizer.json in {path}", fix="tokenizer: FOLDER names another one")
        try:
            from tokenizers import Tokenizer as HubTokenizer
        except ImportError as error:
            raise Unsupported(
                "counting tokens on our side needs the tokenizers package", fix="pip install 'redline[tokenizers]'"
            ) from error
        self._tokenizer = HubTokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._folder = file.parent
        self._template: Any = None

    def counts(self, texts: Sequence[str], *, special: bool = True) -> list[int]:
        encode = self._tokenizer.encode_batch_fast
        return [len(found.ids) for found in encode(list(texts), add_special_tokens=special)]

    def chat_counts(self, chats: Sequence[Messages]) -> list[int]:
        if self._template is None:
            self._template, self._names = _chat_template(self._folder)
        rendered = [
            self._template.render(messages=list(chat), add_generation_prompt=True, **self._names) for chat in chats
        ]
        return self.counts(rendered, special=False)

    def ids(self, text: str, *, special: bool = True) -> list[int] | None:
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)


def _chat_template(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The compiled template and the names it may use. Unsupported when the folder has none."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    config_file, template_file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    config: dict[str, Any] = orjson.loads(config_file.read_bytes()) if config_file.is_file() else {}
    source: Any = template_file.read_text("utf-8") if template_file.is_file() else config.get("chat_template")
    if isinstance(source, list):
        source = next((item["template"] for item in source if item.get("name") == "default"), None)
    if not isinstance(source, str):
        raise Unsupported(f"no chat template in {folder}", fix="api: completions needs none")

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda text: __import__("time").strftime(text)
    names: dict[str, Any] = {"tools": None, "documents": None}
    for key, value in config.items():
        if key.endswith("_token"):
            names[key] = value.get("content") if isinstance(value, dict) else value
    return environment.from_string(source), names


class UsageTokenizer:
    """Counts by asking for one token and reading `usage.prompt_tokens`: each count is a real request, so few of them,
    and none for a prompt that is going to be measured (its prefix would be cached)."""

    source = TokenSource.USAGE

    def __init__(self, endpoint: Endpoint, api_key: str | None = None, *, api: str = "completions") -> None:
        self._post = _Poster(endpoint.base_url, api_key)
        self._root = urlsplit(endpoint.base_url).path.rstrip("/")
        self._model = endpoint.model
        self._api = api

    @property
    def path(self) -> str:
        """Where conversations are counted."""
        return self._root + ("/responses" if self._api == "responses" else "/chat/completions")

    def _ask(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[int]:
        fields: dict[str, Any] = {"model": self._model}
        if self._api == "responses":
            fields |= {"max_output_tokens": _RESPONSE_MIN, "temperature": 0, "stream": False, "store": False}
        elif self._api != "embeddings":
            fields |= {"max_tokens": 1, "temperature": 0, "stream": False}
        counts = []
        for reply in self._post.map(path, [{**fields, **body} for body in bodies]):
            usage = reply.get("usage") if isinstance(reply, dict) else None
            found = usage if isinstance(usage, dict) else {}
            count = found.get("prompt_tokens", found.get("input_tokens"))
            if not isinstance(count, int) or count < 1:
                raise Unsupported("the server's answers carry no usage of the prompt's tokens")
            counts.append(count)
        return counts

    def counts(self, texts: Sequence[str], *, special: bool = True) -> list[int]:
        if not special:
            raise Unsupported("the server counts special tokens along")
        if self._api == "embeddings":
            return self._ask(self._root + "/embeddings", [{"input": text} for text in texts])
        return self._ask(self._root + "/completions", [{"prompt": text} for text in texts])

    def chat_counts(self, chats: Sequence[Messages]) -> list[int]:
        key = "input" if self._api == "responses" else "messages"
        return self._ask(self.path, [{key: list(chat)} for chat in chats])

    def ids(self, text: str, *, special: bool = True) -> list[int] | None:
        return None


def best_tokenizer(
    endpoint: Endpoint, tokenizer_path: Path | None, api_key: str | None = None
) -> tuple[Tokenizer | None, list[str]]:
    """The most trusted tokenizer there is, and remarks on what was passed over.

    The server's own comes first; tokenizer.json takes its place where both agree on samples, because it answers
    without loading the server.
    """
    notes: list[str] = []
    ours: FileTokenizer | None = None
    if tokenizer_path is not None:
        try:
            ours = FileTokenizer(tokenizer_path)
        except (TokenizerMissing, Unsupported) as problem:
            notes.append(problem.what)
    if not endpoint.dialect.tokenize:
        return ours, notes
    server = ServerTokenizer(endpoint, api_key)
    try:
        theirs = server.counts(_SAMPLES)
    except EnvironmentFault as problem:
        notes.append(f"the server's tokenizer cannot be used: {problem.what}")
        return ours, notes
    if ours is None:
        return server, notes
    if ours.counts(_SAMPLES) != theirs:
        notes.append("tokenizer.json counts differently from the server; the server's own tokenizer is used")
        return server, notes
    return ours, notes


_SAMPLES = (
    "The quick brown fox jumps over the lazy dog.",
    " for x in range(10):\n    print(x ** 2)\n",
    "naïve café — 東京, 🙂 1234567890",
    "a",
)
