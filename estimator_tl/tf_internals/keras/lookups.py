"""Vocabularies of Keras 2 layers that look up tokens, such as `TextVectorization`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from estimator_tl.compat.keras2 import load_keras2
from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.tf_internals.keras.calls import inner_layers
from estimator_tl.types import KerasModel, Layer


def _lookups(model: KerasModel) -> list[Any]:
    return [layer for layer in inner_layers(model) if hasattr(layer, "input_vocabulary")]


def vocabulary_weight_ids(model: KerasModel) -> set[int]:
    """Returns the ids of the weights that hold vocabularies: tables, counts and document frequencies."""
    return {id(weight) for layer in _lookups(model) for weight in layer.weights}


def keep_vocabularies(model: KerasModel) -> list[Any]:
    """Puts the vocabularies of a model's layers into the configuration of the model; `set_weights` sets the rest.

    After `adapt`, Keras keeps a vocabulary in a lookup table only, and not in the configuration.

    Returns:
      The inverse document frequencies, one array for each layer that has them.
    """
    weights = []
    for layer in _lookups(model):
        tokens = list(layer.get_vocabulary(include_special_tokens=False))
        if not tokens:
            continue
        layer.input_vocabulary = [token if isinstance(token, int) else str(token) for token in tokens]
        if layer.output_mode == "tf_idf":
            weights.append(layer.idf_weights_const.numpy())
            layer.input_idf_weights = weights[-1][-len(tokens) :].tolist()  # a configuration needs only the length
    return weights


@contextlib.contextmanager
def sized() -> Iterator[None]:
    """A block in which lookup layers compute the size of their vocabulary without a table, so also in a graph."""
    base = load_keras2().layers.StringLookup.__bases__[0]
    size_of_table = base.vocabulary_size

    def vocabulary_size(layer: Layer) -> Any:
        if not layer.input_vocabulary:
            return size_of_table(layer)
        return len(layer.input_vocabulary) + int(layer._token_start_index())

    base.vocabulary_size = vocabulary_size
    try:
        yield
    finally:
        base.vocabulary_size = size_of_table


def set_weights(model: KerasModel, weights: Sequence[Any]) -> None:
    """Sets the inverse document frequencies of a model as constants of the current graph.

    In a graph, Keras puts them into variables of unknown shape, and would assign the values in a separate session.

    Args:
      model: built from the configuration of a model after `keep_vocabularies`.
      weights: the result of `keep_vocabularies`.
    """
    v1 = load_tensorflow().compat.v1
    layers = [layer for layer in _lookups(model) if layer.output_mode == "tf_idf"]
    for layer, values in zip(layers, weights):
        layer.idf_weights_const = v1.constant(values, layer.idf_weights.dtype)
        variables = v1.get_collection_ref(v1.GraphKeys.GLOBAL_VARIABLES)
        variables[:] = [variable for variable in variables if variable is not layer.idf_weights]
