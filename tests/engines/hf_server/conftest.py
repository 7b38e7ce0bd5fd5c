from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.engines.hf_server import tiny_llama
from tests.engines.hf_server.live import Live

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.build(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def servers(tiny: Path) -> Iterator[dict[str, Live]]:
    """One server per way of batching, for all tests that leave it as it was."""
    with ExitStack() as stack:
        yield {
            "plain": stack.enter_context(Live(tiny)),
            "static": stack.enter_context(Live(tiny, "--batching", "static", "--max-batch-size", "8")),
            "continuous": stack.enter_context(Live(tiny, "--batching", "continuous")),
        }


@pytest.fixture(params=["plain", "static", "continuous"])
def server(servers: dict[str, Live], request: pytest.FixtureRequest) -> Live:
    return servers[request.param]


@pytest.fixture(scope="session")
def reference(tiny: Path) -> Any:
    """(model, tokenizer) as transformers loads them, without this server."""
    transformers: Any = importlib.import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(tiny)
