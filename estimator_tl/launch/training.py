"""The command ``train``: from a RunSpec to a trained and evaluated run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import estimator_tl
from estimator_tl.compat import estimator, tf
from estimator_tl.compat.versions import installed_versions
from estimator_tl.config import RunSpec
from estimator_tl.errors import UserError
from estimator_tl.inputs import ImageFolder
from estimator_tl.inputs.image_folder import bad_example_error
from estimator_tl.launch import run_dir, session
from estimator_tl.launch.progress import EvaluationReport, ProgressHook

_EVALUATIONS = 10


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call of `train` did.

    Attributes:
      metrics: of the last evaluation; empty where there is no evaluation data.
      global_step: the step reached.
      steps: how many of them this call made.
      seconds: what they took, with evaluations.
    """

    metrics: dict[str, float]
    global_step: int
    steps: int
    seconds: float


def train(spec: RunSpec, model_dir: str, flags_text: str = "", hooks: Sequence[Any] = ()) -> Outcome:
    """Trains a run, or continues it, and evaluates it.

    Everything that can be wrong with the settings is found before the first
    file is written.

    Args:
      spec: the settings.
      model_dir: the run directory.
      flags_text: the flags that made `spec`, kept as flags.txt.
      hooks: further SessionRunHooks for training.

    Raises:
      UserError: something is wrong with the settings, the data or the source.
    """
    data = session.training_data(spec.data)
    examples = data.examples("train")
    _check_classes(data, examples.labels)
    evaluation = _evaluation_data(spec, data)
    source = session.open_backbone(spec.model)
    total = spec.training.total_steps(len(examples))
    function = session.build_model_fn(spec, source, data.labels, total, show_plan=print)
    digest = source.digest()
    run_dir.check_continuable(model_dir, spec.model, data.labels, digest)
    run_dir.check_writable(model_dir)
    before = _global_step(model_dir)
    _tell(data, model_dir, before, total)
    record = _record(spec, data, digest, max(total, before))
    run_dir.write(model_dir, record, data.labels, flags_text)

    if spec.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    config = session.run_config(model_dir, spec.training, _checkpoint_steps(spec, total, len(examples)))
    model = estimator.Estimator(function, model_dir, config, params={})
    batch = spec.training.batch_size
    train_input = data.input_fn(
        source.image_spec, batch, "train", training=True, seed=spec.training.seed, first_step=before
    )
    eval_input = evaluation and evaluation[0].input_fn(source.image_spec, batch, evaluation[1])
    started = time.monotonic()
    with _naming_bad_examples([data, *([evaluation[0]] if evaluation else [])]):
        metrics = _run(model, train_input, eval_input, max(total, before), [ProgressHook(total, batch), *hooks])
    reached = _global_step(model_dir)
    outcome = Outcome(metrics, reached, reached - before, time.monotonic() - started)
    record["result"] = dataclasses.asdict(outcome)
    run_dir.write_record(model_dir, record)
    return outcome


def _tell(data: ImageFolder, model_dir: str, before: int, total: int) -> None:
    if data.skipped:
        print(f"skipped {len(data.skipped)} unreadable pictures: {', '.join(data.skipped[:5])}", file=sys.stderr)
    if before >= total:
        print(
            f"{model_dir} is already at step {before} of {total}; raise --train_steps or --epochs to go on.",
            file=sys.stderr,
        )


def _run(model: Any, train_input: Any, eval_input: Any, total: int, hooks: Sequence[Any]) -> dict[str, float]:
    if eval_input is None:
        model.train(train_input, max_steps=total, hooks=list(hooks))
        return {}
    train_spec = estimator.TrainSpec(train_input, max_steps=total, hooks=list(hooks))
    eval_spec = estimator.EvalSpec(
        eval_input, steps=None, start_delay_secs=0, throttle_secs=0, exporters=[EvaluationReport()]
    )
    result, _ = estimator.train_and_evaluate(model, train_spec, eval_spec)
    if result is None:  # nothing was left to train
        result = model.evaluate(eval_input)
    return {name: float(value) for name, value in result.items()}


def _evaluation_data(spec: RunSpec, data: ImageFolder) -> tuple[ImageFolder, str] | None:
    """Returns the folder and its part to evaluate on; None where the settings name none."""
    if spec.data.eval_data:
        return session.other_data(spec.data.eval_data, data.labels, spec.data.on_bad_example), "all"
    if not spec.data.validation_fraction:
        return None
    data.examples("validation")  # raises where the part is empty
    return data, "validation"


def _check_classes(data: ImageFolder, labels: Sequence[int]) -> None:
    present = set(labels)
    for index, name in enumerate(data.labels):
        if index not in present:
            raise UserError(
                f"class {name!r} in {data.root} has no picture left for training after the split; "
                "add pictures, or lower --validation_fraction and --test_fraction."
            )


def _checkpoint_steps(spec: RunSpec, total: int, examples: int) -> int:
    """By default a checkpoint, and so an evaluation, once an epoch but at most ten times a run."""
    epoch = math.ceil(examples / spec.training.batch_size)
    return spec.training.save_checkpoints_steps or max(epoch, math.ceil(total / _EVALUATIONS))


def _global_step(model_dir: str) -> int:
    checkpoint = tf.train.latest_checkpoint(model_dir) if os.path.isdir(model_dir) else None
    return int(tf.train.load_variable(checkpoint, "global_step")) if checkpoint else 0


def _record(spec: RunSpec, data: ImageFolder, backbone_digest: str, total: int) -> dict[str, Any]:
    return {
        "estimator_tl": estimator_tl.__version__,
        "versions": installed_versions(),
        "settings": spec.to_json(),
        "labels": list(data.labels),
        "total_steps": total,
        "backbone_digest": backbone_digest,
        "data_digest": data.digest(),
        "pictures": len(data.files),
        "skipped": list(data.skipped),
    }


@contextlib.contextmanager
def _naming_bad_examples(folders: Sequence[ImageFolder]) -> Iterator[None]:
    """Turns the pipeline's decoding error, which does not know the file, into one that names it."""
    try:
        yield
    except tf.errors.InvalidArgumentError:
        for folder in folders:
            bad = folder.unreadable()
            if bad:
                raise bad_example_error(folder.root, bad) from None
        raise
