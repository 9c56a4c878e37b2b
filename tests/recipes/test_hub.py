"""The recipes with modules of TensorFlow Hub, as commands and as programs: both train what they say, and the same."""

from __future__ import annotations

import math
import re

import estimator_tl as etl
from estimator_tl.backbones.fetching import handles, module_cache
from tests import tiny
from tests.recipes.running import RECIPES, check, run_both

IMAGENET = "https://tfhub.dev/google/imagenet"


def run_on(module, size, title, address, pictures, folder, every, **more):
    """Runs a recipe for pictures of so many pixels on a module for smaller ones."""
    stand_ins = {address: module.handle, "flowers": str(pictures), f"image_size={size}": f"image_size={tiny.SIZE}"}
    return run_both(title, {**stand_ins, **more.pop("stand_ins", {})}, folder, every, **more)


def test_a_head_on_inception(hub_module, pictures, tmp_path):
    address, steps = f"{IMAGENET}/inception_v3/feature_vector/5", {"steps=100": "steps=2"}
    title = "A head on Inception v3"
    runs = run_on(hub_module, 299, title, address, pictures, tmp_path, every=2, stand_ins=steps)
    check(runs, hub_module, [(0, 2, 1e-3, set())])
    assert runs[0].settings("training")["batch_size"] == 32


def test_five_epochs_on_resnet(hub_module, pictures, tmp_path):
    count = len(etl.inputs.image_folder(str(pictures), validation=0.2).examples("train"))
    steps = math.ceil(5 * count / 32)
    assert 5 * count % 32  # the last step takes pictures of a sixth epoch
    address = "https://www.kaggle.com/models/google/resnet-v2/tensorFlow2/50-feature-vector/2"
    runs = run_on(hub_module, 224, "Five epochs on ResNet v2 50", address, pictures, tmp_path, every=steps)
    check(runs, hub_module, [(0, steps, 1e-3, set())], units=128)


def test_all_of_mobilenet(hub_module, pictures, tmp_path):
    address, steps = f"{IMAGENET}/mobilenet_v2_100_224/feature_vector/5", {"steps=1000": "steps=2"}
    title = "All of MobileNetV2 from Hub"
    runs = run_on(hub_module, 224, title, address, pictures, tmp_path, every=2, stand_ins=steps)
    statistics = {name for name in hub_module.values if "moving" in name}
    assert len(statistics) == 4
    check(runs, hub_module, [(0, 2, 1e-4, set(hub_module.values) - statistics)])


def test_the_addresses_need_no_network_where_the_cache_has_them(hub_module, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    addresses = set(re.findall(r"https://[\w./-]+", RECIPES))
    assert len(addresses) == 7
    for address in addresses:
        (tmp_path / module_cache.key_of(address)).symlink_to(hub_module.handle)
        assert handles.resolve(address).startswith(str(tmp_path))
