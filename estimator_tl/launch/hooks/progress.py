"""Shows the progress of training: as a bar on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from estimator_tl.compat import tf
from estimator_tl.types import RunContext, RunValues, Session

_BAR = 24
_CLEAR_LINE = "\r\x1b[K"


class ProgressHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Shows steps, examples per second, loss and time left.

    The hook fetches the loss only when a line is due, so other steps cost nothing.
    """

    def __init__(self, total_steps: int, batch_size: int, stream: TextIO | None = None, replicas: int = 1):
        """Prepares the hook.

        Args:
          total_steps: the global step where training ends.
          batch_size: the global batch size.
          stream: the output; standard error by default.
          replicas: how many replicas share a batch; with more than one, the line shows the speed of each too.
        """
        self._total = total_steps
        self._batch = batch_size
        self._replicas = replicas
        self._stream = stream or sys.stderr
        self._bar = self._stream.isatty()
        self._every = 0.25 if self._bar else 10.0
        self._step: Any = None
        self._first: tuple[int, float] | None = None
        self._last_line, self._due = 0.0, False

    def begin(self) -> None:
        self._step = tf.compat.v1.train.get_global_step()
        self._first, self._last_line = None, 0.0

    def before_run(self, run_context: RunContext) -> Any:
        now = time.monotonic()
        self._due = self._first is None or now - self._last_line >= self._every
        if not self._due:
            return None
        losses = run_context.session.graph.get_collection(tf.compat.v1.GraphKeys.LOSSES)
        # The last one is Estimator's; a loss of the head may be inside the loop of a TPU.
        return tf.compat.v1.train.SessionRunArgs(losses[-1:])

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        if not self._due:
            return
        now = time.monotonic()
        # A separate call, as a fetch with the train op may read the step before or after the update.
        step = int(run_context.session.run(self._step))
        if self._first is None:  # the first step includes the start-up of the graph
            self._first = (step, now)
            self._last_line = 0.0 if self._bar else now
            return
        self._last_line = now
        self._show(step, now, run_values.results)

    def end(self, session: Session) -> None:
        if self._bar:
            self._stream.write(_CLEAR_LINE)
        if self._first is not None:
            step = int(session.run(self._step))
            steps, seconds = step - self._first[0], time.monotonic() - self._first[1]
            if steps > 0:
                rate = self._rate(steps, seconds)
                self._stream.write(f"step {step}/{self._total}, {rate} on average\n")
                self._stream.flush()

    def _show(self, step: int, now: float, losses: Any) -> None:
        assert self._first is not None
        done, seconds = step - self._first[0], now - self._first[1]
        if done <= 0:
            return
        left = (self._total - step) * seconds / done
        text = f"step {step}/{self._total}  {self._rate(done, seconds)}"
        if losses:
            text += f"  loss {float(losses[-1]):.4f}"
        text += f"  {clock(left)} left"
        if self._bar:
            filled = int(_BAR * step / max(self._total, 1))
            self._stream.write(f"{_CLEAR_LINE}[{'=' * filled}{' ' * (_BAR - filled)}] {text}")
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def _rate(self, steps: int, seconds: float) -> str:
        rate = steps * self._batch / seconds
        text = f"{rate:.1f} examples/s"
        if self._replicas > 1:
            text += f" ({rate / self._replicas:.1f} a replica)"
        return text


def clock(seconds: float) -> str:
    """Returns seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"


def show_evaluation(metrics: Any, stream: TextIO | None = None) -> None:
    """Writes the line of an evaluation. Args: metrics: with ``global_step``. stream: standard error by default."""
    stream = stream or sys.stderr
    clear = _CLEAR_LINE if stream.isatty() else ""  # a progress bar may be on this line
    stream.write(f"{clear}evaluation at step {int(metrics['global_step'])}: {metrics_text(metrics)}\n")
    stream.flush()


def metrics_text(metrics: Any) -> str:
    """Returns ``accuracy 0.9312, loss 0.2210`` without the global step."""
    names = sorted(set(metrics) - {"global_step"})
    return ", ".join(f"{name} {float(metrics[name]):.4f}" for name in names)
