"""The commands of docs/CLUSTERS.md run as they stand, with stand-ins for what they launch."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from estimator_tl.cli import train
from estimator_tl.cli.command import CommandFlags, define_common
from estimator_tl.cli.main import COMMANDS
from tests.scripts.fakes import SCRIPTS, Fakes

DOCUMENT = (SCRIPTS.parent / "docs" / "CLUSTERS.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def fakes(tmp_path):
    made = Fakes(tmp_path)
    for name in ("estimator-tl", "gcloud"):
        made.recorder(name)
    # Like the real ones, these read what they are given.
    made.recorder("kubectl", 'cat >"${0%/*}/../manifest"')
    made.recorder("sbatch", 'while [[ $1 == --* ]]; do shift; done\nbash -n "$1"')
    (tmp_path / "scripts").symlink_to(SCRIPTS)
    (tmp_path / "flags").symlink_to(SCRIPTS.parent / "flags")
    return made


def check_flags(command, arguments):
    """Parses what `estimator-tl` would be called with."""
    assert command in COMMANDS
    if command == "legacy":
        return
    known = CommandFlags()
    train.define(known)
    if command == "doctor":
        known.number("Checks", "peer_timeout_secs", None, "")
    define_common(known)
    # The flagfiles of the README are there; others are the reader's.
    given = [word for word in arguments if not re.match(r"--flagfile=(?!flags/)", word)]
    assert known.values([command, *given]) == [command]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_commands_run(fakes, number):
    fakes.program("run", f"#!/bin/bash\nset -eo pipefail\n{BLOCKS[number]}")
    path = os.pathsep.join([str(fakes.folder / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        ["run"], cwd=fakes.folder, env=environment, executable=fakes.folder / "bin" / "run",
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    called = [call for call in fakes.calls() if call[0] == "estimator-tl"]
    for call in called:
        check_flags(call[1], [] if call[1] == "legacy" else call[2:])
    assert fakes.calls() or "--dry_run" in BLOCKS[number]
    if "kubectl" in BLOCKS[number]:
        assert "kind: TFJob" in (fakes.folder / "manifest").read_text()
    (tasks,) = re.findall(r"local_cluster((?: --\w+=\d)+)", BLOCKS[number]) or [""]
    if tasks:
        started = 1 * ("--chief" not in tasks) + sum(map(int, re.findall(r"\d", tasks)))
        assert len(called) - BLOCKS[number].count("\nestimator-tl") == started


def test_it_speaks_of_what_there_is():
    for name in re.findall(r"`(scripts/[\w.]+)`", DOCUMENT):
        assert (SCRIPTS.parent / name).is_file()
    for script in ("local_cluster", "slurm.sbatch", "tfjob.yaml", "render_tfjob.py", "tpu_vm.sh"):
        assert f"`scripts/{script}`" in DOCUMENT
    assert "docs/CLUSTERS.md" in (SCRIPTS.parent / "README.md").read_text()
