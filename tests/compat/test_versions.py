"""Packages that do not fit each other are named in one line, before anything fails inside of them."""

from __future__ import annotations

import pytest

from estimator_tl.compat import versions
from estimator_tl.launch import doctor

SAID = (
    "tensorflow-hub 0.15.0 needs the Estimator that TensorFlow 2.21 lacks; pip install 'tensorflow-hub>=0.16.1', or "
    "name modules by their folders, which need no tensorflow-hub"
)


@pytest.fixture
def installed(monkeypatch):
    """Sets the versions of TensorFlow and of tensorflow-hub."""

    def install(tensorflow, hub):
        monkeypatch.setattr(versions, "tensorflow_version", lambda: tensorflow)
        monkeypatch.setattr(versions, "installed_versions", lambda: {"tensorflow-hub": hub} if hub else {})
        versions.load_hub.cache_clear()

    yield install
    versions.load_hub.cache_clear()


@pytest.mark.parametrize(
    ("tensorflow", "hub", "problem"),
    [
        ((2, 21), "0.15.0", SAID),
        ((2, 21), "0.16.1", None),
        ((2, 16), "0.16.0", None),
        ((2, 15), "0.15.0", None),
        ((2, 21), None, None),
    ],
)
def test_hub(installed, tensorflow, hub, problem):
    installed(tensorflow, hub)
    assert versions.hub_problem() == problem


def test_the_first_use_of_an_old_hub_says_it(installed):
    installed((2, 21), "0.15.0")
    with pytest.raises(ImportError) as raised:
        versions.load_hub()
    assert str(raised.value) == f"{SAID}."


def test_doctor_says_it(installed):
    installed((2, 21), "0.15.0")
    assert [str(finding) for finding in doctor.versions()][2:] == [f"warn  {SAID}"]
    installed((2, 21), "0.16.1")
    assert len(list(doctor.versions())) == 2
