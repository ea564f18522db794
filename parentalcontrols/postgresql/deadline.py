"""How long the running request may wait for the database; no limit outside of requests.

The time starts with the first wait for the database: how long a client takes to send its body is
not the database's fault. Once the database hung in a web process, which is a wait of about a second
without an answer, that process refuses to wait for it for a second, so that requests that queued
behind the ones that waited are answered in time. A shorter wait is the fault of who had little
time left, or of one slow statement.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic

#: Seconds for which a web process does not wait for a database that hung.
_PAUSE = 1.0
#: Seconds without an answer that count.
_HANG = 0.95


@dataclass
class _Limit:
    """So many seconds from the first wait on; `ends` is on the monotonic clock."""

    seconds: float
    ends: float | None = None


_limit: ContextVar[_Limit | None] = ContextVar("database_limit", default=None)
_is_web_process = os.environ.get("SERVING") == "1"
_hung_until = 0.0


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """All waits for the database inside end together `seconds` after the first began.

    What comes too late raises `OperationalError`. A limit that is in force already stays.
    """
    if _limit.get() is not None:
        yield
        return
    token = _limit.set(_Limit(seconds))
    try:
        yield
    finally:
        _limit.reset(token)


def seconds_left() -> float | None:
    """Seconds to the deadline, 0 when it is over, None where there is none."""
    limit = _limit.get()
    if limit is None:
        return None
    now = monotonic()
    if now < _hung_until:
        return 0.0
    if limit.ends is None:
        limit.ends = now + limit.seconds
    return max(0.0, limit.ends - now)


def is_over() -> bool:
    """Whether the deadline has passed."""
    return seconds_left() == 0.0


def no_answer(waited: float) -> None:
    """Tells that a wait of so many seconds ended without an answer of the server.

    A long one counts where it lasted to its own end: requests that were refused because of an
    earlier one do not make the pause any longer.
    """
    global _hung_until  # noqa: PLW0603 - one for all threads of the process
    if not _is_web_process or waited < _HANG:
        return
    limit = _limit.get()
    now = monotonic()
    if limit is not None and limit.ends is not None and now >= limit.ends:
        _hung_until = now + _PAUSE
