"""How long the running request may wait for the database; no limit outside of requests."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

_deadline: ContextVar[float | None] = ContextVar("database_deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """All waits for the database inside end together after `seconds`, with `OperationalError`.

    A shorter limit that is in force already stays in force.
    """
    ends = monotonic() + seconds
    outer = _deadline.get()
    token = _deadline.set(ends if outer is None else min(ends, outer))
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float | None:
    """Seconds to the deadline, 0 when it is over, None where there is none."""
    ends = _deadline.get()
    return None if ends is None else max(0.0, ends - monotonic())


def is_over() -> bool:
    """Whether the deadline has passed."""
    return seconds_left() == 0.0
