"""What is compiled while serving is counted and named; what a start-up compiles is not."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest

from redline.runtime import late


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    runtime = SimpleNamespace(jit_cache_hook=None, jit_post_compile_hook=None)
    monkeypatch.setitem(sys.modules, "triton.knobs", SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(late, "COUNTED", late.Late())
    monkeypatch.setattr(late, "_watched", False)
    monkeypatch.setattr(late, "_serving", False)
    return runtime


def compile_one(runtime: SimpleNamespace, name: str) -> object:
    told = {"key": f"key of {name}", "fn": SimpleNamespace(name=name)}
    cancelled = runtime.jit_cache_hook(**told)
    runtime.jit_post_compile_hook(**told)
    return cancelled


def test_only_what_comes_while_serving(triton: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    late.serving()
    with caplog.at_level(logging.WARNING):
        assert compile_one(triton, "attention_kernel") is None
    assert late.COUNTED.late_compiles == 1
    assert late.COUNTED.late_compile_s > 0
    assert "attention_kernel" in caplog.text
    late.captured(0.5)
    assert (late.COUNTED.late_captures, late.COUNTED.late_capture_s) == (1, 0.5)
    late.starting()  # another engine, in the same process
    compile_one(triton, "gemv_kernel")
    late.captured(0.5)
    assert (late.COUNTED.late_compiles, late.COUNTED.late_captures) == (1, 1)


def test_others_hooks_are_called_too(triton: SimpleNamespace) -> None:
    seen: list[str] = []
    triton.jit_cache_hook = lambda **told: [True, seen.append("before")][0]  # type: ignore[func-returns-value]
    triton.jit_post_compile_hook = lambda **told: seen.append("after")
    late.serving()
    late.serving()
    assert compile_one(triton, "rms_norm_kernel") is True
    assert seen == ["before", "after"]
    assert late.COUNTED.late_compiles == 1


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "triton.knobs", raising=False)
    monkeypatch.setattr(late, "_watched", False)
    late.serving()
    assert not late._watched
    late.starting()
