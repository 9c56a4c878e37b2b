"""Heads: logits on top of features, joined to the Estimator API's heads."""

from estimator_tl.heads.classifier import Classifier, classifier
from estimator_tl.heads.labels import naming_bad_labels
from estimator_tl.heads.registry import registry

__all__ = ["Classifier", "classifier", "naming_bad_labels", "registry"]
