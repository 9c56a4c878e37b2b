"""The import rule of docs/ARCHITECTURE.md: arrows go down the table only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "estimator_tl"
LEAVES = {"files", "metric_names", "registry", "spans", "specs", "structure", "errors", "types"}
DOORS = {"tf_internals", "compat"}
ALLOWED = {
    "cli": {"config", "launch", "inputs", "model", "backbones", "tuning", "heads", "optimization", "export"}
    | {"revival", *DOORS},
    "launch": {"config", "model", "backbones", "tuning", "heads", "optimization", "inputs", "export"} | DOORS,
    "export": {"inputs"} | DOORS,
    "model": {"backbones", "tuning", "heads", "optimization"} | DOORS,
    "inputs": DOORS,
    "backbones": DOORS,
    "tuning": DOORS,
    "heads": DOORS,
    "optimization": DOORS,
    "config": set(),
    "tf_internals": {"revival", "compat"},
    "revival": {"compat"},
    "compat": set(),
    **{leaf: set() for leaf in LEAVES},
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


def test_the_document_names_each_room():
    document = (PACKAGE.parent / "docs" / "ARCHITECTURE.md").read_text()
    rooms = re.findall(r"^\| `([a-z0-9_/]+)/` \|", document, re.MULTILINE)
    folders = {str(path.parent.relative_to(PACKAGE)) for path, _ in modules() if path.parent != PACKAGE}
    assert folders - set(rooms) == {"revival/standins", "revival/startup"}
    assert not set(rooms) - folders


@pytest.mark.parametrize(("path", "room"), [pytest.param(p, r, id=str(p.relative_to(PACKAGE))) for p, r in modules()])
def test_private_tensorflow_and_flags_stay_in_their_rooms(path, room):
    names = list(imports(path))
    if room not in ("tf_internals", "revival", "compat"):
        private = ("tensorflow.python", "tensorflow_estimator", "keras.src", "tf_keras")
        assert not [n for n in names if n.startswith(private)]
        assert not [n for n in names if n == "tensorflow" or n.startswith("tensorflow.")]
    if room != "cli":
        assert not [n for n in names if n.startswith("absl.flags")]


def test_no_two_modules_import_each_other():
    """Neither at the top nor inside of functions."""
    names = {
        ".".join(("estimator_tl", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path, _ in modules()
    }
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    used = {}
    for name, path in names.items():
        known = {n if n in names else n.rpartition(".")[0] for n in imports(path) if n.startswith("estimator_tl.")}
        used[name] = (known & names.keys()) - {name}
    done: set[str] = set()

    def visit(name, above):
        assert name not in above, f"circle: {' -> '.join([*above[above.index(name) :], name])}"
        if name not in done:
            for other in sorted(used[name]):
                visit(other, [*above, name])
            done.add(name)

    for name in names:
        visit(name, [])


def first_attributes(cls):
    """Names of the attributes that a class has before a method is called: those of its body and of `__init__`."""
    for node in cls.body:
        if isinstance(node, ast.AnnAssign):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.FunctionDef):
            yield node.name
            if node.name == "__init__":
                yield from assignments(node)


def assignments(method):
    for node in ast.walk(method):
        is_assigned = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if is_assigned and ast.unparse(node.value) == "self":
            yield node.attr


def test_no_attribute_is_born_outside_of_init():
    latecomers = set()
    for path, _ in modules():
        for cls in ast.walk(ast.parse(path.read_text())):
            if isinstance(cls, ast.ClassDef):
                methods = [node for node in cls.body if isinstance(node, ast.FunctionDef)]
                names = {name for method in methods for name in assignments(method)} - set(first_attributes(cls))
                latecomers |= {f"{path.relative_to(PACKAGE)} {cls.name}.{name}" for name in names}
    assert not latecomers


def test_help_does_not_import_tensorflow():
    code = "import sys; from estimator_tl.cli.main import main; main(['train', '--help']); "
    code += "assert 'tensorflow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--train_data" in done.stdout
