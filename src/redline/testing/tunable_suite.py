"""What a row of the table of settings must prove. Subclass it, give it a row and a box that has the setting:

    class TestMine(TunableSuite):
        @pytest.fixture(scope="class")
        @classmethod
        def tunable(cls):
            return MINE

        @pytest.fixture(scope="class")
        @classmethod
        def box(cls, tmp_path_factory):
            return FakeSys(tmp_path_factory.mktemp("box"))  # with the setting's files in it

The row is read, put to another value, set, read back, and put back byte for byte. On a live box the same is done for
real, so give it rows that may be touched there. A row that only advises is read and judged: `AdviceSuite`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from redline.node.judge import Judged, judge
from redline.node.meets import is_met
from redline.node.sys import Sys, SysFault, text
from redline.node.tunables.tunable import PROFILES, Place, Profile, Tunable, Want

State = dict[str, bytes]


class AdviceSuite:
    """Conformance tests of a row that redline reads and does not write."""

    @pytest.fixture(scope="class")
    @classmethod
    def tunable(cls) -> Tunable:
        raise NotImplementedError("the subclass gives the row")

    @pytest.fixture(scope="class")
    @classmethod
    def box(cls) -> Sys:
        raise NotImplementedError("the subclass gives a box that has the setting")

    @pytest.fixture
    def place(self, tunable: Tunable, box: Sys) -> Place:
        """A place where some profile has an opinion."""
        places = tunable.places(box)
        assert places, f"{tunable.id} is not found on this box"
        wanted = [place for place in places if any(_judged(box, tunable, place, name).want for name in PROFILES)]
        assert wanted, f"no profile wants anything of {tunable.id} on this box"
        return wanted[0]

    def test_the_row_is_complete(self, tunable: Tunable) -> None:
        assert re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+", tunable.id)
        assert tunable.title
        assert not tunable.title.endswith(".")
        assert tunable.effect.endswith("."), "what is expected of it, as a sentence"
        assert tunable.sources
        assert all(re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", source.date) and source.ref for source in tunable.sources)
        assert set(tunable.wants) == set(PROFILES)
        assert any(tunable.wants.values()), "some profile must want something"
        assert tunable.advice or tunable.write == "attribute", "a row that only advises says what to do"
        assert (tunable.persist in ("none", "unit")) or tunable.persist_key

    def test_it_is_found_and_read(self, tunable: Tunable, box: Sys, place: Place) -> None:
        assert place in tunable.places(box)
        value = tunable.read(box, place)
        assert isinstance(value, str)
        assert value == value.strip()

    def test_it_is_judged_by_every_profile(self, tunable: Tunable, box: Sys, place: Place) -> None:
        for judged in (_judged(box, tunable, place, profile) for profile in PROFILES):
            assert judged.want is not None or judged.state in ("not applicable", "unknown")
            if judged.want is not None and judged.value is not None:
                assert is_met(judged.value, judged.want) is not None, "the value cannot be compared with what is wanted"
            if judged.state == "ok":
                assert judged.value is not None
            elif judged.state != "drift":
                assert judged.why, "every state but ok and drift has a reason"


class TunableSuite(AdviceSuite):
    """Conformance tests of a row that is written; see the module's docstring."""

    @pytest.fixture(scope="class")
    @classmethod
    def known(cls) -> Sequence[Tunable]:
        """Rows among which the coupled ones are found."""
        from redline.node.tunables.table import TUNABLES

        return TUNABLES

    @pytest.fixture
    def undo(self, tunable: Tunable, box: Sys, place: Place, known: Sequence[Tunable]) -> Iterator[State]:
        """The bytes of every file that a write may change. They are put back, and that is checked, after the test."""
        before = _state(tunable, box, place, known)
        yield before
        _restore(box, before)
        assert _state(tunable, box, place, known) == before

    def test_applied_and_read_back(self, tunable: Tunable, box: Sys, place: Place, undo: State) -> None:
        want = _written_want(tunable, box, place)
        box.set_attribute(place.path, want.written.encode())
        value = tunable.read(box, place)
        assert is_met(value, want), f"wrote {want.written}, read {value}"

    def test_applied_twice_is_applied_once(self, tunable: Tunable, box: Sys, place: Place, undo: State) -> None:
        want = _written_want(tunable, box, place)
        box.set_attribute(place.path, want.written.encode())
        once = {path: box.read(path) for path in undo}
        box.set_attribute(place.path, want.written.encode())
        assert {path: box.read(path) for path in undo} == once

    def test_another_value_is_seen(self, tunable: Tunable, box: Sys, place: Place, undo: State) -> None:
        """A third party writes something else: the row sees it, and never calls it ok."""
        want = _written_want(tunable, box, place)
        box.set_attribute(place.path, want.written.encode())
        settled = box.read(place.path)
        assert _write_another(tunable, box, place, want), "this box takes no value that is not a good one"
        assert box.read(place.path) != settled
        states = [_judged(box, tunable, place, name) for name in PROFILES]
        assert not [each for each in states if each.state == "ok" and each.want == want]

    def test_put_back_byte_for_byte(self, tunable: Tunable, box: Sys, place: Place, undo: State) -> None:
        want = _written_want(tunable, box, place)
        _write_another(tunable, box, place, want)
        box.set_attribute(place.path, want.written.encode())
        _restore(box, undo)
        assert {path: box.read(path) for path in undo} == undo


def _judged(box: Sys, tunable: Tunable, place: Place, profile: Profile) -> Judged:
    return judge(box, tunable, place, profile)


def _written_want(tunable: Tunable, box: Sys, place: Place) -> Want:
    """What the first profile with an opinion wants here."""
    return next(want for name in PROFILES if (want := _judged(box, tunable, place, name).want))


def _write_another(tunable: Tunable, box: Sys, place: Place, want: Want) -> bool:
    """Writes a value that is not as wanted; False when the box takes none."""
    words = box.read(place.path).decode(errors="replace").replace("[", "").replace("]", "").split()
    offered = words if len(words) > 1 and not words[0].isdigit() else []
    cpus = (text(box, "/sys/devices/system/cpu/online") or "").rpartition("-")
    numbers = [
        "0",
        "1",
        "2",
        "10",
        "60",
        "4096",
        "1000000",
        "10000000000",
        "4096 8192 16384",
        "1024 2000",
        cpus[0],
        cpus[2],
    ]
    for value in [*offered, *numbers, "powersave", "power", "auto", "hpet", "menu"]:
        try:
            if is_met(value, want) is not False:
                continue
            box.set_attribute(place.path, value.encode())
        except SysFault:
            continue
        if is_met(tunable.read(box, place), want) is False:
            return True
    return False


def _state(tunable: Tunable, box: Sys, place: Place, known: Sequence[Tunable]) -> State:
    """Every file that belongs to the setting: its own, and those that the kernel changes along."""
    paths = [place.path]
    for other in known:
        if other.id in tunable.coupled:
            paths += [each.path for each in other.places(box) if each.name == place.name]
    return {path: box.read(path) for path in paths}


def _restore(box: Sys, before: State) -> None:
    """Writes the old bytes back until they are there: a coupled file is refused, or spoiled, by the wrong order."""
    for _ in range(3):
        wrong = [path for path, content in before.items() if box.read(path) != content]
        for path in wrong:
            word = before[path].decode(errors="replace").strip()
            chosen = re.search(r"\[(\S+)\]", word)
            try:
                box.set_attribute(path, (chosen.group(1) if chosen else word).encode())
            except SysFault:
                continue
        if not wrong:
            return
