"""Estimator and Keras 2 on every TensorFlow."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys

import numpy as np
import pytest

from estimator_tl.compat import estimator, keras, quiet, tf
from estimator_tl.compat.versions import has_native_estimator
from estimator_tl.revival.missing_modules import STANDINS

NATIVE = has_native_estimator()
EXPECTED = [
    "BaselineClassifier",
    "BaselineEstimator",
    "BaselineRegressor",
    "BestExporter",
    "BinaryClassHead",
    "CheckpointSaverHook",
    "DNNClassifier",
    "DNNEstimator",
    "DNNLinearCombinedClassifier",
    "DNNLinearCombinedRegressor",
    "DNNRegressor",
    "Estimator",
    "EstimatorSpec",
    "EvalSpec",
    "Exporter",
    "FinalExporter",
    "Head",
    "LatestExporter",
    "LinearClassifier",
    "LinearRegressor",
    "LogisticRegressionHead",
    "ModeKeys",
    "MultiClassHead",
    "MultiHead",
    "MultiLabelHead",
    "RegressionHead",
    "RunConfig",
    "SessionRunHook",
    "TrainSpec",
    "VocabInfo",
    "WarmStartSettings",
    "add_metrics",
    "export",
    "experimental",
    "train_and_evaluate",
]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_whole_api_is_there():
    assert [name for name in EXPECTED if not hasattr(estimator, name)] == []
    assert hasattr(estimator.experimental, "stop_if_no_decrease_hook")
    assert hasattr(estimator.experimental, "InMemoryEvaluatorHook")


def test_native_api_is_used_where_tensorflow_has_it():
    if NATIVE:
        assert estimator.Estimator is tf.estimator.Estimator
        # Where a program imports tensorflow.keras, the module is another one, of the same classes.
        assert keras.Model is tf.keras.Model
    else:
        assert not hasattr(tf, "estimator")
        assert estimator.Estimator.__module__.startswith("tensorflow_estimator.")


@pytest.mark.parametrize("name", STANDINS)
def test_stand_ins_are_found_only_where_tensorflow_lacks_the_module(name):
    module = importlib.import_module(name)
    assert ("estimator_tl" in module.__file__) is not NATIVE


def test_keras_is_keras_2_and_heads_accept_its_metrics():
    assert issubclass(keras.layers.Layer, tf.Module)  # Keras 3 layers are not
    spec = estimator.MultiClassHead(n_classes=3)
    assert all(isinstance(metric, keras.metrics.Metric) for metric in spec.metrics().values())


@pytest.mark.parametrize(
    "first",
    [
        "import keras",
        pytest.param("import tensorflow as tf; tf.keras.layers.Dense", marks=pytest.mark.full),
        pytest.param("import estimator_tl", marks=pytest.mark.full),
    ],
)
def test_keras_2_whatever_was_imported_first(first):
    code = f"""
import os, warnings
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
{first}
import tensorflow as tf
before = tf.keras.layers.Dense
from estimator_tl.compat import estimator, keras
assert issubclass(keras.layers.Layer, tf.Module), 'Keras 3'
assert tf.keras.layers.Dense is before, 'the own tf.keras of the program was changed'
assert issubclass(estimator.DNNClassifier, estimator.Estimator)
column = tf.feature_column.numeric_column('x')
import numpy as np
data = lambda: tf.data.Dataset.from_tensors(({{'x': np.ones([4, 1], 'f')}}, np.array([0, 1, 0, 1])))
classifier = estimator.DNNClassifier([2], [column]).train(data, steps=1)
assert classifier.evaluate(data, steps=1)['global_step'] == 1
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "is deprecated and will be removed" not in done.stderr


def columns_data():
    x = np.random.RandomState(0).randn(64, 2).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    return lambda: tf.data.Dataset.from_tensor_slices(({"x": x}, y)).repeat().batch(16)


@pytest.mark.parametrize("name", ["DNNClassifier", "LinearClassifier", "BaselineClassifier"])
def test_canned_estimators_train_evaluate_and_predict(name, tmp_path):
    column = tf.feature_column.numeric_column("x", shape=(2,))
    arguments = {
        "DNNClassifier": {
            "hidden_units": [8],
            "optimizer": lambda: keras.optimizers.legacy.Adam(0.1),
            "feature_columns": [column],
        },
        "LinearClassifier": {"feature_columns": [column]},
        "BaselineClassifier": {},
    }[name]
    config = estimator.RunConfig(tf_random_seed=1)
    model = getattr(estimator, name)(model_dir=str(tmp_path), config=config, **arguments)
    model.train(columns_data(), steps=60)
    metrics = model.evaluate(columns_data(), steps=4)
    assert metrics["global_step"] == 60
    if name != "BaselineClassifier":
        assert metrics["accuracy"] > 0.8
    prediction = next(iter(model.predict(columns_data())))
    np.testing.assert_allclose(sum(prediction["probabilities"]), 1.0, rtol=1e-5)


def test_train_and_evaluate_with_exporter(tmp_path):
    column = tf.feature_column.numeric_column("x", shape=(2,))
    model = estimator.LinearClassifier([column], model_dir=str(tmp_path))
    example = tf.feature_column.make_parse_example_spec([column])
    receiver = estimator.export.build_parsing_serving_input_receiver_fn(example)
    _, exports = estimator.train_and_evaluate(
        model,
        estimator.TrainSpec(columns_data(), max_steps=5),
        estimator.EvalSpec(columns_data(), steps=2, exporters=[estimator.FinalExporter("final", receiver)]),
    )
    loaded = tf.saved_model.load(tf.compat.as_str_any(exports[0]))
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0, 0.0]))
    one = tf.train.Example(features=tf.train.Features(feature={"x": feature})).SerializeToString()
    scores = loaded.signatures["serving_default"](tf.constant([one]))["scores"].numpy()
    np.testing.assert_allclose(scores.sum(), 1.0, rtol=1e-5)


def test_a_local_strategy_trains(tmp_path):
    column = tf.feature_column.numeric_column("x", shape=(2,))
    config = estimator.RunConfig(str(tmp_path), train_distribute=tf.distribute.OneDeviceStrategy("/cpu:0"))
    model = estimator.LinearClassifier([column], config=config).train(columns_data(), steps=3)
    assert model.evaluate(columns_data(), steps=1)["global_step"] == 3


def test_only_deprecation_notices_are_silenced(caplog):
    quiet.silence_deprecations()
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, logger="tensorflow"):
            logger.warning("From %s: %s (from %s) is deprecated and will be removed %s.", "a", "b", "c", "soon")
            logger.warning("something else")
    finally:
        logger.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"something else"}
