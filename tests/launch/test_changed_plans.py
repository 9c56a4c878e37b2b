"""Going on with a run under another policy or optimizer."""

from __future__ import annotations

import json

import numpy as np

from estimator_tl.cli.main import main
from tests.checkpoints import checkpoint_values
from tests.runs import HEAD, files, moved, states, train

TOP = "--tuning=last_layers(3)"


def test_a_change_needs_to_be_allowed(keras_h5, pictures, tmp_path, capsys):
    train(tmp_path / "run", keras_h5, pictures, 2, "--tuning=linear_probe_then_full(1)")
    before = files(tmp_path)
    for flag, named in (
        (TOP, "tuning is 'linear_probe_then_full(1)' there and 'last_layers(3)' here"),
        ("--tuning=linear_probe_then_full(3)", "tuning is 'linear_probe_then_full(1)'"),  # edited phases
        ("--optimizer=sgd", "optimizer is 'adam' there and 'sgd' here"),
        ("--batch_norm=train", "batch_norm is 'inference' there and 'train' here"),
    ):
        flags = [flag] if flag.startswith("--tuning") else ["--tuning=linear_probe_then_full(1)", flag]
        capsys.readouterr()
        train(tmp_path / "run", keras_h5, pictures, 4, *flags, code=2)
        line = capsys.readouterr().err
        assert named in line
        assert "--allow_plan_change" in line
        assert line.count("\n") == 1
    flags = ["--tuning=linear_probe_then_full(1)", "--batch_norm=recalibrate", "--allow_plan_change"]
    train(tmp_path / "run", keras_h5, pictures, 4, *flags, code=2)
    assert "before the first step only" in capsys.readouterr().err
    flags = ["--head=classifier(hidden_units=[4])", "--allow_plan_change"]
    train(tmp_path / "run", keras_h5, pictures, 4, *flags, code=2)
    assert "head is 'classifier' there" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_unfreezing_more_is_as_if_it_had_been_a_phase(keras_h5, pictures, tmp_path, capsys):
    """The slots begin empty and Adam with its first step, so the numbers are those of a run with phases."""
    same = "--nobackbone_dropout"
    train(tmp_path / "run", keras_h5, pictures, 3, same)
    train(tmp_path / "run", keras_h5, pictures, 6, same, TOP, "--allow_plan_change")
    assert "plan changed at step 3: tuning last_layers(3) from here on, 6 slot variables begin empty" in (
        capsys.readouterr().err
    )
    train(tmp_path / "run", keras_h5, pictures, 8, same, "--tuning=full", "--allow_plan_change")
    phases = "--tuning=phases(phase(frozen,3),phase(last_layers(3),6),full)"
    train(tmp_path / "phased", keras_h5, pictures, 8, same, phases)
    found, expected = states(tmp_path / "run", 8), states(tmp_path / "phased", 8)
    names = {*keras_h5.values, *HEAD}
    top = HEAD | keras_h5.partial["last_layers(3)"]
    everything = HEAD | keras_h5.trainable
    steps = [moved(before, after, names) for before, after in zip(found, found[1:])]
    assert steps == [HEAD] * 3 + [top] * 3 + [everything] * 2
    for name in names:
        np.testing.assert_allclose(found[8][name], expected[8][name], rtol=1e-4, atol=1e-6, err_msg=name)
    slots = [checkpoint_values(tmp_path / "run" / f"{name}.ckpt-6") for name in ("model", "changed")]
    assert not moved(*slots, slots[0])
    assert all(not slots[1][name].any() for name in slots[1].keys() - found[5].keys())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [(e["until"], e["tuning"]) for e in record["earlier"]] == [(3, "frozen"), (6, "last_layers(3)")]
    capsys.readouterr()
    assert main(["inspect", f"--model_dir={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().out.endswith("the checkpoints agree with the plan\n")


def test_freezing_again_and_another_optimizer(keras_h5, pictures, tmp_path, capsys):
    train(tmp_path / "run", keras_h5, pictures, 2, "--tuning=full")
    train(tmp_path / "run", keras_h5, pictures, 4, "--tuning=frozen", "--allow_plan_change")
    assert "no new slot variables" in capsys.readouterr().err
    optimizer = ["--optimizer=sgd(momentum=0.9)", "--allow_plan_change"]
    train(tmp_path / "run", keras_h5, pictures, 6, "--tuning=full", *optimizer)
    assert "8 slot variables begin empty" in capsys.readouterr().err
    found = states(tmp_path / "run", 6)
    names = {*keras_h5.values, *HEAD}
    everything = HEAD | keras_h5.trainable
    steps = [moved(before, after, names) for before, after in zip(found, found[1:])]
    assert steps == [everything] * 2 + [HEAD] * 2 + [everything] * 2


def test_a_change_before_the_first_checkpoint_is_none(keras_h5, pictures, tmp_path):
    train(tmp_path / "run", keras_h5, pictures, 1)
    for path in (tmp_path / "run").glob("*ckpt*"):
        path.unlink()
    (tmp_path / "run" / "checkpoint").unlink()
    train(tmp_path / "run", keras_h5, pictures, 2, TOP, "--allow_plan_change")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["earlier"] == []
