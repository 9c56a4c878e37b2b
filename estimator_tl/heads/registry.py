"""The registry of heads."""

from estimator_tl.registry import Registry

registry = Registry("head")
