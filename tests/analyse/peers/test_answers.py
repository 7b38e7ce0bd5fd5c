from __future__ import annotations

from redline.analyse.peers.tools import recompute
from tests.analyse.traffic import Row, requests_of


def test_an_answer_without_tokens_did_not_fail() -> None:
    rows = [Row(i * 100, finished=i * 100 + 50, finish_reason="embedding") for i in range(10)]
    rows[0].status = "timeout"
    assert recompute("vllm", requests_of(*rows)).value("failed") == 1
