"""The data of a run: what it trains on, and what it is evaluated on."""

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
    """The data of a run, listed and checked.

    Attributes:
      train: holds the examples of training.
      train_count: how many these are.
      evaluated: holds the examples of evaluation; None without evaluation.
      part: the part of `evaluated` that is evaluated.
    """

    train: DataSource
    train_count: int
    evaluated: DataSource | None
    part: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in order."""
        return self.train.labels

    @property
    def sources(self) -> list[DataSource]:
        """All data sets that the run reads."""
        return [self.train, *([self.evaluated] if self.evaluated else [])]

    def evaluation_input(self, spec: InputSpec, batch_size: int) -> Callable[..., Any] | None:
        """Returns the input_fn of evaluation; None without evaluation.

        Raises:
          UserError: there is no example to evaluate on, or the backbone takes something else.
        """
        return self.evaluated.input_fn(spec, batch_size, self.part) if self.evaluated else None


def open_data(spec: RunSpec, model_dir: str, begun: run_dir.SavedRun | None) -> RunData:
    """Opens the data that the settings name.

    Args:
      spec: the settings.
      model_dir: the run directory.
      begun: the run that goes on in it; None for a new one.

    Raises:
      UserError: the data are not in order, or do not fit the run or its head.
    """
    train = session.training_data(spec.data, begun.labels if begun else None)
    if begun:
        _check_no_class_is_gone(train, model_dir)
    examples = train.examples("train")
    _check_classes(train, examples.labels)
    evaluated, part = _evaluation_data(spec, train)
    _check_metric(spec, train.labels)
    return RunData(train, len(examples), evaluated, part)


def _evaluation_data(spec: RunSpec, data: DataSource) -> tuple[DataSource | None, str]:
    """Returns the data and its part to evaluate on; None for the data where the settings name none."""
    if spec.data.eval_data:
        return session.other_data(spec.data.eval_data, data.labels, spec.data.on_bad_example, spec.data.rules), "all"
    if not spec.data.validation_fraction:
        _check_nothing_to_decide(spec)
        return None, ""
    return data, "validation"


def _check_nothing_to_decide(spec: RunSpec) -> None:
    rules = spec.evaluation
    asked = {
        "early_stopping_steps": rules.early_stopping_steps,
        "stop_at": rules.stop_at,
        "exporters": rules.exporters,
        "eval_every_steps": rules.eval_every_steps,
        "eval_every_secs": rules.eval_every_secs,
    }
    for name, value in asked.items():
        if value not in (None, ()):
            raise UserError(
                f"{name} follows from evaluations, but there is nothing to evaluate on; give --eval_data, or a "
                "--validation_fraction above 0."
            )


def _check_metric(spec: RunSpec, labels: tuple[str, ...]) -> None:
    rules = spec.evaluation
    decides = rules.early_stopping_steps is not None or rules.stop_at is not None or "best" in rules.exporters
    head = heads.registry.make(spec.model.head).with_labels(labels)
    known = getattr(head, "metric_names", None)  # a head of somebody else may not say
    if decides and known and rules.metric not in known:
        raise UserError(f"no evaluation of this head has a metric {rules.metric!r}; {nearest(rules.metric, known)}")


def _check_classes(data: DataSource, labels: Sequence[int]) -> None:
    present = set(labels)
    for index, name in enumerate(data.labels):
        if index not in present:
            raise UserError(
                f"class {name!r} in {data.root} has no {data.what} left for training after the split; "
                f"add {data.what}, or lower --validation_fraction and --test_fraction."
            )


def _check_no_class_is_gone(data: DataSource, model_dir: str) -> None:
    """Refuses data that lack a class which a run has begun with; its examples would count as none of the others."""
    gone = missing_classes(data)
    if gone:
        more = and_more(len(gone) - 1, "nor")
        raise UserError(
            f"{data.root} has no class {gone[0]!r}{more}, which the run in {model_dir} began with; put it back, or use "
            "another --model_dir."
        )


def missing_classes(data: DataSource) -> list[str]:
    """Returns the classes of a run that its data have no example of."""
    present = {label for _, _, label in data.rows()}
    return [name for number, name in enumerate(data.labels) if number not in present]
