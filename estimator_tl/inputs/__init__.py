"""input_fn builders on tf.data."""

from estimator_tl.inputs.image_folder import ImageFolder, image_folder, registry
from estimator_tl.inputs.pipeline import Examples, evaluation_dataset, training_dataset

__all__ = ["Examples", "ImageFolder", "evaluation_dataset", "image_folder", "registry", "training_dataset"]
