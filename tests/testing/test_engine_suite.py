"""The conformance suite must be able to fail: each bad server or adapter fails exactly the tests meant for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EXPECTED = {
    "OnePiece": {"test_streams_piece_by_piece", "test_continuous_usage_counts_up"},
    "BadUsage": {"test_usage_is_right"},
    "Short": {"test_exactly_as_long_as_asked", "test_streaming_ends_with_usage"},
    "BreaksOnGarbage": {"test_refuses_garbage_and_lives_on"},
    "NoSeed": {"test_a_seed_decides"},
    "DiesOnHangUp": {"test_survives_a_client_that_hangs_up", "test_metrics_are_where_it_says"},
    "SaysNothing": {"test_the_start_up_is_timed_and_told"},
    "TakesAnything": {"test_refuses_an_unknown_flag", "test_refuses_a_model_that_does_not_exist"},
    "NeverStops": {"test_zz_stop_leaves_nothing_behind"},
    "ForgetsThePort": {"test_the_endpoint_is_complete"},
}

BAD = """
import pytest
from dataclasses import replace
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.testing.engine_suite import EngineSuite
from tests.engines.stub_engine import StubEngine

ON_EXIT = []

class SaysNothing(StubEngine):
    def start(self, start, progress):
        return super().start(start, lambda line: None)

class TakesAnything(StubEngine):
    def check(self, spec, model):
        pass

class NeverStops(StubEngine):
    def start(self, start, progress):
        server = super().start(start, progress)
        ON_EXIT.append(server.stop)
        server.stop = lambda: None
        return server

class ForgetsThePort(StubEngine):
    def start(self, start, progress):
        super().start(start, progress).stop()  # a port in use is still refused
        return super().start(replace(start, spec=start.spec.model_copy(update={"port": 0})), progress)

class Common(EngineSuite):
    adapter = StubEngine
    fault = ""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        yield cls.adapter()
        while ON_EXIT:
            ON_EXIT.pop()()

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls):
        return EngineSpec(kind="stub", flags={"fault": cls.fault} if cls.fault else {})

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return ModelSpec(id="m")

class TestOnePiece(Common): fault = "one-piece"
class TestBadUsage(Common): fault = "bad-usage"
class TestShort(Common): fault = "short"
class TestBreaksOnGarbage(Common): fault = "breaks-on-garbage"
class TestNoSeed(Common): fault = "no-seed"
class TestDiesOnHangUp(Common): fault = "dies-on-hang-up"
class TestSaysNothing(Common): adapter = SaysNothing
class TestTakesAnything(Common): adapter = TakesAnything
class TestNeverStops(Common): adapter = NeverStops
class TestForgetsThePort(Common): adapter = ForgetsThePort
"""


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The tests of the suite that failed, by class: all of them in one run of pytest."""
    file = tmp_path_factory.mktemp("bad") / "test_bad.py"
    file.write_text(BAD)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-c",
               str(ROOT / "pyproject.toml"), str(file)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert "passed" in done.stdout, done.stdout + done.stderr
    found: dict[str, set[str]] = {}
    for owner, test in re.findall(r"^(?:FAILED|ERROR) \S*::Test(\w+)::(test_\w+)", done.stdout, re.M):
        found.setdefault(owner, set()).add(test)
    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", EXPECTED)
def test_what_is_bad_fails_exactly_where_it_is_bad(failures: dict[str, set[str]], kind: str) -> None:
    assert failures[kind] == EXPECTED[kind]
