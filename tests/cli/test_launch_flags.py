"""The flags of launching: groups in the help, flagfiles on top of each other, what needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from estimator_tl.cli import train as command
from estimator_tl.cli.cluster_flags import cluster_of
from estimator_tl.cli.command import CommandFlags, define_common
from estimator_tl.cli.main import main
from estimator_tl.config import EvaluationSpec, LaunchSpec


def parsed(*arguments):
    known = CommandFlags()
    command.define(known)
    define_common(known)
    known.parse("train", list(arguments))
    return known


def test_help_shows_the_flags_in_groups(capsys):
    assert main(["train", "--helpfull"]) == 0
    parts = re.split(r"\n\n([A-Z][^\n]*):\n", "\n\n" + capsys.readouterr().out)
    shown = {name: re.findall(r"^  --(?:\[no\])?(\w+)", text, re.M) for name, text in zip(parts[1::2], parts[2::2])}
    assert shown["Distribution"][:3] == ["distribution", "num_gpus", "cpu_replicas"]
    assert {"precision", "xla", "session_config", "device_filters"} <= set(shown["Session"])
    assert shown["Evaluation"][0] == "metric"
    (cluster,) = [names for group, names in shown.items() if group.startswith("Cluster")]
    assert {"worker_hosts", "ps_hosts", "job_name", "task_index"} <= set(cluster)
    every = [name for names in shown.values() for name in names]
    assert len(every) == len(set(every))
    for spec in (LaunchSpec, EvaluationSpec):
        assert {field.name for field in dataclasses.fields(spec)} <= set(every)


def test_a_recipe_a_cluster_and_overrides(tmp_path):
    recipe, cluster = tmp_path / "recipe.flags", tmp_path / "cluster.flags"
    recipe.write_text("--tuning=last_layers(3)\n--batch_size=64\n--precision=tf32\n--exporters=best,final\n")
    cluster.write_text(
        "# of two machines\n--chief_hosts=a:1\n--worker_hosts=b:1\n--ps_hosts=c:1\n--job_name=worker\n--task_index=0\n"
        "--batch_size=32\n--save_checkpoints_secs=60\n"
    )
    flags = parsed(f"--flagfile={recipe}", f"--flagfile={cluster}", "--task_index=0", "--precision=float32")
    values = flags.values
    assert (values.tuning, values.batch_size, values.precision) == ("last_layers(3)", 32, "float32")
    assert flags.spec(EvaluationSpec).exporters == ("best", "final")
    assert flags.spec(LaunchSpec).save_checkpoints_secs == 60
    found = cluster_of(values, {})
    assert (found.job, found.index, found.workers, found.servers) == ("worker", 0, 2, 1)
    assert parsed(f"--flagfile={cluster}", f"--flagfile={recipe}").values.batch_size == 64  # the later one wins
    assert parsed("--batch_size=8", f"--flagfile={recipe}").values.batch_size == 8


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_needs_no_tensorflow(arguments):
    program = (
        "import sys; from estimator_tl.cli.main import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout


@pytest.mark.parametrize(("precision", "expected"), [("bfloat16", "1"), ("float32", None)])
def test_bfloat16_asks_for_the_library_that_has_it(precision, expected, monkeypatch, capsys):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    assert main(["train", f"--precision={precision}"]) == 2
    assert "--model_dir" in capsys.readouterr().err
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == expected
