"""Exports for TF Serving."""

from estimator_tl.export.best import BestExporter
from estimator_tl.export.exporters import make_exporters
from estimator_tl.export.serving import export_saved_model, image_receiver_fn, text_receiver_fn, whole_versions

__all__ = [
    "BestExporter",
    "export_saved_model",
    "image_receiver_fn",
    "make_exporters",
    "text_receiver_fn",
    "whole_versions",
]
