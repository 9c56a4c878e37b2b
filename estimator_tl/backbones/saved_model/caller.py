"""Decides how a SavedModel is called: which traced functions, with which inputs, outputs and variables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from estimator_tl.backbones.effects import Effects
from estimator_tl.backbones.input import images as image_input
from estimator_tl.backbones.saved_model.interface import Function, Interface
from estimator_tl.backbones.saved_model.traces import (
    TOKENS,
    accepts,
    arguments_of,
    input_of,
    order,
    single_spec,
    training_argument,
)
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError, nearest
from estimator_tl.types import Tensor

_DEFAULT_SIGNATURE = "serving_default"
_DEFAULT_OUTPUTS = ("default", "pooled_output")  # of Hub's models in general, and of its encoders
_ENDPOINTS = "return_endpoints"


@dataclasses.dataclass(frozen=True)
class Caller:
    """The one way in which a model is called.

    Attributes:
      interface: what the model offers.
      functions: the traced functions of the call, functions for inference first.
      signature: the name of the signature to call; None for the model's own ``__call__``.
      features: names of the outputs that the user selected; empty for the default.
      arguments: arguments of the call besides its input and ``training``.
    """

    interface: Interface
    functions: Sequence[Function]
    signature: str | None
    features: Sequence[str]
    arguments: Mapping[str, Any]

    @classmethod
    def of(
        cls, interface: Interface, signature: str | None, features: Sequence[str] = (), tokens: bool = False
    ) -> Caller:
        """Finds out how to call a model.

        Args:
          interface: what the model offers.
          signature: see `Caller`.
          features: see `Caller`.
          tokens: whether the model must take a dict of token ids.

        Raises:
          UserError: there is no such signature, no function that takes images or text, or no call for inference.
        """
        signature = _signature_to_call(interface, signature)
        functions = list(interface.functions or ())
        if signature is not None:
            functions = [interface.signatures[signature]]
        usable = [function for function in functions if accepts(input_of(function), tokens)]
        if not usable and tokens:
            raise UserError(
                f"{SOURCE} does not take {TOKENS[0]}, with or without {' and '.join(TOKENS[1:])}; use an encoder "
                "that does, or leave vocab and preprocess out for a model that takes strings."
            )
        if any(accepts(input_of(function), tokens=True) for function in functions) and not usable:
            raise UserError(
                f"{SOURCE} takes token ids; give it a tokenizer: text_encoder({SOURCE!r}, vocab='vocab.txt'), or "
                "preprocess='FOLDER' in place of vocab."
            )
        if not usable:
            subject = f"signature {signature!r} of {SOURCE}" if signature else SOURCE
            raise UserError(
                f"{subject} takes neither a batch of images [batch, height, width, channels] nor a batch of strings; "
                "use an image feature vector or a sentence embedding here."
            )
        arguments: dict[str, Any] = {}
        if signature is None:
            usable, arguments = _with_endpoints(interface, usable, features)
        usable.sort(key=functools.partial(order, interface))
        if signature is None and training_argument(interface, usable[0]):
            raise UserError(
                f"{SOURCE} was saved for training only: it can be called with training=True only; save it with a "
                "trace for training=False, too."
            )
        return cls(interface, usable, signature, features, arguments)

    @property
    def image_shape(self) -> list[int | None] | None:
        """Static shape of the images that the model takes, batch first; None for text."""
        spec = single_spec(input_of(self.functions[0]))
        if isinstance(spec, Mapping) or spec.dtype == tf.string:
            return None
        shape: list[int | None] = spec.shape.as_list()
        return shape

    @property
    def image_type(self) -> Any:
        """DType of the images that the model takes; None for text."""
        return None if self.image_shape is None else single_spec(input_of(self.functions[0])).dtype

    @property
    def batch_size(self) -> int | None:
        """How many examples the model takes at once, where it fixes the number."""
        sizes = [spec.shape[0] for spec in tf.nest.flatten(input_of(self.functions[0])) if spec.shape.rank]
        return next((size for size in sizes if size is not None), None)

    @property
    def token_inputs(self) -> frozenset[str]:
        """Names of the inputs of an encoder, such as token ids; empty for models with other inputs."""
        spec = input_of(self.functions[0])
        return frozenset(spec) if isinstance(spec, Mapping) else frozenset()

    @property
    def row_length(self) -> int | None:
        """How many token ids a row must have, where the model fixes the number."""
        spec = input_of(self.functions[0])
        return spec["input_word_ids"].shape[-1] if isinstance(spec, Mapping) else None

    @property
    def outputs(self) -> list[str]:
        """Names of the call's outputs, with endpoints; empty where it gives one tensor without a name."""
        functions = self.interface.functions or ()
        if self.signature:
            functions = self.functions
        outputs = [function.outputs for function in functions if isinstance(function.outputs, Mapping)]
        return sorted({key for tensors in outputs for key in _tensors(tensors)})

    @property
    def trains(self) -> bool:
        """Whether there is a call for training, with ``training=True``, besides the call for inference.

        A model that takes one example at a time does not train: it would normalize each example separately.
        """
        return True in self._training_values and self.batch_size is None

    @property
    def _training_values(self) -> set[bool | None]:
        """The ``training`` arguments that the call was traced for."""
        if self.signature is not None:
            return {None}
        return {training_argument(self.interface, function) for function in self.functions}

    def effects(self) -> Effects:
        """Returns what the call for inference does besides computing the selected outputs."""
        writes: list[str] = []
        draws: set[str] = set()
        for function in self.functions:
            if self.signature is None and training_argument(self.interface, function):
                continue
            selected = {id(spec) for spec in self.selected(function.outputs)}
            specs = tf.nest.flatten(function.outputs)
            effects = function.effects([number for number, spec in enumerate(specs) if id(spec) in selected])
            writes.extend(effects.writes)
            draws.update(effects.draws)
        return Effects(tuple(dict.fromkeys(writes)), tuple(sorted(draws)))

    def written_in_training(self) -> frozenset[str] | None:
        """Returns the names of the variables that the call for training writes to; None without such a call."""
        if not self.trains:
            return None
        calls = [function for function in self.functions if training_argument(self.interface, function)]
        return frozenset(name for function in calls for name in function.effects([]).writes)

    def remedy_for_writes(self) -> str:
        """Returns advice for a call for inference that writes to variables."""
        for name in [None, *sorted(self.interface.signatures)]:
            try:
                other = Caller.of(self.interface, name, self.features, bool(self.token_inputs))
                is_harmless = other.signature == name and not other.effects().writes
            except UserError:
                continue
            if is_harmless:
                advice = f"use signature={name!r}" if name else "leave signature out for its own call"
                return f"{advice}, which does not"
        return "export it again for inference, without augmentation and with batch norm in inference mode"

    def call(self, model: Any, inputs: Tensor, training: bool) -> list[Any]:
        """Returns the selected outputs for a batch.

        Args:
          model: the loaded model whose interface this caller is made for.
          inputs: a tensor, or a dict of tensors.
          training: the argument, where the call was traced for it.
        """
        specs = input_of(self.functions[0])
        if isinstance(inputs, Mapping):
            inputs = {name: inputs[name] for name in specs}
        elif isinstance(specs, Mapping):
            inputs = dict.fromkeys(specs, inputs)
        inputs = tf.nest.map_structure(lambda tensor, spec: image_input.cast(tensor, spec.dtype), inputs, specs)
        if self.batch_size == 1:
            return self._call_one_by_one(model, inputs)
        return self._call(model, inputs, training)

    def _call(self, model: Any, inputs: Tensor, training: bool) -> list[Any]:
        if self.signature is not None:
            if not isinstance(inputs, Mapping):
                inputs = dict.fromkeys(self.functions[0].inputs[1], inputs)
            return self.selected(model.signatures[self.signature](**inputs))
        value = training and self.trains
        switch = {"training": value} if value in self._training_values else {}
        return self.selected(model(inputs, **switch, **self.arguments))

    def _call_one_by_one(self, model: Any, inputs: Tensor) -> list[Any]:
        """Returns the outputs for a batch, from a model that takes one example at a time."""

        def call(example: Any) -> list[Any]:
            batch = tf.nest.map_structure(lambda tensor: tensor[tf.newaxis], example)
            return [output[0] for output in self._call(model, batch, training=False)]

        specs = [tf.TensorSpec(spec.shape[1:], spec.dtype) for spec in self.selected(self.functions[0].outputs)]
        has_text = any(tensor.dtype == tf.string for tensor in tf.nest.flatten(inputs))
        with tf.device("/cpu:0" if has_text else None):  # loops over strings fail on a GPU
            return list(tf.map_fn(call, inputs, fn_output_signature=specs))

    def selected(self, outputs: Any) -> list[Any]:
        """Returns the selected outputs among all outputs, which are tensors or their specs.

        Raises:
          UserError: there are several outputs and the user names none, or there is no output of that name.
        """
        if isinstance(outputs, Mapping):
            return [self._tensor(outputs, name) for name in self.features or [self._default(outputs)]]
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
            outputs = outputs[0]
        if not hasattr(outputs, "shape"):
            raise UserError(f"{SOURCE} gives several outputs ({outputs}); use a model with one feature output.")
        if self.features:
            raise UserError(
                f"{SOURCE} gives one output without a name; leave {', '.join(map(repr, self.features))} out."
            )
        return [outputs]

    def _default(self, outputs: Mapping[str, Any]) -> str:
        default = next((key for key in _DEFAULT_OUTPUTS if key in outputs), None)
        if len(outputs) > 1 and default is None:
            raise UserError(
                f"{SOURCE} gives several outputs ({', '.join(sorted(outputs))}); name one with "
                "output_key= or --backbone_output_key, or some with features=[...]."
            )
        return default or next(iter(outputs))

    def _tensor(self, outputs: Mapping[str, Any], name: str) -> Any:
        if name not in _tensors(outputs):
            raise UserError(f"{SOURCE} has no output {name!r}; {nearest(name, _tensors(outputs))}")
        return outputs[name]

    def variables(self) -> list[Any]:
        """Returns the variables that the call reads or writes, in order of first use in the graph."""
        return list({id(v): v for function in self.functions for v in function.variables}.values())

    def trainable_ids(self) -> set[int] | None:
        """Returns the ids of the variables that the model lists as trainable; None where it has no list."""
        trainable = self.interface.trainable
        return None if trainable is None else {id(variable) for variable in trainable}


def _signature_to_call(interface: Interface, signature: str | None) -> str | None:
    """Returns the signature to call; None for the model's own call."""
    names = sorted(interface.signatures)
    if signature is None and interface.functions is not None:
        return None
    if signature is None and _DEFAULT_SIGNATURE not in names:
        raise UserError(
            f"{SOURCE} cannot be called and has no signature {_DEFAULT_SIGNATURE!r}, only {names}; name one "
            "with signature= or --backbone_signature, or use a model that can be called."
        )
    signature = signature or _DEFAULT_SIGNATURE
    if signature not in names:
        raise UserError(f"{SOURCE} has no signature {signature!r}; {nearest(signature, names)}")
    return signature


def _with_endpoints(
    interface: Interface, functions: list[Function], features: Sequence[str]
) -> tuple[list[Function], dict[str, Any]]:
    """Returns the functions that give these features, and the arguments to call them with.

    Hub's image models return their inner activations by name if they are called with ``return_endpoints``.
    https://www.tensorflow.org/hub/common_saved_model_apis/images
    """
    with_endpoints = [function for function in functions if arguments_of(interface, function).get(_ENDPOINTS)]
    plain = [function for function in functions if function not in with_endpoints]
    outputs = plain[0].outputs if plain else {}
    is_enough = isinstance(outputs, Mapping) and set(features) <= set(outputs)
    if with_endpoints and (not plain or (features and not is_enough)):
        return with_endpoints, {_ENDPOINTS: True}
    return plain, {}


def _tensors(outputs: Mapping[str, Any]) -> list[str]:
    return sorted(key for key, value in outputs.items() if hasattr(value, "shape"))
