"""Signals in the midst of a step and between two."""

from __future__ import annotations

import signal
import threading

import pytest

from clothseg.training.interruption import BetweenSteps


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("heard", ["on_train_batch_end", "on_test_batch_end"])
def test_a_signal_takes_effect_after_the_step(number, heard):
    with pytest.raises(KeyboardInterrupt), BetweenSteps() as interruption:
        getattr(interruption, heard)(0)
        signal.raise_signal(number)
        step_ended = True
        getattr(interruption, heard)(1)
        pytest.fail("it goes on")
    assert step_ended
    assert signal.getsignal(number) is signal.default_int_handler


def test_a_signal_after_the_last_step_is_not_lost():
    with pytest.raises(KeyboardInterrupt), BetweenSteps():
        signal.raise_signal(signal.SIGTERM)


def test_a_second_signal_takes_effect_at_once():
    with pytest.raises(KeyboardInterrupt), BetweenSteps():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it goes on")


def test_an_error_of_the_step_comes_first():
    with pytest.raises(ValueError, match="of the step"), BetweenSteps():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("of the step")


def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with BetweenSteps() as interruption:
        signal.raise_signal(signal.SIGINT)
        interruption.on_train_batch_end(0)


def test_threads_leave_handlers_alone():
    def enter():
        with BetweenSteps():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
