"""How a command starts: what it imports, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc
from estimator_tl.compat import quiet

quiet.import_tensorflow_quietly()
first = gc.get_freeze_count()
quiet.import_tensorflow_quietly()
print(first, gc.get_freeze_count(), gc.isenabled())
"""


def test_collections_skip_tensorflow_itself_and_nothing_that_comes_after():
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True, timeout=300)
    first, again, enabled = done.stdout.split()
    assert int(first) > 100_000
    assert int(again) <= int(first)
    assert enabled == "True"
