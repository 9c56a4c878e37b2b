"""Functions for the Trainer component of TFX, made from a model_fn. TFX itself is not needed here.

In the module file of the component::

    run_fn = etl.tfx.run_fn(model_fn, make_input_fn, receiver_fn)

TFX passes an object with the attributes train_files, eval_files (lists of file patterns), train_steps, eval_steps
(None for the whole set), serving_model_dir and model_run_dir (`tfx.components.FnArgs`). The older Trainer for
Estimators calls `trainer_fn` with `TrainerFnArgs`, which has the same names.
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
from estimator_tl.types import Estimator

_NEEDED = ("train_files", "eval_files", "train_steps")  # eval_steps is None for the whole set
MakeInputFn = Callable[[list[str], bool], Callable[[], Any]]


def trainer_fn(
    model_fn: Callable[..., Any],
    make_input_fn: MakeInputFn,
    receiver_fn: Callable[[], Any],
    eval_input_receiver_fn: Callable[[], Any] | None = None,
    **config: Any,
) -> Callable[..., dict[str, Any]]:
    """Returns a ``trainer_fn(fn_args, schema)`` for TFX's Trainer for Estimators.

    Args:
      model_fn: the model_fn, e.g. from `etl.make_model_fn`, with or without an argument params.
      make_input_fn: takes file patterns and whether the input_fn is for training; returns an input_fn.
      receiver_fn: a serving_input_receiver_fn for the final export, e.g. from `etl.export`.
      eval_input_receiver_fn: for TensorFlow Model Analysis, if it is used.
      **config: settings of `etl.run_config`.
    """

    def trainer(fn_args: Any, schema: Any = None) -> dict[str, Any]:
        del schema  # the backbone defines its input
        _check(fn_args)
        # Estimator warns if the model_fn takes params and gets none, and refuses params that it does not take.
        options: dict[str, Any] = {}
        if "params" in inspect.signature(model_fn).parameters:
            options["params"] = {}
        model = estimator.Estimator(model_fn, config=run_config(_model_dir(fn_args), **config), **options)
        exporter = estimator.FinalExporter("serving", receiver_fn)
        return {
            "estimator": model,
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
    """Returns a ``run_fn(fn_args)`` for TFX's generic Trainer: it trains, evaluates, and writes the SavedModel.

    The SavedModel appears atomically in ``fn_args.serving_model_dir`` itself, where TFX reads it.

    Args:
      model_fn: the model_fn, e.g. from `etl.make_model_fn`.
      make_input_fn: takes file patterns and whether the input_fn is for training; returns an input_fn.
      receiver_fn: a serving_input_receiver_fn.
      **settings: settings of `etl.run_config`.
    """

    def run(fn_args: Any) -> None:
        parts = trainer_fn(model_fn, make_input_fn, receiver_fn, **settings)(fn_args)
        spec = parts["eval_spec"]
        spec = estimator.EvalSpec(spec.input_fn, steps=spec.steps)
        outcome = train_and_evaluate(parts["estimator"], parts["train_spec"], spec)
        if outcome.exit_code:
            raise SystemExit(outcome.exit_code)
        if parts["estimator"].config.is_chief:
            _export(parts["estimator"], receiver_fn, fn_args.serving_model_dir)

    return run


def _export(model: Estimator, receiver_fn: Callable[[], Any], folder: str) -> None:
    parent = os.path.dirname(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        version = tf.compat.as_str_any(model.export_saved_model(temporary, receiver_fn))
        if os.path.isdir(folder):
            shutil.rmtree(folder)
        os.rename(version, folder)


def _model_dir(fn_args: Any) -> str:
    """Returns the folder of the checkpoints; next to the serving model if TFX names no folder."""
    run_dir = getattr(fn_args, "model_run_dir", None)
    if run_dir:
        return str(run_dir)
    serving_dir = getattr(fn_args, "serving_model_dir", None)
    if not serving_dir:
        raise UserError("TFX's arguments have neither model_run_dir nor serving_model_dir; use TFX 0.22 or later.")
    return os.path.join(os.path.dirname(serving_dir), "model_run")


def _check(fn_args: Any) -> None:
    missing = [name for name in _NEEDED if getattr(fn_args, name, None) is None]
    if missing:
        raise UserError(
            f"TFX's arguments have no {missing[0]}; give the Trainer examples, and train_args with num_steps above 0."
        )
