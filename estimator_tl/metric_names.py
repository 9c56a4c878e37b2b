"""What the name of a metric says about it."""

from __future__ import annotations

_LOWER_IS_BETTER = ("loss", "error", "perplexity")


def lower_is_better(metric: str) -> bool:
    """Returns whether lower values of a metric are better: losses, errors and perplexity are such metrics."""
    return any(word in metric for word in _LOWER_IS_BETTER)
