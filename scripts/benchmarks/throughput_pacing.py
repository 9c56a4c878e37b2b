"""Interleaves training loops that cannot be interrupted: each waits inside a step until it is its turn.

Neither `Estimator.train` nor `Model.fit` can be left and entered again without
building its graph anew. So every contestant runs in a thread of its own, of
which one at a time goes on, for one block of steps. Blocks of all contestants
then lie seconds apart, and a disturbance of the machine meets them alike.
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
    """What one block of steps took.

    Attributes:
      seconds: on the clock.
      cpu_seconds: of all threads of the process.
    """

    seconds: float
    cpu_seconds: float


class Pace:
    """The turns of one contestant.

    A block is one step that is not timed, since others have used the caches
    meanwhile, and `steps` that are.
    """

    def __init__(self, steps: int, blocks: int):
        """Args: steps: timed ones in a block. blocks: how many there will be."""
        self._block = steps + 1
        self.total_steps = blocks * self._block
        self._done = 0
        self._turn: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._report: queue.SimpleQueue[Sample | BaseException | None] = queue.SimpleQueue()

    def before_step(self) -> None:
        """Waits for the turn where a block begins."""
        if self._done % self._block == 0:
            self._turn.get()
        elif self._done % self._block == 1:
            self._start = (time.perf_counter(), time.process_time())

    def after_step(self) -> None:
        """Reports the block where it ends; after the last one, waits for the others."""
        self._done += 1
        if self._done % self._block:
            return
        self._report.put(Sample(time.perf_counter() - self._start[0], time.process_time() - self._start[1]))
        if self._done == self.total_steps:
            self._turn.get()

    def run(self, train: Callable[[Pace], None]) -> None:
        """Calls `train`, and hands over what it raises."""
        try:
            train(self)
        except BaseException as error:
            self._report.put(error)
        else:
            self._report.put(None)

    def next_block(self) -> Sample | None:
        """Gives the turn and returns what the block took; None at the end.

        Raises:
          BaseException: what the contestant raised.
        """
        self._turn.put(None)
        report = self._report.get()
        if isinstance(report, BaseException):
            raise report
        return report


class PaceHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Holds an Estimator to its pace."""

    def __init__(self, pace: Pace):
        """Args: pace: its turns."""
        self._pace = pace

    def before_run(self, run_context: Any) -> None:
        self._pace.before_step()

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._pace.after_step()


class PaceCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Holds `Model.fit` to its pace."""

    def __init__(self, pace: Pace):
        """Args: pace: its turns."""
        super().__init__()
        self._pace = pace

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._pace.before_step()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._pace.after_step()


def interleave(
    contestants: Mapping[str, Callable[[Pace], None]], steps: int, rounds: int, show: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """Runs all contestants by turns.

    Args:
      contestants: by name, functions that train for `pace.total_steps` steps.
      steps: timed ones in a block.
      rounds: blocks of each, after one block of each that is not counted.
      show: takes a line about what is going on.

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
        for name in list(contestants)[:: 1 if number % 2 else -1]:  # so that no one always follows the same one
            sample = paces[name].next_block()
            assert sample is not None
            samples[name].append(sample)
    for pace in paces.values():
        pace.next_block()
    for thread in threads:
        thread.join()
    return samples
