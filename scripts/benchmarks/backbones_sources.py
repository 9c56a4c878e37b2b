"""Sources for `backbones.py`: one network of a few large convolutions, in each format of pretrained weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

PICTURE = (8, 8, 3)
KINDS = ("keras_h5", "keras_zip", "keras_folder", "saved_model", "tf1_hub", "checkpoint")
_WIDTHS = {"small": (4,), "large": (512,) * 17}  # the second has 151 MB, in kernels of the size in ResNet and VGG
_HUB_FORMAT = b"\x08\x03"  # of tfhub_module.pb


def small_network(inputs: Any, training: bool = False) -> Any:
    """Builds a network with almost no weights."""
    del training
    return _convolutions(inputs, "small")


def large_network(inputs: Any, training: bool = False) -> Any:
    """Builds the network to measure."""
    del training
    return _convolutions(inputs, "large")


def _convolutions(net: Any, size: str) -> Any:
    from estimator_tl.compat import tf

    for number, width in enumerate(_WIDTHS[size]):
        shape = [3, 3, net.shape[-1], width]
        kernel = tf.compat.v1.get_variable(f"layer_{number}/kernel", shape, use_resource=True)
        net = tf.nn.relu(tf.nn.conv2d(net, kernel, 2, "SAME"))
    return tf.reduce_mean(net, [1, 2])


def save(kind: str, size: str, folder: str) -> tuple[str, int]:
    """Writes a source.

    Args:
      kind: one of `KINDS`.
      size: ``small`` or ``large``.
      folder: the folder to create and write to.

    Returns:
      The handle of the source for `etl.backbone`, and the size of its weights in bytes.
    """
    os.makedirs(folder)
    path, weights = _SAVERS[kind.partition("_")[0]](kind, size, Path(folder))
    return path, weights


def _save_keras(kind: str, size: str, folder: Path) -> tuple[str, int]:
    model = _keras_model(size)
    path = folder / {"keras_h5": "model.h5", "keras_zip": "model.keras", "keras_folder": "model"}[kind]
    model.save(str(path), **({"save_format": "tf"} if kind == "keras_folder" else {}))
    return str(path), 4 * model.count_params()


def _keras_model(size: str) -> Any:
    from estimator_tl.compat import keras

    layers = [keras.Input(PICTURE)]
    for number, width in enumerate(_WIDTHS[size]):
        layers.append(keras.layers.Conv2D(width, 3, 2, "same", activation="relu", name=f"layer_{number}"))
    return keras.Sequential(layers)


def _save_module(kind: str, size: str, folder: Path) -> tuple[str, int]:
    from estimator_tl.compat import tf

    model = _keras_model(size)
    module = tf.Module()
    module.weights = model.weights
    spec = tf.TensorSpec([None, *PICTURE], tf.float32)
    module.__call__ = tf.function(lambda inputs: tf.reduce_mean(model(inputs), [1, 2]), input_signature=[spec])
    tf.saved_model.save(module, str(folder))
    return str(folder), 4 * model.count_params()


def _save_tf1(kind: str, size: str, folder: Path) -> tuple[str, int]:
    from estimator_tl.compat import tf

    v1 = tf.compat.v1
    builder = v1.saved_model.builder.SavedModelBuilder(str(folder / "module"))
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, *PICTURE])
        info = v1.saved_model.utils.build_tensor_info
        outputs = {"default": info(_convolutions(images, size))}
        signature = v1.saved_model.signature_def_utils.build_signature_def({"images": info(images)}, outputs)
        session.run(v1.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, [], {"default": signature})
        weights = sum(4 * variable.shape.num_elements() for variable in v1.global_variables())
    builder.save()
    (folder / "module" / "tfhub_module.pb").write_bytes(_HUB_FORMAT)
    return str(folder / "module"), weights


def _save_checkpoint(kind: str, size: str, folder: Path) -> tuple[str, int]:
    from estimator_tl.compat import tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        _convolutions(v1.placeholder(tf.float32, [None, *PICTURE]), size)
        session.run(v1.global_variables_initializer())
        path = v1.train.Saver().save(session, str(folder / "model.ckpt"))
        weights = sum(4 * variable.shape.num_elements() for variable in v1.global_variables())
    network = f"{os.path.abspath(__file__)}:{size}_network"
    return f"checkpoint({path!r}, network={network!r}, image_size={PICTURE[0]})", weights


_SAVERS = {"keras": _save_keras, "saved": _save_module, "tf1": _save_tf1, "checkpoint": _save_checkpoint}
