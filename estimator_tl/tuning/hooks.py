"""Session hooks that hold a run to its plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from estimator_tl.compat import tf
from estimator_tl.errors import UserError, shortened
from estimator_tl.specs import INPUT_PLACE
from estimator_tl.tf_internals.files.checkpoint_state import correct_state, newest_checkpoint
from estimator_tl.tf_internals.files.checkpoints import extend_checkpoint
from estimator_tl.tf_internals.graphs.replicas import copies

_STOP = "signal_early_stopping/STOP"
_READ_BYTES = 16 << 20


class FrozenVariablesChangedError(RuntimeError):
    """A variable that the plan freezes is not what it was when the call began."""


class FrozenCheckHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Checks at the end of training that frozen variables are bit-identical to the start of the call."""

    def __init__(self, frozen: Mapping[str, Any]):
        """Args: frozen: the graph's frozen variables by name."""
        self._frozen: dict[str, Any] = {}
        for name, variable in frozen.items():
            self._frozen.update({f"{name}/replica_{i}" if i else name: copy for i, copy in enumerate(copies(variable))})
        self._before: dict[str, str] = {}

    def after_create_session(self, session: Any, coord: Any) -> None:
        if not self._before:  # a recovered session must still equal the first one
            self._before = self._digests(session)

    def end(self, session: Any) -> None:
        after = self._digests(session)
        moved = [name for name, digest in self._before.items() if after[name] != digest]
        if moved:
            raise FrozenVariablesChangedError(
                f"{len(moved)} frozen variables changed during training: {shortened(moved)}; "
                "something outside the plan (an optimizer, a hook, an op of the model) writes to them."
            )

    def _digests(self, session: Any) -> dict[str, str]:
        digests: dict[str, str] = {}
        for part in self._parts():
            for name, value in session.run(part).items():
                digests[name] = hashlib.blake2b(value.tobytes(), digest_size=16).hexdigest()
        return digests

    def _parts(self) -> Iterator[dict[str, Any]]:
        """Yields the variables in parts to read at once: each read costs a start, all together cost memory."""
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
    """Sees before a session restores it whether the newest checkpoint is whole and has every variable of the graph.

    The variable of the Estimator API's early stopping hooks is added where it is missing, so that such a hook may join
    a run that began without it.
    """

    def __init__(self, model_dir: str, is_chief: bool):
        """Args: model_dir: of the run. is_chief: whether this process writes its checkpoints."""
        self._model_dir = model_dir
        self._is_chief = is_chief

    def begin(self) -> None:
        newest = correct_state(self._model_dir) if self._is_chief else newest_checkpoint(self._model_dir)
        if newest is None:
            return
        if self._is_chief:
            newest.tell()
        if tf.distribute.has_strategy():
            return
        path = newest.path
        known = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        missing = sorted({v.op.name for v in tf.compat.v1.global_variables()} - set(known))
        if missing == [_STOP] and self._is_chief:
            extend_checkpoint(self._model_dir, {_STOP: np.array(False)})
        elif missing and missing != [_STOP]:
            listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise UserError(
                f"{path} lacks {len(missing)} variables of this graph ({listed}): it was trained under another policy "
                "or optimizer; use those, another model_dir with warm_start_from, or `estimator-tl train "
                "--allow_plan_change`."
            )


class PlanHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Shows the plan when training begins, and what a run that is stopped would not find again."""

    def __init__(self, text: str, show: Callable[[str], None], backbone_dropout: bool, phase: str = ""):
        """Prepares the hook.

        Args:
          text: the plan's table.
          show: takes the text, e.g. `print`.
          backbone_dropout: whether it is on.
          phase: the line of the one phase that the graph serves, shown last.
        """
        self._text = text
        self._show = show
        self._dropout = backbone_dropout
        self._phase = phase

    def begin(self) -> None:
        self._show("\n".join([self._text, *self._lost(), *([f"now {self._phase}"] if self._phase else [])]))

    def _lost(self) -> list[str]:
        lines = []
        if not tf.compat.v1.get_collection(INPUT_PLACE):
            lines.append(
                "resume: this input_fn does not keep its place, a run that goes on begins it anew; "
                "use etl.inputs, or give train() the hook etl.inputs.checkpoint_hook(estimator)."
            )
        if self._dropout:
            lines.append(
                "resume: dropout of the backbone draws anew in a run that goes on; with backbone_dropout=False it "
                "ends bit for bit as one that was not stopped."
            )
        return lines
