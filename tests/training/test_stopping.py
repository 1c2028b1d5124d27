"""Signals and the moments to save."""

import os
import signal

import pytest

from imlenet_jax.training.stopping import Stopped, Watch, _listen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_save_and_to_stop(number, capfd):
    before, watch = signal.getsignal(number), Watch()
    with watch.signals():
        assert watch.after(1) == (False, False)
        watch.stop_between_epochs()
        signal.raise_signal(number)
        assert watch.after(2) == (True, True)
        with pytest.raises(Stopped):
            watch.stop_between_epochs()
    assert signal.getsignal(number) is before
    assert f"{signal.Signals(number).name}: finishing the step" in capfd.readouterr().err


def test_the_second_signal_ends_at_once():
    reading, writing = os.pipe()
    os.write(writing, bytes([signal.SIGTERM, signal.SIGCHLD, signal.SIGINT]))
    ended = []
    _listen(reading, ended.append)
    assert ended == [128 + signal.SIGINT]


def test_saves_by_steps_and_by_minutes():
    watch = Watch(every_steps=4)
    watch.start(2)
    assert [watch.after(step)[0] for step in (3, 4, 5, 7, 9, 12)] == [False, True, False, False, True, True]
    assert Watch(every_minutes=1e-9).after(1) == (True, False)
    late = Watch(every_minutes=60)
    assert late.after(1) == (False, False)
