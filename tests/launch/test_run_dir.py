"""Settings and the run directory."""

from __future__ import annotations

import json

import pytest

from estimator_tl.config import DataSpec, ModelSpec, RunSpec, TrainingSpec
from estimator_tl.errors import UserError
from estimator_tl.launch.run import run_dir
from tests.runs import train

SPEC = RunSpec(ModelSpec("keras.MobileNet", input_range=(-1, 1)), DataSpec("/data"), TrainingSpec(train_steps=5))


def test_run_spec_survives_json():
    assert RunSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC


@pytest.mark.parametrize(
    ("training", "examples", "steps"),
    [(TrainingSpec(train_steps=7), 100, 7), (TrainingSpec(epochs=2, batch_size=32), 100, 7), (TrainingSpec(), 32, 5)],
)
def test_steps_of_a_run(training, examples, steps):
    assert training.total_steps(examples) == steps


def record():
    return {"settings": SPEC.to_json(), "labels": ["a", "b"], "backbone_digest": "sha256:1"}


def test_written_run_is_read_back(tmp_path):
    run_dir.write(str(tmp_path / "r"), record(), ["a", "b"], "--x=1\n")
    saved = run_dir.read(str(tmp_path / "r"))
    assert (saved.spec, saved.labels) == (SPEC, ("a", "b"))
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["flags.txt", "labels.txt", "run.json"]


def test_other_training_settings_may_continue_a_run(tmp_path):
    run_dir.write(str(tmp_path), record(), ["a", "b"], "")
    run_dir.check_continuable(str(tmp_path), SPEC.model, ["a", "b"], "sha256:1")


@pytest.mark.parametrize(
    ("labels", "digest", "model", "message"),
    [
        (["a", "c"], "sha256:1", SPEC.model, "classes is"),
        (["a", "b"], "sha256:2", SPEC.model, "backbone content is"),
        (["a", "b"], "sha256:1", ModelSpec("keras.MobileNet"), "input_range is"),
        (["a", "b"], "sha256:1", ModelSpec("keras.VGG16", input_range=(-1, 1)), "backbone is"),
    ],
)
def test_other_models_may_not(tmp_path, labels, digest, model, message):
    run_dir.write(str(tmp_path), record(), ["a", "b"], "")
    with pytest.raises(UserError, match=message):
        run_dir.check_continuable(str(tmp_path), model, labels, digest)


def test_damaged_record_is_an_error(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="not readable as a run"):
        run_dir.read(str(tmp_path))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    run_dir.write_whole(path, "old")
    with pytest.raises(TypeError):
        run_dir.write_whole(path, None)
    assert path.read_text() == "old"


def test_an_address_is_no_folder():
    with pytest.raises(UserError, match="gs://bucket/run is an address, but a run needs a folder; mount it"):
        run_dir.check_writable("gs://bucket/run")


def test_a_setting_that_is_not_taken_is_named_with_its_file(keras_h5, pictures, tmp_path):
    """A refusal of a setting is no damage of the file."""
    train(tmp_path, keras_h5, pictures, 1)
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"batch_norm": "inference"', '"batch_norm": "inferense"'))
    with pytest.raises(UserError) as refused:
        run_dir.read(str(tmp_path))
    assert str(refused.value) == (
        f"{path} holds a setting that this version refuses: unknown batch_norm 'inferense'; did you mean "
        "'inference'? Known: inference, train, recalibrate."
    )
