"""The conformance suite over a plug-in adapter, over a server that somebody else runs, and over real vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redline.engines.engine import Engine
from redline.engines.port import Claim, listeners
from redline.engines.url import UrlEngine
from redline.engines.vllm import VllmEngine
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.testing.engine_suite import EngineSuite
from tests.engines.stub_engine import SCRIPT, StubEngine
from tests.engines.test_process import until


class TestStub(EngineSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        return StubEngine()

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> EngineSpec:
        return EngineSpec(kind="stub", flags={"boot-s": 0.1})

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ModelSpec:
        return ModelSpec(id="stub-model")


class TestUrl(EngineSuite):
    launches = False

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        return UrlEngine()

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> Iterator[EngineSpec]:
        with Claim("127.0.0.1", 0) as claim:
            port = claim.port
        server = subprocess.Popen([sys.executable, str(SCRIPT), "--port", str(port), "--model", "theirs"], stdout=-3)
        assert until(lambda: bool(listeners(port)))
        yield EngineSpec(kind="url", url=f"http://127.0.0.1:{port}/v1")
        server.kill()
        server.wait()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ModelSpec:
        return ModelSpec(id="theirs")


def vllm_python() -> str:
    """The environment with vLLM: $REDLINE_VLLM_PYTHON, else .venv-vllm beside this checkout."""
    return os.environ.get("REDLINE_VLLM_PYTHON") or str(Path(__file__).parents[2] / ".venv-vllm")


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(600)
class TestVllm(EngineSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        if not Path(vllm_python()).exists():
            pytest.skip(f"no vLLM at {vllm_python()}: `make vllm` installs its CPU build; or set REDLINE_VLLM_PYTHON")
        return VllmEngine()

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> EngineSpec:
        flags = {"enforce-eager": True, "max-model-len": 1024, "max-num-seqs": 8}
        return EngineSpec(kind="vllm", python=vllm_python(), flags=flags)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ModelSpec:
        return ModelSpec(id="bundled:tiny", dtype="bfloat16")
