from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from redline.report.assemble import load_report
from redline.report.headline import caveats, claims
from redline.report.model import Report
from redline.store.read import Reader
from tests.report.stored import SLOW, Engine, write_run


def test_the_winner_is_named_with_its_interval(plain: Report) -> None:
    (claim,) = claims(plain)
    assert claim.outcome == "better"
    assert claim.text.startswith("vllm delivers ")
    assert "the output tokens per second of transformers at 16 clients" in claim.text
    assert "the median TTFT" in claim.text
    assert "[" in claim.text
    assert claim.where == "ahead at 3 of 3 load points"
    assert [ratio.metric for ratio in claim.latencies] == ["ttft_ms.p50", "itl_ms.p50", "e2e_ms.p50"]


def test_no_detectable_difference_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    twin = replace(SLOW, name="twin")
    write_run(path, (SLOW, twin), clients=(8,), seconds=6.0)
    with Reader.open(path) as reader:
        (claim,) = claims(load_report(reader))
    assert claim.outcome == "no detectable difference"
    assert claim.text.startswith("no detectable difference in output throughput between twin and transformers")


def test_each_model_has_its_claims_and_engines_without_numbers_have_none(hard: Report) -> None:
    found = claims(hard)
    assert {claim.model for claim in found} == {"target", "draft"}
    assert {claim.engine for claim in found} == {"vllm", "<b>spec</b>", "cut"}


def test_several_tokens_per_chunk_are_compared_by_tpot(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    write_run(path, (SLOW, Engine("spec", per_chunk=4)), clients=(8,), seconds=6.0)
    with Reader.open(path) as reader:
        (claim,) = claims(load_report(reader))
    assert [ratio.metric for ratio in claim.latencies] == ["ttft_ms.p50", "tpot_ms.p50", "e2e_ms.p50"]
    assert "median TPOT" in claim.text


def test_nothing_in_common(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    runs = [
        write_run(path, (engine,), clients=clients, seconds=1.0)
        for engine, clients in ((SLOW, (1,)), (Engine("other"), (2,)))
    ]
    with Reader.open(path) as reader:
        (claim,) = claims(load_report(reader, runs))
    assert claim.outcome == "unknown"
    assert "no load point in common" in claim.text


def test_an_invalid_side_makes_no_claim(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    write_run(path, (SLOW, Engine("broken", fail=0.5)), clients=(4,), seconds=3.0)
    with Reader.open(path) as reader:
        (claim,) = claims(load_report(reader))
    assert claim.outcome == "unknown"
    assert "cannot be said" in claim.text
    assert claim.why.startswith("broken is invalid here: ")
    assert "requests failed" in claim.why


def test_caveats(plain: Report, hard: Report) -> None:
    assert any("started once" in text for text in caveats(plain))
    assert not any("started once" in text for text in caveats(hard))
