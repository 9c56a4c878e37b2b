"""TF2 SavedModels in the reusable interface of TensorFlow Hub.

Loaded in a graph, such a model restores its variables through their own
initializers, so pretrained values reach the Estimator's session by themselves.
None of its variables is in TRAINABLE_VARIABLES, though, whatever is asked:
what trains is decided by the VariablePlan alone.
https://www.tensorflow.org/hub/reusable_saved_models
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from estimator_tl.backbones.base import POOLINGS, Backbone, BuiltBackbone, check_input, resolve_size
from estimator_tl.backbones.digest import folder_digest
from estimator_tl.compat import tf
from estimator_tl.compat.eager import run_eagerly_apart
from estimator_tl.errors import UserError, check_known
from estimator_tl.specs import ImageSpec, linear_range
from estimator_tl.structure import CallMode, SourceStructure, SourceVariable


class SavedModelBackbone(Backbone):
    """A callable TF2 SavedModel folder that maps images to features."""

    kind = "TF2 SavedModel"

    def __init__(
        self,
        path: str,
        handle: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        input_range: tuple[float, float] | None = None,
        pooling: str = "avg",
    ):
        """Reads the model's structure.

        Args:
          path: the folder that holds saved_model.pb.
          handle: what the user called it; the path by default.
          image_size: pixels, where the model does not fix them.
          input_range: values that the model takes; [0, 1] by Hub's convention.
          pooling: for outputs with height and width: avg, max, flatten or none.

        Raises:
          UserError: the folder is not a model that can be called with images.
        """
        self.path = path
        self.handle = handle or path
        self.pooling = check_known("pooling", pooling, POOLINGS)
        run_eagerly_apart(self._describe)
        shape = self._input_shape
        height, width = resolve_size(self.handle, (shape[1], shape[2]), image_size)
        low, high = input_range or (0.0, 1.0)
        self.image_spec = ImageSpec(height, width, shape[3] or 3, linear_range(low, high), f"[{low:g}, {high:g}]")

    def _describe(self) -> None:
        model = _load(self.path, self.handle)
        functions = _inference_first(_functions(model, self.handle))
        self._takes_training = any(_training_argument(f) is not None for f in functions)
        self.structure = _structure(self.handle, model, functions)
        self._input_shape = _image_shape(functions[0]) or [None] * 4
        output = _single_output(functions[0].structured_outputs, self.handle)
        self.output_shape = tuple(output.shape.as_list()) if output.shape.rank is not None else None

    def digest(self) -> str:
        return folder_digest(self.path)

    def values(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {}

        def read() -> None:
            model = _load(self.path, self.handle)
            used = _used_variables(model, _inference_first(_functions(model, self.handle)))
            found.update((v.name, value.numpy()) for v, value in zip(self.structure.variables, used))

        run_eagerly_apart(read)
        return found

    def build(self, inputs: Any, mode: CallMode) -> BuiltBackbone:
        check_input(self.handle, inputs, self.image_spec)
        model = self._load_once_for_all_replicas()
        outputs = model(inputs, training=mode.training) if self._takes_training else model(inputs)
        names = [variable.name for variable in self.structure.variables]
        functions = _inference_first(_functions(model, self.handle))
        variables = dict(zip(names, _used_variables(model, functions)))
        losses = [(None, loss()) for loss in getattr(model, "regularization_losses", None) or ()]
        return BuiltBackbone(
            features=self.pool(_single_output(outputs, self.handle)),
            variables=variables,
            updates=(),
            regularization_losses=losses,
            initial_values=None,
        )

    def _load_once_for_all_replicas(self) -> Any:
        """Loads into the current graph; under a strategy each replica would otherwise get variables of its own."""
        if not tf.distribute.has_strategy():
            return tf.saved_model.load(self.path)
        return tf.distribute.get_replica_context().merge_call(lambda strategy: tf.saved_model.load(self.path))


def _load(path: str, handle: str) -> Any:
    try:
        return tf.saved_model.load(path)
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{handle} is not a loadable SavedModel ({first_line}); check or re-export it.") from error


def _functions(model: Any, handle: str) -> list[Any]:
    """Returns the traced functions of ``__call__`` that take one image tensor first."""
    if not callable(model):
        raise UserError(
            f"{handle} cannot be called (it has signatures {sorted(model.signatures)} only); use a SavedModel in "
            "the reusable format of TensorFlow Hub, saved from an object with a traced __call__."
        )
    functions = [f for f in model.__call__.concrete_functions if _image_shape(f) is not None]
    if not functions:
        raise UserError(
            f"{handle} does not take a batch of images [batch, height, width, channels]; "
            "use an image feature vector model here."
        )
    return functions


def _image_shape(function: Any) -> list[int | None] | None:
    args, _ = function.structured_input_signature
    shape = getattr(args[0], "shape", None) if args else None
    return shape.as_list() if shape is not None and shape.rank == 4 else None


def _training_argument(function: Any) -> bool | None:
    """Returns the ``training`` value that a function was traced for; None where it has no such argument."""
    args, kwargs = function.structured_input_signature
    flags = [value for value in (*args[1:], kwargs.get("training")) if isinstance(value, bool)]
    return flags[0] if flags else None


def _used_variables(model: Any, functions: Sequence[Any]) -> list[Any]:
    """Returns the variables that the functions read or write, in the order of first use in the graph."""
    known: dict[int, Any] = {}
    for variable in tf.train.TrackableView(model).descendants():
        if isinstance(variable, tf.Variable):
            known[id(variable)] = known[id(variable.handle)] = variable  # under a strategy it is captured itself
    ordered = {id(captured): None for function in functions for captured in function.captured_inputs}
    return [known[key] for key in ordered if key in known]


def _inference_first(functions: Sequence[Any]) -> list[Any]:
    return sorted(functions, key=lambda function: bool(_training_argument(function)))


def _structure(handle: str, model: Any, functions: Sequence[Any]) -> SourceStructure:
    trainable = getattr(model, "trainable_variables", None)
    trainable_ids = None if trainable is None else {id(v.handle) for v in trainable}
    seen: dict[str, int] = {}
    variables = []
    for variable in _used_variables(model, functions):
        name = variable.name.removesuffix(":0")
        count = seen.get(name, 0)
        seen[name] = count + 1
        variables.append(
            SourceVariable(
                name=f"{name}_{count}" if count else name,
                shape=tuple(variable.shape.as_list()),
                dtype=variable.dtype.name,
                trainable=variable.trainable if trainable_ids is None else id(variable.handle) in trainable_ids,
            )
        )
    if not variables:
        raise UserError(f"{handle} holds no variables, so there is nothing to transfer; it may be a frozen graph.")
    return SourceStructure(handle, tuple(variables), layers=None, one_training_switch=True)


def _single_output(outputs: Any, handle: str) -> Any:
    if isinstance(outputs, dict) and "default" in outputs:
        return outputs["default"]
    if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
        return outputs[0]
    if not hasattr(outputs, "shape"):
        raise UserError(f"{handle} gives several outputs ({outputs}); use a model with one feature output.")
    return outputs
