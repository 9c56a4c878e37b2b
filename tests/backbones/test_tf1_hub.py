"""TF1 Hub modules against themselves: the same module loaded by TensorFlow's own loader, in a session."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.structure import CallMode
from estimator_tl.tf_internals.files.checkpoints import assign
from estimator_tl.tuning import collections
from tests import runs
from tests.checkpoints import checkpoint_values
from tests.contract.training import HEAD, train_and_compare
from tests.tiny import DEPTH, SIZE, random_batches
from tests.tiny_tf1 import DECAY, L2, Form, save_tf1_module

V1 = tf.compat.v1
IMAGES = np.random.RandomState(0).rand(4, SIZE, SIZE, 3).astype(np.float32)
BOTH = pytest.mark.parametrize("source", ["tf1_module", "tf1_references"], indirect=True)


def run_module(path, training, fetch):
    """Runs a module as TensorFlow loads it: returns what `fetch` asks for, given its signature's tensors."""
    with tf.Graph().as_default() as graph, V1.Session() as session:
        loaded = V1.saved_model.load(session, ["train"] if training else [], str(path))
        signature = loaded.signature_def["image_feature_vector"]
        return fetch(session, graph, {signature.inputs["images"].name: IMAGES}, signature.outputs)


def features_of(path, training=False, output="default"):
    return run_module(path, training, lambda session, _, feed, outputs: session.run(outputs[output].name, feed))


def updated(path):
    """The module's values after its own update ops ran on the pictures once."""

    def fetch(session, graph, feed, _):
        session.run(graph.get_collection(V1.GraphKeys.UPDATE_OPS), feed)
        return {v.op.name: session.run(v) for v in graph.get_collection(V1.GraphKeys.GLOBAL_VARIABLES)}

    return run_module(path, True, fetch)


def build(backbone, training=False, seed=None, update=False):
    """Builds a source in a session of its own; returns what came of it."""
    with tf.Graph().as_default(), V1.Session() as session:
        V1.set_random_seed(seed)
        built = backbone.build(tf.constant(IMAGES), CallMode(training=training))
        session.run([V1.global_variables_initializer(), V1.tables_initializer()])
        assign(session, built.variables, built.initial_values())
        losses = [(name, session.run(loss)) for name, loss in built.regularization_losses]
        features = session.run(built.features)
        if update:
            session.run(list(built.updates))
        return features, losses, {name: session.run(v) for name, v in built.variables.items()}, len(built.updates)


@pytest.fixture
def module(tmp_path):
    """Writes a module of some form; returns its path and its values."""

    def save(**form):
        path = tmp_path / "module"
        return str(path), save_tf1_module(path, form=Form(**form))

    return save


@BOTH
def test_the_structure_is_that_of_the_module_in_graph_order(source):
    backbone = etl.backbone(source.handle)
    assert backbone.kind == "TF1 Hub module"
    assert backbone.image_spec.shape == (SIZE, SIZE, 3)
    assert backbone.output_shape == (None, DEPTH)
    assert {v.name for v in backbone.structure.variables} == set(source.values)
    assert {v.name for v in backbone.structure.variables if v.trainable} == source.trainable
    assert backbone.structure.groups()[:2] == ["stem/conv1", "stem/conv1_bn"]
    assert {name.partition("/")[0] for name in backbone.structure.groups()[2:]} == {"top"}
    values = backbone.values()
    assert values.keys() == source.values.keys()
    for variable in backbone.structure.variables:
        assert values[variable.name].shape == variable.shape
        np.testing.assert_array_equal(values[variable.name], source.values[variable.name])


@BOTH
@pytest.mark.parametrize("training", [False, True])
def test_features_are_those_of_the_module_bit_for_bit(source, training):
    features, losses, values, updates = build(etl.backbone(source.handle), training)
    np.testing.assert_array_equal(features, features_of(source.handle, training))
    assert updates == (4 if training else 0)
    ((name, loss),) = losses
    assert name == "stem/conv1/weights"
    assert loss == pytest.approx(L2 * 0.5 * np.square(source.values[name]).sum(), rel=1e-6)
    for name, value in source.values.items():
        np.testing.assert_array_equal(values[name], value)


@BOTH
def test_update_ops_do_what_those_of_the_module_do(source):
    *_, values, _ = build(etl.backbone(source.handle), training=True, update=True)
    expected = updated(source.handle)
    for name, value in source.values.items():
        np.testing.assert_array_equal(values[name], expected[name])
        assert np.array_equal(values[name], value) == ("moving" not in name)


@BOTH
def test_regularization_losses_are_in_the_loss_where_their_variables_train(source):
    def loss(tuning):
        tuning = etl.tuning.registry.make(tuning)
        model_fn = etl.make_model_fn(
            etl.backbone(source.handle), etl.heads.classifier(n_classes=3), tuning, show_plan=lambda text: None
        )
        with tf.Graph().as_default() as graph, V1.Session() as session:
            spec = model_fn({"image": tf.constant(IMAGES)}, tf.constant([0, 1, 2, 0]), "eval")
            session.run(V1.global_variables_initializer())
            for variable in graph.get_collection(collections.BACKBONE):
                variable.load(source.values[variable.op.name], session)
            for variable in graph.get_collection(collections.HEAD):
                variable.load(np.zeros(variable.shape, np.float32), session)
            return float(session.run(spec.loss))

    penalty = L2 * 0.5 * np.square(source.values["stem/conv1/weights"]).sum()
    assert loss("frozen") == loss("last_groups(2)") == pytest.approx(np.log(3), rel=1e-5)
    assert loss("full") == pytest.approx(np.log(3) + penalty, rel=1e-5)


def test_partial_with_training_batch_norm_is_refused(tf1_module):
    with pytest.raises(UserError, match="one training switch.*--batch_norm=inference"):
        train_and_compare(tf1_module, "last_groups(2)", "/nowhere", batch_norm="train")


def test_under_mirrored_statistics_are_the_mean_over_the_replicas(tf1_references, tmp_path):
    """Each replica sees a batch of its own and moves a copy of its own; the checkpoint holds one value."""
    model_fn = etl.make_model_fn(
        etl.backbone(tf1_references.handle),
        etl.heads.classifier(n_classes=3),
        etl.tuning.full(),
        batch_norm="train",
        show_plan=lambda text: None,
    )
    config = estimator.RunConfig(
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=V1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    estimator.Estimator(model_fn, str(tmp_path), config, params={}).train(random_batches(SIZE), steps=1)
    pictures = np.random.RandomState(0).rand(16, SIZE, SIZE, 3).astype(np.float32)[:8]  # as random_batches makes them
    convolved = tf.nn.conv2d(pictures, tf1_references.values["stem/conv1/weights"], 1, "SAME").numpy()
    last = checkpoint_values(tmp_path / "model.ckpt-1")
    for name, batches in (
        ("mean", [half.mean((0, 1, 2)) for half in (convolved[:4], convolved[4:])]),
        ("variance", [half.var((0, 1, 2)) for half in (convolved[:4], convolved[4:])]),
    ):
        variable = f"stem/conv1_bn/moving_{name}"
        expected = DECAY * tf1_references.values[variable] + (1 - DECAY) * np.mean(batches, axis=0)
        np.testing.assert_allclose(last[variable], expected, rtol=1e-5, atol=1e-6)
        assert f"{variable}/replica_1" not in last


@pytest.mark.parametrize("tuning", ["frozen", "last_groups(2)", "full"])
def test_all_commands(tf1_module, pictures, tmp_path, tuning, capsys):
    run = tmp_path / "run"
    runs.train(run, tf1_module, pictures, 2, f"--tuning={tuning}", "--validation_fraction=0.2")
    for command in ("evaluate", "predict", "export", "inspect"):
        more = {"predict": [f"--input={pictures}/*/*.png"], "export": [f"--export_dir={tmp_path / 'out'}"]}
        assert main([command, f"--model_dir={run}", *more.get(command, [])]) == 0
    assert "the checkpoints agree with the plan" in capsys.readouterr().out
    before, *_, after = runs.states(run, 2)
    expected = {"frozen": set(), "full": tf1_module.trainable}.get(tuning, tf1_module.partial.get(tuning))
    assert runs.moved(before, after, tf1_module.values) == expected
    (export,) = (tmp_path / "out").iterdir()
    served = tf.saved_model.load(str(export)).signatures["features"]
    assert served.structured_outputs["features"].shape[-1] == DEPTH


def test_recalibration_moves_statistics_only(tf1_module, pictures, tmp_path):
    runs.train(tmp_path, tf1_module, pictures, 1, "--batch_norm=recalibrate")
    zero = runs.states(tmp_path, 0)[0]
    assert runs.moved(zero, tf1_module.values, tf1_module.values) == set(tf1_module.values) - tf1_module.trainable


def test_dropout_of_the_training_graph_follows_the_seed(module):
    path, _ = module(dropout=True)
    backbone = etl.backbone(path)
    assert backbone.is_random
    first, again, *others = (build(backbone, training=True, seed=seed)[0] for seed in (1, 1, 2, None, None))
    np.testing.assert_array_equal(first, again)
    assert len({features.tobytes() for features in (first, *others)}) == 4
    np.testing.assert_array_equal(build(backbone)[0], features_of(path))


def test_tables_are_filled_from_assets_which_exports_carry(module, tf1_module, tmp_path):
    numbers = tmp_path / "numbers.txt"
    numbers.write_text("7\n0.5\n")
    path, _ = module(table=numbers)
    numbers.unlink()  # the module has its own copy
    backbone = etl.backbone(path)
    np.testing.assert_array_equal(build(backbone)[0], 0.5 * features_of(tf1_module.handle))
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), show_plan=lambda text: None)
    model = estimator.Estimator(model_fn, str(tmp_path / "run"), params={})
    model.train(random_batches(SIZE), steps=1)
    (predicted, *_) = model.predict(lambda: tf.data.Dataset.from_tensors({"image": IMAGES}))
    np.testing.assert_array_equal(predicted["features"], build(backbone)[0][0])
    etl.export_saved_model(model, str(tmp_path / "out"), backbone.image_spec, ("a", "b", "c"))
    (asset,) = tmp_path.glob("out/*/assets/*")
    assert asset.read_text() == "7\n0.5\n"


def test_what_is_inside_a_while_loop_is_used_and_not_trained(module):
    path, _ = module(in_loop=True)
    backbone = etl.backbone(path)
    assert "gradients do not reach 4 of its variables (while loops)" in backbone.kind
    assert {v.name for v in backbone.structure.variables if v.trainable} == {"top/conv2_bn/gamma", "top/conv2_bn/beta"}
    np.testing.assert_array_equal(build(backbone)[0], features_of(path))


@pytest.mark.parametrize(("asked", "size"), [(None, 8), (12, 12)])
def test_the_size_is_what_the_module_was_trained_with_or_what_is_asked_for(module, asked, size):
    path, _ = module(size=None, attached_size=True)
    assert etl.backbone(path, image_size=asked).image_spec.shape == (size, size, 3)


def test_a_module_without_a_graph_for_training(module, tmp_path):
    path, values = module(train=False)
    backbone = etl.backbone(path)
    assert not backbone.is_random
    with pytest.raises(UserError, match="saved for inference, without a training switch: batch norm .*=inference"):
        etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), etl.tuning.full(), batch_norm="train")
    model_fn = etl.make_model_fn(
        backbone, etl.heads.classifier(n_classes=3), etl.tuning.full(), show_plan=lambda text: None
    )
    estimator.Estimator(model_fn, str(tmp_path / "run"), params={}).train(random_batches(SIZE), steps=1)
    zero, one = (checkpoint_values(tmp_path / f"run/model.ckpt-{step}") for step in (0, 1))
    assert runs.moved(zero, one, [*values, *HEAD]) == {n for n in values if "moving" not in n} | HEAD


def test_other_signatures_and_outputs(tf1_module):
    net = etl.backbone(f"tf1_hub({tf1_module.handle!r}, output_key='top/conv2')")
    assert net.output_shape == (None, SIZE, SIZE, DEPTH)
    expected = features_of(tf1_module.handle, output="top/conv2")
    np.testing.assert_allclose(build(net)[0], expected.mean((1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"signature": "image_vector"}, "unknown signature .*did you mean.*Known: default, image_feature_vector"),
        ({"output_key": "top"}, "unknown output .*Known: default, top/conv2"),
        ({"signature": "default"}, "gives int64, not floating-point features; name an output .*features="),
        ({"signatur": "default"}, "no argument 'signatur'; did you mean 'signature'"),
        ({"image_size": 9}, "of height 8 only"),
    ],
)
def test_wrong_arguments_are_answered_with_the_right_ones(tf1_module, arguments, message):
    with pytest.raises(UserError, match=message):
        etl.backbone(tf1_module.handle, **arguments)


def test_unknown_size_must_be_given(module):
    path, _ = module(size=None)
    with pytest.raises(UserError, match="any size; say which with --image_size"):
        etl.backbone(path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("saved_model.pb", b"not a protocol buffer", "saved_model.pb is damaged; get it again"),
        ("saved_model.pb", b"", "saved_model.pb is empty; get it again"),
        ("tfhub_module.pb", b"\x08\x04", "a format that Hub never released"),
        ("variables/variables.index", None, "variables cannot be read"),
    ],
)
def test_damaged_modules(tf1_module, tmp_path, file, content, message):
    shutil.copytree(tf1_module.handle, tmp_path / "m")
    (tmp_path / "m" / file).unlink()
    if content is not None:
        (tmp_path / "m" / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        etl.backbone(str(tmp_path / "m"))


def test_values_that_are_cut_off_are_an_error_of_the_module(tf1_module, tmp_path):
    shutil.copytree(tf1_module.handle, tmp_path / "m")
    (data,) = (tmp_path / "m" / "variables").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(UserError, match="variables cannot be read"):
        etl.backbone(str(tmp_path / "m")).values()
