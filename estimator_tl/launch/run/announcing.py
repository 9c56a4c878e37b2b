"""What a run says when it begins."""

from __future__ import annotations

import sys
from collections.abc import Callable

from estimator_tl.backbones import Backbone
from estimator_tl.inputs import DataSource
from estimator_tl.model.warm_start import WarmStart


def tell_data(data: DataSource, model_dir: str, before: int, total: int, start: WarmStart | None) -> None:
    """Says which examples are left out, where values come from, and that nothing is left to train."""
    if data.skipped:
        print(f"skipped {len(data.skipped)} unreadable {data.what}: {', '.join(data.skipped[:5])}", file=sys.stderr)
    if start:
        what = "backbone and head" if start.head else "backbone; the head is new"
        print(f"warm start from {start.checkpoint}: {what}", file=sys.stderr)
    if before >= total:
        print(
            f"{model_dir} is already at step {before} of {total}; raise --train_steps or --epochs to go on.",
            file=sys.stderr,
        )


def tell_range(source: Backbone) -> None:
    """Says which values images have, where the source itself rescales them."""
    if source.finding is not None and source.finding.text:
        values = source.image_spec.range_text
        print(f"images have values {values}; the backbone itself does {source.finding.text}", file=sys.stderr)


def shows_plan_once() -> Callable[[str], None]:
    """Returns what prints the plan for the first graph of a call, and its last line, the phase, for further ones."""
    shown: list[str] = []

    def show(text: str) -> None:
        print(text.splitlines()[-1] if shown else text, flush=True)
        shown.append(text)

    return show


def shows_nothing(text: str) -> None:
    """Takes a plan and prints nothing, in tasks that nobody looks at."""
    del text


def tell_length(examples: int, batch_size: int, before: int, total: int) -> None:
    """Says how long an epoch is, which phases are counted in steps of."""
    steps = f"{examples / batch_size:.4g}"
    print(f"{examples} examples to train on, {steps} steps an epoch; from step {before} to {total}")
