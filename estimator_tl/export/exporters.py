"""Makes the exporters that the settings of a run name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator_tl.compat import estimator
from estimator_tl.export.best import BestExporter
from estimator_tl.export.serving import receiver_fn_of
from estimator_tl.specs import InputSpec


def make_exporters(
    names: tuple[str, ...],
    spec: InputSpec,
    metric: str,
    higher_is_better: bool,
    keep: int = 5,
    assets_extra: Mapping[str, str] | None = None,
) -> list[Any]:
    """Returns exporters for evaluations: best, latest (after each evaluation) and final (at the end of training).

    Args:
      names: the exporters to make.
      spec: the input of the model, `backbone.input_spec`.
      metric: the metric that decides which model is the best.
      higher_is_better: whether higher values of the metric are better.
      keep: how many versions `best` and `latest` keep; older ones are removed.
      assets_extra: files to copy into each version, by their names under ``assets.extra``.
    """
    extra = dict(assets_extra or {})
    receiver = receiver_fn_of(spec)
    makers: dict[str, Any] = {
        "best": lambda: BestExporter(receiver, metric, higher_is_better, exports_to_keep=keep, assets_extra=extra),
        "final": lambda: estimator.FinalExporter("final", receiver, extra),
        "latest": lambda: estimator.LatestExporter("latest", receiver, extra, exports_to_keep=keep),
    }
    return [makers[name]() for name in names]
