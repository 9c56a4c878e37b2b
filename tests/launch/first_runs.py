"""Runs as the first generation of rules wrote them."""

from __future__ import annotations

import json


def settings(model_dir):
    return json.loads((model_dir / "run.json").read_text())["settings"]


def make_first(model_dir):
    """Takes out of run.json what runs of the first generation did not store."""
    record = json.loads((model_dir / "run.json").read_text())
    del record["settings"]["data"]["rules"]
    record["settings"]["model"]["input_range"] = None
    (model_dir / "run.json").write_text(json.dumps(record))
