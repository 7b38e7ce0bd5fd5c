from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from redline.cli.node_options import names
from redline.errors import UsageError
from tests.cli.node_verbs import node
from tests.tune.prove.boxes import PLANTED, Obeying, box, value


def prove(tmp_path: Path, url: str, *more: str, code: int = 0) -> str:
    return node(
        "prove", "--measure", "http", "--url", url, "--rounds", "4",
        "--burst", "4", "--duration", "0.2", "--settle", "0", "--pid", str(os.getpid()),
        "--root", str(tmp_path / "box"), "--db", str(tmp_path / "r.db"), "--output", str(tmp_path / "out"), *more,
        code=code,
    ).stdout  # fmt: skip


def test_a_verdict_as_json_as_a_page_and_as_a_profile(tmp_path: Path) -> None:
    box(tmp_path / "box")
    profile = tmp_path / "keep"
    with Obeying(tmp_path / "box") as listener:
        settings = ("--setting", f"{PLANTED}=1", "-s", "vm.swappiness", "--metric", "e2e_ms.p50")
        told = json.loads(prove(tmp_path, listener.url, *settings, "--json", "--drop-useless", str(profile)))
    assert "Does it help here?" in (tmp_path / "out" / "report.html").read_text()
    assert [one["verdict"] for one in told["settings"]] == ["helps", "not testable here"]
    assert (told["useful"], told["left"]) == ([PLANTED], [])
    assert names([f"@{profile}"]) == [PLANTED]
    assert value(tmp_path / "box", PLANTED) == "8\n"


def test_nothing_testable_is_said_is_exit_code_6_and_a_profile_that_names_nothing(tmp_path: Path) -> None:
    box(tmp_path / "box")
    profile = tmp_path / "keep"
    settings = ("-s", "vm.swappiness", "--drop-useless", str(profile))
    shown = prove(tmp_path, "http://127.0.0.1:9/health", *settings, code=6)
    assert "vm.swappiness: inert: no swap device" in shown
    assert "worth keeping: none" in shown
    assert "# vm.swappiness: not testable here (inert: no swap device" in profile.read_text()
    with pytest.raises(UsageError, match="names no setting"):
        names([f"@{profile}"])


def test_an_engine_and_a_url_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keep one"):
        node("prove", "--engine", "vllm", "--url", "http://127.0.0.1:9/v1", "-s", "control")


def test_live_swappiness_without_swap_cannot_be_shown(tmp_path: Path) -> None:
    """On this very machine; nothing is written."""
    if len(Path("/proc/swaps").read_text().splitlines()) > 1:
        pytest.skip("this machine swaps")
    before = Path("/proc/sys/vm/swappiness").read_bytes()
    done = node(
        "prove", "--measure", "http", "--url", "http://127.0.0.1:9/", "-s", "vm.swappiness=1",
        "--db", str(tmp_path / "r.db"), "--state-dir", str(tmp_path / "state"), "--json", code=6,
    )  # fmt: skip
    (found,) = json.loads(done.stdout)["settings"]
    assert (found["verdict"], found["why"]) == (
        "not testable here",
        "inert: no swap device: anonymous memory is never swapped",
    )
    assert Path("/proc/sys/vm/swappiness").read_bytes() == before
    assert not (tmp_path / "state").exists()
