"""Every row: through the suite on a made-up box, and seen both right and wrong on some box."""

from __future__ import annotations

from functools import cache

import pytest

from redline.node.audit import audit
from redline.node.fake import FakeSys
from redline.node.judge import Judged
from redline.node.tunables.table import BY_ID, TUNABLES
from redline.node.tunables.tunable import PROFILES, Tunable
from redline.testing.tunable_suite import AdviceSuite, TunableSuite
from tests.node.fake_boxes import BOXES, built


@cache
def judgements(name: str) -> tuple[Judged, ...]:
    return tuple(judged for profile in PROFILES for judged in audit(built(name), profile))


def has(name: str, tunable: Tunable) -> bool:
    return any(judged.tunable is tunable and judged.want is not None for judged in judgements(name))


WRITTEN = [row for row in TUNABLES if row.write == "attribute"]
ADVISED = [row for row in TUNABLES if row.write == "none"]


class OneBox:
    """Each row of a parametrised class, on the first fake box that has it and may be written."""

    @pytest.fixture(scope="class")
    @classmethod
    def tunable(cls, request: pytest.FixtureRequest) -> Tunable:
        row: Tunable = request.param
        return row

    @pytest.fixture(scope="class")
    @classmethod
    def box(cls, tunable: Tunable) -> FakeSys:
        names = [name for name in BOXES if name != "kubernetes_pod" and has(name, tunable)]
        assert names, f"no fake box has {tunable.id}"
        return built(names[0])


@pytest.mark.parametrize("tunable", WRITTEN, ids=lambda row: row.id, indirect=True, scope="class")
class TestWritten(OneBox, TunableSuite):
    pass


@pytest.mark.parametrize("tunable", ADVISED, ids=lambda row: row.id, indirect=True, scope="class")
class TestAdvised(OneBox, AdviceSuite):
    pass


def test_ids_are_unique_and_many() -> None:
    assert len(BY_ID) == len(TUNABLES) >= 90


def test_coupled_rows_exist() -> None:
    assert not [other for row in TUNABLES for other in row.coupled if other not in BY_ID]


@pytest.mark.parametrize("row", TUNABLES, ids=lambda row: row.id)
def test_each_row_is_seen_right_and_wrong(row: Tunable) -> None:
    states = {judged.state for name in BOXES for judged in judgements(name) if judged.tunable is row}
    wrong = {"drift", "blocked", "overridden", "inert"}
    assert states & {"ok", "inert"}, f"never right: {states}"
    assert states & wrong, f"never wrong: {states}"


def test_every_state_is_met() -> None:
    states = {judged.state for name in BOXES for judged in judgements(name)}
    assert states == {"ok", "drift", "inert", "blocked", "not applicable", "overridden", "unknown"}
