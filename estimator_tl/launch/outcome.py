"""The result of a call that trains."""

from __future__ import annotations

import dataclasses

from estimator_tl.errors import STOPPED_EXIT_CODE
from estimator_tl.launch.stopping import Stop


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a call that trains.

    Attributes:
      metrics: metrics of the last evaluation; empty if this process evaluated nothing.
      global_step: the step reached.
      steps: how many steps the run has made since the call began.
      seconds: how long the steps took, evaluations included.
      stop: why training ended before its last step; None if it reached that step.
    """

    metrics: dict[str, float]
    global_step: int
    steps: int
    seconds: float
    stop: Stop | None = None

    @property
    def exit_code(self) -> int:
        """The exit code, which tells a scheduler whether to start the process again."""
        return STOPPED_EXIT_CODE if self.stop and self.stop.resumes else 0
