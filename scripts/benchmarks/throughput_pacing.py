"""Interleaves training loops that cannot be interrupted: each loop waits inside a step for its turn.

A caller cannot leave `Estimator.train` or `Model.fit` and return to it without a
new graph. So every contestant runs in a separate thread, and one thread at a
time runs for one block of steps. Blocks of all contestants are then only seconds
apart, and a disturbance of the machine affects all of them.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from estimator_tl.compat import keras, tf


@dataclasses.dataclass(frozen=True)
class Sample:
    """The time of one block of steps.

    Attributes:
      seconds: by the clock.
      cpu_seconds: CPU time of all threads of the process.
    """

    seconds: float
    cpu_seconds: float


class Pace:
    """The turns of one contestant.

    A block is one step without timing, because other contestants have used the
    caches since the last block, and then `steps` timed steps.
    """

    def __init__(self, steps: int, blocks: int):
        """Args: steps: timed steps in a block. blocks: number of blocks."""
        self._block = steps + 1
        self.total_steps = blocks * self._block
        self._done = 0
        self._turn: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._report: queue.SimpleQueue[Sample | BaseException | None] = queue.SimpleQueue()

    def before_step(self) -> None:
        """Waits for the turn if a block begins."""
        if self._done % self._block == 0:
            self._turn.get()
        elif self._done % self._block == 1:
            self._start = (time.perf_counter(), time.process_time())

    def after_step(self) -> None:
        """Reports a block if it ends; after the last block, waits for the other contestants."""
        self._done += 1
        if self._done % self._block:
            return
        self._report.put(Sample(time.perf_counter() - self._start[0], time.process_time() - self._start[1]))
        if self._done == self.total_steps:
            self._turn.get()

    def run(self, train: Callable[[Pace], None]) -> None:
        """Calls `train`, and passes its exception to `next_block`."""
        try:
            train(self)
        except BaseException as error:
            self._report.put(error)
        else:
            self._report.put(None)

    def next_block(self) -> Sample | None:
        """Lets the contestant run one block and returns its time; None at the end.

        Raises:
          BaseException: the exception of the contestant.
        """
        self._turn.put(None)
        report = self._report.get()
        if isinstance(report, BaseException):
            raise report
        return report


class PaceHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Makes an Estimator wait for its turns."""

    def __init__(self, pace: Pace):
        """Args: pace: the turns."""
        self._pace = pace

    def before_run(self, run_context: Any) -> None:
        self._pace.before_step()

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._pace.after_step()


class PaceCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Makes `Model.fit` wait for its turns."""

    def __init__(self, pace: Pace):
        """Args: pace: the turns."""
        super().__init__()
        self._pace = pace

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._pace.before_step()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._pace.after_step()


def interleave(
    contestants: Mapping[str, Callable[[Pace], None]], steps: int, rounds: int, show: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """Runs all contestants in turns.

    Args:
      contestants: functions that train for `pace.total_steps` steps, by name.
      steps: timed steps in a block.
      rounds: blocks of each contestant, after one block that is not counted.
      show: called with a line of progress.

    Returns:
      A sample for each round, by name.
    """
    paces = {name: Pace(steps, rounds + 1) for name in contestants}
    threads = []
    for name, train in contestants.items():
        show(f"warming up: {name}")
        threads.append(threading.Thread(target=paces[name].run, args=(train,), daemon=True))
        threads[-1].start()
        paces[name].next_block()
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for number in range(rounds):
        show(f"round {number + 1} of {rounds}")
        for name in list(contestants)[:: 1 if number % 2 else -1]:  # so no contestant always follows the same one
            sample = paces[name].next_block()
            assert sample is not None
            samples[name].append(sample)
    for pace in paces.values():
        pace.next_block()
    for thread in threads:
        thread.join()
    return samples
