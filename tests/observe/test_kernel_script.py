from __future__ import annotations

import pytest

from redline.observe.kernel_script import KINDS, PROBES, probes_for, render

ALL = frozenset(name for probe in PROBES for name in probe.needs)


def test_only_what_the_kernel_has_is_watched_for() -> None:
    assert {probe.kind for probe in probes_for(ALL, engine=True)} == set(KINDS)
    assert probes_for([], engine=True) == []
    some = probes_for(ALL - {"tcp:tcp_retransmit_skb"}, engine=True)
    assert "retransmit" not in {probe.kind for probe in some}
    assert not any(probe.of_engine for probe in probes_for(ALL, engine=False))


def test_the_program_knows_its_threads_and_its_port() -> None:
    text = render(probes_for(ALL, engine=True), [11, 12], port=8123)
    assert "@mine[11] = 1; @mine[12] = 1;" in text
    assert "args->sport == 8123" in text
    assert "PORT" not in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: f"{probe.kind}-{probe.needs[0]}")
def test_every_tracepoint_that_a_probe_uses_is_one_that_it_needs(probe: object) -> None:
    used = {word.split(" ")[0] for word in probe.program.split("tracepoint:")[1:]}  # type: ignore[attr-defined]
    assert {name.split("\n")[0] for name in used} == set(probe.needs)  # type: ignore[attr-defined]
