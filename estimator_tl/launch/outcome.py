"""What a process did in a run."""

from __future__ import annotations

import dataclasses

from estimator_tl.errors import STOPPED_EXIT_CODE
from estimator_tl.launch.stopping import Stop


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call that trains did.

    Attributes:
      metrics: of the last evaluation; empty where this process made none.
      global_step: the step reached.
      steps: how many steps the run has made since this call began.
      seconds: how long they took, evaluations included.
      stop: why training ended before its last step; None where it did not.
    """

    metrics: dict[str, float]
    global_step: int
    steps: int
    seconds: float
    stop: Stop | None = None

    @property
    def exit_code(self) -> int:
        """Tells a scheduler whether to start the process again."""
        return STOPPED_EXIT_CODE if self.stop and self.stop.resumes else 0
