"""Networks of users: functions ``fn(inputs, training=False)`` that build a graph."""

from __future__ import annotations

import dataclasses
import inspect
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator_tl.backbones.user_code import load_code
from estimator_tl.compat import tf
from estimator_tl.compat.keras2 import lack_of_keras2, use_of_keras2
from estimator_tl.errors import UserError, check_known, first_line
from estimator_tl.tf_internals.graphs.recording import Recorded, recorded

#: What mistakes in a network raise. Other exceptions may be TensorFlow's own way to stop a replica.
_MISTAKES = (ValueError, TypeError, LookupError, AttributeError, NameError, AssertionError, ImportError)


@dataclasses.dataclass(frozen=True)
class Called:
    """What one call of a network has built.

    Attributes:
      outputs: what it returned: a tensor, or tensors by name.
      made: its variables and layers.
      updates: what it added to UPDATE_OPS.
      losses: what it added to REGULARIZATION_LOSSES.
    """

    outputs: Any
    made: Recorded
    updates: Sequence[Any]
    losses: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's function.

    Attributes:
      spec: as the user wrote it.
      function: takes a batch of pictures and `training`.
      file: where it is written.
      digest: ``sha256:...`` of that file when it was read.
    """

    spec: str
    function: Callable[..., Any]
    file: str
    digest: str

    def call(self, inputs: Any, training: bool) -> Called:
        """Builds the network into the current graph.

        Raises:
          UserError: it fails, or cannot be used in a graph.
        """
        keys = tf.compat.v1.GraphKeys
        before = {key: list(tf.compat.v1.get_collection(key)) for key in (keys.UPDATE_OPS, keys.REGULARIZATION_LOSSES)}
        try:
            with recorded() as made:
                outputs = self.function(inputs, training=training)
        except UserError:
            raise
        except _MISTAKES as error:
            remedy = lack_of_keras2(error) or "correct it there"
            raise UserError(f"network {self.spec} fails in {self._place(error)}; {remedy}.") from error
        if made.other_keras:
            raise UserError(
                f"network {self.spec} makes its layers with the package {made.other_keras}, whose batch norm and "
                f"regularization a graph would lose; {use_of_keras2()}."
            )
        return Called(outputs, made, *(_added(key, known) for key, known in before.items()))

    def _place(self, error: BaseException) -> str:
        """Returns where in the network an error came from, and what it says."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if os.path.abspath(frame.filename) == self.file] or frames[-1:]
        text = first_line(error)
        return f"line {own[-1].lineno} of {own[-1].filename}: {type(error).__name__}: {text}"

    def endpoints(self, outputs: Any, names: Sequence[str]) -> list[Any]:
        """Returns the tensors of `outputs` that have these names; without any, 'default' or the only one.

        Raises:
          UserError: there is no such tensor.
        """
        if not isinstance(outputs, Mapping):
            if names:
                raise UserError(
                    f"network {self.spec} returns one tensor, no endpoints; leave features={list(names)} out."
                )
            return [self._checked(outputs, "returns")]
        known = [str(key) for key in outputs]
        if not names and "default" not in known and len(known) != 1:
            raise UserError(f"network {self.spec} returns several endpoints; choose one with features=: {known}.")
        chosen = names or ["default" if "default" in known else known[0]]
        for name in chosen:
            check_known(f"endpoint of network {self.spec}", name, known)
        return [self._checked(outputs[name], f"gives for endpoint {name!r}") for name in chosen]

    def _checked(self, output: Any, verb: str) -> Any:
        if not tf.is_tensor(output):
            raise UserError(
                f"network {self.spec} {verb} {type(output).__name__}; return a tensor, or a dict of tensors by name."
            )
        return output


def _added(key: str, before: Sequence[Any]) -> list[Any]:
    known = {id(item) for item in before}
    return [item for item in tf.compat.v1.get_collection(key) if id(item) not in known]


def load_network(spec: str) -> Network:
    """Finds the function that ``pkg.module:function`` or ``path/file.py:function`` names.

    Raises:
      UserError: there is none, or it takes other arguments.
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
