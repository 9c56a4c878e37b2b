"""The table of TensorFlow versions, from results of tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "test_matrix_table.py"
GATING = ["2.15.1@3.11"]


@pytest.fixture
def table(tmp_path):
    """Writes the table of what versions passed and failed; returns the exit code and the text."""
    spec = importlib.util.spec_from_file_location("test_matrix_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def write(**cases):
        results = tmp_path / "results"
        results.mkdir(exist_ok=True)
        for old in results.iterdir():
            old.unlink()
        for version, tests in cases.items():
            listed = "".join(
                f'<testcase classname="tests.{module}" name="test_x">{"<failure/>" if failed else ""}</testcase>'
                for module, failed in tests
            )
            name = version.removeprefix("v").replace("_", ".") + "@3.11.xml"
            (results / name).write_text(f"<testsuites><testsuite>{listed}</testsuite></testsuites>")
        target = tmp_path / "table.md"
        return module.main(results, target, GATING), target.read_text()

    return write


def row(text, area):
    line = next(line for line in text.splitlines() if line.startswith(f"| {area}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_counts_and_failures(table):
    code, text = table(v2_15_1=[("cli.test_a", False), ("cli.test_a", False)], v2_9_0=[("legacy.test_b", True)])
    assert code == 0
    assert text.index("| 2.9.0, Python 3.11 |") < text.index("| **2.15.1, Python 3.11** |")
    assert row(text, "commands") == ["0", "2"]
    assert row(text, "existing programs") == ["0 of 1", "0"]
    assert "Failed on 2.9.0, Python 3.11:\n\n- `tests.legacy.test_b::test_x`\n" in text


def test_what_was_not_run_again_keeps_its_column(table, capsys):
    table(v2_15_1=[("cli.test_a", False)], v2_9_0=[("legacy.test_b", True)])
    code, text = table(v2_15_1=[("cli.test_a", False), ("contract.test_clusters", False)])
    assert code == 0
    assert row(text, "clusters") == ["0", "1"]
    assert row(text, "existing programs") == ["0 of 1", "0"]
    assert text.count("- `tests.legacy.test_b::test_x`") == 1
    code, again = table(v2_9_0=[("legacy.test_b", False)])
    assert code == 1
    assert "gating version 2.15.1@3.11 has failures or was not run" in capsys.readouterr().err
    assert row(again, "existing programs") == ["1", "0"]
    assert "Failed on" not in again
