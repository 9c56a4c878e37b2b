"""`enable_estimator` puts the API back for code that already exists, and changes nothing where it is."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from estimator_tl.compat import versions
from estimator_tl.compat.versions import has_native_estimator

NATIVE = has_native_estimator()


def run_python(code, **environment):
    """Runs `code` in a fresh process and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_place_and_every_way_of_importing():
    run_python("""
        import tensorflow as tf
        import estimator_tl as etl
        api = etl.enable_estimator()
        assert api is tf.estimator
        assert api is etl.enable_estimator()
        from tensorflow import estimator
        from tensorflow.estimator import RunConfig
        from tensorflow.estimator.export import ServingInputReceiver
        import tensorflow.compat.v1 as tf1
        import tensorflow.compat.v2 as tf2
        assert tf1.estimator.RunConfig is tf2.estimator.RunConfig is RunConfig is etl.estimator.RunConfig
        assert tf.compat.v1.estimator.Estimator is tf1.estimator.Estimator
        assert tf1.estimator.Estimator is not tf.estimator.Estimator  # v1 and v2 of the API differ
        assert issubclass(tf1.estimator.tpu.TPUEstimator, tf1.estimator.Estimator)
        from tensorflow.compat.v1.estimator.tpu import TPUConfig
        from tensorflow.compat.v2.estimator import Estimator
        assert Estimator is tf.estimator.Estimator
        assert TPUConfig is tf1.estimator.tpu.TPUConfig
        from tensorflow.python.estimator import estimator as old
        from tensorflow.python.estimator.canned import dnn
        from tensorflow.python.estimator.keras import model_to_estimator
        from tensorflow.python.tpu import tpu_config, tpu_context, tpu_estimator
        from tensorflow.python.tpu.tpu_estimator import TPUEstimator
        from tensorflow_estimator.python.estimator import estimator as package
        assert old.EstimatorV2 is package.EstimatorV2 is tf.estimator.Estimator
        assert dnn.DNNClassifierV2 is tf.estimator.DNNClassifier
        assert TPUEstimator is tf1.estimator.tpu.TPUEstimator
        assert "BoostedTreesClassifier" not in dir(tf.estimator)  # the package has them no more
        assert {"Estimator", "export", "experimental"} <= set(dir(tf.estimator))
        from tensorflow.python.data.experimental.ops.iterator_ops import CheckpointInputPipelineHook
        assert CheckpointInputPipelineHook is tf.data.experimental.CheckpointInputPipelineHook
        assert issubclass(CheckpointInputPipelineHook, tf.estimator.SessionRunHook)
        assert "_v2" in tf.estimator.__file__ and "_v2" in tf.estimator.__name__
    """)


def test_the_programs_tf_keras_is_left_alone():
    run_python(f"""
        import tensorflow as tf
        import estimator_tl as etl
        etl.enable_estimator().RunConfig()
        assert issubclass(tf.keras.layers.Layer, tf.Module) is {NATIVE}  # Keras 2 layers are modules, Keras 3 are not
    """)


@pytest.mark.skipif(NATIVE, reason="TensorFlow 2.15 sees to it itself")
def test_keras_2_is_imported_only_when_the_api_is_used():
    """Keras 2 chooses its layers when it is imported: `disable_v2_behavior()` must still come first."""
    run_python("""
        import sys
        import tensorflow as tf
        import estimator_tl as etl
        etl.enable_estimator()
        assert "tf_keras.src.layers" not in sys.modules
        tf.estimator.RunConfig
        assert "tf_keras.src.layers" in sys.modules
    """)


@pytest.mark.skipif(not NATIVE, reason="this TensorFlow has no Estimator of its own")
def test_where_tensorflow_has_estimator_nothing_changes():
    run_python("""
        import sys
        import tensorflow as tf
        before = tf.estimator, tf.compat.v1.estimator, list(sys.meta_path), set(vars(tf))
        import estimator_tl as etl
        assert etl.enable_estimator() is tf.estimator
        assert before == (tf.estimator, tf.compat.v1.estimator, list(sys.meta_path), set(vars(tf)))
        from tensorflow.python.distribute import estimator_training
        assert "estimator_tl" not in estimator_training.__file__
    """)


def test_what_is_installed_is_checked_without_importing_it(monkeypatch):
    assert versions.native_estimator_is_installed() is NATIVE
    versions.check_installed()
    monkeypatch.setattr(versions, "installed_versions", lambda: {"tensorflow-cpu": "2.14.1"})
    with pytest.raises(ImportError, match=r"TensorFlow 2.14.1 is too old .*pip install 'tensorflow>=2.15,<2.22'"):
        versions.check_installed()
    monkeypatch.setattr(versions.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"TensorFlow is not installed; pip install 'tensorflow>=2.15,<2.22'"):
        versions.check_installed()


def test_a_newer_tensorflow_warns_and_an_older_one_is_refused(monkeypatch):
    monkeypatch.setattr(versions, "tensorflow_version", lambda: (2, 99))
    with pytest.warns(UserWarning, match=r"newer than the newest tested .*pip install 'tensorflow<2.22'"):
        versions.load_tensorflow.__wrapped__()
    monkeypatch.setattr(versions, "tensorflow_version", lambda: (2, 14))
    with pytest.raises(ImportError, match=r"too old .*pip install 'tensorflow>=2.15,<2.22'"):
        versions.load_tensorflow.__wrapped__()


NO_PACKAGE = """
    import sys
    import importlib.util, importlib.metadata
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: None if name == {package!r} else real(name, package)
    real_version = importlib.metadata.version
    importlib.metadata.version = lambda name: {version!r} if name == "tensorflow-estimator" else real_version(name)
    import estimator_tl as etl
    try:
        etl.enable_estimator()
    except ImportError as error:
        print(error)
"""


@pytest.mark.skipif(NATIVE, reason="TensorFlow 2.15 does not need the package's stand-ins")
@pytest.mark.parametrize(
    ("package", "version", "message"),
    [
        ("tensorflow_estimator", "2.15.0", "tensorflow-estimator is not installed; pip install"),
        ("nothing", "2.13.0", "tensorflow-estimator 2.13.0 is too old for this TensorFlow; pip install"),
        ("tf_keras", "2.15.0", "tf_keras is not installed; pip install"),
    ],
)
def test_a_package_absent_or_too_old_says_what_to_install(package, version, message):
    assert message in run_python(NO_PACKAGE.format(package=package, version=version))


@pytest.mark.skipif(NATIVE, reason="Keras 3 does not come with TensorFlow 2.15")
def test_a_keras_3_model_is_refused_with_what_to_do():
    printed = run_python("""
        import keras
        import estimator_tl as etl
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        for call in (
            lambda: etl.keras.estimator.model_to_estimator(model),
            lambda: etl.keras.estimator.model_to_estimator(keras_model=model),
        ):
            try:
                call()
            except ValueError as error:
                print(error)
    """)
    assert printed.count("is a Keras 3 one; build it with the layers of etl.keras") == 2
