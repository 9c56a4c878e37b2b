"""input_fn builders on tf.data."""

from estimator_tl.inputs.folders.image_folder import ImageFolder, image_folder
from estimator_tl.inputs.opening import open_source
from estimator_tl.inputs.pipeline import Examples, evaluation_dataset, latest_step, training_dataset
from estimator_tl.inputs.position import checkpoint_hook
from estimator_tl.inputs.source import DataSource, registry
from estimator_tl.inputs.tables.csv_table import TextTable, csv

__all__ = [
    "DataSource",
    "Examples",
    "ImageFolder",
    "TextTable",
    "checkpoint_hook",
    "csv",
    "evaluation_dataset",
    "image_folder",
    "latest_step",
    "open_source",
    "registry",
    "training_dataset",
]
