"""Opens either format of SavedModels, TF2 SavedModels or TF1 Hub modules; a file in the folder tells which it is."""

from __future__ import annotations

import functools
import os
from typing import Any

from estimator_tl.backbones.base import Backbone
from estimator_tl.backbones.fetching.handles import Module, module_of
from estimator_tl.backbones.saved_model.backbone import SavedModelBackbone
from estimator_tl.backbones.tf1_hub.backbone import FORMAT_FILE, TF1HubBackbone


@functools.wraps(SavedModelBackbone, updated=())  # both formats take the same settings
def of_either_format(path: str | Module, *args: Any, **settings: Any) -> Backbone:
    """Opens a module in the format that it has; see the constructors of `SavedModelBackbone` and `TF1HubBackbone`."""
    module = module_of(path)
    if os.path.exists(os.path.join(module.folder, FORMAT_FILE)):
        return TF1HubBackbone(module, *args, **settings)
    return SavedModelBackbone(module, *args, **settings)
