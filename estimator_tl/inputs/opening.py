"""Opens the dataset that a text such as ``--train_data`` names: a folder, a table, or a call such as ``csv(...)``."""

from __future__ import annotations

import os
from typing import Any

from estimator_tl.inputs.folders.image_folder import image_folder
from estimator_tl.inputs.source import DataSource, registry
from estimator_tl.inputs.tables.csv_table import csv
from estimator_tl.inputs.tables.file import is_named_like_table
from estimator_tl.registry import parse_call


def open_source(text: str, **settings: Any) -> DataSource:
    """Opens what ``--train_data`` names.

    Args:
      text: an image folder; a file with a table of texts; or a spec such as ``csv('PATH', text='body')``.
      **settings: `validation`, `test`, `labels`, `on_bad_example`, `rules`.

    Raises:
      UserError: there is no such dataset, or it has a fault.
    """
    path = os.path.expanduser(text)
    if "(" in text and not os.path.exists(path):
        call = parse_call(text)
        if not registry.takes(call.name, "rules"):  # a dataset class of a user need not know our rules
            settings.pop("rules", None)
        dataset: DataSource = registry.make(type(call)(call.name, call.args, {**settings, **call.kwargs}))
        return dataset
    is_file = os.path.exists(path) and not os.path.isdir(path)
    if is_file or (is_named_like_table(path) and not os.path.isdir(path)):
        return csv(text, **settings)
    return image_folder(text, **settings)
