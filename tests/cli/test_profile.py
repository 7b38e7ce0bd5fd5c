"""What `redline profile` says when it is asked for what it cannot do, and of a trace that is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from redline.cli.main import application
from redline.cli.profile_engines import Asked, engines_of, model_of
from redline.errors import RedlineError, UsageError
from tests.observe.trace.kineto import host, kernel, on_device, written

STEP = "execute_context_0(0)_generation_2(2)"


def invoke(*arguments: str) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(application("profile"), ["profile", *arguments])
    return done.exit_code, done.stdout, done.exception


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "which model"),
        (("bundled:tiny",), "which engine"),
        (("bundled:tiny", "--engine", "redlin"), "no engine 'redlin'"),
        (("bundled:tiny", "--engine", "redline", "--url", "http://x/v1"), "exclude each other"),
        (("bundled:tiny", "--engine", "redline", "--batch", "many"), "no list of whole numbers"),
        (("bundled:tiny", "--engine", "redline", "--phase", "decoding"), "no phase 'decoding'"),
        (("bundled:tiny", "--engine", "redline", "--with", "perf"), "no profiler 'perf'"),
        (("bundled:tiny", "--engine", "redline", "--flag", "x"), "no NAME=VALUE"),
        (("bundled:tiny", "--engine", "redline", "--flag", "no-such=1"), "no-such"),
        (("bundled:tiny", "--engine", "redline", "--dtype", "int3"), "dtype"),
        (("bundled:nothing", "--engine", "redline"), "nothing"),
        (("--trace", "none.json"), "no trace none.json"),
    ],
)
def test_wrong_input_is_told(
    arguments: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = invoke(*arguments)
    assert code != 0
    assert isinstance(error, RedlineError)
    assert text in str(error)
    assert not list(tmp_path.iterdir())


def test_nsys_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    _, _, error = invoke("bundled:tiny", "--engine", "redline", "--with", "nsys", "-o", str(tmp_path / "out"))
    assert isinstance(error, RedlineError)
    assert "nsys" in str(error)


def trace(folder: Path) -> Path:
    events = []
    for step in range(5):
        at = step * 100.0
        events += [on_device(STEP, at, 80), kernel("nvjet_tst", at, 60, correlation=step + 1)]
        events += [kernel("void flash::flash_fwd_kernel<A>(P)", at + 60, 20, correlation=step + 1)]
        events += [host("cuda_runtime", "cudaGraphLaunch", at - 20, 5, correlation=step + 1)]
    return written(folder / "t.json.gz", events)


def test_a_trace_at_hand(tmp_path: Path) -> None:
    code, text, _ = invoke("--trace", str(trace(tmp_path)), "-o", str(tmp_path / "out"))
    assert code == 0
    assert "matrix product" in text
    assert "0.06 (60%)" in text
    assert "20 of 20 events kept" in text
    page = (tmp_path / "out" / "timeline.html").read_text()
    assert "nvjet_tst" in page
    assert "http" not in page


def test_a_trace_as_json(tmp_path: Path) -> None:
    code, text, _ = invoke("--trace", str(trace(tmp_path)), "--json")
    assert code == 0
    (phase,) = json.loads(text)["phases"]
    assert (phase["phase"], phase["launches"], phase["kernels"]) == ("decode", 1, 2)
    assert phase["gap_us"] == pytest.approx(20)


def test_a_truncated_trace_says_so(tmp_path: Path) -> None:
    path = trace(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    code, text, _ = invoke("--trace", str(path))
    assert code == 0
    assert "ends early" in " ".join(text.split())


def test_engines_and_flags() -> None:
    asked = Asked(
        compare="transformers,redline",
        flags=["redline.threads=1", "dtype=float32"],
        also=["redline:kernels=torch,threads=2"],
        engine_env=["redline.A=1"],
    )
    one, two, three = engines_of(asked)
    assert (one.kind, one.name, one.flags) == ("transformers", "transformers", {"dtype": "float32"})
    assert two.flags == {"threads": 1, "dtype": "float32"}
    assert two.env == {"A": "1"}
    assert three.name == "redline kernels=torch,threads=2"
    assert three.flags == {"threads": 2, "dtype": "float32", "kernels": "torch"}
    assert engines_of(Asked(url="http://127.0.0.1:1/v1"))[0].kind == "url"
    assert engines_of(Asked(engine="transformers-continuous"))[0].flags == {"batching": "continuous"}
    with pytest.raises(UsageError):
        model_of("", None)
