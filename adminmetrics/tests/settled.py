"""Sums that a process adds up once an hour, for tests that write roll-ups of the past."""

from adminmetrics import queries


def forget_settled() -> None:
    """They are added up anew."""
    queries._settled_figures.cache_clear()
    queries._settled_count.cache_clear()
