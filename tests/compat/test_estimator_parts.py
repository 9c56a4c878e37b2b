"""The parts of the Estimator API beyond plain training, each shown by its numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from estimator_tl.compat import estimator, keras, tf
from estimator_tl.compat.versions import has_native_estimator
from tests import linear


def train(tmp_path, steps, hooks=(), **config):
    model = estimator.Estimator(linear.model_fn, config=estimator.RunConfig(str(tmp_path), **config))
    return model.train(linear.input_fn, hooks=list(hooks), max_steps=steps)


def receiver():
    features = {"x": tf.compat.v1.placeholder(tf.float32, [None, 3])}
    return estimator.export.ServingInputReceiver(features, features)


def test_multi_head_gives_each_head_its_loss_metrics_and_predictions(tmp_path):
    head = estimator.MultiHead([estimator.BinaryClassHead(name="sign"), estimator.RegressionHead(name="size")])

    def input_fn():
        labels = {"sign": (linear.Y > 0).astype(np.int64), "size": linear.Y}
        return tf.data.Dataset.from_tensors(({"x": linear.X}, labels))

    model = estimator.DNNEstimator(
        head,
        hidden_units=[16],
        feature_columns=[tf.feature_column.numeric_column("x", (3,))],
        optimizer=lambda: keras.optimizers.legacy.Adam(0.05),
        config=estimator.RunConfig(str(tmp_path), tf_random_seed=1),
    )
    metrics = model.train(lambda: input_fn().repeat(), steps=150).evaluate(input_fn)
    np.testing.assert_allclose(metrics["loss"], metrics["loss/sign"] + metrics["loss/size"], rtol=1e-5)
    assert metrics["accuracy/sign"] == 1.0
    predicted = list(model.predict(input_fn))
    classes = np.array([one["sign", "class_ids"] for one in predicted])
    np.testing.assert_array_equal(classes, linear.Y > 0)
    sizes = np.array([one["size", "predictions"] for one in predicted])
    np.testing.assert_allclose(np.mean((sizes - linear.Y) ** 2), metrics["average_loss/size"], rtol=1e-4)


def test_exporters_keep_the_latest_and_the_best(tmp_path):
    model = estimator.Estimator(linear.model_fn, config=estimator.RunConfig(str(tmp_path), save_checkpoints_steps=2))
    exporters = [
        estimator.LatestExporter("latest", receiver, exports_to_keep=2),
        estimator.BestExporter("best", receiver, exports_to_keep=1),
        estimator.FinalExporter("final", receiver),
    ]
    estimator.train_and_evaluate(
        model,
        estimator.TrainSpec(linear.input_fn, max_steps=6),
        estimator.EvalSpec(linear.eval_input_fn, steps=None, throttle_secs=0, exporters=exporters),
    )
    exports = {name: sorted(os.listdir(tmp_path / "export" / name)) for name in ("latest", "best", "final")}
    assert {name: len(found) for name, found in exports.items()} == {"latest": 2, "best": 1, "final": 1}
    for name, found in exports.items():
        served = tf.saved_model.load(str(tmp_path / "export" / name / found[-1])).signatures["serving_default"]
        y = served(tf.constant(linear.X))["y"]
        np.testing.assert_allclose(y, linear.X @ linear.kernel_after(6), rtol=1e-4, atol=1e-5)


def test_early_stopping_ends_the_training_when_the_metric_says_so(tmp_path):
    model = estimator.Estimator(linear.model_fn, config=estimator.RunConfig(str(tmp_path), save_checkpoints_steps=1))
    threshold = (linear.eval_loss(linear.kernel_after(4)) + linear.eval_loss(linear.kernel_after(5))) / 2
    hook = estimator.experimental.stop_if_lower_hook(model, "loss", threshold, run_every_secs=None, run_every_steps=1)
    estimator.train_and_evaluate(
        model,
        estimator.TrainSpec(linear.input_fn, max_steps=50, hooks=[hook]),
        estimator.EvalSpec(linear.eval_input_fn, steps=None, throttle_secs=0),
    )
    assert 5 <= model.get_variable_value("global_step") <= 7  # the step after the evaluation that showed it


def test_in_memory_evaluation_sees_the_weights_of_its_step(tmp_path):
    model = estimator.Estimator(linear.model_fn, config=estimator.RunConfig(str(tmp_path), save_checkpoints_steps=100))
    hook = estimator.experimental.InMemoryEvaluatorHook(model, linear.eval_input_fn, every_n_iter=3)
    model.train(linear.input_fn, hooks=[hook], max_steps=6)
    losses = {}
    for path in (tmp_path / "eval").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "loss":
                    losses[event.step] = value.simple_value
    assert {0, 3, 6} <= set(losses)
    for step, loss in losses.items():
        np.testing.assert_allclose(loss, linear.eval_loss(linear.kernel_after(step)), rtol=1e-4)


def test_warm_start_begins_with_the_named_variables(tmp_path):
    train(tmp_path / "first", 4)

    def model_fn(features, labels, mode):
        tf.compat.v1.get_variable("new", [2], initializer=tf.compat.v1.ones_initializer())
        return linear.model_fn(features, labels, mode)

    settings = estimator.WarmStartSettings(str(tmp_path / "first"), vars_to_warm_start="kernel")
    model = estimator.Estimator(model_fn, str(tmp_path / "second"), warm_start_from=settings)
    model.train(linear.input_fn, steps=3)
    np.testing.assert_allclose(model.get_variable_value("kernel"), linear.kernel_after(7), rtol=1e-5)
    assert model.get_variable_value("global_step") == 3


@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint"])
def test_a_keras_2_model_becomes_an_estimator(tmp_path, checkpoint_format):
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False, name="out", input_shape=(3,))])
    model.compile(keras.optimizers.legacy.SGD(linear.RATE), "mse")
    start = np.full([3, 1], 0.25, np.float32)
    model.set_weights([start])
    made = keras.estimator.model_to_estimator(model, model_dir=str(tmp_path), checkpoint_format=checkpoint_format)
    data = {"out_input": linear.X}
    np.testing.assert_allclose(
        made.evaluate(lambda: tf.data.Dataset.from_tensors((data, linear.Y)))["loss"],
        linear.eval_loss(start),
        rtol=1e-5,
    )
    made.train(lambda: tf.data.Dataset.from_tensors((data, linear.Y)).repeat(), steps=3)
    expected = start.astype(np.float64)
    for _ in range(3):
        expected -= linear.RATE * 2 / 16 * linear.X.T @ (linear.X @ expected - linear.Y)
    predicted = [one["out"] for one in made.predict(lambda: tf.data.Dataset.from_tensors(data))]
    np.testing.assert_allclose(np.array(predicted), linear.X @ expected, rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_a_recurrent_classifier_learns_from_sequences(tmp_path):
    random = np.random.RandomState(0)
    lengths = random.randint(2, 6, size=64)
    label = random.randint(0, 2, size=64)
    words = [["yes" if kind else "no"] * length for kind, length in zip(label, lengths)]

    def input_fn():
        ragged = tf.ragged.constant(words).to_sparse()
        return tf.data.Dataset.from_tensors(({"words": ragged}, label)).repeat()

    column = tf.feature_column.sequence_categorical_column_with_vocabulary_list("words", ["yes", "no"])
    model = estimator.experimental.RNNClassifier(
        [tf.feature_column.embedding_column(column, 4)],
        units=[6],
        cell_type="gru",
        optimizer=lambda: keras.optimizers.legacy.Adam(0.05),
        config=estimator.RunConfig(str(tmp_path), tf_random_seed=1),
    )
    assert model.train(input_fn, steps=40).evaluate(input_fn, steps=1)["accuracy"] == 1.0


def test_the_input_pipeline_hook_goes_on_where_it_stopped(tmp_path):
    seen = []

    def model_fn(features, labels, mode):
        spec = linear.model_fn(features, labels, mode)
        note = tf.compat.v1.py_func(lambda x: seen.append(int(x)) or np.int64(0), [features["n"][0]], tf.int64)
        return spec._replace(train_op=tf.group(spec.train_op, note))

    def input_fn():
        data = {"x": linear.X, "n": np.arange(16)}
        return tf.data.Dataset.from_tensor_slices((data, linear.Y)).repeat().batch(1)

    model = estimator.Estimator(model_fn, config=estimator.RunConfig(str(tmp_path), save_checkpoints_steps=3))
    for _ in range(2):
        model.train(input_fn, hooks=[_pipeline_hook()(model)], steps=5)
    assert seen == list(range(10))


def _pipeline_hook():
    if has_native_estimator():
        return tf.data.experimental.CheckpointInputPipelineHook
    from estimator_tl.revival.standins.checkpoint_input_pipeline_hook import CheckpointInputPipelineHook

    return CheckpointInputPipelineHook


def run_program(text, *arguments, cwd):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = cwd / "program.py"
    path.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "-m", "estimator_tl", "legacy", *(arguments or [str(path)])],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SAVED_MODEL_ESTIMATOR = """
    import json
    import numpy as np
    import tensorflow.compat.v1 as tf
    from tensorflow_estimator.python.estimator.canned.saved_model_estimator import SavedModelEstimator
    tf.disable_v2_behavior()
    x = np.random.RandomState(0).randn(8, 3).astype(np.float32)
    y = x.sum(axis=1, keepdims=True)

    def input_fn():
        return tf.data.Dataset.from_tensors(({"x": x}, y)).repeat(4)

    def model_fn(features, labels, mode):
        out = tf.layers.dense(features["x"], 1, use_bias=False, name="out")
        loss = None if labels is None else tf.losses.mean_squared_error(labels, out)
        train_op = loss is not None and tf.train.GradientDescentOptimizer(0.1).minimize(
            loss, tf.train.get_or_create_global_step()) or None
        return tf.estimator.EstimatorSpec(mode, predictions={"y": out}, loss=loss, train_op=train_op)

    first = tf.estimator.Estimator(model_fn, "first").train(input_fn, steps=2)
    features = {"x": tf.TensorSpec([None, 3], tf.float32)}
    supervised = tf.estimator.experimental.build_raw_supervised_input_receiver_fn(
        {"x": tf.placeholder(tf.float32, [None, 3])}, tf.placeholder(tf.float32, [None, 1]))
    def serving():
        given = {"x": tf.placeholder(tf.float32, [None, 3])}
        return tf.estimator.export.ServingInputReceiver(given, given)
    path = first.experimental_export_all_saved_models("export", {
        tf.estimator.ModeKeys.TRAIN: supervised,
        tf.estimator.ModeKeys.EVAL: supervised,
        tf.estimator.ModeKeys.PREDICT: serving})
    again = SavedModelEstimator(path.decode(), "second")
    loss = {"first": float(first.evaluate(input_fn)["loss"])}
    again.train(input_fn, steps=2)
    loss["second"] = float(again.evaluate(input_fn)["loss"])
    first.train(input_fn, steps=2)
    loss["first on"] = float(first.evaluate(input_fn)["loss"])
    print(json.dumps(loss))
"""


def test_saved_model_estimator_goes_on_with_an_export(tmp_path):
    loss = json.loads(run_program(SAVED_MODEL_ESTIMATOR, cwd=tmp_path).splitlines()[-1])
    assert loss["second"] < 0.9 * loss["first"]
    np.testing.assert_allclose(loss["second"], loss["first on"], rtol=1e-5)


V1_CANNED = """
    import tensorflow.compat.v1 as tf
    tf.disable_v2_behavior()
    data = lambda: tf.data.Dataset.from_tensors(({"x": [[1.0], [2.0]]}, [[2.0], [4.0]])).repeat(5)
    columns = [tf.feature_column.numeric_column("x")]
    config = tf.estimator.RunConfig(tf_random_seed=3)
    model = tf.estimator.DNNRegressor([4], columns, "v1", optimizer=tf.train.AdagradOptimizer(0.1), config=config)
    model.train(data)
"""


@pytest.mark.full
def test_the_checkpoint_converter_takes_a_v1_canned_model_to_v2(tmp_path):
    run_program(V1_CANNED, cwd=tmp_path)
    before = tf.train.load_checkpoint(str(tmp_path / "v1"))
    os.mkdir(tmp_path / "v2")
    arguments = ["dnn", "v1/model.ckpt-5", "v1/graph.pbtxt", "v2/model.ckpt-5"]
    tool = "tensorflow_estimator.python.estimator.tools.checkpoint_converter"
    run_program("", "-m", tool, *arguments, cwd=tmp_path)
    (tmp_path / "v2" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-5"\n')
    model = estimator.DNNRegressor(
        [4],
        [tf.feature_column.numeric_column("x")],
        model_dir=str(tmp_path / "v2"),
        optimizer=lambda: keras.optimizers.legacy.Adagrad(0.1),
    )
    x = np.array([[1.0], [2.0]], np.float32)
    predicted = [one["predictions"] for one in model.predict(lambda: tf.data.Dataset.from_tensors({"x": x}))]
    hidden = np.maximum(
        x @ before.get_tensor("dnn/hiddenlayer_0/kernel") + before.get_tensor("dnn/hiddenlayer_0/bias"), 0
    )
    expected = hidden @ before.get_tensor("dnn/logits/kernel") + before.get_tensor("dnn/logits/bias")
    np.testing.assert_allclose(np.array(predicted), expected, rtol=1e-5)
    model.train(lambda: tf.data.Dataset.from_tensors(({"x": x}, 2 * x)), steps=1)
    slot = model.get_variable_value("training/Adagrad/dnn/logits/kernel/accumulator")
    slot_before = before.get_tensor("dnn/logits/kernel/t_0/Adagrad")
    assert (slot >= slot_before).all()
    assert (slot_before > 0.1001).any()  # 0.1 is where a new one begins
    assert model.get_variable_value("global_step") == 6
