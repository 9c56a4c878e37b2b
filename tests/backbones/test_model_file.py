"""A saved_model.pb that is empty, cut off or something else, in each kind of folder and in Hub's cache."""

from __future__ import annotations

import shutil

import pytest

import estimator_tl as etl
from estimator_tl.backbones.checkpoint.files import CheckpointFiles
from estimator_tl.backbones.fetching import module_cache
from estimator_tl.compat import tf
from estimator_tl.errors import UserError

V1 = tf.compat.v1
FOLDERS = pytest.mark.parametrize("name", ["hub_module", "tf1_module", "keras_folder"])


def spoiled(path, content):
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"<html>", "version": whole[:2]}[content])


@pytest.mark.parametrize(
    ("content", "fault"),
    [("empty", "is empty"), ("cut", "is cut off"), ("text", "is damaged"), ("version", "holds no model")],
)
@FOLDERS
def test_the_file_and_the_remedy_are_named(request, tmp_path, name, content, fault):
    folder = tmp_path / "m"
    shutil.copytree(request.getfixturevalue(name).handle, folder)
    spoiled(folder / "saved_model.pb", content)
    for handle in (str(folder), f"keras_model({str(folder)!r}, drop_top=1)")[: 1 + (name == "keras_folder")]:
        with pytest.raises(UserError) as refused:
            etl.backbone(handle)
        assert str(refused.value) == (
            f"{folder} is not a loadable SavedModel: {folder}/saved_model.pb {fault}; get it again."
        )


def test_in_the_cache_of_hub(hub_module, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    handle = "https://example.org/module/1"
    folder = tmp_path / module_cache.key_of(handle)
    shutil.copytree(hub_module.handle, folder)
    assert etl.backbone(handle).structure.variables
    spoiled(folder / "saved_model.pb", "empty")
    with pytest.raises(UserError) as refused:
        etl.backbone(handle)
    assert str(refused.value) == (
        f"{handle} is not a loadable SavedModel: {folder}/saved_model.pb is empty; delete {folder} in Hub's cache "
        "to fetch it again."
    )


def test_several_graphs(tmp_path):
    builder = V1.saved_model.builder.SavedModelBuilder(str(tmp_path / "m"))
    with tf.Graph().as_default(), V1.Session() as session:
        V1.get_variable("kernel", [1])
        session.run(V1.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.add_meta_graph(["serve", "gpu"])
    builder.save()
    with pytest.raises(UserError) as refused:
        etl.backbone(str(tmp_path / "m"))
    assert str(refused.value) == (
        f"{tmp_path / 'm'} holds 2 graphs (serve; serve, gpu), and one is expected; export it again with one of them."
    )


def test_digests_of_the_old_format_in_folders_with_characters_of_patterns(tmp_path):
    folder = tmp_path / "exp[1]"
    folder.mkdir()
    shards = [folder / f"model.ckpt-{number:05d}-of-00002" for number in range(2)]
    for shard in shards:
        shard.write_bytes(b"shard")
    files = CheckpointFiles.__new__(CheckpointFiles)
    files.prefix = str(folder / "model.ckpt-?????-of-00002")
    assert list(files.digests) == [shard.name for shard in shards]
