"""Keeps the best model of a run as a SavedModel during training."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError, nearest
from estimator_tl.files import write_whole
from estimator_tl.metric_names import lower_is_better
from estimator_tl.types import Estimator

_BEST = "best.json"


class BestExporter(estimator.Exporter):  # type: ignore[misc,name-defined]
    """Exports each checkpoint with a better evaluation than all before it, for `EvalSpec.exporters`.

    The exporter of the Estimator API compares losses by default. It forgets earlier evaluations at a restart, so a
    worse model can replace a better one. This exporter stores the best value next to the exports.

    Example:
      >>> receiver_fn = etl.export.image_receiver_fn(backbone.image_spec)
      >>> exporter = etl.BestExporter(receiver_fn, metric="accuracy", exports_to_keep=3)
      >>> validation = data.input_fn(backbone.image_spec, 4, "validation")
      >>> eval_spec = etl.estimator.EvalSpec(validation, exporters=[exporter])
      >>> eval_spec.exporters[0].name
      'best'
    """

    def __init__(
        self,
        receiver_fn: Callable[[], Any],
        metric: str = "accuracy",
        higher_is_better: bool | None = None,
        name: str = "best",
        exports_to_keep: int | None = 5,
        assets_extra: Mapping[str, str] | None = None,
    ):
        """Prepares the exporter.

        Args:
          receiver_fn: a serving_input_receiver_fn, e.g. from `image_receiver_fn`.
          metric: the name of the metric to compare.
          higher_is_better: by default False for losses and errors, else True.
          name: the folder under ``model_dir/export``.
          exports_to_keep: how many versions to keep; older ones are removed, the best is the newest. None keeps all.
          assets_extra: files to copy into each version, by their names under ``assets.extra``.

        Raises:
          UserError: exports_to_keep is below 1.
        """
        if exports_to_keep is not None and exports_to_keep < 1:
            raise UserError(f"exports_to_keep is {exports_to_keep}; give 1 or more, or None to keep all versions.")
        self._to_keep, self._assets_extra = exports_to_keep, dict(assets_extra or {})
        self._receiver_fn = receiver_fn
        self._metric = metric
        if higher_is_better is None:
            higher_is_better = not lower_is_better(metric)
        self._sign = 1.0 if higher_is_better else -1.0
        self._name = name

    @property
    def name(self) -> str:
        """The folder under ``model_dir/export``."""
        return self._name

    def export(
        self,
        estimator: Estimator,
        export_path: str,
        checkpoint_path: str,
        eval_result: Mapping[str, Any],
        is_the_final_export: bool,
    ) -> str | None:
        """Exports the checkpoint if it is the best; returns the folder of the new version, or None.

        An evaluation whose metrics are all 0 has seen no example, so it does not count.

        Raises:
          UserError: the evaluation lacks the metric.
        """
        if self._metric not in eval_result:
            raise UserError(
                f"the evaluation has no metric {self._metric!r}; {nearest(self._metric, sorted(eval_result))}"
            )
        if not any(float(result) for name, result in eval_result.items() if name != "global_step"):
            logging.warning("%s: all metrics are 0, as in an evaluation without examples; no export", self._name)
            return None
        value = float(eval_result[self._metric])
        best = self._best(export_path)
        if math.isnan(value) or (best is not None and self._sign * value <= self._sign * best):
            return None
        version = estimator.export_saved_model(
            export_path, self._receiver_fn, self._assets_extra or None, checkpoint_path=checkpoint_path
        )
        record = {self._metric: value, "global_step": int(eval_result["global_step"])}
        write_whole(Path(export_path, _BEST), json.dumps(record) + "\n")
        self._remove_old(export_path)
        return str(tf.compat.as_str_any(version))

    def _remove_old(self, export_path: str) -> None:
        if self._to_keep is None:
            return
        versions = sorted((int(path.name), path) for path in Path(export_path).iterdir() if path.name.isdigit())
        for _, path in versions[: -self._to_keep]:
            shutil.rmtree(path, ignore_errors=True)

    def _best(self, export_path: str) -> float | None:
        path = Path(export_path, _BEST)
        if not path.is_file():
            return None
        value = json.loads(path.read_text()).get(self._metric)
        return None if value is None else float(value)
