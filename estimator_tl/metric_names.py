"""Facts about a metric that its name tells."""

from __future__ import annotations

_LOWER_IS_BETTER = ("loss", "error", "perplexity")


def lower_is_better(metric: str) -> bool:
    """Returns whether lower values of a metric are better, as for losses, errors and perplexity."""
    return any(part in metric for part in _LOWER_IS_BETTER)
