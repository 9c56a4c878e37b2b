"""The import rule of docs/ARCHITECTURE.md: arrows go down the table only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "estimator_tl"
LEAVES = {"files", "metric_names", "registry", "specs", "structure", "errors"}
ALLOWED = {
    "cli": {
        "config",
        "launch",
        "inputs",
        "model_fn",
        "backbones",
        "tuning",
        "heads",
        "optimization",
        "export",
        "compat",
    },
    "launch": {"config", "model_fn", "backbones", "tuning", "heads", "optimization", "inputs", "export", "compat"},
    "export": {"inputs", "compat"},
    "model_fn": {"backbones", "tuning", "heads", "optimization", "compat"},
    "inputs": {"compat"},
    "backbones": {"compat"},
    "tuning": {"compat"},
    "heads": {"compat"},
    "optimization": {"compat"},
    "config": set(),
    "compat": set(),
    "files": set(),
    "metric_names": set(),
    "registry": set(),
    "specs": set(),
    "structure": set(),
    "errors": set(),
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("path", "room"), [pytest.param(p, r, id=str(p.relative_to(PACKAGE))) for p, r in modules()])
def test_rooms_import_only_what_the_table_allows(path, room):
    if room in ("__init__", "__main__"):
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("estimator_tl.")}
    assert used - {room} <= ALLOWED[room] | (LEAVES if room != "errors" else set())


@pytest.mark.parametrize(("path", "room"), [pytest.param(p, r, id=str(p.relative_to(PACKAGE))) for p, r in modules()])
def test_private_tensorflow_and_flags_stay_in_their_rooms(path, room):
    names = list(imports(path))
    if room != "compat":
        private = ("tensorflow.python", "tensorflow_estimator", "keras.src", "tf_keras")
        assert not [n for n in names if n.startswith(private)]
        assert not [n for n in names if n == "tensorflow" or n.startswith("tensorflow.")]
    if room != "cli":
        assert not [n for n in names if n.startswith("absl.flags")]


def test_help_does_not_import_tensorflow():
    code = "import sys; from estimator_tl.cli.main import main; main(['train', '--help']); "
    code += "assert 'tensorflow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--train_data" in done.stdout
