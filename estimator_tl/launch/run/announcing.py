"""Prints what a run begins with."""

from __future__ import annotations

import sys
from collections.abc import Callable

from estimator_tl.backbones import Backbone
from estimator_tl.inputs import DataSource
from estimator_tl.model.warm_start import WarmStart


def print_data(data: DataSource, model_dir: str, start_step: int, total: int, start: WarmStart | None) -> None:
    """Prints which examples are skipped, where a warm start begins, and whether training is already done."""
    if data.skipped:
        print(f"skipped {len(data.skipped)} unreadable {data.what}: {', '.join(data.skipped[:5])}", file=sys.stderr)
    if start:
        parts = "backbone and head" if start.head else "backbone; the head is new"
        print(f"warm start from {start.checkpoint}: {parts}", file=sys.stderr)
    if start_step >= total:
        print(
            f"{model_dir} is already at step {start_step} of {total}; raise --train_steps or --epochs to go on.",
            file=sys.stderr,
        )


def print_range(backbone: Backbone) -> None:
    """Prints the range of image values, if the backbone rescales images itself."""
    if backbone.finding is not None and backbone.finding.text:
        values = backbone.image_spec.range_text
        print(f"images have values {values}; the backbone itself does {backbone.finding.text}", file=sys.stderr)


def plan_printer() -> Callable[[str], None]:
    """Returns a function that prints the plan of the first graph, and for later graphs only the line of the phase."""
    printed: list[str] = []

    def show(text: str) -> None:
        print(text.splitlines()[-1] if printed else text, flush=True)
        printed.append(text)

    return show


def print_nothing(text: str) -> None:
    """Prints no plan, for the tasks of a cluster that do not lead."""
    del text


def print_length(examples: int, batch_size: int, start_step: int, total: int) -> None:
    """Prints the number of examples and the steps of an epoch, from which users set the steps of phases."""
    steps = f"{examples / batch_size:.4g}"
    print(f"{examples} examples to train on, {steps} steps an epoch; from step {start_step} to {total}")
