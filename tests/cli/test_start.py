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


SOURCES = """
import sys

import estimator_tl.backbones as backbones

print(sorted(name for name in sys.modules if name in ("keras", "tensorflow", "tf_keras")))
backbones.backbone(sys.argv[1])
print(sorted(name for name in sys.modules if name.startswith("estimator_tl.backbones.keras")))
"""


def test_a_source_imports_what_it_needs_when_it_is_opened(hub_module):
    command = [sys.executable, "-c", SOURCES, hub_module.handle]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n[]\n"
