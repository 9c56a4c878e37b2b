"""What editors complete is what the specs and RunConfig take."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator
from estimator_tl.config import EvaluationSpec, LaunchSpec
from estimator_tl.config.typed import ProgramSettings, RunConfigSettings

WAITS = ("stall_minutes", "cluster_wait_secs", "max_run_hours")


def types_of(spec, names=None):
    fields = {field.name: str(field.type) for field in dataclasses.fields(spec)}
    return {
        name: kind.replace("tuple[str, ...]", "Sequence[str]")
        for name, kind in fields.items()
        if not names or name in names
    }


def typed(settings):
    return {name: getattr(kind, "__forward_arg__", kind) for name, kind in settings.__annotations__.items()}


def test_settings_of_programs():
    assert typed(ProgramSettings) == {**types_of(EvaluationSpec), **types_of(LaunchSpec, WAITS)}


def test_settings_of_a_run_config():
    names = typed(RunConfigSettings)
    expected = types_of(LaunchSpec)
    assert {name: names[name] for name in expected if name != "session_config"} == {
        name: kind for name, kind in expected.items() if name != "session_config"
    }
    of_estimator = set(inspect.signature(estimator.RunConfig).parameters) - {"model_dir"}
    assert names.keys() == expected.keys() | of_estimator


@pytest.mark.parametrize("function", [etl.run_config, etl.train_and_evaluate])
def test_functions_declare_them(function):
    expected = {etl.run_config: "Unpack[RunConfigSettings]", etl.train_and_evaluate: "Unpack[ProgramSettings]"}
    assert function.__annotations__["settings"] == expected[function]
