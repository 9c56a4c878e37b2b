"""HDF5 files as Keras 2.0 wrote them, by hand: its configurations name no modules, a Sequential one is a bare list."""

from __future__ import annotations

import json

import h5py
import numpy as np

SIZE = 64
_UNIFORM = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None},
}
_ZEROS = {"class_name": "Zeros", "config": {}}
_ONES = {"class_name": "Ones", "config": {}}
_L2 = {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.009999999776482582}}
_INPUT = {"batch_input_shape": [None, SIZE, SIZE, 1], "dtype": "float32"}


def _layer(class_name, name, trainable=True, **config):
    return {"class_name": class_name, "config": {"name": name, "trainable": trainable, **config}}


def _conv(name, filters, strides=1, kernel=3, **more):
    common = {
        "filters": filters,
        "kernel_size": [kernel, kernel],
        "strides": [strides, strides],
        "padding": "same",
        "data_format": "channels_last",
        "dilation_rate": [1, 1],
        "activation": "linear",
        "use_bias": False,
        "bias_initializer": _ZEROS,
        "bias_regularizer": None,
        "activity_regularizer": None,
        "bias_constraint": None,
    }
    own = {"kernel_initializer": _UNIFORM, "kernel_regularizer": _L2, "kernel_constraint": None}
    return _layer("Conv2D", name, **more, **common, **own)


def _separable(name, filters):
    config = dict(_conv(name, filters)["config"])
    for key in ("kernel_initializer", "kernel_regularizer", "kernel_constraint"):
        del config[key]
    for part in ("depthwise", "pointwise"):
        config.update({f"{part}_initializer": _UNIFORM, f"{part}_regularizer": _L2, f"{part}_constraint": None})
    return {"class_name": "SeparableConv2D", "config": {**config, "depth_multiplier": 1}}


def _batch_norm(name, trainable=True):
    return _layer(
        "BatchNormalization",
        name,
        trainable,
        axis=-1,
        momentum=0.99,
        epsilon=0.001,
        center=True,
        scale=True,
        beta_initializer=_ZEROS,
        gamma_initializer=_ONES,
        moving_mean_initializer=_ZEROS,
        moving_variance_initializer=_ONES,
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
    )


def _dense(name, units):
    return _layer(
        "Dense",
        name,
        units=units,
        activation="softmax",
        use_bias=True,
        kernel_initializer=_UNIFORM,
        bias_initializer=_ZEROS,
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
    )


def _weights(layers, depth=1):
    """Shapes by layer, and by name in the layer, in Keras's order."""
    shapes = {}
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    for layer in layers:
        name, config = layer["config"]["name"], layer["config"]
        if layer["class_name"] == "Conv2D":
            source = 1 if name == "shortcut" else depth
            shapes[name] = {"kernel": (*config["kernel_size"], source, config["filters"])}
            depth = config["filters"]
        elif layer["class_name"] == "SeparableConv2D":
            shapes[name] = {
                "depthwise_kernel": (3, 3, depth, 1),
                "pointwise_kernel": (1, 1, depth, config["filters"]),
            }
            depth = config["filters"]
        elif layer["class_name"] == "BatchNormalization":
            shapes[name] = dict.fromkeys(norm, (depth,))
        elif layer["class_name"] == "Dense":
            shapes[name] = {"kernel": (depth, config["units"]), "bias": (config["units"],)}
        else:
            shapes[name] = {}
    return shapes


def _write(path, version, model_config, layers, seed):
    rng = np.random.RandomState(seed)
    values = {}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version.encode()
        file.attrs["backend"] = b"tensorflow"
        file.attrs["model_config"] = json.dumps(model_config).encode()
        # What load_model compiled by then; optimizers of today know no such arguments.
        file.attrs["training_config"] = json.dumps(
            {"optimizer_config": {"class_name": "Adam", "config": {"lr": 1e-3, "decay": 0.0}}, "loss": "mse"}
        ).encode()
        group = file.create_group("model_weights")
        shapes = _weights(layers)
        group.attrs["layer_names"] = [name.encode() for name in shapes]
        group.attrs["backend"] = b"tensorflow"
        group.attrs["keras_version"] = version.encode()
        for name, parts in shapes.items():
            below = group.create_group(name)
            below.attrs["weight_names"] = [f"{name}/{part}:0".encode() for part in parts]
            for part, shape in parts.items():
                noise = (rng.randn(*shape) * 0.2).astype(np.float32)
                value = 1 + np.abs(noise) if part in ("gamma", "moving_variance") else noise
                values[f"{name}/{part}"] = value
                below.create_dataset(f"{name}/{part}:0", data=value)
    return values


def save_sequential(path, seed=0):
    """Writes a Sequential model, part of it frozen; returns its values by variable name."""
    layers = [
        _conv("conv2d_1", 4, 2, **_INPUT),
        _batch_norm("batch_normalization_1", trainable=False),
        _layer("Activation", "activation_1", activation="relu"),
        _layer(
            "MaxPooling2D",
            "max_pooling2d_1",
            pool_size=[2, 2],
            padding="valid",
            strides=[2, 2],
            data_format="channels_last",
        ),
        _layer("Dropout", "dropout_1", rate=0.25),
        _conv("conv2d_2", 5, 2),
        _batch_norm("batch_normalization_2"),
        _layer("GlobalAveragePooling2D", "global_average_pooling2d_1", data_format="channels_last"),
        _dense("dense_1", 7),
    ]
    return _write(path, "2.0.5", {"class_name": "Sequential", "config": layers}, layers, seed)


def save_functional(path, seed=0):
    """Writes a Model with a shortcut around a separable convolution; returns its values by variable name."""
    chain = [
        ({"class_name": "InputLayer", "config": {"name": "input_1", "sparse": False, **_INPUT}}, []),
        (_separable("separable_conv2d_1", 5), ["input_1"]),
        (_batch_norm("batch_normalization_1"), ["separable_conv2d_1"]),
        (_layer("Activation", "activation_1", activation="relu"), ["batch_normalization_1"]),
        (_conv("shortcut", 5, kernel=1), ["input_1"]),
        (_layer("Add", "add_1"), ["activation_1", "shortcut"]),
        (_conv("conv2d_1", 6, 4), ["add_1"]),
        (_layer("GlobalAveragePooling2D", "global_average_pooling2d_1", data_format="channels_last"), ["conv2d_1"]),
        (_dense("dense_1", 7), ["global_average_pooling2d_1"]),
    ]
    for layer, inputs in chain:
        layer["name"] = layer["config"]["name"]
        layer["inbound_nodes"] = [[[name, 0, 0, {}] for name in inputs]] if inputs else []
    layers = [layer for layer, _ in chain]
    config = {
        "name": "model_1",
        "layers": layers,
        "input_layers": [["input_1", 0, 0]],
        "output_layers": [["dense_1", 0, 0]],
    }
    return _write(path, "2.1.6", {"class_name": "Model", "config": config}, layers, seed)
