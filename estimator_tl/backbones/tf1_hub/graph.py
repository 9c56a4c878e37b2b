"""What a graph of a TF1 Hub module computes, and from which variables: walks over its nodes, without building it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from estimator_tl.backbones.effects import Effects, Library
from estimator_tl.backbones.input import images as image_input
from estimator_tl.backbones.tf1_hub.importing import RANDOM, VARIABLES, WRITES, node_of
from estimator_tl.compat import tf
from estimator_tl.errors import SOURCE, UserError, check_known
from estimator_tl.tf_internals.files import meta_graphs
from estimator_tl.tf_internals.graphs.flat import in_order
from estimator_tl.types import Tensor


class ModuleGraph:
    """One graph of a module, seen from one signature.

    Attributes:
      meta: the MetaGraphDef.
      nodes: by name.
      input: name of the tensor that takes the images or strings.
      input_type: its DType.
      input_shape: static shape of the images; None where it takes strings.
      batch_size: how many examples it takes at once, where the signature fixes the number.
      known_outputs: names of the signature's outputs.
      outputs: names of the tensors with the features.
      output_shapes: their static shapes; None where the rank is unknown.
    """

    def __init__(self, meta: Any, signature: str | None, features: Sequence[str]):
        """Finds the signature.

        Args:
          meta: a MetaGraphDef.
          signature: its name; None for ``image_feature_vector`` where there is one, else ``default``.
          features: which outputs of the signature; empty for ``default``.

        Raises:
          UserError: there is no such signature or output, or it takes neither images nor strings.
        """
        self.meta = meta
        self.nodes = {node.name: node for node in meta.graph_def.node}
        names = sorted(meta.signature_def)
        default = "image_feature_vector" if "image_feature_vector" in names else "default"
        name = signature or default
        definition = meta.signature_def[check_known(f"signature of {SOURCE}", name, names)]
        self.known_outputs = sorted(definition.outputs)
        subject = f"output of the signature {name} of {SOURCE}"
        outputs = [
            definition.outputs[check_known(subject, output, self.known_outputs)] for output in features or ["default"]
        ]
        info = _input(name, definition.inputs)
        shape = meta_graphs.static_shape(info)
        self.input, self.input_type = info.name, tf.as_dtype(info.dtype)
        self.input_shape = None if self.input_type == tf.string else shape
        self.batch_size = shape[0] if shape else None
        self.outputs = [output.name for output in outputs]
        self.output_shapes = [meta_graphs.static_shape(output) for output in outputs]

    def ancestors(self, roots: Iterable[str], through_loops: bool = True) -> list[str]:
        """Returns the nodes that tensors or ops need, with their own nodes, each after the nodes that it needs.

        Args:
          roots: names of tensors or ops.
          through_loops: False to leave out nodes that are needed only through a while loop.
        """
        input_node = node_of(self.input)

        def needs(name: str) -> list[str]:
            if name == input_node or (not through_loops and self.nodes[name].op == "Exit"):
                return []
            return [node_of(source) for source in self.nodes[name].input]

        return in_order(map(node_of, roots), needs)

    def variables(self, names: Iterable[str]) -> list[str]:
        """Returns the variables among nodes, in the same order."""
        return [name for name in names if self.nodes[name].op in VARIABLES]

    def trainable_names(self) -> set[str]:
        """Names of the variables that the module lists as trainable."""
        return {variable.name for variable in meta_graphs.listed_variables(self.meta, "trainable_variables")}

    def differentiable(self) -> set[str]:
        """Names of the nodes that gradients of the outputs reach; gradients do not pass through imported loops."""
        return set(self.ancestors(self.outputs, through_loops=False))

    def updates(self, variables: Iterable[str]) -> list[str]:
        """Names of the update ops that write to any of these variables."""
        names = set(variables)
        ops = list(dict.fromkeys(node_of(name) for name in meta_graphs.listed_nodes(self.meta, "update_ops")))
        written = self.written(ops)
        return [op for op in ops if names & written[op]]

    def written(self, roots: Iterable[str]) -> dict[str, set[str]]:
        """Returns, for each node that tensors or ops need, the variables that it and the nodes before it write to."""
        written: dict[str, set[str]] = {}
        for name in self.ancestors(roots):
            node = self.nodes[name]
            written[name] = set().union(*(written.get(node_of(source), ()) for source in node.input))
            if node.op in WRITES:
                written[name].add(node_of(node.input[0]))
        return written

    def losses(self) -> list[str]:
        """Names of the tensors of the regularization losses."""
        return list(dict.fromkeys(meta_graphs.listed_nodes(self.meta, "regularization_losses")))

    def variables_of(self, tensor: str) -> set[str]:
        """Names of the variables that a tensor depends on."""
        return set(self.variables(self.ancestors([tensor])))

    def needs_input(self, tensor: str) -> bool:
        """Returns whether a tensor depends on the input."""
        return node_of(self.input) in self.ancestors([tensor])

    def table_initializers(self, names: Sequence[str]) -> list[str]:
        """Names of the ops that fill the tables among these nodes."""
        tables = {name for name in names if "Table" in self.nodes[name].op}
        ops = meta_graphs.listed_nodes(self.meta, "table_initializer")
        return [op for op in ops if tables & set(self.ancestors([op]))]

    def effects(self) -> Effects:
        """Returns the side effects of computing the outputs."""
        return Library(self.meta.graph_def).of_tensors(self.outputs, self.outputs)

    @property
    def is_random(self) -> bool:
        """Whether random numbers reach the outputs."""
        return any(RANDOM.fullmatch(self.nodes[name].op) for name in self.ancestors(self.outputs))

    def dtype(self, variable: str) -> str:
        """Returns the dtype of a variable."""
        return meta_graphs.dtype_name(self.nodes[variable].attr["dtype"].type)


def _input(signature: str, inputs: Tensor) -> Any:
    """Returns the TensorInfo of the only input, which takes images or strings."""
    if len(inputs) == 1:
        (info,) = inputs.values()
        shape = meta_graphs.static_shape(info)
        is_name = info.WhichOneof("encoding") == "name"
        if is_name and info.dtype == tf.string and (shape is None or len(shape) == 1):
            return info
        if is_name and info.dtype != tf.string and shape is not None and len(shape) == 4:
            image_input.check_type(tf.as_dtype(info.dtype))
            return info
    raise UserError(
        f"the signature {signature} of {SOURCE} takes {_input_text(inputs)}, neither one batch of images [batch, "
        "height, width, channels] nor one batch of strings; use another of its signatures, or another module."
    )


def _input_text(inputs: Tensor) -> str:
    return ", ".join(
        f"{name} ({meta_graphs.dtype_name(info.dtype)}, {meta_graphs.static_shape(info)})"
        for name, info in sorted(inputs.items())
    )
