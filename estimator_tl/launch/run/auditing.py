"""The audit of a run directory: its checkpoints against its source and its plans."""

from __future__ import annotations

import os
from typing import Any

from estimator_tl.backbones import Backbone
from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.launch.run.plan_change import Earlier, plans_of
from estimator_tl.launch.run.run_dir import SavedRun
from estimator_tl.tf_internals.files.bundles import damage
from estimator_tl.tf_internals.files.checkpoint_state import STATE, checkpoints, listed_checkpoints
from estimator_tl.tuning.audit import Course, Finding, State, audit, state_of


def audit_run(saved: SavedRun, model_dir: str, source: Backbone) -> tuple[list[Finding], str]:
    """Audits the checkpoints that a run has kept.

    Returns:
      What became of each variable of the source, and what was compared, in words.

    Raises:
      UserError: the run has no checkpoint, or the source is not what it was.
    """
    digest = saved.record["backbone_digest"]
    if source.digest() != digest:
        raise UserError(
            f"{source.handle} is no longer what the run was made from (sha256 differs), so the run cannot be held "
            f"against it; put the old one ({digest}) back."
        )
    checkpoints = sorted((_state(path) for path in _paths(model_dir)), key=lambda state: state.step)
    if not checkpoints:
        raise UserError(f"{model_dir} holds no checkpoint yet; run `train` to its first one.")
    earlier = [Earlier.from_json(values) for values in saved.record.get("earlier", ())]
    plans = plans_of(source.structure, saved.spec.model, earlier)
    course = Course(list(zip(plans, [*(item.until for item in earlier), None])))
    start, what = state_of(0, _beginning(source, checkpoints[0])), "the source"
    if saved.record.get("warm_start"):
        what = saved.record["warm_start"]
        if not os.path.exists(f"{what}.index"):
            raise UserError(f"the run began from {what}, which is gone; put it back to audit the run.")
        start = State(0, _state(what).value)
    steps = sorted({state.step for state in checkpoints})
    listed = ", ".join(map(str, steps))
    return audit(course, start, checkpoints), f"{len(checkpoints)} checkpoints (steps {listed}) against {what}"


def _beginning(source: Backbone, first: State) -> dict[str, Any]:
    """Returns the source's values; where it has none for a variable, what the first checkpoint says it began with."""
    values = dict(source.values())
    unknown = [variable.name for variable in source.structure.variables if variable.name not in values]
    return {**values, **{name: first.value(name) for name in unknown}}


def damaged(model_dir: str) -> list[tuple[str, str]]:
    """Returns the checkpoints of a run that are not whole, the newest first: their names, and what is wrong."""
    listed = listed_checkpoints(model_dir)
    paths = reversed(dict.fromkeys([*checkpoints(model_dir), *(listed or ())]))
    faults = [(os.path.basename(path), damage(path)) for path in paths]
    if listed == []:
        faults.insert(0, (STATE, "it is not readable"))
    return [(name, fault) for name, fault in faults if fault]


def has_checkpoint(model_dir: str) -> bool:
    """True where there is something to audit."""
    return bool(_paths(model_dir))


def _paths(model_dir: str) -> list[str]:
    # By file: TensorFlow's own list is short of those that a run with keep_checkpoint_max=0 has kept.
    return [path for path in checkpoints(model_dir) if not damage(path)]


def _state(path: str) -> State:
    reader = tf.train.load_checkpoint(path)
    return State(int(reader.get_tensor("global_step")), reader.get_tensor)
