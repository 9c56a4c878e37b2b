"""Checkpoints as sources: bad files, networks and names are refused in one line."""

from __future__ import annotations

import shutil

import pytest

import estimator_tl as etl
from estimator_tl.compat import keras, tf
from estimator_tl.errors import UserError
from estimator_tl.structure import CallMode
from tests import networks
from tests.backbones.building import IMAGES
from tests.backbones.checkpoints import TRAINABLE, VALUES, spec
from tests.contract.training import HEAD, train_and_compare
from tests.tiny import SIZE, Source

# What is refused.


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A prefix with a checkpoint of `v1_network`."""
    return networks.save_v1(tmp_path_factory.mktemp("good") / "model.ckpt", VALUES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "v1_net"}, "no function 'v1_net' in tests.networks; did you mean 'v1_network'"),
        ({"network": "tests.nets:a"}, "cannot be imported .*check PYTHONPATH, or write network='pkg.module:function'"),
        ({"network": "/no/such/file.py:a"}, "there is no file /no/such/file.py; check the path"),
        ({"network": "networks.py:"}, "names no function; write network='pkg.module:function' or"),
        ({"network": "without_training"}, "cannot be called as without_training.*training=False.*give it these"),
        ({"network": "failing_network"}, "fails in line [0-9]+ of .*networks.py: AttributeError: .*correct it there"),
        ({"network": "tuple_network"}, "returns tuple; return a tensor, or a dict of tensors by name"),
        ({"network": "variableless_network"}, "depends on no variable that the network makes; make them inside"),
        ({"network": "endpoints_network"}, "several endpoints; choose one with features=: .'maps', 'pooled', 'logits'"),
        ({"network": "endpoints_network", "features": "pool"}, "unknown endpoint .*'pool'; did you mean 'pooled'"),
        ({"features": "pooled"}, "returns one tensor, no endpoints; leave features=.'pooled'. out"),
        ({"network": "endpoints_network", "features": "logits"}, "lacks 2 variables.*classifier/kernel, most similar"),
        ({"channels": 2}, "channels=2 .*must be 3, or 1 for grey images"),
        ({"pooling": "average"}, "unknown pooling 'average'"),
        ({"scope": 3}, "scope=3 is not a name; write e.g."),
        ({"rename": ["a"]}, "rename=.'a'. is not a map of names; write e.g."),
        ({"exclude": "("}, "exclude='.' is not a regex .*; write e.g."),
        ({"exclude": "^botom"}, "no variable of the network matches '.botom'"),
        ({"rename": {"stm": "a"}}, "no variable of the network begins with 'stm'"),
        ({"exclude": "."}, "no variable of network .* gets its value from .*; exclude fewer"),
        (
            {"rename": {"top/bn": "top/norm"}},
            r"top/bn/gamma \(expected as top/norm/gamma\), most similar: top/bn/gamma",
        ),
        ({"scop": "a"}, "no argument 'scop'; did you mean 'scope'"),
    ],
)
def test_bad_arguments(good, arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        etl.backbone(spec(good, **arguments))
    assert "\n" not in str(raised.value)


def test_no_size(good):
    with pytest.raises(UserError, match="say which with --image_size"):
        etl.backbone(f"checkpoint({good!r}, network='tests.networks:v1_network')")
    with pytest.raises(UserError, match="missing a required argument: 'network'; correct the arguments"):
        etl.backbone(f"checkpoint({good!r})")


def test_bad_files(good, tmp_path):
    cases = {
        tmp_path / "none": "no such file or folder; give a prefix such as",
        tmp_path: "holds no checkpoint; give the model_dir of a trained run",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            etl.backbone(spec(path))
    shutil.copy(f"{good}.data-00000-of-00001", tmp_path / "a.data-00000-of-00001")
    for path in (tmp_path / "a", tmp_path / "a.data-00000-of-00001"):
        with pytest.raises(UserError, match="a.index is missing; give a prefix such as"):
            etl.backbone(spec(path))
    (tmp_path / "text").write_text("no checkpoint " * 9)
    with pytest.raises(UserError, match="text is not a readable checkpoint .*; copy it again"):
        etl.backbone(spec(tmp_path / "text"))
    shutil.copy(f"{good}.index", tmp_path / "b.index")
    with pytest.raises(UserError, match="cannot be read from .*b .*; copy its files again"):
        etl.backbone(spec(tmp_path / "b")).values()
    shutil.copy(f"{good}.index", tmp_path / "a.index")
    with pytest.raises(UserError, match="holds several checkpoints and no list of them; give one of a, b with"):
        etl.backbone(spec(tmp_path))


def test_missing_variables_name_the_scope_that_finds_them(tmp_path):
    path = networks.save_v1(tmp_path / "m.ckpt", {f"resnet/v1/{name}": value for name, value in VALUES.items()})
    with pytest.raises(
        UserError,
        match="lacks 10 variables of network .*: stem/conv1/kernel, most similar: resnet/v1/stem/conv1/kernel; .*"
        "and 7 more; give scope='resnet/v1', or leave such variables as they are initialized with exclude='regex'",
    ):
        etl.backbone(spec(path))
    path = networks.save_v1(
        tmp_path / "n.ckpt", {n.removeprefix("stem/").removeprefix("top/"): v for n, v in VALUES.items()}
    )
    with pytest.raises(UserError, match="name them with scope= or rename="):
        etl.backbone(spec(path))


def test_a_network_that_hides_its_updates(good, tmp_path):
    source = Source(spec(good, "silent_network"), SIZE, VALUES, TRAINABLE, {})
    assert train_and_compare(source, "full", tmp_path / "inference") == (TRAINABLE, HEAD)
    with pytest.raises(
        UserError, match="moves no batch-norm statistics when .* training=True; add their update ops to"
    ):
        train_and_compare(source, "full", tmp_path / "train", batch_norm="train")


def test_variables_that_change_their_names(good, tmp_path):
    code = tmp_path / "net.py"
    code.write_text(
        "from tests import networks\nimport tensorflow as tf\ncalls = []\n\n"
        "def net(inputs, training=False):\n"
        "    calls.append(1)\n"
        "    with tf.compat.v1.variable_scope('x' * (len(calls) - 1)):\n"
        "        return networks.v1_network(inputs, training)\n"
    )
    backbone = etl.backbone(spec(good, f"{code}:net"))
    with tf.Graph().as_default(), pytest.raises(UserError, match="other names in this graph: stem/conv1/kernel is not"):
        backbone.build(tf.constant(IMAGES), CallMode())


def test_layers_of_another_keras(good, tmp_path):
    others = {"keras", "tf_keras"} - {keras.layers.Layer.__module__.partition(".")[0]}
    other = pytest.importorskip(others.pop())
    code = tmp_path / "net.py"
    code.write_text(
        f"import {other.__name__} as other\n\n"
        "def net(inputs, training=False):\n    return other.layers.BatchNormalization()(inputs, training=training)\n"
    )
    with pytest.raises(
        UserError, match=f"package {other.__name__}, whose batch norm .* use the layers of estimator_tl.keras"
    ):
        etl.backbone(spec(good, f"{code}:net"))


def test_code_that_does_not_run(good, tmp_path):
    (tmp_path / "net.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(UserError, match="net.py cannot be run .ModuleNotFoundError.*; correct it"):
        etl.backbone(spec(good, f"{tmp_path}/net.py:net"))


def test_partial_tuning_with_training_batch_norm_is_refused(v1_checkpoint):
    structure = etl.backbone(v1_checkpoint.handle).structure
    with pytest.raises(UserError, match="one training switch"):
        etl.tuning.make_plan(structure, etl.tuning.last_groups(2), batch_norm="train")
