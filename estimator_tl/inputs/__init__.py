"""input_fn builders on tf.data."""

from estimator_tl.inputs.image_folder import ImageFolder, image_folder, registry
from estimator_tl.inputs.pipeline import Examples, evaluation_dataset, latest_step, training_dataset
from estimator_tl.inputs.place import checkpoint_hook

__all__ = [
    "Examples",
    "ImageFolder",
    "checkpoint_hook",
    "evaluation_dataset",
    "image_folder",
    "latest_step",
    "registry",
    "training_dataset",
]
