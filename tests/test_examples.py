"""The examples in the docstrings of public factories run as they stand."""

from __future__ import annotations

import doctest
import inspect
import shutil

import pytest

import estimator_tl as etl
from tests.tiny import write_pictures

FACTORIES = {
    "etl.BestExporter": etl.BestExporter,
    "etl.backbone": etl.backbone,
    "etl.export_saved_model": etl.export_saved_model,
    "etl.make_model_fn": etl.make_model_fn,
    "etl.run_config": etl.run_config,
    "etl.train_and_evaluate": etl.train_and_evaluate,
    **{f"etl.inputs.{name}": getattr(etl.inputs, name) for name in ("csv", "image_folder")},
    **{f"etl.tuning.{name}": getattr(etl.tuning, name) for name in etl.tuning.registry.names()},
    **{f"etl.heads.{name}": getattr(etl.heads, name) for name in etl.heads.registry.names()},
    **{f"etl.optimizers.{name}": getattr(etl.optimizers, name) for name in etl.optimizers.registry.names()},
    **{f"etl.schedules.{name}": getattr(etl.schedules, name) for name in etl.schedules.registry.names()},
}


@pytest.fixture(scope="module")
def names(hub_module, tmp_path_factory):
    """A folder with the files that examples name, and the objects that they do not make themselves."""
    folder = tmp_path_factory.mktemp("examples")
    write_pictures(folder / "flowers", ("roses", "tulips"), count=10)
    shutil.copytree(hub_module.handle, folder / "module")
    rows = (f"review {i},{('bad', 'good')[i % 2]}" for i in range(20))
    (folder / "reviews.csv").write_text("\n".join(["review,opinion", *rows]) + "\n")
    backbone = etl.backbone(str(folder / "module"))
    data = etl.inputs.image_folder(str(folder / "flowers"), validation=0.2)
    model_fn = etl.make_model_fn(backbone, etl.heads.classifier(labels=data.labels))
    config = etl.run_config(str(folder / "runs" / "flowers"))
    estimator = etl.estimator.Estimator(model_fn, config=config, params={})
    estimator.train(data.input_fn(backbone.image_spec, 4, "train", training=True), steps=1)
    return folder, {"etl": etl, "backbone": backbone, "data": data, "model_fn": model_fn}


@pytest.mark.parametrize("name", FACTORIES)
def test_each_public_factory_has_an_example_that_runs(name, names, monkeypatch):
    folder, given = names
    monkeypatch.chdir(folder)
    text = inspect.getdoc(FACTORIES[name]) or ""
    example = doctest.DocTestParser().get_doctest(text, dict(given), name, None, 0)
    assert example.examples, "the docstring has no example"
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=told.append)
    assert not told, "".join(told)
