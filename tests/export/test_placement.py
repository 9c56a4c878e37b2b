"""An export keeps its strings on the CPU: on a server with a GPU, a loop over strings that nothing pins fails."""

from __future__ import annotations

from pathlib import Path

from tensorflow.core.protobuf import saved_model_pb2

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.export.serving import export_saved_model
from tests import tiny_encoder
from tests.tiny import random_batches

DECODERS = {"DecodeImage", "DecodePng", "DecodePaddedRaw", "DecodeRaw"}
# Asserts of the API's heads, its unused predictions, and what saves; none of them is in a loop or a branch.
OTHERS = ("assert_", "head_", "save")
SAVERS = "__inference__traced_"


def nodes_of_export(handle, size, folder):
    """Exports a run of one step and returns the nodes of its graph and functions, {(function, node name): node}."""
    source = etl.backbone(handle)
    labels = ["a", "b", "c"]
    model_fn = etl.make_model_fn(
        source, etl.heads.classifier(labels=labels), etl.tuning.frozen(), show_plan=lambda text: None
    )
    trained = estimator.Estimator(model_fn, str(folder / "run"), params={})
    trained.train(random_batches(size), steps=1)
    path = export_saved_model(trained, str(folder / "export"), source.input_spec, labels)
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(Path(path, "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = {("", node.name): node for node in graph.node}
    return {**nodes, **{(f.signature.name, node.name): node for f in graph.library.function for node in f.node_def}}


def of_strings(nodes):
    """The nodes that take, hold or give strings, or decode them."""
    string = tf.string.as_datatype_enum
    for place, node in nodes.items():
        types = {value.type for value in node.attr.values()}
        types.update(one for value in node.attr.values() for one in value.list.type)
        is_other = place[0].startswith(SAVERS) or place[1].startswith(OTHERS)
        if (node.op in DECODERS or string in types) and not is_other:
            yield place, node


def off_the_cpu(nodes):
    return {place: node.device for place, node in nodes.items() if not node.device.startswith("/device:CPU:")}


def test_images_are_decoded_on_the_cpu_inside_of_all_loops_and_branches(keras_h5, tmp_path):
    nodes = nodes_of_export(keras_h5.handle, 8, tmp_path)
    strings = dict(of_strings(nodes))
    assert {node.op for node in strings.values()} >= {*DECODERS, "Placeholder", "GatherV2", "Case"}
    assert sum(node.op == "DecodeImage" for node in strings.values()) > 3
    assert off_the_cpu(strings) == {}
    loops = [node for node in nodes.values() if node.op in ("While", "StatelessWhile") and "map" in node.name]
    assert [node.device for node in loops] == ["/device:CPU:0"]


def test_texts_are_cut_into_tokens_on_the_cpu(tmp_path):
    tiny_encoder.save_encoder(tmp_path)
    handle = f"text_encoder({str(tmp_path / 'encoder')!r}, vocab={str(tmp_path / 'vocab.txt')!r}, seq_length=8)"
    strings = dict(of_strings(nodes_of_export(handle, 0, tmp_path)))
    assert {node.op for node in strings.values()} >= {"Placeholder", "HashTableV2", "LookupTableFindV2"}
    assert off_the_cpu(strings) == {}
