"""The engine's thread: hand-over from other threads, what is told when things break, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from redline.runtime import loop as loop_module
from redline.runtime.config import EngineConfig, SpeculationConfig
from redline.runtime.loop import EngineLoop, EngineStopped
from redline.runtime.request import Finish, Output, Request
from redline.runtime.roster import RequestRefused
from redline.runtime.step import Launched, Proposer, RunnerOutOfMemory, Sampled, Step

from .fake import FakeLaunched, FakeRunner, alone, ask, limits, next_token

CONFIG = EngineConfig(model=Path("none"))
ENOUGH_S = 30.0


class Told:
    """A sink that another thread can wait on."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.first = threading.Event()
        self.ended = threading.Event()

    def __call__(self, output: Output) -> None:
        assert not self.ended.is_set(), "an output came after the last one"
        self.outputs.append(output)
        self.first.set()
        if output.finish is not None:
            self.ended.set()

    def wait(self) -> Output:
        assert self.ended.wait(ENOUGH_S), "it never ended"
        return self.outputs[-1]

    @property
    def tokens(self) -> list[int]:
        return [token for output in self.outputs for token in output.tokens]


def make(prompt: Sequence[int], **options: Any) -> tuple[Request, Told]:
    request, _ = ask(prompt, **options)
    told = Told()
    request.sink = told
    return request, told


@contextmanager
def running(runner: FakeRunner, **options: Any) -> Iterator[EngineLoop]:
    engine = EngineLoop(runner, config=options.pop("config", CONFIG), proposer=options.pop("proposer", None), **options)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
        assert not engine._thread.is_alive()


class GatedRunner(FakeRunner):
    """Collects a step only when it is let to."""

    def __init__(self, **changes: int) -> None:
        super().__init__(limits(**changes))
        self.gate = threading.Semaphore(0)
        self.reached = threading.Event()

    def collect(self, launched: Launched) -> list[Sampled]:
        self.reached.set()
        assert self.gate.acquire(timeout=ENOUGH_S)
        return super().collect(launched)

    def open(self) -> None:
        self.gate.release(10_000)


@pytest.mark.parametrize("run_ahead", [None, 0, 1, 2])
def test_answers_to_many_threads(run_ahead: int | None) -> None:
    runner = FakeRunner(limits())
    asked: list[tuple[Request, Told]] = []
    flushes: list[int] = []
    with running(runner, config=replace(CONFIG, run_ahead=run_ahead), on_step_end=lambda: flushes.append(1)) as engine:

        def client(number: int) -> None:
            for i in range(10):
                request, told = make([number, i, 3], max_tokens=8, id=f"{number}-{i}")
                asked.append((request, told))
                engine.submit(request)
                told.wait()

        threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(ENOUGH_S)
        stats = engine.stats()
    assert len(asked) == 40
    for request, told in asked:
        assert told.tokens == alone(request.tokens[:3], request.sampling)[0]
        assert 0 < request.arrived_ns <= request.scheduled_ns <= request.first_token_ns
    assert (stats.finished, stats.generation_tokens, stats.prompt_tokens) == (40, 320, 120)
    assert (stats.running, stats.waiting, stats.kv_usage) == (0, 0, 0)
    assert stats.steps == engine.progress == len(runner.steps)
    assert 0 < len(flushes) <= stats.steps + 40
    assert runner.pending_seen == (run_ahead or 0)
    assert runner.closed


def test_a_runner_says_how_far_ahead_it_likes_to_run() -> None:
    runner = FakeRunner(limits())
    runner.run_ahead = 1  # type: ignore[attr-defined]
    assert EngineLoop(runner, config=CONFIG).run_ahead == 1
    assert EngineLoop(runner, config=replace(CONFIG, run_ahead=0)).run_ahead == 0


def test_one_flush_for_all_outputs_of_a_step() -> None:
    runner = GatedRunner()
    order: list[str] = []
    with running(runner, on_step_end=lambda: order.append("flush")) as engine:
        blocker, told = make([9], max_tokens=1)
        engine.submit(blocker)
        assert runner.reached.wait(ENOUGH_S)
        asked = [make([i], max_tokens=3) for i in range(3)]
        for request, one in asked:

            def noted(output: Output, one: Told = one) -> None:
                order.append("told")
                one(output)

            request.sink = noted
            engine.submit(request)
        runner.open()
        for _, one in asked:
            one.wait()
    told.wait()
    assert order[:9] == ["flush", "told", "told", "told", "flush", "told", "told", "told", "flush"]


def test_an_idle_engine_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(FakeRunner(limits())) as engine:
        request, told = make([1], max_tokens=3)
        engine.submit(request)
        told.wait()
        assert engine.drain(ENOUGH_S), "now it sleeps"
        turns: list[int] = []
        monkeypatch.setattr(engine.scheduler, "schedule", lambda: turns.append(1))
        assert not threading.Event().wait(0.1)
        assert not turns


def test_an_abort_from_another_thread_while_a_step_runs() -> None:
    runner = GatedRunner()
    with running(runner, config=replace(CONFIG, run_ahead=1)) as engine:
        request, told = make([1, 2], max_tokens=100)
        other, kept = make([3], max_tokens=5)
        engine.submit(request)
        engine.submit(other)
        runner.gate.release(2)
        assert told.first.wait(ENOUGH_S)
        engine.abort(request.id)
        engine.abort("nobody")
        runner.open()
        assert told.wait().finish is Finish.ABORT
        assert kept.wait().finish is Finish.LENGTH
        assert engine.drain(ENOUGH_S)
        assert engine.stats().kv_usage == 0
        assert engine.stats().aborted == 1
    assert told.tokens == alone([1, 2], request.sampling)[0][: len(told.tokens)]


def test_what_can_never_run_is_refused_to_the_caller() -> None:
    with running(FakeRunner(limits(max_model_len=10))) as engine:
        with pytest.raises(RequestRefused, match="12 tokens"):
            engine.submit(make([1] * 12)[0])
        assert engine.stats().failed == 0


def test_the_second_of_one_id_is_told() -> None:
    runner = GatedRunner()
    with running(runner) as engine:
        first, told = make([1], id="same", max_tokens=2)
        second, refused = make([1], id="same")
        engine.submit(first)
        engine.submit(second)
        runner.open()
        assert told.wait().finish is Finish.LENGTH
        assert "is here already" in refused.wait().error


def test_not_a_number_fails_one_request() -> None:
    runner = FakeRunner(limits())
    runner.nan.add("bad")
    with running(runner) as engine:
        bad, told = make([1, 2], id="bad")
        good, fine = make([3, 4])
        engine.submit(bad)
        engine.submit(good)
        assert told.wait().finish is Finish.ERROR
        assert fine.wait().finish is Finish.LENGTH
        assert (engine.stats().faults, engine.stats().failed, engine.failure) == (1, 1, "")


@pytest.mark.parametrize("run_ahead", [0, 1])
def test_a_broken_device_ends_everything_and_says_so(run_ahead: int) -> None:
    runner = FakeRunner(limits(max_seqs=1))
    runner.broken_at = 3
    engine = EngineLoop(runner, config=replace(CONFIG, run_ahead=run_ahead))
    asked = [make([i, 1], max_tokens=50) for i in range(3)]
    for request, _ in asked:
        engine.submit(request)
    engine.start()
    for _, told in asked:
        last = told.wait()
        assert last.finish is Finish.ERROR
        assert "illegal memory access" in last.error
    engine._thread.join(ENOUGH_S)
    assert "the device is gone: an illegal memory access" in engine.failure
    assert (engine.progress, engine.stats().failed) == (2, 3)
    assert runner.closed
    with pytest.raises(EngineStopped, match="illegal memory access"):
        engine.submit(make([1])[0])
    assert engine.drain(ENOUGH_S)
    engine.stop()
    assert "illegal memory access" in engine.failure


def test_an_unforeseen_error_ends_everything_with_its_traceback() -> None:
    class Faulty(FakeRunner):
        def launch(self, step: Step) -> FakeLaunched:
            raise ZeroDivisionError("by nothing")

    engine = EngineLoop(Faulty(limits()), config=CONFIG)
    request, told = make([1])
    engine.start()
    engine.submit(request)
    assert told.wait().finish is Finish.ERROR
    engine._thread.join(ENOUGH_S)
    assert "ZeroDivisionError: by nothing" in engine.failure
    assert "Traceback" in engine.failure


def test_a_step_that_does_not_fit_is_retried_smaller() -> None:
    runner = FakeRunner(limits(max_batched_tokens=32))
    runner.memory = 6
    with running(runner, config=replace(CONFIG, run_ahead=1)) as engine:
        asked = [make([i] * 10, max_tokens=5) for i in range(8)]
        for request, _ in asked:
            engine.submit(request)
        for i, (request, told) in enumerate(asked):
            told.wait()
            assert told.tokens == alone([i] * 10, request.sampling)[0]
        stats = engine.stats()
    assert stats.out_of_memory >= 1
    assert stats.max_batched_tokens <= 6


def test_a_token_that_does_not_fit_fails_its_request_and_the_engine_lives() -> None:
    runner = FakeRunner(limits())
    runner.memory = 0
    with running(runner) as engine:
        request, told = make([1, 2])
        engine.submit(request)
        assert "out of memory" in told.wait().error
        runner.memory = 100
        request, told = make([1, 2])
        engine.submit(request)
        assert told.wait().finish is Finish.LENGTH


def test_a_token_that_fits_once_the_step_before_is_through() -> None:
    class Crowded(FakeRunner):
        def launch(self, step: Step) -> FakeLaunched:
            if self.in_flight:
                raise RunnerOutOfMemory("no room beside the step in flight")
            return super().launch(step)

    with running(Crowded(limits()), config=replace(CONFIG, run_ahead=1)) as engine:
        request, told = make([1, 2], max_tokens=5)
        engine.submit(request)
        assert told.wait().finish is Finish.LENGTH


def test_a_sink_that_raises_costs_its_own_request() -> None:
    def raises(output: Output) -> None:
        raise RuntimeError("a bug in the server")

    with running(FakeRunner(limits())) as engine:
        bad, _ = make([1], max_tokens=50)
        bad.sink = raises
        good, told = make([2], max_tokens=9)
        engine.submit(bad)
        engine.submit(good)
        assert told.wait().finish is Finish.LENGTH
        assert engine.drain(ENOUGH_S)
        assert (engine.stats().sink_errors, engine.stats().aborted) == (2, 1)


def test_draining_waits_for_those_in_and_takes_no_more() -> None:
    runner = GatedRunner()
    with running(runner) as engine:
        request, told = make([1], max_tokens=4)
        engine.submit(request)
        assert not engine.drain(0.05)
        with pytest.raises(EngineStopped, match="drained"):
            engine.submit(make([1])[0])
        runner.open()
        assert engine.drain(ENOUGH_S)
        assert told.ended.is_set()
        assert told.outputs[-1].finish is Finish.LENGTH


def test_stopping_tells_everybody() -> None:
    runner = GatedRunner(max_seqs=1)
    engine = EngineLoop(runner, config=replace(CONFIG, run_ahead=1))
    engine.start()
    asked = [make([i], max_tokens=50) for i in range(3)]
    for request, _ in asked:
        engine.submit(request)
    assert runner.reached.wait(ENOUGH_S)
    threading.Timer(0.05, runner.open).start()
    engine.stop()
    assert [told.wait().finish for _, told in asked] == [Finish.ABORT] * 3
    assert runner.closed
    assert engine.failure == ""
    with pytest.raises(EngineStopped, match="stopped"):
        engine.submit(make([1])[0])
    engine.stop()


def test_stopping_before_the_start() -> None:
    runner = FakeRunner(limits())
    engine = EngineLoop(runner, config=CONFIG)
    request, told = make([1])
    engine.submit(request)
    engine.stop()
    assert told.wait().finish is Finish.ABORT
    assert runner.closed


def test_a_step_that_hangs_does_not_hang_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "STOP_S", 0.1)
    runner = GatedRunner()
    engine = EngineLoop(runner, config=CONFIG)
    engine.start()
    engine.submit(make([1])[0])
    assert runner.reached.wait(ENOUGH_S)
    engine.stop()
    assert "did not end within 0.1 s" in engine.failure
    runner.open()
    engine._thread.join(ENOUGH_S)


class Oracle(Proposer):
    """Guesses right, but for every third token."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.released: list[Request] = []

    def propose(self, requests: Sequence[Request], most: int) -> None:
        for request in requests:
            assert not request.pending
            assert request.books.room >= min(len(request.tokens) + most, request.books.limit)
            history = list(request.tokens)
            while len(history) < len(request.tokens) + most:
                history.append(next_token(history) if len(history) % 3 else 0)
            request.draft = history[len(request.tokens) :]
            self.asked.append(most)

    def release(self, request: Request) -> None:
        self.released.append(request)


def test_guessing_changes_the_number_of_steps_and_nothing_else() -> None:
    runner, proposer = FakeRunner(limits()), Oracle()
    config = replace(CONFIG, run_ahead=1, speculation=SpeculationConfig("ngram", tokens=3))
    with running(runner, config=config, proposer=proposer) as engine:
        asked = [make([i, 7], max_tokens=20) for i in range(3)]
        for request, _ in asked:
            engine.submit(request)
        for i, (request, told) in enumerate(asked):
            told.wait()
            assert told.tokens == alone([i, 7], request.sampling)[0]
        assert engine.drain(ENOUGH_S)
        stats = engine.stats()
    assert {*proposer.asked} == {3}
    assert set(proposer.released) == {request for request, _ in asked}
    assert stats.spec_proposed > sum(stats.spec_accepted) > 0
    assert stats.spec_accepted == sorted(stats.spec_accepted, reverse=True)
    assert stats.steps < 3 * 20 * 0.7
    assert engine.run_ahead == 0
