"""The functions that the Trainer component of TFX calls, made from a model_fn. TFX itself is not needed here.

In the module file of the component::

    run_fn = etl.tfx.run_fn(model_fn, make_input_fn, receiver_fn)

TFX gives its function an object with the attributes train_files, eval_files (lists of file patterns), train_steps,
eval_steps (None for the whole set), serving_model_dir and model_run_dir (`tfx.components.FnArgs`); of the older
Trainer for Estimators, `trainer_fn`, those of `TrainerFnArgs`, which are named alike.
Sources: https://www.tensorflow.org/tfx/guide/trainer, https://www.tensorflow.org/tfx/api_docs/python/tfx/v1/components.
"""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.launch.cluster.run_config import run_config
from estimator_tl.launch.programs import train_and_evaluate

_NEEDED = ("train_files", "eval_files", "train_steps")  # eval_steps is None for the whole set
MakeInputFn = Callable[[list[str], bool], Callable[[], Any]]


def trainer_fn(
    model_fn: Callable[..., Any],
    make_input_fn: MakeInputFn,
    receiver_fn: Callable[[], Any],
    eval_input_receiver_fn: Callable[[], Any] | None = None,
    **config: Any,
) -> Callable[..., dict[str, Any]]:
    """Returns a ``trainer_fn(fn_args, schema)``, as TFX's Trainer for Estimators calls it.

    Args:
      model_fn: e.g. from `etl.make_model_fn`, with or without an argument params.
      make_input_fn: takes file patterns, and whether they are to be trained on; returns an input_fn.
      receiver_fn: a serving_input_receiver_fn for the final export, e.g. from `etl.export`.
      eval_input_receiver_fn: for TensorFlow Model Analysis, if it is used.
      **config: settings of `etl.run_config`.
    """

    def trainer(fn_args: Any, schema: Any = None) -> dict[str, Any]:
        del schema  # a pretrained source says what it takes in
        _check(fn_args)
        # Estimator warns of a model_fn that takes params and gets none, and refuses the reverse.
        options: dict[str, Any] = {"params": {}} if "params" in inspect.signature(model_fn).parameters else {}
        made = estimator.Estimator(model_fn, config=run_config(_model_dir(fn_args), **config), **options)
        exporter = estimator.FinalExporter("serving", receiver_fn)
        return {
            "estimator": made,
            "train_spec": estimator.TrainSpec(
                make_input_fn(list(fn_args.train_files), True), max_steps=int(fn_args.train_steps)
            ),
            "eval_spec": estimator.EvalSpec(
                make_input_fn(list(fn_args.eval_files), False), steps=fn_args.eval_steps, exporters=[exporter]
            ),
            "eval_input_receiver_fn": eval_input_receiver_fn,
        }

    return trainer


def run_fn(
    model_fn: Callable[..., Any], make_input_fn: MakeInputFn, receiver_fn: Callable[[], Any], **settings: Any
) -> Callable[[Any], None]:
    """Returns a ``run_fn(fn_args)``, as TFX's generic Trainer calls it: trains, evaluates, and writes the SavedModel.

    The export is at ``fn_args.serving_model_dir`` itself, where TFX looks for it, and there only when it is whole.

    Args:
      model_fn: e.g. from `etl.make_model_fn`.
      make_input_fn: takes file patterns, and whether they are to be trained on; returns an input_fn.
      receiver_fn: a serving_input_receiver_fn.
      **settings: of `etl.run_config`.
    """

    def run(fn_args: Any) -> None:
        made = trainer_fn(model_fn, make_input_fn, receiver_fn, **settings)(fn_args)
        spec = made["eval_spec"]
        spec = estimator.EvalSpec(spec.input_fn, steps=spec.steps)
        outcome = train_and_evaluate(made["estimator"], made["train_spec"], spec)
        if outcome.exit_code:
            raise SystemExit(outcome.exit_code)
        if made["estimator"].config.is_chief:
            _export(made["estimator"], receiver_fn, fn_args.serving_model_dir)

    return run


def _export(trained: Any, receiver_fn: Callable[[], Any], folder: str) -> None:
    parent = os.path.dirname(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as beside:
        version = tf.compat.as_str_any(trained.export_saved_model(beside, receiver_fn))
        if os.path.isdir(folder):
            shutil.rmtree(folder)
        os.rename(version, folder)


def _model_dir(fn_args: Any) -> str:
    """Returns where checkpoints go: beside the serving model, where TFX names no place of its own."""
    found = getattr(fn_args, "model_run_dir", None) or getattr(fn_args, "serving_model_dir", None)
    if not found:
        raise UserError("TFX's arguments have neither model_run_dir nor serving_model_dir; use TFX 0.22 or later.")
    return str(found) if getattr(fn_args, "model_run_dir", None) else os.path.join(os.path.dirname(found), "model_run")


def _check(fn_args: Any) -> None:
    missing = [name for name in _NEEDED if getattr(fn_args, name, None) is None]
    if missing:
        raise UserError(
            f"TFX's arguments have no {missing[0]}; give the Trainer examples, and train_args with num_steps above 0."
        )
