"""How a loaded SavedModel is called: its traced functions, their inputs, outputs and variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError, nearest

_DEFAULT_SIGNATURE = "serving_default"
_DEFAULT_OUTPUTS = ("default", "pooled_output")  # of Hub's models in general, and of its encoders
_TOKENS = ("input_word_ids", "input_mask", "input_type_ids")


@dataclasses.dataclass(frozen=True)
class Caller:
    """The one way in which a model is called.

    Attributes:
      model: as loaded.
      handle: what the user called it.
      functions: the traced functions of that call, those for inference first.
      signature: the name of the signature that is called; None for the model's own ``__call__``.
      output_key: which of several outputs is used, if the user said.
    """

    model: Any
    handle: str
    functions: Sequence[Any]
    signature: str | None
    output_key: str | None

    @classmethod
    def of(cls, model: Any, handle: str, signature: str | None, output_key: str | None, tokens: bool = False) -> Caller:
        """Finds out how to call a model.

        Args:
          model: as loaded.
          handle: what the user called it.
          signature: see `Caller`.
          output_key: see `Caller`.
          tokens: whether it is to take a dict of token ids.

        Raises:
          UserError: there is no such signature, or nothing that takes pictures or text.
        """
        if signature is None and not callable(model):
            signature = _DEFAULT_SIGNATURE if _DEFAULT_SIGNATURE in model.signatures else None
            if signature is None:
                raise UserError(
                    f"{handle} cannot be called and has no signature {_DEFAULT_SIGNATURE!r}, only "
                    f"{sorted(model.signatures)}; name one with signature=, or use a model that can be called."
                )
        if signature is not None:
            if signature not in model.signatures:
                known = nearest(signature, sorted(model.signatures))
                raise UserError(f"{handle} has no signature {signature!r}; {known}")
            functions = [model.signatures[signature]]
        else:
            functions = list(model.__call__.concrete_functions)
        usable = [function for function in functions if _takes(_input(function), tokens)]
        if not usable and tokens:
            raise UserError(
                f"{handle} does not take {', '.join(_TOKENS)}; use an encoder with these inputs, or leave vocab out "
                "for a model that takes strings."
            )
        if not usable:
            what = f"signature {signature!r} of {handle}" if signature else handle
            raise UserError(
                f"{what} takes neither a batch of images [batch, height, width, channels] nor a batch of strings; "
                "use an image feature vector or a sentence embedding here."
            )
        return cls(model, handle, sorted(usable, key=lambda f: bool(_training_argument(f))), signature, output_key)

    @property
    def image_shape(self) -> list[int | None] | None:
        """Static shape of the pictures that the model takes, batch first; None for text."""
        given = _input(self.functions[0])
        if isinstance(given, Mapping):
            return None
        return None if given.dtype == tf.string else given.shape.as_list()

    @property
    def takes_training(self) -> bool:
        """Whether the call has a ``training`` argument."""
        return self.signature is None and any(_training_argument(f) is not None for f in self.functions)

    def call(self, inputs: Any, training: bool) -> Any:
        """Returns the output for a batch. Args: training: the argument, where the call has it."""
        if self.signature is not None:
            if not isinstance(inputs, Mapping):
                (name,) = self.functions[0].structured_input_signature[1]
                inputs = {name: inputs}
            return self.output_of(self.functions[0](**inputs))
        outputs = self.model(inputs, training=training) if self.takes_training else self.model(inputs)
        return self.output_of(outputs)

    def output_of(self, outputs: Any) -> Any:
        """Returns the one output that is used, of tensors or their specs.

        Raises:
          UserError: there are several and none is named, or the named one is not there.
        """
        if isinstance(outputs, Mapping):
            if self.output_key is not None and self.output_key not in outputs:
                raise UserError(
                    f"{self.handle} has no output {self.output_key!r}; {nearest(self.output_key, sorted(outputs))}"
                )
            usual = next((key for key in _DEFAULT_OUTPUTS if key in outputs), None)
            if self.output_key is None and len(outputs) > 1 and usual is None:
                raise UserError(
                    f"{self.handle} gives several outputs ({', '.join(sorted(outputs))}); name one with output_key="
                )
            only = next(iter(outputs)) if len(outputs) == 1 else usual
            return outputs[self.output_key or only]
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
            outputs = outputs[0]
        if not hasattr(outputs, "shape"):
            raise UserError(f"{self.handle} gives several outputs ({outputs}); use a model with one feature output.")
        if self.output_key is not None:
            raise UserError(f"{self.handle} gives one output without a name; leave output_key={self.output_key!r} out.")
        return outputs

    def variables(self) -> list[Any]:
        """Returns the variables that the call reads or writes, in the order of first use in the graph."""
        known: dict[int, Any] = {}
        for variable in tf.train.TrackableView(self.model).descendants():
            if isinstance(variable, tf.Variable):
                known[id(variable)] = known[id(variable.handle)] = variable  # under a strategy it is captured itself
        ordered = {id(captured): None for function in self.functions for captured in function.captured_inputs}
        return [known[key] for key in ordered if key in known]

    def trainable_ids(self) -> set[int] | None:
        """Returns the ids of the handles of what the model calls trainable; None where it does not say."""
        trainable = getattr(self.model, "trainable_variables", None)
        return None if trainable is None else {id(v.handle) for v in trainable}


def _input(function: Any) -> Any:
    """Returns the spec of the one tensor, or of the dict of tensors, that a function takes; None for others."""
    args, kwargs = function.structured_input_signature
    if args:
        return args[0] if hasattr(args[0], "dtype") or isinstance(args[0], Mapping) else None
    return next(iter(kwargs.values())) if len(kwargs) == 1 else kwargs


def _takes(given: Any, tokens: bool) -> bool:
    if isinstance(given, Mapping) or tokens:
        return tokens and isinstance(given, Mapping) and set(given) == set(_TOKENS)
    if given is None or not hasattr(given, "shape"):
        return False
    if given.dtype == tf.string:
        return bool(given.shape.rank in (None, 1))
    return bool(given.shape.rank == 4)


def _training_argument(function: Any) -> bool | None:
    """Returns the ``training`` value that a function was traced for; None where it has no such argument."""
    args, kwargs = function.structured_input_signature
    flags = [value for value in (*args[1:], kwargs.get("training")) if isinstance(value, bool)]
    return flags[0] if flags else None
