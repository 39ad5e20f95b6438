"""Signals are noted, so that a step is finished."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from waveq.train.stopping import StoppedAtOnce, signals_noted


def test_the_first_signal_is_noted_and_the_second_acts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with signals_noted() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(StoppedAtOnce):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_terminal_that_closes_is_a_signal_as_others_unless_nohup_ignores_it() -> None:
    with signals_noted() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_noted() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_left_alone_in_other_threads() -> None:
    seen: list[bool] = []

    def work() -> None:
        with signals_noted() as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
