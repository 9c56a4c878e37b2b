"""Audits a run directory: compares its checkpoints with the backbone and the plans."""

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


def audit_run(saved: SavedRun, model_dir: str, backbone: Backbone) -> tuple[list[Finding], str]:
    """Audits the checkpoints of a run.

    Returns:
      A finding for each variable of the backbone, and a text that names the compared checkpoints.

    Raises:
      UserError: the run has no checkpoint, or the backbone has changed since the run began.
    """
    digest = saved.record["backbone_digest"]
    if backbone.digest() != digest:
        raise UserError(
            f"{backbone.handle} has changed since the run began (sha256 differs), so the run cannot be compared with "
            f"it; put the old one ({digest}) back."
        )
    checkpoints = sorted((_state(path) for path in _paths(model_dir)), key=lambda state: state.step)
    if not checkpoints:
        raise UserError(f"{model_dir} holds no checkpoint yet; run `train` to its first one.")
    earlier = [Earlier.from_json(values) for values in saved.record.get("earlier", ())]
    plans = plans_of(backbone.structure, saved.spec.model, earlier)
    course = Course(list(zip(plans, [*(item.until for item in earlier), None])))
    start, origin = state_of(0, _initial_values(backbone, checkpoints[0])), "the source"
    if saved.record.get("warm_start"):
        origin = saved.record["warm_start"]
        if not os.path.exists(f"{origin}.index"):
            raise UserError(f"{origin}, from which the run began, is missing; put it back to audit the run.")
        start = State(0, _state(origin).value)
    steps = ", ".join(map(str, sorted({state.step for state in checkpoints})))
    return audit(course, start, checkpoints), f"{len(checkpoints)} checkpoints (steps {steps}) against {origin}"


def _initial_values(backbone: Backbone, first: State) -> dict[str, Any]:
    """Returns the initial value of each variable: from the backbone, or else from the first checkpoint."""
    values = dict(backbone.values())
    missing = [variable.name for variable in backbone.structure.variables if variable.name not in values]
    return {**values, **{name: first.value(name) for name in missing}}


def damaged(model_dir: str) -> list[tuple[str, str]]:
    """Returns the names of the damaged checkpoints of a run with their faults, the newest first."""
    from_state_file = listed_checkpoints(model_dir)
    paths = reversed(dict.fromkeys([*checkpoints(model_dir), *(from_state_file or ())]))
    faults = [(os.path.basename(path), damage(path)) for path in paths]
    if from_state_file == []:
        faults.insert(0, (STATE, "it is not readable"))
    return [(name, fault) for name, fault in faults if fault]


def has_checkpoint(model_dir: str) -> bool:
    """True if the run has a whole checkpoint, so that an audit is possible."""
    return bool(_paths(model_dir))


def _paths(model_dir: str) -> list[str]:
    # From the files: with keep_checkpoint_max=0 TensorFlow's list lacks older checkpoints.
    return [path for path in checkpoints(model_dir) if not damage(path)]


def _state(path: str) -> State:
    reader = tf.train.load_checkpoint(path)
    return State(int(reader.get_tensor("global_step")), reader.get_tensor)
