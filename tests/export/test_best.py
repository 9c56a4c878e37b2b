"""The exporter of the best model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator_tl.errors import UserError
from estimator_tl.export import BestExporter


class FakeEstimator:
    """Writes a version with the files that it is given, each a second later than the one before."""

    def __init__(self):
        self.version = 98

    def export_saved_model(self, export_dir_base, receiver_fn, assets_extra=None, checkpoint_path=None):
        self.version += 1
        folder = Path(export_dir_base, str(self.version))
        folder.mkdir(parents=True)
        for name, source in (assets_extra or {}).items():
            (folder / name).write_text(Path(source).read_text())
        (folder / "checkpoint").write_text(checkpoint_path)
        return str(folder).encode()


def exported(tmp_path, values, **options):
    """Which evaluations an exporter still has a version of, by checkpoint, the oldest first."""
    exporter, model = BestExporter(None, **options), FakeEstimator()
    for step, value in enumerate(values):
        exporter.export(model, str(tmp_path), str(step), {"accuracy": value, "global_step": step}, False)
    versions = sorted((path for path in tmp_path.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    return [int((path / "checkpoint").read_text()) for path in versions]


def test_the_best_ones_are_kept_up_to_a_number(tmp_path):
    values = [0.1, 0.3, 0.2, 0.4, 0.5, 0.6, 0.55, 0.7, 0.8]
    assert exported(tmp_path / "a", values) == [3, 4, 5, 7, 8]
    assert exported(tmp_path / "b", values, exports_to_keep=1) == [8]
    assert exported(tmp_path / "c", values, exports_to_keep=None) == [0, 1, 3, 4, 5, 7, 8]
    assert json.loads((tmp_path / "b/best.json").read_text()) == {"accuracy": 0.8, "global_step": 8}


def test_a_version_holds_further_files(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    exported(tmp_path / "a", [0.1], assets_extra={"labels.txt": str(labels)})
    assert (tmp_path / "a/99/labels.txt").read_text() == "cat\ndog\n"


def test_none_is_too_few():
    with pytest.raises(UserError, match="exports_to_keep is 0; give 1 or more, or None to keep all versions."):
        BestExporter(None, exports_to_keep=0)
