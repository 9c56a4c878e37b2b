"""Going on with a run under another policy or optimizer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from estimator_tl.backbones.initial_values import assign
from estimator_tl.compat import tf
from estimator_tl.config import ModelSpec
from estimator_tl.errors import UserError
from estimator_tl.launch.run_dir import SavedRun, write_whole
from estimator_tl.registry import parse_call
from estimator_tl.structure import SourceStructure
from estimator_tl.tuning import VariablePlan, make_plan, registry

#: The settings of a model that a run may change on its way.
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
    """Returns the settings that a run had before those of this call, oldest first.

    Args:
      saved: the run in the model_dir, if there is one.
      model: the settings of this call.
      step: the global step at which it begins.

    Raises:
      UserError: the change is not possible.
    """
    if saved is None or not step:
        return []
    found = [Earlier.from_json(values) for values in saved.record.get("earlier", ())]
    old, new = (dataclasses.asdict(m) for m in (saved.spec.model, model))
    if all(old[name] == new[name] for name in FIELDS):
        return found
    if new["batch_norm"] == "recalibrate" and old["batch_norm"] != "recalibrate":
        raise UserError(
            f"batch norm can be recalibrated before the first step only, and the run is at step {step}; keep "
            f"--batch_norm={old['batch_norm']}, or start another run with --warm_start_from."
        )
    return [*found, Earlier(step, {name: old[name] for name in FIELDS})]


def plan_of(structure: SourceStructure, model: ModelSpec, earlier: Sequence[Earlier] = ()) -> VariablePlan:
    """Returns the plan of a run that had other settings before.

    Args:
      structure: the source.
      model: its settings now.
      earlier: from `history`.
    """
    plans = [_plan(structure, dataclasses.replace(model, **item.settings)) for item in earlier]
    optimizers = [*(item.settings["optimizer"] for item in earlier), model.optimizer]
    found: VariablePlan | None = None
    for index, plan in enumerate([*plans, _plan(structure, model)]):
        if found is None:
            found = plan
            continue
        same = parse_call(optimizers[index - 1]).name == parse_call(optimizers[index]).name
        found = plan.after(earlier[index - 1].until, found, keeps_slots=same)
    assert found is not None
    return found


def _plan(structure: SourceStructure, model: ModelSpec) -> VariablePlan:
    return make_plan(structure, registry.make(model.tuning), model.batch_norm, model.backbone_dropout)


def adopt_checkpoint(model_fn: Callable[..., Any], input_fn: Callable[[], Any], model_dir: str) -> list[str]:
    """Gives the newest checkpoint of a run the slots that a changed plan needs, empty.

    A checkpoint of the same step is written beside it, and becomes the newest.

    Args:
      model_fn: of the changed plan.
      input_fn: of the run; only its shapes are used.
      model_dir: the run.

    Returns:
      The names of the new slot variables; empty where none were missing and nothing was written.
    """
    path = tf.train.latest_checkpoint(model_dir)
    reader = tf.train.load_checkpoint(path)
    known = reader.get_variable_to_shape_map()
    step = int(reader.get_tensor("global_step"))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.get_or_create_global_step()
        features, labels = tf.compat.v1.data.make_initializable_iterator(input_fn()).get_next()
        model_fn(features, labels, "train", {}, None)
        variables = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
        missing = sorted(set(variables) - set(known))
        if missing:
            session.run(tf.compat.v1.global_variables_initializer())
            assign(session, variables, {name: reader.get_tensor(name) for name in variables if name in known})
            saver = tf.compat.v1.train.Saver(save_relative_paths=True)
            made = saver.save(session, os.path.join(model_dir, "changed.ckpt"), global_step=step, write_state=False)
            _make_newest(model_dir, os.path.basename(made))
    return missing


def _make_newest(model_dir: str, checkpoint: str) -> None:
    known = tf.train.get_checkpoint_state(model_dir).all_model_checkpoint_paths
    paths = [os.path.relpath(path, model_dir) for path in known]
    state = tf.compat.v1.train.generate_checkpoint_state_proto(
        model_dir, checkpoint, [*(path for path in paths if path != checkpoint), checkpoint]
    )
    write_whole(Path(model_dir, "checkpoint"), str(state))
