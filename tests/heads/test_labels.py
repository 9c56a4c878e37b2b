"""Labels of every form that an input_fn may give, as class numbers."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl import heads
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.heads.labels import class_numbers, naming_bad_labels

NAMES = ("ant", "bee", "cow")
NUMBERS = np.array([0, 2, 1, 2])


def numbers(labels, count=3, names=NAMES, shape="static"):
    """The class numbers of labels that are fed with their own static shape, or another one."""
    labels = np.asarray(labels)
    dtype = tf.string if labels.dtype.kind == "U" else labels.dtype
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(dtype, labels.shape if shape == "static" else shape)
        result = class_numbers(fed, count, names, tf.constant(4))
        with naming_bad_labels():
            return session.run(result, {fed: labels})


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "uint16", "float16", "float32", "float64"])
def test_numbers_of_any_type(dtype):
    for labels in (NUMBERS.astype(dtype), NUMBERS.astype(dtype)[:, np.newaxis]):
        np.testing.assert_array_equal(numbers(labels), NUMBERS[:, np.newaxis])


@pytest.mark.parametrize("shape", [None, [None], [None, None], [None, 1]])
def test_unknown_shapes(shape):
    labels = NUMBERS if shape == [None] else NUMBERS[:, np.newaxis]
    np.testing.assert_array_equal(numbers(labels, shape=shape), NUMBERS[:, np.newaxis])
    names = np.array(NAMES)[labels]
    np.testing.assert_array_equal(numbers(names, shape=shape), NUMBERS[:, np.newaxis])


def test_strings_and_truth_values():
    np.testing.assert_array_equal(numbers(np.array(NAMES)[NUMBERS]), NUMBERS[:, np.newaxis])
    np.testing.assert_array_equal(numbers([True, False, True, True], 2), [[1], [0], [1], [1]])


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        ([0, 1, 2, 3], {}, "hold a class number outside of 0 to 2"),
        ([0, 1, -1, 1], {}, "hold a class number outside of 0 to 2"),
        ([0, 1, 2, 1], {"count": 2}, "hold a class number outside of 0 to 1"),
        ([0.0, 1.0, 0.5, 1.0], {"count": 2}, "hold a number that is not a whole number"),
        ([0.0, 1.0, np.nan, 1.0], {}, "hold a number that is not a whole number"),
        (["ant", "bee", "dog", "cow"], {}, "hold a string that is not a class name (known: ant, bee, cow)"),
        (np.eye(3)[NUMBERS], {"shape": None}, "are not one class number for each example"),
    ],
)
def test_values_that_are_no_class_are_one_line(labels, arguments, message):
    with pytest.raises(UserError) as caught:
        numbers(labels, **arguments)
    assert str(caught.value) == f"the labels of this batch {message}; correct them in the input_fn."


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        (
            np.eye(3)[NUMBERS],
            {},
            "the labels have the shape (4, 3), as if one-hot; give class numbers, e.g. tf.argmax(",
        ),
        (np.zeros([4, 2]), {}, "the labels have the shape (4, 2); give one class number for each example: [batch]."),
        (NUMBERS > 0, {}, "the labels are booleans, but there are 3 classes; give class numbers."),
        (
            np.array(NAMES),
            {"names": None},
            "the labels are strings, but the head does not know the class names; give classifier(",
        ),
        (NUMBERS.astype(complex), {}, "the labels are complex128; give class numbers, e.g. int64."),
    ],
)
def test_other_forms_are_refused(labels, arguments, message):
    with pytest.raises(UserError) as caught:
        numbers(labels, **arguments)
    assert str(caught.value).startswith(message)


def test_no_labels_and_structures_are_refused():
    with tf.Graph().as_default():
        for labels, message in (
            (None, "the input_fn gives no labels; let it return (features, labels) for training and evaluation."),
            ({"kind": tf.zeros([4])}, "the labels are a dict (kind), but there is one head; give a tensor."),
            (tf.sparse.from_dense(NUMBERS), "the labels are a SparseTensor; give a dense tensor [batch] of class"),
        ):
            with pytest.raises(UserError) as caught:
                class_numbers(labels, 3, None, tf.constant(4))
            assert str(caught.value).startswith(message)


def test_a_program_learns_from_strings_and_is_told_of_others(hub_module, tmp_path):
    backbone = etl.backbone(hub_module.handle)
    head = heads.classifier(labels=NAMES)
    images = np.random.RandomState(0).rand(4, 8, 8, 3).astype(np.float32)

    def trained(labels, folder):
        function = etl.make_model_fn(backbone, head, show_plan=lambda text: None)
        config = estimator.RunConfig(str(tmp_path / folder), tf_random_seed=1)
        data = lambda: tf.data.Dataset.from_tensors((images, labels)).repeat()  # noqa: E731
        model = estimator.Estimator(function, config=config, params={})
        etl.train_and_evaluate(model, estimator.TrainSpec(data, max_steps=3))
        return model.get_variable_value("head/logits/kernel")

    expected = trained(NUMBERS, "numbers")
    np.testing.assert_array_equal(trained(np.array(NAMES)[NUMBERS], "strings"), expected)
    np.testing.assert_array_equal(trained(NUMBERS.astype(np.uint8), "bytes"), expected)
    with pytest.raises(UserError, match="^the labels of this batch hold a class number outside of 0 to 2; correct"):
        trained(NUMBERS + 1, "other")
