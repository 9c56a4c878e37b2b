"""The two formats of SavedModels, TensorFlow 2's own and that of TF1 Hub modules, told apart by a file."""

from __future__ import annotations

import functools
import os
from typing import Any

from estimator_tl.backbones.base import Backbone
from estimator_tl.backbones.fetching.handles import Module, module_of
from estimator_tl.backbones.saved_model.backbone import SavedModelBackbone
from estimator_tl.backbones.tf1_hub.backbone import MARK, TF1HubBackbone


@functools.wraps(SavedModelBackbone, updated=())  # both formats take the same settings
def of_either_format(path: str | Module, *args: Any, **settings: Any) -> Backbone:
    """Opens a module in the format that it has; see the constructors of `SavedModelBackbone` and `TF1HubBackbone`."""
    module = module_of(path)
    is_tf1 = os.path.exists(os.path.join(module.folder, MARK))
    return (TF1HubBackbone if is_tf1 else SavedModelBackbone)(module, *args, **settings)
