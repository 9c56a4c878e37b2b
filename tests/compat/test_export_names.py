"""The names under which the Estimator package exports its symbols, as TensorFlow 2.15 lists them."""

from __future__ import annotations

import sys

import pytest

from estimator_tl.compat import estimator, tf

ANSWER = 42


@pytest.fixture
def tf_export():
    _ = estimator.Estimator  # the API is imported at its first use
    return sys.modules["tensorflow.python.util.tf_export"]


@pytest.fixture
def estimator_export(tf_export):
    return sys.modules["tensorflow_estimator.python.estimator.estimator_export"].estimator_export


def test_a_class_has_the_names_that_it_is_exported_under(tf_export, estimator_export):
    class TestClass:
        pass

    estimator_export("estimator.TestClass", v1=["estimator.TestClass", "estimator.Old"])(TestClass)
    assert "_tf_api_names" not in vars(TestClass)
    assert tf_export.get_v1_names(TestClass) == ["estimator.TestClass", "estimator.Old"]
    assert tf_export.get_v2_names(TestClass) == ["estimator.TestClass"]
    assert tf_export.get_canonical_name_for_symbol(TestClass, "estimator") == "estimator.TestClass"
    assert tf_export.get_symbol_from_name("estimator.TestClass") is TestClass


def test_a_constant_has_its_names(tf_export, estimator_export):
    module = sys.modules[__name__]
    estimator_export("estimator.ANSWER").export_constant(__name__, "ANSWER")
    assert tf_export.get_v1_constants(module) == [(("estimator.ANSWER",), "ANSWER")]
    assert tf_export.get_v2_constants(module) == [(("estimator.ANSWER",), "ANSWER")]


def test_the_names_of_estimators_and_of_tensorflow_stay(tf_export):
    assert tf_export.get_v2_names(estimator.Estimator) == ["estimator.Estimator"]
    assert "estimator.DNNClassifier" in tf_export.get_v2_names(estimator.DNNClassifier)
    assert tf_export.get_v2_names(tf.Module) == ["Module"]
    assert tf_export.get_v1_names("a string") == []


def test_nothing_else_is_exported_under_the_name(tf_export):
    with pytest.raises(tf_export.InvalidSymbolNameError):
        tf_export.tf_export("estimator.Mine")
