"""What an engine adapter must prove. Subclass it, give it an engine, a spec and a model, and run pytest:

    class TestMine(EngineSuite):
        @pytest.fixture(scope="class")
        @classmethod
        def engine(cls):
            return MineEngine()

        @pytest.fixture(scope="class")
        @classmethod
        def spec(cls):
            return EngineSpec(kind="mine", flags={"threads": 2})

        @pytest.fixture(scope="class")
        @classmethod
        def model(cls):
            return ModelSpec(id="bundled:tiny")

One server is started for the whole class and stopped by its last test; two more starts are tried and must be refused
before anything heavy happens (a port in use, a model that does not exist). `launches = False` is for adapters that look
at a server which somebody else runs.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from redline.engines.engine import Engine, Server, Start
from redline.engines.guard import read_proc
from redline.engines.http import fetch, streaming
from redline.engines.launch import root_of
from redline.errors import PortInUse, RedlineError, UsageError
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec

PROMPT = "The quick brown fox jumps over the lazy dog and"
ANSWER_TOKENS = 12


class EngineSuite:
    """Conformance tests of an engine adapter; see the module's docstring."""

    launches = True
    """The adapter starts processes."""
    unknown_flag = "no-such-flag-anywhere"
    has_chat = True

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        raise NotImplementedError("the subclass gives the adapter")

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> EngineSpec:
        raise NotImplementedError("the subclass gives the engine's spec")

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ModelSpec:
        raise NotImplementedError("the subclass gives the model")

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("artifacts")

    @pytest.fixture(scope="class")
    @classmethod
    def lines(cls) -> list[str]:
        """Progress lines of the start."""
        return []

    @pytest.fixture(scope="class")
    @classmethod
    def asked_port(cls) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])

    @pytest.fixture(scope="class")
    @classmethod
    def server(
        cls, engine: Engine, spec: EngineSpec, model: ModelSpec, folder: Path, lines: list[str], asked_port: int
    ) -> Iterator[Server]:
        """The running server of the whole class."""
        if skipped := engine.available(spec):
            pytest.skip(str(skipped))
        if cls.launches:
            spec = spec.model_copy(update={"port": asked_port})
        server = engine.start(Start(spec, model, folder, seed=3), lines.append)
        yield server
        server.stop()

    @pytest.fixture(autouse=True)
    def _where_it_runs(self, engine: Engine, spec: EngineSpec) -> None:
        if skipped := engine.available(spec):
            pytest.skip(str(skipped))

    # --- before anything starts ---

    def test_says_whether_it_is_available(self, engine: Engine, spec: EngineSpec) -> None:
        assert engine.available(spec) is None
        assert engine.kind == spec.kind

    def test_knows_its_version(self, engine: Engine, spec: EngineSpec, server: Server) -> None:
        assert engine.version(spec) == server.endpoint.engine_version
        if self.launches:
            assert any(char.isdigit() for char in engine.version(spec))

    def test_refuses_an_unknown_flag(self, engine: Engine, spec: EngineSpec, model: ModelSpec) -> None:
        known = engine.known_flags(spec)
        if known is None:
            pytest.skip("this adapter cannot tell its flags")
        assert self.unknown_flag not in known
        with pytest.raises(UsageError, match=self.unknown_flag):
            engine.check(spec.model_copy(update={"flags": {**spec.flags, self.unknown_flag: 1}}), model)
        engine.check(spec, model)

    def test_refuses_a_model_that_does_not_exist(
        self, engine: Engine, spec: EngineSpec, model: ModelSpec, tmp_path: Path
    ) -> None:
        missing = ModelSpec(id=str(tmp_path / "no-such-model"))

        def check_and_start() -> None:
            engine.check(spec, missing)
            engine.start(Start(spec, missing, tmp_path), lambda line: None).stop()

        with pytest.raises(RedlineError) as caught:
            check_and_start()
        assert caught.value.exit_code in (2, 3, 4)
        assert "no-such-model" in str(caught.value)

    def test_refuses_a_port_in_use(self, engine: Engine, spec: EngineSpec, model: ModelSpec, tmp_path: Path) -> None:
        if not self.launches:
            pytest.skip("this adapter starts nothing")
        with socket.socket() as taken:
            taken.bind((spec.host, 0))
            taken.listen()
            busy = spec.model_copy(update={"port": taken.getsockname()[1]})
            with pytest.raises(PortInUse, match=str(taken.getsockname()[1])):
                engine.start(Start(busy, model, tmp_path), lambda line: None).stop()

    # --- what the start tells ---

    def test_the_endpoint_is_complete(self, server: Server, spec: EngineSpec, asked_port: int) -> None:
        endpoint = server.endpoint
        assert endpoint.base_url.endswith("/v1")
        assert endpoint.engine
        assert all(isinstance(value, str) for value in endpoint.flags.values())
        if self.launches:
            assert endpoint.base_url == f"http://127.0.0.1:{asked_port}/v1"
            assert endpoint.command
            assert all(read_proc(pid) for pid in endpoint.pids)
            assert endpoint.pids
        else:
            assert endpoint.pids == ()

    def test_the_start_up_is_timed_and_told(self, server: Server, lines: list[str]) -> None:
        assert lines
        assert all(line and "\n" not in line for line in lines)
        if self.launches:
            phases = dict(server.endpoint.startup_ms)
            total = phases.pop("total")
            assert {"spawn", "first_answer"} <= set(phases)
            assert all(length >= 0 for length in phases.values())
            assert total == pytest.approx(sum(phases.values()), rel=0.05)

    def test_the_log_is_kept(self, server: Server, folder: Path) -> None:
        if self.launches:
            assert any(path.suffix == ".log" for path in folder.iterdir())
            assert "\x1b" not in server.log_tail(200)
            assert len(server.log_tail(3).splitlines()) <= 3
        assert server.diagnose()[0] == ""

    # --- what it serves ---

    def test_is_alive_and_healthy(self, server: Server) -> None:
        assert server.alive()
        assert server.healthy()

    def test_lists_its_model(self, server: Server) -> None:
        reply = fetch(f"{server.endpoint.base_url}/models", timeout_s=30)
        assert server.endpoint.model in [entry["id"] for entry in reply.json()["data"]]

    @pytest.mark.parametrize("api", ["completions", "chat"])
    def test_answers(self, server: Server, api: str) -> None:
        reply = self.ask(server, api)
        assert reply["choices"]
        assert text_of(reply["choices"][0])

    @pytest.mark.parametrize("api", ["completions", "chat"])
    def test_usage_is_right(self, server: Server, api: str) -> None:
        usage = self.ask(server, api)["usage"]
        assert usage["prompt_tokens"] > 0
        assert 0 < usage["completion_tokens"] <= ANSWER_TOKENS
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    def test_usage_counts_token_ids(self, server: Server) -> None:
        if not server.endpoint.dialect.token_id_prompts:
            pytest.skip("no prompts of token ids in this dialect")
        usage = self.ask(server, "completions", prompt=[5, 6, 7, 8, 9, 10, 11])["usage"]
        assert usage["prompt_tokens"] == 7

    def test_the_tokenizer_agrees_with_usage(self, server: Server) -> None:
        if not server.endpoint.dialect.tokenize:
            pytest.skip("no /tokenize in this dialect")
        body = {"model": server.endpoint.model, "prompt": PROMPT}
        tokens = fetch(f"{root_of(server.endpoint.base_url)}/tokenize", body=body, timeout_s=60).json()["tokens"]
        assert len(tokens) == self.ask(server, "completions")["usage"]["prompt_tokens"]

    @pytest.mark.parametrize("api", ["completions", "chat"])
    def test_exactly_as_long_as_asked(self, server: Server, api: str) -> None:
        if not server.endpoint.dialect.ignore_eos:
            pytest.skip("no ignore_eos in this dialect")
        for count in (1, 2, 7, 33):
            usage = self.ask(server, api, max_tokens=count, ignore_eos=True)["usage"]
            assert usage["completion_tokens"] == count

    @pytest.mark.parametrize("api", ["completions", "chat"])
    def test_streams_piece_by_piece(self, server: Server, api: str) -> None:
        events, arrivals = self.stream(server, api, max_tokens=24, **self.full_length(server))
        pieces = [text_of(event["choices"][0]) for event in events if event.get("choices")]
        assert len([piece for piece in pieces if piece]) > 1
        assert arrivals[-1] > arrivals[0]

    @pytest.mark.parametrize("api", ["completions", "chat"])
    def test_streaming_says_the_same_as_not_streaming(self, server: Server, api: str) -> None:
        events, _ = self.stream(server, api)
        streamed = "".join(text_of(event["choices"][0]) for event in events if event.get("choices"))
        assert streamed == text_of(self.ask(server, api)["choices"][0])

    @pytest.mark.parametrize("api", ["completions", "chat"])
    def test_streaming_ends_with_usage(self, server: Server, api: str) -> None:
        if not server.endpoint.dialect.stream_usage:
            pytest.skip("no usage in streams in this dialect")
        events, _ = self.stream(server, api, stream_options={"include_usage": True}, **self.full_length(server))
        usage = [event["usage"] for event in events if event.get("usage")][-1]
        assert usage["prompt_tokens"] == self.ask(server, api)["usage"]["prompt_tokens"]
        if server.endpoint.dialect.ignore_eos:
            assert usage["completion_tokens"] == ANSWER_TOKENS

    def test_continuous_usage_counts_up(self, server: Server) -> None:
        if not server.endpoint.dialect.continuous_usage:
            pytest.skip("no continuous usage in this dialect")
        options = {"include_usage": True, "continuous_usage_stats": True}
        events, _ = self.stream(server, "completions", stream_options=options, **self.full_length(server))
        counts = [e["usage"]["completion_tokens"] for e in events if e.get("choices") and e.get("usage")]
        assert counts == sorted(counts)
        assert len(set(counts)) > 1

    def test_greedy_is_the_same_twice(self, server: Server) -> None:
        answers = [text_of(self.ask(server, "completions", max_tokens=24)["choices"][0]) for _ in range(2)]
        assert answers[0] == answers[1]

    def test_a_seed_decides(self, server: Server) -> None:
        def draw(seed: int) -> str:
            more = self.full_length(server)
            return text_of(
                self.ask(server, "completions", max_tokens=24, temperature=1.0, seed=seed, **more)["choices"][0]
            )

        assert draw(7) == draw(7)
        assert len({draw(seed) for seed in range(6)}) > 1

    # --- what it survives ---

    def test_refuses_garbage_and_lives_on(self, server: Server) -> None:
        url = f"{server.endpoint.base_url}/completions"
        headers = {"Content-Type": "application/json"}
        for raw in (b"", b"{", b"[]", b'"text"', b"\xff\xfe\x00", b'{"model": 3}', b"{}"):
            status = fetch(url, raw=raw, headers=headers, timeout_s=30).status
            assert 400 <= status < 500, (raw, status)
        self.still_works(server)

    def test_refuses_another_model(self, server: Server) -> None:
        url = f"{server.endpoint.base_url}/completions"
        reply = fetch(url, body={"model": "no-such-model", "prompt": "x", "max_tokens": 1}, timeout_s=30)
        assert 400 <= reply.status < 500

    def test_survives_a_client_that_hangs_up(self, server: Server) -> None:
        body = self.body(server, "completions", stream=True, max_tokens=400, **self.full_length(server))
        for _ in range(3):
            with streaming(f"{server.endpoint.base_url}/completions", body) as stream:
                next(stream.events())
        with suppress(OSError):  # and one that leaves before the answer begins
            fetch(f"{server.endpoint.base_url}/completions", body={**body, "stream": False}, timeout_s=0.01)
        time.sleep(0.5)  # the server has to write before it can notice
        self.still_works(server)

    def test_metrics_are_where_it_says(self, server: Server) -> None:
        if server.endpoint.metrics_url is None:
            pytest.skip("this server has no metrics")
        assert "# TYPE" in fetch(server.endpoint.metrics_url, timeout_s=30).text

    # --- the end; keep this test last ---

    def test_zz_stop_leaves_nothing_behind(self, server: Server, folder: Path) -> None:
        procs = [proc for pid in server.endpoint.pids if (proc := read_proc(pid))]
        server.stop()
        if not self.launches:
            assert server.alive(), "a server that is not ours stays"
            return
        assert not server.alive()
        assert not server.healthy(1.0)
        assert not [p for p in procs if (now := read_proc(p.pid)) and now.start == p.start and not now.dead]
        with pytest.raises(OSError, match=r"."):
            fetch(f"{server.endpoint.base_url}/models", timeout_s=1.0)
        server.stop()
        assert any(path.stat().st_size for path in folder.iterdir() if path.suffix == ".log")
        assert server.diagnose()[0] == "", "an orderly stop is no failure"

    # --- asking ---

    def body(self, server: Server, api: str, **more: object) -> dict[str, Any]:
        if api == "chat" and not self.has_chat:
            pytest.skip("no chat")
        prompt = {"messages": [{"role": "user", "content": PROMPT}]} if api == "chat" else {"prompt": PROMPT}
        return {"model": server.endpoint.model, **prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0, **more}

    def ask(self, server: Server, api: str, **more: object) -> dict[str, Any]:
        reply = fetch(f"{server.endpoint.base_url}/{path_of(api)}", body=self.body(server, api, **more), timeout_s=120)
        assert reply.status == 200, reply.error
        found = reply.json()
        assert isinstance(found, dict)
        return found

    def stream(self, server: Server, api: str, **more: object) -> tuple[list[dict[str, Any]], list[float]]:
        """(events, arrival times)."""
        body = self.body(server, api, stream=True, **more)
        events, arrivals = [], []
        with streaming(f"{server.endpoint.base_url}/{path_of(api)}", body, timeout_s=120) as stream:
            assert stream.status == 200
            for event in stream.events():
                events.append(event)
                arrivals.append(time.monotonic())
        return events, arrivals

    def full_length(self, server: Server) -> dict[str, Any]:
        return {"ignore_eos": True} if server.endpoint.dialect.ignore_eos else {}

    def still_works(self, server: Server) -> None:
        assert server.alive()
        assert server.healthy(30.0)
        assert self.ask(server, "completions")["choices"]


def path_of(api: str) -> str:
    return "chat/completions" if api == "chat" else "completions"


def text_of(choice: dict[str, Any]) -> str:
    """The text of a choice: whole or delta, chat or completion."""
    part = choice.get("message") or choice.get("delta") or choice
    return (part.get("content") or part.get("text") or "") + (part.get("reasoning_content") or "")
