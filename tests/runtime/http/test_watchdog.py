from __future__ import annotations

from redline.runtime.http.watchdog import FLOOR_S, Watchdog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def looked(watchdog: Watchdog, clock: Clock, seconds: float, steps_every: float | None, progress: int = 0) -> int:
    """Looks every 0.2 s for so long; a step ends every so often."""
    for tick in range(round(seconds / 0.2)):
        clock.now += 0.2
        if steps_every is not None and tick % max(1, round(steps_every / 0.2)) == 0:
            progress += 1
        watchdog.look(progress, True)
    return progress


def test_hung_is_red_within_five_seconds_and_soon_where_steps_are_short() -> None:
    clock = Clock()
    watchdog = Watchdog(5.0, 0.2, clock)
    at = looked(watchdog, clock, 10, 0.2)
    assert watchdog.trouble() == ""
    looked(watchdog, clock, FLOOR_S + 0.5, None, at)
    assert "no step" in watchdog.trouble()


def test_long_steps_that_end_stay_green() -> None:
    clock = Clock()
    watchdog = Watchdog(5.0, 0.2, clock)
    progress = 0
    for longest in (1.0, 2.0, 3.0, 4.0):
        for _ in range(4):
            progress += 1
            for _ in range(round(longest / 0.2)):
                clock.now += 0.2
                watchdog.look(progress, True)
                assert watchdog.trouble() == ""
    looked(watchdog, clock, 4.8, None, progress)
    assert watchdog.trouble() != "", "never more than five seconds"


def test_idle_is_no_stall() -> None:
    clock = Clock()
    watchdog = Watchdog(5.0, 0.2, clock)
    for _ in range(100):
        clock.now += 0.2
        watchdog.look(7, False)
    assert watchdog.trouble() == ""
    watchdog.look(7, True)
    assert watchdog.trouble() == ""


def test_time_that_nobody_saw_pass_does_not_count() -> None:
    """The process was stopped for an hour."""
    clock = Clock()
    watchdog = Watchdog(5.0, 0.2, clock)
    watchdog.look(1, True)
    clock.now += 3600
    watchdog.look(1, True)
    assert watchdog.trouble() == ""
