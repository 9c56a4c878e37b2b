"""Programs of clusters that are not here, as executables in a folder that comes first on PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"


class Fakes:
    """A folder of executables that stand in for others.

    Attributes:
      folder: where they work; `calls.txt` in it lists the calls of `program`, a word a line, an empty line after each.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._bin = folder / "bin"
        self._bin.mkdir(parents=True)
        self._calls = folder / "calls.txt"

    def recorder(self, name: str, then: str = "") -> None:
        """Makes a program that notes how it was called."""
        self.program(name, f"#!/bin/bash\nprintf '%s\\n' {name} \"$@\" '' >>'{self._calls}'\n{then}\n")

    def python(self, name: str, text: str) -> None:
        """Makes a program of Python."""
        self.program(name, f"#!{sys.executable} -S\n{text}\n")

    def program(self, name: str, text: str) -> None:
        """Makes a program."""
        path = self._bin / name
        path.write_text(text)
        path.chmod(0o755)

    def calls(self) -> list[list[str]]:
        """Returns the words of each call of a recorder."""
        text = self._calls.read_text() if self._calls.exists() else ""
        return [call.split("\n") for call in text.split("\n\n") if call]

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts one of scripts/ where these programs are found first."""
        path = os.pathsep.join([str(self._bin), os.environ["PATH"]])
        return subprocess.Popen(
            [str(SCRIPTS / script), *arguments],
            env={**os.environ, "PATH": path, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
