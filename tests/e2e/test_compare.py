"""The main job on real engines: transformers and redline's own on the CPU with the bundled model, in every run."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from redline.store.read import Reader
from tests.e2e.program import SHORT, all_gone, answered, engine_pids, run, start, stored, wait_for

pytestmark = pytest.mark.timeout(300)


def test_transformers_against_our_own_engine(tmp_path: Path) -> None:
    flags = ["--model", "bundled:tiny", "--engines", "transformers-continuous,redline", "--concurrency", "1,8", *SHORT]
    done = run(tmp_path, "compare", *flags)
    assert re.search(r"redline +▲|redline +▼|redline +≈|redline +\d", done.stdout), done.stdout
    assert "transformers-continuous" in done.stdout
    page = Path(re.search(r"report: (\S+)", done.stderr).group(1))  # type: ignore[union-attr]
    page = tmp_path / page
    html = page.read_text()
    assert html.count("<svg") >= 4
    assert "http://" not in re.sub(r"http://(www\.w3\.org|127\.0\.0\.1)", "", html), "the page fetches nothing"
    row = stored(tmp_path)
    assert row is not None
    assert row.status == "done"
    assert row.experiment["models"][0]["id"] == "bundled:tiny"
    assert row.provenance["cpu"]["usable_cores"] > 0
    with Reader.open(tmp_path / "redline-results" / "redline.db") as reader:
        for trial in row.trials:
            assert trial.flags["batching" if trial.engine_kind == "transformers" else "kernels"]
            assert trial.hashes
            assert trial.startup_ms["total"] > 0
            assert (reader.peak(trial.id, "engine.rss_bytes") or 0) > 50e6
            for point in trial.points:
                requests = reader.requests(point.id)
                good = requests.pick((requests.status == "ok") & ~requests.warmup & (requests.canary < 0))
                assert len(good) > 0
                canary = point.outcome["canary"]
                assert canary["alone"] >= 2  # asked and heard before the load
                assert (canary["spoilt"], canary["mixed_up"]) == (0, 0)
                assert set(good.prompt_tokens) == {16}
                assert set(good.output_tokens) == {8}
                assert set(good.token_source) == {"usage"}
                assert np.all(good.sent_ns >= good.intended_ns)
                assert np.all(good.finished_ns >= good.first_byte_ns)
    again = json.loads(run(tmp_path, "report", "last", "--json", "--format", "none").stdout)
    assert again["runs"][0]["id"] == row.id
    assert row.id in run(tmp_path, "runs").stdout


def test_several_models_in_one_experiment(tmp_path: Path) -> None:
    flags = ["--model", "bundled:tiny", "--model", "bundled:tiny-draft", "--model", "shape:tiny-random"]
    done = run(tmp_path, "compare", *flags, "--engines", "redline", "--concurrency", "4", *SHORT)
    for name in ("tiny", "tiny-draft", "tiny-random"):
        assert re.search(rf"^{name}$", done.stdout, re.M), done.stdout
    row = stored(tmp_path)
    assert row is not None
    assert [trial.model for trial in row.trials] == ["tiny", "tiny-draft", "tiny-random"]


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    flags = ["--model", "bundled:tiny", "--engines", "transformers", "--concurrency", "2", *SHORT, "--duration", "100"]
    process = start(tmp_path, "compare", *flags)
    wait_for(lambda: answered(tmp_path) > 3)
    engines = engine_pids(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert all_gone(engines)
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert "interrupted" in (tmp_path / "stdout").read_text()
    row = stored(tmp_path)
    assert row is not None
    assert row.status == "interrupted"


def test_kill_9_leaves_no_engine_and_loses_nothing(tmp_path: Path) -> None:
    flags = ["--model", "bundled:tiny", "--engines", "transformers-plain", "--concurrency", "2", *SHORT]
    process = start(tmp_path, "compare", *flags, "--duration", "100")
    wait_for(lambda: answered(tmp_path) > 3)
    engines = engine_pids(process)
    assert len(engines) >= 2
    before = answered(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: all_gone(engines), timeout_s=30)
    assert answered(tmp_path) >= before
    done = run(tmp_path, "report", "last", "--format", "md")
    assert "interrupted" in done.stdout


def test_our_engine_killed_under_load_is_started_again_for_what_is_left(tmp_path: Path) -> None:
    flags = ["--model", "bundled:tiny", "--engines", "redline", "--concurrency", "1,2", *SHORT, "--duration", "15"]
    process = start(tmp_path, "compare", *flags)
    wait_for(lambda: answered(tmp_path) > 3)
    server = next(one for one in engine_pids(process) if one.cmdline()[1:3] == ["-m", "redline.runtime.serve"])
    server.kill()
    assert process.wait(90) in (0, 4)
    row = stored(tmp_path)
    assert row is not None
    first, again = row.trials
    assert first.status == "failed"
    assert "died under load" in first.error
    assert again.status == "done"
    assert [point.label for point in again.points] == ["2 clients"]
    with Reader.open(tmp_path / "redline-results" / "redline.db") as reader:
        kept, later = (reader.requests(trial.points[0].id) for trial in (first, again))
    assert np.count_nonzero(kept.status == "ok") > 3
    assert set(later.status) == {"ok"}


def test_an_engine_that_hangs_is_found_and_the_run_kept(tmp_path: Path) -> None:
    flags = ["--model", "bundled:tiny", "--engines", "transformers-plain", "--concurrency", "2", *SHORT]
    process = start(tmp_path, "compare", *flags, "--duration", "15", "--idle-timeout", "2")
    wait_for(lambda: answered(tmp_path) > 3)
    engine = next(child for child in engine_pids(process) if "hf_server" in " ".join(child.cmdline()[:3]))
    engine.suspend()
    try:
        assert process.wait(90) in (0, 4)
    finally:
        if engine.is_running():
            engine.resume()
    row = stored(tmp_path)
    assert row is not None
    assert row.verdict == "invalid"
    with Reader.open(tmp_path / "redline-results" / "redline.db") as reader:
        assert "timeout" in set(reader.requests(row.trials[0].points[0].id).status)


def test_bench_against_a_server_somebody_else_runs(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    server = start(
        tmp_path / "server", "serve", "bundled:tiny", "-e", "transformers-continuous", "--port", "0", "--json"
    )
    try:
        text = wait_for(lambda: (tmp_path / "server" / "stdout").read_text())
        url = json.loads(wait_for(lambda: text if text.rstrip().endswith("}") else ""))["base_url"]
        flags = ["--url", url, "--model", "tiny", "--rate", "5", *SHORT]
        done = run(tmp_path, "bench", *flags, "--json")
        report = json.loads(done.stdout)
        assert report["runs"][0]["status"] == "done"
        wrong = run(tmp_path, "bench", "--url", url, "--model", "tiyn", *SHORT, code=2)
        assert "tiny" in wrong.stderr
        assert server.poll() is None, "a server of somebody else's is never ended"
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) in (0, 130)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--model", "./no-such-folder"], 3, "no-such-folder"),
        (["--model", "somebody/no-such-model"], 3, "hub"),
        (["--model", "bundled:tiny", "--engine-flag", "transformers-plain.thraeds=2"], 2, "threads"),
        (["--model", "bundled:tiny", "--python", "/nowhere/python"], 3, "/nowhere/python"),
    ],
)
def test_what_cannot_work_says_why_before_anything_starts(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = run(tmp_path, "compare", *arguments, "--engines", "transformers-plain", *SHORT, code=code)
    assert said in done.stderr
    assert stored(tmp_path) is None


def test_no_room_for_the_port(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(tmp_path, "serve", "bundled:tiny", "-e", "transformers-plain", "--port", port, code=3)
        assert port in done.stderr


def test_an_engine_that_dies_at_start_shows_its_last_words(tmp_path: Path) -> None:
    flags = ["--engine-flag", "transformers-plain.device=cuda", "--concurrency", "1", *SHORT]
    done = run(tmp_path, "compare", "--model", "bundled:tiny", "--engines", "transformers-plain", *flags, code=4)
    assert "CUDA" in done.stderr
    row = stored(tmp_path)
    assert row is not None
    assert row.status == "failed"
