"""What a refused command prints."""

from __future__ import annotations

from estimator_tl.cli.main import main


def refused(capsys, *arguments):
    """Runs the program, checks the form of its refusal, and returns the line."""
    code = main(list(arguments))
    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err
