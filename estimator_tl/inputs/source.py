"""What every labelled data set offers to the launcher: classes, parts, input_fns."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from estimator_tl.errors import UserError, check_known
from estimator_tl.inputs import pipeline
from estimator_tl.inputs.splits import PARTS, part_of
from estimator_tl.registry import Registry
from estimator_tl.specs import InputSpec

registry = Registry("data source")


class DataSource(abc.ABC):
    """A labelled data set, listed and checked.

    Attributes:
      root: the folder or file.
      labels: class names in the order of their numbers.
      validation: share of the validation part.
      test: share of the test part.
      skipped: what was left out because it cannot be read.
      what: its examples in words.
    """

    what: ClassVar[str]
    root: str
    labels: tuple[str, ...]
    validation: float
    test: float
    skipped: tuple[str, ...]

    @abc.abstractmethod
    def rows(self) -> Sequence[tuple[str, str, int]]:
        """Returns for each example its name, by which it is put into a part, its file or text, and its class."""

    @abc.abstractmethod
    def digest(self) -> str:
        """Returns ``sha256:...`` of what the data set lists."""

    def unreadable(self) -> list[str]:
        """Looks at every example and returns the names of those that cannot be read."""
        return []

    def __len__(self) -> int:
        return len(self.rows())

    def examples(self, split: str = "all") -> pipeline.Examples:
        """Returns the examples of one part: train, validation, test or all.

        Raises:
          UserError: the part is unknown or empty.
        """
        check_known("split", split, PARTS)
        chosen = [
            (item, label)
            for name, item, label in self.rows()
            if split == "all" or part_of(name, self.validation, self.test) == split
        ]
        if not chosen:
            if split == "all":
                raise UserError(f"{self.root} holds no {self.what}; add some.")
            remedy = "lower --validation_fraction" if split == "train" else f"raise --{split}_fraction"
            raise UserError(
                f"the {split} part of {self.root} is empty ({len(self)} {self.what} in all); "
                f"{remedy}, or add {self.what}."
            )
        return pipeline.Examples(tuple(item for item, _ in chosen), tuple(label for _, label in chosen))

    def input_fn(
        self,
        spec: InputSpec,
        batch_size: int,
        split: str = "all",
        training: bool = False,
        seed: int = 0,
        epochs: int | None = None,
    ) -> Callable[..., Any]:
        """Returns an input_fn that gives (features, int64 labels [batch]).

        Features are {'image': float32 [batch, height, width, channels]} or {'text': string [batch]}.

        Args:
          spec: `backbone.input_spec`.
          batch_size: examples in a batch.
          split: train, validation, test or all.
          training: shuffle and repeat; otherwise once, in order.
          seed: of the shuffle.
          epochs: how often to repeat in training; None for ever.

        Under an Estimator, which gives it its RunConfig, training begins with the batch of the newest checkpoint's
        step: a run that goes on sees what it would have seen. The tasks of a cluster share the batches among them.

        Raises:
          UserError: the source takes something else.
        """
        if spec.what != self.what:
            raise UserError(
                f"{self.root} holds {self.what}, but the backbone takes {spec.what}; choose another of them."
            )
        examples = self.examples(split)
        if not training:
            return functools.partial(pipeline.evaluation_dataset, examples, spec, batch_size)

        def input_fn(config: Any = None, input_context: Any = None) -> Any:
            step = pipeline.latest_step(getattr(config, "model_dir", None))
            if input_context is not None:
                pipelines, number = input_context.num_input_pipelines, input_context.input_pipeline_id
                first = step * input_context.num_replicas_in_sync
            else:  # each worker of a cluster with parameter servers makes steps of its own
                pipelines = max(getattr(config, "num_worker_replicas", 1), 1)
                number = getattr(config, "global_id_in_cluster", 0) or 0
                first = step
            return pipeline.training_dataset(examples, spec, batch_size, seed, epochs, first, shard=(pipelines, number))

        return input_fn
