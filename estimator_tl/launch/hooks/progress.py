"""Progress of training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from estimator_tl.compat import tf

_BAR = 24
_CLEAR_LINE = "\r\x1b[K"


class ProgressHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Shows steps, examples per second, loss and time left.

    The loss is fetched only when a line is due, so other steps cost nothing.
    """

    def __init__(self, total_steps: int, batch_size: int, stream: TextIO | None = None, replicas: int = 1):
        """Prepares the hook.

        Args:
          total_steps: where training ends.
          batch_size: global.
          stream: standard error by default.
          replicas: how many share a batch; with more than one the speed of each is shown, too.
        """
        self._total = total_steps
        self._batch = batch_size
        self._replicas = replicas
        self._stream = stream or sys.stderr
        self._bar = self._stream.isatty()
        self._every = 0.25 if self._bar else 10.0
        self._step: Any = None
        self._first: tuple[int, float] | None = None
        self._shown, self._due = 0.0, False

    def begin(self) -> None:
        self._step = tf.compat.v1.train.get_global_step()
        self._first, self._shown = None, 0.0

    def before_run(self, run_context: Any) -> Any:
        now = time.monotonic()
        self._due = self._first is None or now - self._shown >= self._every
        if not self._due:
            return None
        losses = run_context.session.graph.get_collection(tf.compat.v1.GraphKeys.LOSSES)
        return tf.compat.v1.train.SessionRunArgs(losses[-1:])  # Estimator's; a head's may be inside of a TPU's loop

    def after_run(self, run_context: Any, run_values: Any) -> None:
        if not self._due:
            return
        now = time.monotonic()
        # Not fetched beside the train op: whether such a read comes before or after the update is chance.
        step = int(run_context.session.run(self._step))
        if self._first is None:  # the first step holds the graph's start-up
            self._first = (step, now)
            self._shown = now if not self._bar else 0.0
            return
        self._shown = now
        self._show(step, now, run_values.results)

    def end(self, session: Any) -> None:
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
        if not self._bar:
            self._stream.write(text + "\n")
        else:
            filled = int(_BAR * step / max(self._total, 1))
            self._stream.write(f"{_CLEAR_LINE}[{'=' * filled}{' ' * (_BAR - filled)}] {text}")
        self._stream.flush()

    def _rate(self, steps: int, seconds: float) -> str:
        rate = steps * self._batch / seconds
        return f"{rate:.1f} examples/s" + (f" ({rate / self._replicas:.1f} a replica)" if self._replicas > 1 else "")


def clock(seconds: float) -> str:
    """Returns seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def show_evaluation(metrics: Any, stream: TextIO | None = None) -> None:
    """Writes the line of one evaluation. Args: metrics: with the global step. stream: standard error by default."""
    stream = stream or sys.stderr
    clear = _CLEAR_LINE if stream.isatty() else ""  # a progress bar may stand there
    stream.write(f"{clear}evaluation at step {int(metrics['global_step'])}: {metrics_text(metrics)}\n")
    stream.flush()


def metrics_text(metrics: Any) -> str:
    """Returns ``accuracy 0.9312, loss 0.2210`` without the global step."""
    names = sorted(set(metrics) - {"global_step"})
    return ", ".join(f"{name} {float(metrics[name]):.4f}" for name in names)
