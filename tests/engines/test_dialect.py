from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redline.engines.dialect import Prober, probe_dialect

Answer = Callable[[str, dict[str, Any]], tuple[int, Any]]


@pytest.fixture
def prober() -> Iterator[Callable[..., Prober]]:
    """A prober of a server that answers as a function says: (path, body) to (status, JSON or a list of events)."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def make(answer: Answer, **fields: Any) -> Prober:
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, found = answer(self.path, body)
                events = found if isinstance(found, list) else []
                data = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(data or json.dumps(found).encode())

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return Prober(f"http://127.0.0.1:{server.server_port}", "m", {}, **fields)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


OK = {"choices": [{"text": "x"}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}


def test_a_plain_server_that_ignores_everything(prober: Callable[..., Prober]) -> None:
    dialect = probe_dialect(
        prober(lambda path, body: (200, [{"choices": [{"text": "x"}]}] if body.get("stream") else OK))
    )
    assert not any(vars(dialect).values())


def test_a_server_that_refuses_everything_unknown(prober: Callable[..., Prober]) -> None:
    known = {"model", "prompt", "max_tokens", "temperature"}
    dialect = probe_dialect(prober(lambda path, body: (200, OK) if set(body) <= known else (422, {"detail": "no"})))
    assert not any(vars(dialect).values())


def test_one_that_reads_the_field_refuses_a_wrong_type(prober: Callable[..., Prober]) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (200, OK) if isinstance(body.get("ignore_eos", True), bool) else (400, {"error": "bool please"})

    assert probe_dialect(prober(answer)).ignore_eos


def test_what_responses_understands_is_asked_for_itself(prober: Callable[..., Prober]) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        checked = path == "/v1/responses"
        return (400, {}) if checked and not isinstance(body.get("ignore_eos", True), bool) else (200, OK)

    dialect = probe_dialect(prober(answer))
    assert (dialect.ignore_eos, dialect.responses) == (False, ("ignore_eos",))


def test_one_that_breaks_at_a_wrong_type_does_not_prove_that_it_reads_it(prober: Callable[..., Prober]) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (200, OK) if isinstance(body.get("ignore_eos", True), bool) else (500, {"error": "oops"})

    assert not probe_dialect(prober(answer)).ignore_eos


def test_documented_where_types_are_not_checked(prober: Callable[..., Prober]) -> None:
    lenient = prober(lambda path, body: (200, OK))
    assert probe_dialect(lenient, "llama.cpp").ignore_eos
    assert not probe_dialect(lenient, "llama.cpp").min_tokens


def test_token_ids_must_be_counted_as_such(prober: Callable[..., Prober]) -> None:
    def as_text(path: str, body: dict[str, Any]) -> tuple[int, Any]:  # "[5, 6, 7]" tokenised as a text
        return 200, {**OK, "usage": {"prompt_tokens": len(str(body.get("prompt")))}}

    def as_ids(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return 200, {**OK, "usage": {"prompt_tokens": len(body.get("prompt", ""))}}

    assert not probe_dialect(prober(as_text)).token_id_prompts
    assert probe_dialect(prober(as_ids)).token_id_prompts


def stream_of(*, at_end: bool, along: bool) -> Answer:
    usage = {"prompt_tokens": 1, "completion_tokens": 1}

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if not body.get("stream"):
            return 200, OK
        options = body.get("stream_options", {})
        chunk: dict[str, Any] = {"choices": [{"text": "x"}]}
        if along and options.get("continuous_usage_stats"):
            chunk["usage"] = usage
        return 200, [chunk, chunk, *([{"choices": [], "usage": usage}] if at_end and options else [])]

    return answer


@pytest.mark.parametrize(("at_end", "along"), [(False, False), (True, False), (True, True)])
def test_usage_in_streams(prober: Callable[..., Prober], at_end: bool, along: bool) -> None:
    dialect = probe_dialect(prober(stream_of(at_end=at_end, along=along)))
    assert (dialect.stream_usage, dialect.continuous_usage) == (at_end, along)


def test_usage_on_the_last_content_chunk_is_not_continuous(prober: Callable[..., Prober]) -> None:
    last = {"choices": [{"text": "x"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    server = prober(lambda path, body: (200, [{"choices": [{"text": "x"}]}, last] if body.get("stream") else OK))
    dialect = probe_dialect(server)
    assert dialect.stream_usage
    assert not dialect.continuous_usage


def test_chat_only(prober: Callable[..., Prober]) -> None:
    paths: set[str] = set()

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        paths.add(path)
        return (200, OK) if "messages" in body else (404, {})

    assert not probe_dialect(prober(answer, chat_only=True)).token_id_prompts
    assert paths == {"/v1/chat/completions", "/v1/responses", "/tokenize"}
