from __future__ import annotations

from redline.analyse.profile.record import EngineProfile, Profile
from redline.report.profile.notes import notes
from redline.report.profile.tables import tables


def test_a_profile_of_nothing_says_why() -> None:
    engines = (
        EngineProfile("vllm", "vllm", failed="vllm died: CUDA out of memory"),
        EngineProfile("redline", "redline", skipped="not begun: 500 s were over"),
    )
    told = Profile("m", "a model", "NVIDIA H200", "0.1", "2026-01-01T00:00:00Z", (1,), (512,), engines)
    assert [section.title for section in tables(told)] == ["Nothing was recorded"]
    text = notes(told)
    assert "vllm: vllm died: CUDA out of memory" in text
    assert "redline: not begun: 500 s were over" in text
