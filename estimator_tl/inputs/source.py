"""The interface of every labelled dataset: classes, splits, input_fns."""

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

registry = Registry("dataset")


class DataSource(abc.ABC):
    """A labelled dataset, listed and checked.

    Attributes:
      root: the folder or file.
      labels: class names in the order of their numbers.
      validation: share of the validation part.
      test: share of the test part.
      skipped: the examples that were left out because they cannot be read.
      what: what the examples are, in a word, e.g. ``images``.
    """

    what: ClassVar[str]
    root: str
    labels: tuple[str, ...]
    validation: float
    test: float
    skipped: tuple[str, ...]

    @abc.abstractmethod
    def rows(self) -> Sequence[tuple[str, str, int]]:
        """Returns (name, file or text, class number) for each example; the name decides which part it belongs to."""

    @abc.abstractmethod
    def digest(self) -> str:
        """Returns ``sha256:...`` of the dataset's listing."""

    def unreadable(self) -> list[str]:
        """Reads every example and returns the names of the unreadable ones."""
        return []

    def __len__(self) -> int:
        return len(self.rows())

    def examples(self, split: str = "all") -> pipeline.Examples:
        """Returns the examples of one part: train, validation, test or all.

        Raises:
          UserError: the part is unknown or empty.
        """
        check_known("split", split, PARTS)
        part = [
            (item, label)
            for name, item, label in self.rows()
            if split == "all" or part_of(name, self.validation, self.test) == split
        ]
        if not part:
            raise self._empty_part_error(split)
        return pipeline.Examples(tuple(item for item, _ in part), tuple(label for _, label in part))

    def _empty_part_error(self, split: str) -> UserError:
        if split == "all":
            return UserError(f"{self.root} holds no {self.what}; add some.")
        remedy = f"raise --{split}_fraction"
        if split == "train":
            remedy = "lower --validation_fraction"
        return UserError(
            f"the {split} part of {self.root} is empty ({len(self)} {self.what} in all); {remedy}, or add {self.what}."
        )

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
          seed: the seed of the shuffle.
          epochs: how often to repeat in training; None for no end.

        An Estimator passes its RunConfig to the input_fn. Training then begins at the step of the newest checkpoint,
        so a resumed run gets the same batches as a run that was never stopped. The tasks of a cluster share the
        batches.

        Raises:
          UserError: the backbone takes something else than this dataset holds.
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
            else:  # each worker of a parameter-server cluster makes its steps alone
                pipelines = max(getattr(config, "num_worker_replicas", 1), 1)
                number = getattr(config, "global_id_in_cluster", 0) or 0
                first = step
            return pipeline.training_dataset(examples, spec, batch_size, seed, epochs, first, shard=(pipelines, number))

        return input_fn
