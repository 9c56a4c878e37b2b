"""What README.md, docs/, and flags/ write is there: names, command lines, flags, recipes."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import estimator_tl as etl
from estimator_tl.cli.command import CommandFlags, define_common
from estimator_tl.cli.main import COMMANDS
from estimator_tl.config import EvaluationSpec, LaunchSpec, ModelSpec, TrainingSpec

ROOT = Path(__file__).parent.parent
DOCUMENTS = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
FLAGFILES = sorted((ROOT / "flags").rglob("*.flags"))
NAMES = sorted(set(re.findall(r"\b(?:etl|estimator_tl)\.([A-Za-z_][\w.]*[A-Za-z_])", "\n".join(DOCUMENTS.values()))))


def command_lines(text):
    """Returns each ``estimator-tl COMMAND ...`` of a document, in code blocks and in lines, as words."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(rf"estimator-tl +(?:{'|'.join(COMMANDS)})\b[^`|\n]*", joined)
    return [[word for word in shlex.split(line, comments=True) if word != "..."] for line in found]


def flags_of(command):
    module = importlib.import_module(f"estimator_tl.cli.{command}").COMMAND
    known = CommandFlags()
    module.define(known)
    define_common(known)
    return known


def parsed(words):
    """Parses a command line as the program would; its flagfiles are those of the project, others are the reader's."""
    _, command, *arguments = words
    if command == "legacy":  # all that follows belongs to the program
        return None
    known = flags_of(command)
    given = [word for word in arguments if not re.match(r"--flagfile=(?!flags/)", word)]
    assert known.parse(command, [word.replace("=flags/", f"={ROOT}/flags/") for word in given]) == [], words
    return known.values


def test_a_document_speaks_of_each_of_these():
    assert set(DOCUMENTS) >= {"README.md", "RECIPES.md", "CLUSTERS.md"}
    assert len(NAMES) > 20
    assert {"flags/frozen.flags", "flags/clusters/mirrored.flags"} <= {str(p.relative_to(ROOT)) for p in FLAGFILES}


@pytest.mark.parametrize("name", NAMES)
def test_names_resolve(name):
    """From ``import estimator_tl`` alone: a module that something else has imported would be an attribute, too."""
    first, *others = name.split(".")
    assert first in etl.__all__
    value = getattr(etl, first)
    for other in others:
        value = getattr(value, other)


def test_the_best_exporter_as_the_documents_write_it():
    (call,) = re.findall(r"`(etl\.BestExporter\(.*?\))`", DOCUMENTS["PROGRAMS.md"])
    program = f"""
import sys
import estimator_tl as etl, estimator_tl
assert "tensorflow" not in sys.modules, "importing the package is quick"
receiver_fn = lambda: None
assert {call}.name == "best"
assert estimator_tl.BestExporter is estimator_tl.export.BestExporter
assert issubclass(estimator_tl.UserError, Exception)
assert issubclass(estimator_tl.LostPeersError, RuntimeError)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300, cwd=ROOT)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_command_lines_parse(document):
    for words in command_lines(DOCUMENTS[document]):
        parsed(words)


def test_the_readme_has_a_line_for_each_use():
    commands = {words[1] for words in command_lines(DOCUMENTS["README.md"])}
    assert {"train", "evaluate", "predict", "export", "inspect", "doctor", "legacy"} <= commands


@pytest.mark.parametrize("document", DOCUMENTS)
def test_flags_in_text_exist(document):
    """A flag that a document names in a line is one of a command, or stands in one of the scripts."""
    known = {name for command in COMMANDS if command != "legacy" for name in flags_of(command).values}
    scripts = "\n".join(path.read_text() for path in (ROOT / "scripts").iterdir() if path.is_file())
    for name in re.findall(r"(?<!`)`--(\w+)[^`\n]*`(?!`)", DOCUMENTS[document]):
        positive = name[2:] if name.startswith("no") and name not in known else name
        assert positive in known or f"--{name}" in scripts, name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_programs_are_python(document):
    for program in re.findall(r"```python\n(.*?)```", DOCUMENTS[document], re.DOTALL):
        ast.parse(program)


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_flagfiles(path):
    known = flags_of("train")
    assert known.parse("train", [f"--flagfile={path}"]) == []
    assert known.given(), "a recipe says something"
    values = known.values
    # What the names stand for exists, and the values fit together.
    str(etl.tuning.registry.make(values.tuning))
    optimizer = etl.optimizers.registry.make(values.optimizer)
    if values.learning_rate is not None:
        optimizer.with_learning_rate(values.learning_rate)
    etl.heads.registry.make(values.head)
    ModelSpec("module", values.tuning, values.head, values.optimizer, values.batch_norm)
    TrainingSpec(values.train_steps, values.epochs, values.batch_size, values.learning_rate)
    for kind in (EvaluationSpec, LaunchSpec):
        names = [name for name in known.given() if name in kind.__dataclass_fields__]
        kind(**{name: getattr(values, name) for name in names})
    # The comment shows how to use it.
    text = re.sub(r"\n# *", " ", path.read_text().replace("\\\n#", ""))
    for words in command_lines(text):
        if words[1] == "train":
            assert f"--flagfile={path.relative_to(ROOT)}" in words
            parsed([word for word in words if word.startswith("-") or word in ("estimator-tl", "train")])
