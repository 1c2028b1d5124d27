"""When a run saves between the ends of its epochs, and when it stops: by a signal, or because the loss is no number."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from imlenet_jax.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
CALLS_BETWEEN_AGREEMENTS = 10  # several processes have to wait for each other to agree


class Stopped(Exception):
    """A signal has ended the run; all that it did is saved."""


class NotFinite(UserError):
    """The loss or a weight stopped being a number.

    Attributes:
        epoch, step: where; steps count from 0 in each epoch.
        rows: of the training records in the step's batch.
    """

    def __init__(self, what: str, epoch: int, step: int, rows: np.ndarray):
        super().__init__(f"{what} in epoch {epoch}, step {step}")
        self.epoch, self.step, self.rows = epoch, step, rows


class Watch:
    """Tells a training loop, after every call of its step, whether to save and whether to stop.

    Within `signals()`, SIGTERM and SIGINT ask for a stop, and a second one ends the process at once with status 128 +
    signal. Several processes stop and save at the same step.

    Args:
        every_steps: steps between saves.
        every_minutes: minutes between saves.
    """

    def __init__(self, every_steps: int | None = None, every_minutes: float | None = None):
        self._every_steps, self._every_minutes = every_steps, every_minutes
        self._stop, self._step, self._calls, self._saved = False, 0, 0, time.monotonic()

    def after(self, step: int) -> tuple[bool, bool]:
        """Whether to save and whether to stop, after so many steps of the whole run."""
        crossed = self._every_steps is not None and step // self._every_steps > self._step // self._every_steps
        self._step, self._calls = step, self._calls + 1
        timed = self._every_minutes is not None and time.monotonic() - self._saved >= 60 * self._every_minutes
        if jax.process_count() > 1:
            if self._calls % CALLS_BETWEEN_AGREEMENTS:
                return crossed, False
            timed, stop = multihost_utils.process_allgather(np.array([timed, self._stop])).any(axis=0).tolist()
            return crossed or timed or stop, stop
        return crossed or timed or self._stop, self._stop

    def stop_between_epochs(self) -> None:
        """Raise `Stopped` if a signal has come since the last step: the epoch is saved."""
        stop = self._stop
        if jax.process_count() > 1:
            stop = bool(multihost_utils.process_allgather(np.array(stop)).any())
        if stop:
            raise Stopped

    def start(self, step: int) -> None:
        """The run begins, or goes on, after so many steps."""
        self._step = step

    def saved(self) -> None:
        """A checkpoint was taken."""
        self._saved = time.monotonic()

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Listen to signals; outside the main thread, where Python cannot, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Python runs handlers between two steps only, but it writes to this pipe at once: a second signal need not wait.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        pipe_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        thread = threading.Thread(target=_listen, args=(reading,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(pipe_before)
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            os.close(writing)
            thread.join()
            os.close(reading)

    def _ask(self, number: int, frame: Any) -> None:
        self._stop = True


def _listen(pipe: int, end: Callable[[int], Any] = os._exit) -> None:
    heard = 0
    while received := os.read(pipe, 1):
        if received[0] not in SIGNALS:
            continue
        heard += 1
        if heard > 1:
            end(128 + received[0])
            return
        name = signal.Signals(received[0]).name
        print(f"\n{name}: finishing the step and saving (once more ends at once)", file=sys.stderr, flush=True)
