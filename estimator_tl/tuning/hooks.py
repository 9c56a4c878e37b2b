"""Session hooks that check and show a run's plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from estimator_tl.compat import tf
from estimator_tl.errors import UserError, shortened
from estimator_tl.specs import INPUT_POSITION
from estimator_tl.tf_internals.files.checkpoint_state import correct_state, newest_checkpoint
from estimator_tl.tf_internals.files.checkpoints import extend_checkpoint
from estimator_tl.tf_internals.graphs.replicas import copies
from estimator_tl.types import Session

_STOP = "signal_early_stopping/STOP"
_READ_BYTES = 16 << 20


class FrozenVariablesChangedError(RuntimeError):
    """A variable that the plan freezes has changed since the call began."""


class FrozenCheckHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Checks at the end of training that frozen variables are bit-identical to the start of the call."""

    def __init__(self, frozen: Mapping[str, Any]):
        """Args: frozen: the graph's frozen variables by name."""
        self._frozen: dict[str, Any] = {}
        for name, variable in frozen.items():
            first, *others = copies(variable)
            self._frozen[name] = first
            self._frozen.update({f"{name}/replica_{i}": copy for i, copy in enumerate(others, 1)})
        self._before: dict[str, str] = {}

    def after_create_session(self, session: Session, coord: Any) -> None:
        if not self._before:  # after a recovery the digests of the first session still count
            self._before = self._digests(session)

    def end(self, session: Session) -> None:
        after = self._digests(session)
        changed = [name for name, digest in self._before.items() if after[name] != digest]
        if changed:
            raise FrozenVariablesChangedError(
                f"{len(changed)} frozen variables changed during training: {shortened(changed)}; "
                "something outside the plan (an optimizer, a hook, an op of the model) writes to them."
            )

    def _digests(self, session: Session) -> dict[str, str]:
        digests: dict[str, str] = {}
        for part in self._parts():
            for name, value in session.run(part).items():
                digests[name] = hashlib.blake2b(value.tobytes(), digest_size=16).hexdigest()
        return digests

    def _parts(self) -> Iterator[dict[str, Any]]:
        """Yields parts of the variables, to read each part in one call: a trade-off between calls and memory."""
        part: dict[str, Any] = {}
        size = 0
        for name, variable in self._frozen.items():
            part[name] = variable
            size += variable.shape.num_elements() * variable.dtype.size
            if size >= _READ_BYTES:
                yield part
                part, size = {}, 0
        if part:
            yield part


class FitsCheckpointHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Checks, before a session restores it, that the newest checkpoint is complete and has every variable of the graph.

    If only the variable of the Estimator API's early stopping hooks is missing, the chief adds it to the checkpoint.
    So a run can add such a hook later.
    """

    def __init__(self, model_dir: str, is_chief: bool):
        """Args: model_dir: the run's folder. is_chief: whether this process writes the run's checkpoints."""
        self._model_dir = model_dir
        self._is_chief = is_chief

    def begin(self) -> None:
        newest = correct_state(self._model_dir) if self._is_chief else newest_checkpoint(self._model_dir)
        if newest is None:
            return
        if self._is_chief:
            newest.report_damaged()
        if tf.distribute.has_strategy():
            return
        path = newest.path
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        missing = sorted({v.op.name for v in tf.compat.v1.global_variables()} - set(shapes))
        if missing == [_STOP] and self._is_chief:
            extend_checkpoint(self._model_dir, {_STOP: np.array(False)})
        elif missing and missing != [_STOP]:
            raise UserError(
                f"{path} lacks {len(missing)} variables of this graph ({shortened(missing, 3)}): it was trained with "
                "another policy or optimizer; use the same ones, another model_dir with warm_start_from, or "
                "`estimator-tl train --allow_plan_change`."
            )


class PlanHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Shows the plan when training begins, and what a resumed run would not repeat exactly."""

    def __init__(self, text: str, show: Callable[[str], None], backbone_dropout: bool, phase: str = ""):
        """Prepares the hook.

        Args:
          text: the plan's table.
          show: shows the text, e.g. `print`.
          backbone_dropout: whether dropout of the backbone is on.
          phase: a line about the only phase that the graph serves; it is shown last.
        """
        self._text = text
        self._show = show
        self._dropout = backbone_dropout
        self._phase = phase

    def begin(self) -> None:
        lines = [self._text, *self._resume_notes()]
        if self._phase:
            lines.append(f"now {self._phase}")
        self._show("\n".join(lines))

    def _resume_notes(self) -> list[str]:
        lines = []
        if not tf.compat.v1.get_collection(INPUT_POSITION):
            lines.append(
                "resume: this input_fn does not save its position, so a resumed run reads the data from the start; "
                "use etl.inputs, or give train() the hook etl.inputs.checkpoint_hook(estimator)."
            )
        if self._dropout:
            lines.append(
                "resume: dropout of the backbone is random again in a resumed run; with backbone_dropout=False a "
                "resumed run ends bit for bit like a run that was never stopped."
            )
        return lines
