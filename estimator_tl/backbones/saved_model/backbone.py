"""TF2 SavedModels in the reusable interface of TensorFlow Hub.

In a graph, such a model restores its variables through their initializers,
so the Estimator's session gets the pretrained values without further steps.
TensorFlow never lists its variables in TRAINABLE_VARIABLES: only the
VariablePlan decides what is trained.
https://www.tensorflow.org/hub/reusable_saved_models
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from estimator_tl.backbones.base import Backbone, BuiltBackbone, check_flattens, check_floating, feature_names
from estimator_tl.backbones.digest import folder_digest
from estimator_tl.backbones.effects import check_inference
from estimator_tl.backbones.fetching.handles import Module, module_of
from estimator_tl.backbones.input import images as image_input
from estimator_tl.backbones.input.contract import check_input, read_input
from estimator_tl.backbones.safety import check_saved_model
from estimator_tl.backbones.saved_model.caller import Caller
from estimator_tl.backbones.saved_model.interface import Interface, of_model
from estimator_tl.backbones.saved_model.loading import describe, load_eagerly, load_in_graph
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError, about, check_known
from estimator_tl.specs import POOLINGS
from estimator_tl.structure import CallMode, SourceStructure, SourceVariable
from estimator_tl.tf_internals.eager import run_eagerly_in_thread
from estimator_tl.types import Tensor


class SavedModelBackbone(Backbone):
    """A callable TF2 SavedModel folder that maps images or text to features."""

    kind = "TF2 SavedModel"

    def __init__(
        self,
        path: str | Module,
        image_size: int | tuple[int, int] | None = None,
        input_range: tuple[float, float] | None = None,
        pooling: str = "avg",
        signature: str | None = None,
        output_key: str | None = None,
        features: str | Sequence[str] | None = None,
        allow_unsafe_deserialization: bool = False,
    ):
        """Reads the model's structure.

        Args:
          path: the folder that holds saved_model.pb, an archive of it, or its address; see `handles.resolve`.
          image_size: pixels, where the model does not fix them.
          input_range: values that the model takes; by default, the range that follows from its graph, or else
            [0, 1] by Hub's convention.
          pooling: for outputs with height and width, or with tokens: avg, max, flatten or none.
          signature: the signature to use instead of the model's call; ``serving_default`` for models that cannot be
            called. Batch norm in a signature stays as it was exported.
          output_key: which of several outputs to use; ``default`` by default.
          features: an output, or an inner endpoint of a model that returns endpoints, or a list of such names.
          allow_unsafe_deserialization: load models that read or write files, too.

        Raises:
          UserError: the folder does not hold a model that takes images or text.
        """
        module = module_of(path)
        self.handle, self.path = module.handle, module.folder
        self.pooling = check_known("pooling", pooling, POOLINGS)
        self._signature = signature
        with about(self.handle):
            self._features = feature_names(features, output_key)
            self.unsafe = check_saved_model(self.path, allow_unsafe_deserialization)
            caller = self._caller(describe(self.path))
            _check_input(caller)
            effects = caller.effects()
            remedy = caller.remedy_for_writes() if effects.writes else ""
            self.draws = check_inference(self.handle, effects, remedy)
            self.structure = _structure(self.handle, caller)
            self.is_random, self.outputs = caller.trains, caller.outputs
            self.output_shape = self.joined_shape(self._output_shapes(caller))
            graph = caller.functions[0].graph
            self.input_spec, self.finding = read_input(
                caller.image_shape, caller.image_type, graph, image_size, input_range
            )

    def _output_shapes(self, caller: Caller) -> list[Any]:
        """Returns the static shapes of the selected outputs, as they are in a graph."""
        shapes = [self._full_shape(shape) for shape in _shapes_for_any_batch(caller)]
        for shape in shapes:
            if self.pooling == "flatten" and shape.rank is not None and shape.rank > 2:
                check_flattens(shape, "use pooling avg or max")
        return shapes

    def _full_shape(self, shape: Any) -> Any:
        """Returns the static shape of an output, with the sizes that subclasses know and the model does not."""
        return shape

    def _caller(self, interface: Interface) -> Caller:
        return Caller.of(interface, self._signature, self._features)

    def digest(self) -> str:
        return folder_digest(self.path)

    def values(self) -> Mapping[str, Any]:
        with about(self.handle):
            return run_eagerly_in_thread(self._read_values)

    def _read_values(self) -> dict[str, Any]:
        variables = self._caller(of_model(load_eagerly(self.path))).variables()
        return {entry.name: variable.numpy() for entry, variable in zip(self.structure.variables, variables)}

    def build(self, inputs: Tensor, mode: CallMode) -> BuiltBackbone:
        inputs = check_input(self.handle, inputs, self.input_spec)
        return self._build_on(inputs, mode)

    def _build_on(self, inputs: Tensor, mode: CallMode) -> BuiltBackbone:
        with about(self.handle):
            loaded = load_in_graph(self.path)
            model = loaded.model
            caller = self._caller(of_model(model))
            features = self.pool(caller.call(model, inputs, mode.training))
        variables = caller.variables()
        loaded.keep_only(variables)
        names = [variable.name for variable in self.structure.variables]
        losses = [(None, tf.cast(loss(), tf.float32)) for loss in getattr(model, "regularization_losses", None) or ()]
        return BuiltBackbone(
            features=features,
            variables=dict(zip(names, variables)),
            updates=(),
            regularization_losses=losses,
            initial_values=None,
        )


def _check_input(caller: Caller) -> None:
    """Checks that the model takes batches of images or of texts that a run can feed."""
    image_input.check_batch(caller.batch_size, can_map=True)
    if caller.image_shape is not None:
        remedy = "save it again behind tf.transpose(images, [0, 3, 1, 2])"
        image_input.check_layout(caller.image_shape, remedy)
        image_input.check_type(caller.image_type)


def _shapes_for_any_batch(caller: Caller) -> list[Any]:
    """Returns the static shapes of the selected outputs, for batches of any size.

    Raises:
      UserError: an output cannot serve as features.
    """
    shapes = []
    for spec in caller.selected(caller.functions[0].outputs):
        for spec_class, kind in ((tf.RaggedTensorSpec, "ragged"), (tf.SparseTensorSpec, "sparse")):
            if isinstance(spec, spec_class):
                raise UserError(f"{SOURCE} gives a {kind} tensor; name another output with features=.")
        check_floating(spec.dtype)
        shape = spec.shape
        if caller.batch_size == 1:
            if not shape.rank or shape[0] != 1:
                raise UserError(f"{SOURCE} takes one example, but gives {shape}; save it again with a batch.")
            shape = tf.TensorShape([None, *shape[1:]])
        shapes.append(shape)
    return shapes


def _inference_only_reason(caller: Caller) -> str:
    """Returns why the model has no call for training, as a clause about it; empty where it has one."""
    if caller.batch_size == 1:
        return "takes one example at a time"
    if not caller.trains:
        return "was saved for inference, without a training switch"
    return ""


def _structure(handle: str, caller: Caller) -> SourceStructure:
    trainable, written = caller.trainable_ids(), caller.written_in_training()
    counts: dict[str, int] = {}
    variables = []
    for variable in caller.variables():
        name = variable.name.removesuffix(":0")
        count = counts.get(name, 0)
        counts[name] = count + 1
        variables.append(
            SourceVariable(
                name=f"{name}_{count}" if count else name,
                shape=tuple(variable.shape.as_list()),
                dtype=variable.dtype.name,
                trainable=variable.trainable if trainable is None else id(variable) in trainable,
                statistic=None if written is None else name in written,
            )
        )
    if not variables:
        raise UserError(f"{SOURCE} holds no variables, so there is nothing to transfer; it may be a frozen graph.")
    reason = _inference_only_reason(caller)
    return SourceStructure(handle, tuple(variables), one_training_switch=True, inference_only=reason)
