from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redline.engines.engine import Start
from redline.engines.port import Claim, listeners
from redline.engines.url import UrlEngine, UrlServer
from redline.errors import EngineStartFailed, EnvironmentFault, UsageError
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from tests.engines.stub_engine import SCRIPT
from tests.engines.test_process import until

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts somebody else's server; returns its URL."""
    servers: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> str:
        with Claim("127.0.0.1", 0) as claim:
            port = claim.port
        servers.append(subprocess.Popen([sys.executable, str(SCRIPT), "--port", str(port), *arguments], stdout=-3))
        assert until(lambda: bool(listeners(port)))
        return f"http://127.0.0.1:{port}/v1"

    yield start
    for server in servers:
        server.kill()
        server.wait()


def look(url: str, model: str = "m", **fields: object) -> UrlServer:
    spec = EngineSpec.model_validate({"kind": "url", "url": url, **fields})
    return UrlEngine().start(Start(spec, ModelSpec(id=model), Path()), lambda line: None)


def test_what_is_found_out(serve: Serve) -> None:
    url = serve()
    server = look(url)
    endpoint = server.endpoint
    assert (endpoint.base_url, endpoint.model, endpoint.max_model_len) == (url, "m", 4096)
    assert (endpoint.engine, endpoint.engine_version) == ("stub", "1.2.3")
    assert endpoint.pids == ()
    assert endpoint.startup_ms == {}
    assert endpoint.metrics_url == url.replace("/v1", "/metrics")
    dialect = endpoint.dialect
    assert dialect.ignore_eos
    assert dialect.min_tokens
    assert dialect.token_id_prompts
    assert dialect.tokenize
    assert dialect.stream_usage
    assert dialect.continuous_usage


def test_a_field_that_is_silently_ignored_does_not_count(serve: Serve) -> None:
    dialect = look(serve("--lenient")).endpoint.dialect
    assert not dialect.ignore_eos
    assert not dialect.min_tokens
    assert dialect.token_id_prompts, "proved by usage, not by refusal"


def test_it_is_never_stopped(serve: Serve) -> None:
    server = look(serve())
    server.stop()
    server.stop()
    assert server.alive()
    assert server.healthy()


def test_its_death_is_noticed(serve: Serve) -> None:
    server = look(serve("--fault", "die-later"))
    assert until(lambda: not server.alive(), 10)
    assert not server.healthy(1.0)
    assert server.diagnose()[0] == "unreachable"


@pytest.mark.parametrize("path", ["", "/", "/v1/", "/v1/chat/completions"])
def test_any_way_to_write_the_url(serve: Serve, path: str) -> None:
    url = serve()
    assert look(url.removesuffix("/v1") + path).endpoint.base_url == url


def test_a_wrong_model_name(serve: Serve) -> None:
    url = serve("--model", "Llama-3.1-8B")
    with pytest.raises(UsageError, match=r"named 'Llama-3-8B'\nIt serves: Llama-3\.1-8B\.\n.*Llama-3\.1-8B"):
        look(url, "Llama-3-8B")
    assert look(url, "meta-llama/Llama-3.1-8B").endpoint.model == "Llama-3.1-8B"


def test_a_name_that_is_given_is_meant(serve: Serve) -> None:
    url = serve("--model", "a")
    spec = EngineSpec(kind="url", url=url)
    with pytest.raises(UsageError, match="named 'b'"):
        UrlEngine().start(Start(spec, ModelSpec(id="a", name="b"), Path()), lambda line: None)


def test_api_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve("--key", "s3cret")
    with pytest.raises(EngineStartFailed, match="HTTP 401") as caught:
        look(url)
    assert caught.value.diagnosis == "unauthorised"
    assert "api_key_env" in caught.value.fix
    with pytest.raises(EnvironmentFault, match="MY_KEY is not set"):
        look(url, api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "s3cret")
    server = look(url, api_key_env="MY_KEY")
    assert server.healthy()
    assert "s3cret" not in repr(server.endpoint)


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(EngineStartFailed, match="no server answers") as caught:
            look(f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    assert caught.value.diagnosis == "unreachable"
    assert caught.value.exit_code == 4


def test_healthy_but_not_working(serve: Serve) -> None:
    with pytest.raises(EngineStartFailed, match="HTTP 500: EngineCore encountered an issue"):
        look(serve("--fault", "health-only"))
    with pytest.raises(EngineStartFailed, match="HTTP 200"):
        look(serve("--fault", "wrong-answer"))


@pytest.mark.parametrize("url", ["http://", "http://h:99999/v1", "http://u:p@h/v1"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError):
        UrlEngine().check(EngineSpec(kind="url", url=url), ModelSpec(id="m"))


def test_flags_are_refused() -> None:
    spec = EngineSpec(kind="url", url="http://h:1/v1", flags={"max-num-seqs": 3})
    with pytest.raises(UsageError, match="takes no flags: --max-num-seqs"):
        UrlEngine().check(spec, ModelSpec(id="m"))
    assert UrlEngine().known_flags(spec) == frozenset()
