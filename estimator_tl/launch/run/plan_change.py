"""Continues a run with another tuning policy or optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.config import ModelSpec
from estimator_tl.errors import UserError
from estimator_tl.launch.run.run_dir import SavedRun
from estimator_tl.registry import parse_call
from estimator_tl.structure import SourceStructure
from estimator_tl.tf_internals.files.checkpoint_state import latest_checkpoint
from estimator_tl.tf_internals.files.checkpoints import extend_checkpoint
from estimator_tl.tuning import VariablePlan, make_plan, registry

#: The settings of a model that may change during a run.
FIELDS = ("tuning", "optimizer", "batch_norm", "backbone_dropout")


@dataclasses.dataclass(frozen=True)
class Earlier:
    """Settings that a run had until a global step."""

    until: int
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, as run.json keeps them."""
        return {"until": self.until, **self.settings}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Earlier:
        """Returns what `to_json` described."""
        return cls(int(values["until"]), {name: values[name] for name in FIELDS})


def history(saved: SavedRun | None, model: ModelSpec, step: int) -> list[Earlier]:
    """Returns the earlier settings of a run, oldest first, without the settings of this call.

    Args:
      saved: the run in the model_dir, if any.
      model: the settings of this call.
      step: the global step at which this call begins.

    Raises:
      UserError: the change is not possible.
    """
    if saved is None or not step:
        return []
    earlier = [Earlier.from_json(values) for values in saved.record.get("earlier", ())]
    old, new = (dataclasses.asdict(m) for m in (saved.spec.model, model))
    if all(old[name] == new[name] for name in FIELDS):
        return earlier
    if new["batch_norm"] == "recalibrate" and old["batch_norm"] != "recalibrate":
        raise UserError(
            f"batch norm can be recalibrated before the first step only, and the run is at step {step}; keep "
            f"--batch_norm={old['batch_norm']}, or start another run with --warm_start_from."
        )
    return [*earlier, Earlier(step, {name: old[name] for name in FIELDS})]


def plan_of(structure: SourceStructure, model: ModelSpec, earlier: Sequence[Earlier] = ()) -> VariablePlan:
    """Returns the plan of a run, with what its earlier settings trained.

    Args:
      structure: the structure of the backbone.
      model: the settings of this call.
      earlier: the earlier settings, from `history`.
    """
    optimizers = [*(item.settings["optimizer"] for item in earlier), model.optimizer]
    plan, *later = plans_of(structure, model, earlier)
    for index, next_plan in enumerate(later):
        same = parse_call(optimizers[index]).name == parse_call(optimizers[index + 1]).name
        plan = next_plan.after(earlier[index].until, plan, keeps_slots=same)
    return plan


def plans_of(structure: SourceStructure, model: ModelSpec, earlier: Sequence[Earlier]) -> list[VariablePlan]:
    """Returns the plan for each settings of a run, oldest first, each as if the run had always had it."""
    models = [*(dataclasses.replace(model, **item.settings) for item in earlier), model]
    return [_plan(structure, item) for item in models]


def _plan(structure: SourceStructure, model: ModelSpec) -> VariablePlan:
    return make_plan(structure, registry.make(model.tuning), model.batch_norm, model.backbone_dropout)


def adopt_checkpoint(model_fn: Callable[..., Any], input_fn: Callable[[], Any], model_dir: str) -> list[str]:
    """Adds the slot variables that a changed plan needs to the newest checkpoint, with initial values.

    Args:
      model_fn: the model_fn of the changed plan.
      input_fn: the input_fn of the run; only its shapes matter.
      model_dir: the run directory.

    Returns:
      The names of the new slot variables; empty if none were missing and nothing was written.
    """
    in_checkpoint = tf.train.load_checkpoint(latest_checkpoint(model_dir)).get_variable_to_shape_map()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.get_or_create_global_step()
        features, labels = tf.compat.v1.data.make_initializable_iterator(input_fn()).get_next()
        model_fn(features, labels, "train", {}, None)
        missing = {v.op.name: v for v in tf.compat.v1.global_variables() if v.op.name not in in_checkpoint}
        session.run([variable.initializer for variable in missing.values()])
        values = session.run(missing)
    if values:
        extend_checkpoint(model_dir, values)
    return sorted(values)
