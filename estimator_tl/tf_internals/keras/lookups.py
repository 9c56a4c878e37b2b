"""Vocabularies of Keras 2 layers that look tokens up, such as `TextVectorization`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from estimator_tl.compat.keras2 import load_keras2
from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.tf_internals.keras.calls import inner_layers


def _lookups(model: Any) -> list[Any]:
    return [layer for layer in inner_layers(model) if hasattr(layer, "input_vocabulary")]


def learned_of_data(model: Any) -> set[int]:
    """Returns the ids of what Keras lists among a model's weights for its vocabularies: tables, counts, frequencies."""
    return {id(weight) for layer in _lookups(model) for weight in layer.weights}


def keep_vocabularies(model: Any) -> list[Any]:
    """Has a model's configuration hold what its layers have learned of a language; `set_weights` gives the rest.

    Keras leaves a vocabulary that was adapted to data out of the configuration, and has it in a table beside it.

    Returns:
      The inverse document frequencies of each layer that has some, as arrays.
    """
    weights = []
    for layer in _lookups(model):
        tokens = list(layer.get_vocabulary(include_special_tokens=False))
        if not tokens:
            continue
        layer.input_vocabulary = [token if isinstance(token, int) else str(token) for token in tokens]
        if layer.output_mode == "tf_idf":
            weights.append(layer.idf_weights_const.numpy())
            layer.input_idf_weights = weights[-1][-len(tokens) :].tolist()  # how long they are is all that counts here
    return weights


@contextlib.contextmanager
def sized() -> Iterator[None]:
    """A block in which lookups that are made in a graph know the size of their vocabulary, which they ask a table."""
    kind = load_keras2().layers.StringLookup.__bases__[0]
    ask = kind.vocabulary_size
    kind.vocabulary_size = lambda layer: _size(layer) if layer.input_vocabulary else ask(layer)
    try:
        yield
    finally:
        kind.vocabulary_size = ask


def _size(layer: Any) -> int:
    return len(layer.input_vocabulary) + int(layer._token_start_index())


def set_weights(model: Any, weights: Sequence[Any]) -> None:
    """Makes inverse document frequencies constants of the current graph; see `keep_vocabularies`.

    A model that is built in a graph has them in variables of unknown shape, which Keras would assign in a session of
    its own.
    """
    v1 = load_tensorflow().compat.v1
    layers = [layer for layer in _lookups(model) if layer.output_mode == "tf_idf"]
    for layer, values in zip(layers, weights):
        layer.idf_weights_const = v1.constant(values, layer.idf_weights.dtype)
        variables = v1.get_collection_ref(v1.GraphKeys.GLOBAL_VARIABLES)
        variables[:] = [variable for variable in variables if variable is not layer.idf_weights]
