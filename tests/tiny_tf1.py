"""Tiny modules in the TF1 Hub format, written without the `hub.Module` that wrote them once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from estimator_tl.compat import tf
from tests import tiny_text
from tests.tiny import DEPTH, SIZE

V1 = tf.compat.v1
SCOPES = (("stem/conv1", 4), ("top/conv2", DEPTH))
DECAY = 0.9
L2 = 1e-3
HUB_FORMAT_V3 = b"\x08\x03"
IMAGE_SIZE_8 = b"\n\x11image_module_info\x12\x06\n\x04\x08\x08\x10\x08"


@dataclasses.dataclass(frozen=True)
class Form:
    """How a module is written.

    Attributes:
      resource: whether its variables are resources, as Hub's own are, or those from before.
      parts: into how many parts the second kernel is partitioned.
      train: whether there is a graph for training.
      size: static height and width of the signature's input.
      attached_size: whether an ImageModuleInfo says the size.
      table: a text file with one number a line; the features are multiplied by the one of line 1.
      dropout: whether the graph for training drops.
      rescale: what is done to the images first.
      in_loop: whether the second kernel is used inside a while loop of TensorFlow 1.
    """

    resource: bool = True
    parts: int = 1
    train: bool = True
    size: int | None = SIZE
    attached_size: bool = False
    table: Path | None = None
    dropout: bool = False
    in_loop: bool = False
    rescale: Callable[[Any], Any] = lambda images: images


def save_tf1_module(path: Path, seed: int = 0, form: Form = Form()) -> dict[str, np.ndarray]:
    """Saves a module of two convolutions with batch norm on 8x8 pictures and returns its values by name."""
    tf.config.list_logical_devices()  # starts eager execution; a Saver would do so without soft placement
    builder = V1.saved_model.builder.SavedModelBuilder(str(path))
    for training in (False, True) if form.train else (False,):
        with tf.Graph().as_default(), V1.Session() as session:
            signatures = _build(training, form)
            if form.attached_size:
                V1.add_to_collection("hub_module_attachments", IMAGE_SIZE_8)
            if training:
                builder.add_meta_graph(["train"], signatures)
                continue
            session.run(V1.global_variables_initializer())
            values = _randomize(session, seed)
            files = V1.get_collection(V1.GraphKeys.ASSET_FILEPATHS) or None
            builder.add_meta_graph_and_variables(session, [], signatures, assets_collection=files)
    builder.save()
    (path / "tfhub_module.pb").write_bytes(HUB_FORMAT_V3)
    return values


def _randomize(session, seed):
    rng = np.random.RandomState(seed)
    values = {}
    for variable in V1.global_variables():
        noise = rng.randn(*variable.shape.as_list()).astype(np.float32) * 0.2
        positive = "gamma" in variable.op.name or "variance" in variable.op.name
        values[variable.op.name] = 1 + np.abs(noise) if positive else noise
        variable.load(values[variable.op.name], session)
    return values


def _build(training, form):
    images = V1.placeholder(tf.float32, [None, form.size, form.size, 3], name="images")
    net = form.rescale(images)
    with V1.variable_scope("", use_resource=form.resource):
        for scope, depth in SCOPES:
            net = _convolution(net, scope, depth, training, form)
            if form.dropout and training:
                net = tf.nn.dropout(net, 0.5)
    features = tf.reduce_mean(net, [1, 2])
    if form.table:
        features *= _number_of_line_one(form.table)
    info = V1.saved_model.utils.build_tensor_info
    inputs = {"images": info(images)}
    classes = {"default": info(tf.argmax(features, 1))}
    vector = {"default": info(features), "top/conv2": info(net)}
    signature = V1.saved_model.signature_def_utils.build_signature_def
    return {"default": signature(inputs, classes), "image_feature_vector": signature(inputs, vector)}


def _convolution(net, scope, depth, training, form):
    last = net.shape[-1]
    with V1.variable_scope(scope):
        kernel = _kernel([3, 3, last, depth], form if scope.startswith("top") else Form())
        if scope.startswith("stem"):
            V1.add_to_collection(V1.GraphKeys.REGULARIZATION_LOSSES, L2 * tf.nn.l2_loss(kernel))
        if form.in_loop and scope.startswith("top"):
            net = _once_in_a_loop(net, kernel, depth)
        else:
            net = tf.nn.conv2d(net, kernel, 1, "SAME")
    with V1.variable_scope(f"{scope}_bn"):
        gamma, beta = V1.get_variable("gamma", [depth]), V1.get_variable("beta", [depth])
        moving = [V1.get_variable(f"moving_{name}", [depth], trainable=False) for name in ("mean", "variance")]
        statistics = moving
        if training:
            statistics = tf.nn.moments(net, [0, 1, 2])
            for average, batch in zip(moving, statistics):
                V1.add_to_collection(V1.GraphKeys.UPDATE_OPS, V1.assign_sub(average, (1 - DECAY) * (average - batch)))
        return tf.nn.relu(tf.nn.batch_normalization(net, *statistics, beta, gamma, 1e-3))


def _kernel(shape, form):
    partitioner = V1.fixed_size_partitioner(form.parts, axis=3) if form.parts > 1 else None
    return tf.convert_to_tensor(V1.get_variable("weights", shape, partitioner=partitioner))


def _once_in_a_loop(net, kernel, depth):
    was_v2 = V1.control_flow_v2_enabled()
    V1.disable_control_flow_v2()
    initial = (0, tf.zeros([tf.shape(net)[0], SIZE, SIZE, depth]))
    shapes = (tf.TensorShape([]), tf.TensorShape([None, SIZE, SIZE, depth]))
    _, out = V1.while_loop(
        lambda i, _: i < 1, lambda i, _: (i + 1, tf.nn.conv2d(net, kernel, 1, "SAME")), initial, shapes
    )
    if was_v2:
        V1.enable_control_flow_v2()
    return out


def _number_of_line_one(path):
    asset = tf.constant(str(path))
    V1.add_to_collection(V1.GraphKeys.ASSET_FILEPATHS, asset)
    lookup = tf.lookup.TextFileInitializer(
        asset, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
    )
    table = tf.lookup.StaticHashTable(lookup, "1")
    return tf.strings.to_number(table.lookup(tf.constant(1, tf.int64)))


def save_tf1_sentences(path: Path) -> dict[str, np.ndarray]:
    """Saves a module that averages the vectors of words, half of them in each of two variables, and returns these."""
    tf.config.list_logical_devices()
    vocabulary = path.parent / "words.txt"
    vocabulary.write_text("".join(f"{word}\n" for word in ["[unknown]", *tiny_text.VOCABULARY]))
    builder = V1.saved_model.builder.SavedModelBuilder(str(path))
    with tf.Graph().as_default(), V1.Session() as session:
        texts = V1.placeholder(tf.string, [None], name="texts")
        size = len(tiny_text.VOCABULARY) + 1
        embeddings = V1.get_variable("embeddings", [size, DEPTH], partitioner=V1.fixed_size_partitioner(2))
        words = tf.strings.split(texts)
        rows = tf.gather(tf.convert_to_tensor(embeddings), _numbers_of(vocabulary, words.flat_values))
        sums = tf.math.unsorted_segment_sum(rows, words.value_rowids(), words.nrows())
        features = sums / tf.cast(words.row_lengths(), tf.float32)[:, tf.newaxis]
        info = V1.saved_model.utils.build_tensor_info
        signature = V1.saved_model.signature_def_utils.build_signature_def
        signatures = {"default": signature({"text": info(texts)}, {"default": info(features)})}
        session.run(V1.global_variables_initializer())
        values = _randomize(session, seed=0)
        files = V1.get_collection(V1.GraphKeys.ASSET_FILEPATHS)
        builder.add_meta_graph_and_variables(session, [], signatures, assets_collection=files)
    builder.save()
    (path / "tfhub_module.pb").write_bytes(HUB_FORMAT_V3)
    return values


def _numbers_of(vocabulary, words):
    asset = tf.constant(str(vocabulary))
    V1.add_to_collection(V1.GraphKeys.ASSET_FILEPATHS, asset)
    lookup = tf.lookup.TextFileInitializer(
        asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    return tf.lookup.StaticHashTable(lookup, 0).lookup(words)
