"""The spec grammar."""

from __future__ import annotations

import sys

import pytest

from estimator_tl.errors import UserError
from estimator_tl.registry import Call, Registry, absolute_paths, parse_call


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("frozen", Call("frozen")),
        ("last_layers(20)", Call("last_layers", (20,))),
        ("sgd(momentum=0.9, nesterov=True)", Call("sgd", (), {"momentum": 0.9, "nesterov": True})),
        (
            "keras.MobileNet(alpha=0.25, weights='w.h5')",
            Call("keras.MobileNet", (), {"alpha": 0.25, "weights": "w.h5"}),
        ),
        ("classifier(hidden_units=[8, 4])", Call("classifier", (), {"hidden_units": [8, 4]})),
        ("from_layer(-3)", Call("from_layer", (-3,))),
        ("phases((frozen, 5), full)", Call("phases", ((Call("frozen"), 5), Call("full")))),
    ],
)
def test_parses(text, call):
    assert parse_call(text) == call
    assert parse_call(str(call)) == call


@pytest.mark.parametrize(
    "text", ["last_layers(", "f(open('x').read())", "f(x for x in y)", "f(**{})", "3", "f(a+b)", ""]
)
def test_refuses_what_is_not_a_literal_call(text):
    with pytest.raises(UserError, match="spec"):
        parse_call(text)


def make_registry():
    registry = Registry("optimizer")

    @registry.register()
    def sgd(learning_rate=0.1, momentum=0.0):
        return ("sgd", learning_rate, momentum)

    return registry


def test_makes_by_name_and_arguments():
    assert make_registry().make("sgd(momentum=0.9)") == ("sgd", 0.1, 0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sdg", "unknown optimizer 'sdg'; did you mean 'sgd'"),
        ("sgd(momentun=0.9)", "no argument 'momentun'; did you mean 'momentum'"),
        ("sgd(1, 2, 3)", "too many positional"),
    ],
)
def test_answers_mistakes_with_the_nearest_name(text, message):
    with pytest.raises(UserError, match=message):
        make_registry().make(text)


def test_what_a_place_names_is_imported_at_its_first_use(monkeypatch, tmp_path):
    (tmp_path / "late_optimizers.py").write_text("def later(rate=0.5):\n    return ('later', rate)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("optimizer", {"later": "late_optimizers:later"})
    assert "later" in registry
    assert registry.names() == ["later"]
    assert "late_optimizers" not in sys.modules
    with pytest.raises(UserError) as error:
        registry.make("later(1, 2)")
    assert str(error.value) == "optimizer later(rate=0.5): too many positional arguments; correct the arguments."
    assert registry.make("later(1)") == ("later", 1)
    assert registry.takes("later", "rate")
    assert not registry.takes("later", "decay")


def test_a_program_may_replace_what_a_place_names():
    registry = Registry("optimizer", {"later": "nowhere:later"})
    registry.register("later")(lambda: "mine")
    assert registry.make("later") == "mine"


def test_paths_become_absolute_in_paths_and_specs(tmp_path, monkeypatch):
    (tmp_path / "w.h5").touch()
    monkeypatch.chdir(tmp_path)
    assert absolute_paths("w.h5") == str(tmp_path / "w.h5")
    assert absolute_paths("keras.X(weights='w.h5', alpha=1)") == f"keras.X(weights='{tmp_path}/w.h5', alpha=1)"
    assert absolute_paths("https://tfhub.dev/a/1") == "https://tfhub.dev/a/1"
    assert absolute_paths("keras.X(weights='imagenet')") == "keras.X(weights='imagenet')"
