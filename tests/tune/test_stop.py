from __future__ import annotations

import os
import signal
import threading

import pytest

from redline.tune.stop import Stop


def test_first_signal_in_an_orderly_stretch_only_asks() -> None:
    with Stop() as stop, stop.orderly():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked


def test_second_signal_ends_the_program() -> None:
    with Stop() as stop, stop.orderly():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_outside_an_orderly_stretch_the_first_signal_interrupts() -> None:
    with Stop() as stop:
        with stop.orderly():
            pass
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Stop():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_another_thread_installs_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def body() -> None:
        with Stop():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]
