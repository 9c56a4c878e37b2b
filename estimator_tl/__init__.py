"""Transfer learning on the Estimator API, from TensorFlow 2.15 to the newest.

Names are loaded on first use, so importing the package is quick:
``etl.estimator``, ``etl.enable_estimator``, ``etl.keras``, ``etl.backbone``, ``etl.tuning``,
``etl.heads``, ``etl.optimizers``, ``etl.schedules``, ``etl.make_model_fn``, ``etl.inputs``,
``etl.export``, ``etl.export_saved_model``, ``etl.BestExporter``, ``etl.run_config``, ``etl.train_and_evaluate``,
``etl.tfx``, ``etl.UserError``, ``etl.LostPeersError``.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> (module, attribute); no attribute means the module itself.
_PUBLIC = {
    "BestExporter": ("estimator_tl.export", "BestExporter"),
    "LostPeersError": ("estimator_tl.errors", "LostPeersError"),
    "UserError": ("estimator_tl.errors", "UserError"),
    "backbone": ("estimator_tl.backbones", "backbone"),
    "enable_estimator": ("estimator_tl.revival.api", "enable_estimator"),
    "estimator": ("estimator_tl.compat", "estimator"),
    "export": ("estimator_tl.export", None),
    "export_saved_model": ("estimator_tl.export", "export_saved_model"),
    "heads": ("estimator_tl.heads", None),
    "inputs": ("estimator_tl.inputs", None),
    "keras": ("estimator_tl.compat", "keras"),
    "make_model_fn": ("estimator_tl.model.factory", "make_model_fn"),
    "optimizers": ("estimator_tl.optimization.optimizers", None),
    "run_config": ("estimator_tl.launch.cluster.run_config", "run_config"),
    "schedules": ("estimator_tl.optimization.schedules", None),
    "tfx": ("estimator_tl.launch.tfx", None),
    "train_and_evaluate": ("estimator_tl.launch.programs", "train_and_evaluate"),
    "tuning": ("estimator_tl.tuning", None),
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'estimator_tl' has no attribute {name!r}")
    module_name, attribute = _PUBLIC[name]
    module = importlib.import_module(module_name)
    return getattr(module, attribute) if attribute else module


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
