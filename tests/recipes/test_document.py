"""No recipe of docs/RECIPES.md goes without its test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.recipes.running import RECIPES, blocks

TITLES = re.findall(r"^### (.*)$", RECIPES, re.MULTILINE)


def test_every_recipe_is_run():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [title for title in TITLES if f'"{title}"' not in tests] == []
    assert RECIPES.count("```sh") == RECIPES.count("```python") == len(TITLES) == 12


@pytest.mark.parametrize("title", TITLES)
def test_recipes_are_one_command_and_a_short_program(title):
    command, program = blocks(title)
    assert command.count("estimator-tl train") == 1
    statements = re.sub(r"\n[ )].*", "", program).split("\n")  # arguments on lines of their own left out
    assert len([line for line in statements if line and "import" not in line]) <= 10
