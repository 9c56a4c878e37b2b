"""Calls users' networks: functions ``fn(inputs, training=False)`` that build a graph."""

from __future__ import annotations

import dataclasses
import inspect
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.backbones.user_code import load_code
from estimator_tl.compat import tf
from estimator_tl.compat.keras2 import keras2_advice, keras2_advice_for
from estimator_tl.errors import UserError, check_known, first_line
from estimator_tl.tf_internals.graphs.recording import Recorded, recorded
from estimator_tl.types import Tensor

#: Exceptions that mistakes in a network raise. TensorFlow may raise others to stop a replica.
_MISTAKES = (ValueError, TypeError, LookupError, AttributeError, NameError, AssertionError, ImportError)


@dataclasses.dataclass(frozen=True)
class NetworkCall:
    """The result of one call of a network.

    Attributes:
      outputs: the returned tensor, or tensors by name.
      recording: the variables and layers that the call made.
      updates: the ops that it added to UPDATE_OPS.
      losses: the tensors that it added to REGULARIZATION_LOSSES.
    """

    outputs: Any
    recording: Recorded
    updates: Sequence[Tensor]
    losses: Sequence[Tensor]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's function.

    Attributes:
      spec: as the user wrote it.
      function: takes a batch of images and `training`.
      file: the file that defines it.
      digest: ``sha256:...`` of the file at the time when it was read.
    """

    spec: str
    function: Callable[..., Any]
    file: str
    digest: str

    def call(self, inputs: Tensor, training: bool) -> NetworkCall:
        """Builds the network into the current graph.

        Raises:
          UserError: the function fails, or makes its layers with Keras 3.
        """
        keys = tf.compat.v1.GraphKeys
        before = {key: list(tf.compat.v1.get_collection(key)) for key in (keys.UPDATE_OPS, keys.REGULARIZATION_LOSSES)}
        try:
            with recorded() as recording:
                outputs = self.function(inputs, training=training)
        except UserError:
            raise
        except _MISTAKES as error:
            remedy = keras2_advice_for(error) or "correct it there"
            raise UserError(f"network {self.spec} fails in {self._error_text(error)}; {remedy}.") from error
        if recording.other_keras:
            raise UserError(
                f"network {self.spec} makes its layers with the package {recording.other_keras}, whose batch norm and "
                f"regularization a graph would lose; {keras2_advice()}."
            )
        return NetworkCall(outputs, recording, *(_new_items(key, items) for key, items in before.items()))

    def _error_text(self, error: BaseException) -> str:
        """Returns the line of the network that raised an error, and the error's text."""
        stack = traceback.extract_tb(error.__traceback__)
        frames = [frame for frame in stack if os.path.abspath(frame.filename) == self.file] or stack[-1:]
        text = first_line(error)
        return f"line {frames[-1].lineno} of {frames[-1].filename}: {type(error).__name__}: {text}"

    def endpoints(self, outputs: Any, names: Sequence[str]) -> list[Any]:
        """Returns the tensors of `outputs` that have these names; without names, 'default' or the only tensor.

        Raises:
          UserError: there is no tensor of that name, or several to choose from.
        """
        if not isinstance(outputs, Mapping):
            if names:
                raise UserError(
                    f"network {self.spec} returns one tensor, no endpoints; leave features={list(names)} out."
                )
            return [self._check_tensor(outputs, "returns")]
        available = [str(key) for key in outputs]
        if not names and "default" not in available and len(available) != 1:
            raise UserError(f"network {self.spec} returns several endpoints; choose one with features=: {available}.")
        names = names or ["default" if "default" in available else available[0]]
        for name in names:
            check_known(f"endpoint of network {self.spec}", name, available)
        return [self._check_tensor(outputs[name], f"gives for endpoint {name!r}") for name in names]

    def _check_tensor(self, output: Any, verb: str) -> Any:
        if not tf.is_tensor(output):
            raise UserError(
                f"network {self.spec} {verb} {type(output).__name__}; return a tensor, or a dict of tensors by name."
            )
        return output


def _new_items(key: str, before: Sequence[Any]) -> list[Any]:
    """Returns the items that were added to a collection."""
    ids_before = {id(item) for item in before}
    return [item for item in tf.compat.v1.get_collection(key) if id(item) not in ids_before]


def load_network(spec: str) -> Network:
    """Finds the function that ``pkg.module:function`` or ``path/file.py:function`` names.

    Raises:
      UserError: there is no such function, or it takes other arguments.
    """
    code = load_code("network", spec, "function")
    if len(code.objects) > 1:
        raise UserError(f"network={spec!r} names several functions; name one.")
    ((name, function),) = code.objects.items()
    try:
        inspect.signature(function).bind(None, training=False)
    except TypeError as error:
        raise UserError(
            f"network={spec!r} cannot be called as {name}(inputs, training=False) ({error}); give it these arguments."
        ) from error
    return Network(spec, function, code.file, code.digest)
