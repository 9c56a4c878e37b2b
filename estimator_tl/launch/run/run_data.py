"""The data of a run: for training and for evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from estimator_tl import heads
from estimator_tl.config import RunSpec
from estimator_tl.errors import UserError, and_more, nearest
from estimator_tl.inputs import DataSource
from estimator_tl.launch.run import run_dir, session
from estimator_tl.specs import InputSpec


@dataclasses.dataclass(frozen=True)
class RunData:
    """The data of a run, opened and checked.

    Attributes:
      train: the dataset with the training examples.
      train_count: the number of training examples.
      evaluation: the dataset with the evaluation examples; None without evaluation.
      part: the part of `evaluation` to evaluate on.
    """

    train: DataSource
    train_count: int
    evaluation: DataSource | None
    part: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in order."""
        return self.train.labels

    @property
    def datasets(self) -> list[DataSource]:
        """All datasets that the run reads."""
        return [dataset for dataset in (self.train, self.evaluation) if dataset is not None]

    def evaluation_input(self, spec: InputSpec, batch_size: int) -> Callable[..., Any] | None:
        """Returns the input_fn of evaluation; None without evaluation.

        Raises:
          UserError: there is no example to evaluate on, or the backbone takes another kind of input.
        """
        return self.evaluation.input_fn(spec, batch_size, self.part) if self.evaluation is not None else None


def open_data(spec: RunSpec, model_dir: str, saved: run_dir.SavedRun | None) -> RunData:
    """Opens the data of the settings.

    Args:
      spec: the settings.
      model_dir: the run directory.
      saved: the run in that directory; None for a new run.

    Raises:
      UserError: the data are invalid, or do not fit the run or its head.
    """
    train = session.training_data(spec.data, saved.labels if saved else None)
    if saved:
        _check_no_class_is_missing(train, model_dir)
    examples = train.examples("train")
    _check_classes(train, examples.labels)
    evaluation, part = _evaluation_data(spec, train)
    _check_metric(spec, train.labels)
    return RunData(train, len(examples), evaluation, part)


def _evaluation_data(spec: RunSpec, data: DataSource) -> tuple[DataSource | None, str]:
    """Returns the dataset and its part to evaluate on; None and an empty text without evaluation."""
    if spec.data.eval_data:
        return session.other_data(spec.data.eval_data, data.labels, spec.data.on_bad_example, spec.data.rules), "all"
    if not spec.data.validation_fraction:
        _check_no_rule_needs_evaluation(spec)
        return None, ""
    return data, "validation"


def _check_no_rule_needs_evaluation(spec: RunSpec) -> None:
    rules = spec.evaluation
    settings = {
        "early_stopping_steps": rules.early_stopping_steps,
        "stop_at": rules.stop_at,
        "exporters": rules.exporters,
        "eval_every_steps": rules.eval_every_steps,
        "eval_every_secs": rules.eval_every_secs,
    }
    for name, value in settings.items():
        if value not in (None, ()):
            raise UserError(
                f"{name} needs evaluations, but there is nothing to evaluate on; give --eval_data, or a "
                "--validation_fraction above 0."
            )


def _check_metric(spec: RunSpec, labels: tuple[str, ...]) -> None:
    rules = spec.evaluation
    decides = rules.early_stopping_steps is not None or rules.stop_at is not None or "best" in rules.exporters
    head = heads.registry.make(spec.model.head).with_labels(labels)
    names = getattr(head, "metric_names", None)  # a head of another package may lack it
    if decides and names and rules.metric not in names:
        raise UserError(f"this head has no metric {rules.metric!r}; {nearest(rules.metric, names)}")


def _check_classes(data: DataSource, labels: Sequence[int]) -> None:
    present = set(labels)
    for index, name in enumerate(data.labels):
        if index not in present:
            raise UserError(
                f"class {name!r} in {data.root} has no {data.what} left for training after the split; "
                f"add {data.what}, or lower --validation_fraction and --test_fraction."
            )


def _check_no_class_is_missing(data: DataSource, model_dir: str) -> None:
    """Refuses data that lack a class of the run.

    Raises:
      UserError: a class has no example.
    """
    missing = missing_classes(data)
    if missing:
        more = and_more(len(missing) - 1, "nor")
        raise UserError(
            f"{data.root} has no class {missing[0]!r}{more}, which the run in {model_dir} began with; put it back, or "
            "use another --model_dir."
        )


def missing_classes(data: DataSource) -> list[str]:
    """Returns the classes of a run without an example in its data."""
    present = {label for _, _, label in data.rows()}
    return [name for number, name in enumerate(data.labels) if number not in present]
