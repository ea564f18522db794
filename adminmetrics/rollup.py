"""Hands over what this process counted to the roll-ups in PostgreSQL, every few seconds.

A thread of its own, with a database connection of its own, adds what is new to the rows of the
running minute (`sql.HAND_OVER`). Where gunicorn's workers are greenlets, `threading` is what made
them so, and this is one, too. No request ever waits for it: what cannot be handed over stays
counted and goes with the next try, and all of it is as large as one reading.

What a process counted since its last hand-over dies with it where it is killed outright: the
counts of `METRICS_FLUSH_SECONDS` at most.
"""

import atexit
import json
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from adminmetrics import recorder, sql
from adminmetrics.recorder import Reading

logger = logging.getLogger(__name__)

#: Seconds that the end of a process waits for its last hand-over.
LAST_SECONDS = 3.0
#: Seconds that a request waits for a hand-over that is under way, before it goes on without.
REQUEST_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What is handed over: its number, and the rows of what is new."""

    sequence: int
    rows: list[dict[str, Any]]
    gauges: Mapping[str, int]


class Reporter:
    """Hands over for one process. `service_started`: when the service did, monotonic, as this."""

    def __init__(self, *, service_started: float | None = None) -> None:
        self.process_id: UUID = uuid4()
        self.worker = str(os.getpid())
        self._started = monotonic()
        self._service_started = self._started if service_started is None else service_started
        self._handed_over: Reading | None = None
        self._sequence = 0
        self._pending: _Parcel | None = None
        self._one_at_a_time = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._fails = False

    def hand_over(self, *, is_last: bool = False) -> None:
        """Adds to the roll-ups what is new, by the connection of whoever calls.

        Raises database errors; what could not be handed over is sent again by the next call, and
        added once, whether its answer or the whole of it was lost.
        """
        with self._one_at_a_time:
            self._hand_over(is_last=is_last)

    def hand_over_for_request(self) -> bool:
        """The same for a request, which does not wait long; whether it was done."""
        if not self._one_at_a_time.acquire(timeout=REQUEST_WAIT_SECONDS):
            return False
        try:
            self._hand_over(is_last=False)
        finally:
            self._one_at_a_time.release()
        return True

    def _hand_over(self, *, is_last: bool) -> None:
        if self._pending is not None:
            self._send(self._pending, is_last=False)
        self._pending = self._pack()
        self._send(self._pending, is_last=is_last)

    def _pack(self) -> _Parcel:
        """What was counted since the last parcel."""
        reading, before = recorder.read(), self._handed_over
        rows = []
        for name, count in reading.counters.items():
            new = count - (before.counters[name] if before else 0)
            if new:
                rows.append(_row(name, count=new))
        longest = dict(recorder.take_longest())
        for name, counts in reading.buckets.items():
            old = before.buckets[name] if before else [0] * len(counts)
            fresh = {i: n - o for i, (n, o) in enumerate(zip(counts, old, strict=True)) if n != o}
            if fresh:
                total = reading.microseconds[name] - (before.microseconds[name] if before else 0)
                rows.append(
                    _row(
                        name,
                        count=sum(fresh.values()),
                        total=total,
                        most=longest[name],
                        buckets=list(fresh),
                        counts=list(fresh.values()),
                    )
                )
        for name, value in reading.gauges.items():
            if value:
                rows.append(_row(name, count=1, total=value, most=value))
        self._handed_over = reading
        self._sequence += 1
        return _Parcel(self._sequence, rows, reading.gauges)

    def _send(self, parcel: _Parcel, *, is_last: bool) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                sql.HAND_OVER,
                {
                    "process_id": self.process_id,
                    "instance": settings.INSTANCE_NAME,
                    "worker": self.worker,
                    "age": monotonic() - self._started,
                    "service_age": monotonic() - self._service_started,
                    "alive_seconds": sql.ALIVE_SECONDS,
                    "is_last": is_last,
                    "sequence": parcel.sequence,
                    "gauges": json.dumps(parcel.gauges),
                    "rows": json.dumps(parcel.rows),
                },
            )
        self._pending = None

    # --- The thread ---

    def start(self) -> None:
        """Hands over from now on, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hands over what is left and ends; waits `LAST_SECONDS` for that at most."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        self._try()
        while not self._ending.wait(settings.METRICS_FLUSH_SECONDS):
            self._try()
        self._try(is_last=True)
        connection.close()

    def _try(self, *, is_last: bool = False) -> None:
        """Hands over, or says once that it cannot."""
        try:
            self.hand_over(is_last=is_last)
        except Exception as error:  # counting goes on whatever is wrong with the database
            connection.close()
            if not self._fails:
                cause = type(error.__cause__ or error).__name__
                logger.warning("metrics_not_handed_over", extra={"cause": cause})
            self._fails = True
        else:
            if self._fails:
                logger.info("metrics_handed_over_again")
            self._fails = False


def _row(
    name: str,
    *,
    count: int,
    total: int = 0,
    most: int = 0,
    buckets: list[int] | None = None,
    counts: list[int] | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "count": count,
        "total": total,
        "most": most,
        "buckets": buckets or [],
        "counts": counts or [],
    }


_reporter: Reporter | None = None


def start(*, service_started: float | None = None) -> None:
    """Lets this process hand over until it ends; call it after the fork, once.

    `service_started`: when the server that forked it started, by the monotonic clock. Nothing
    happens where `METRICS_ENABLED` is false.
    """
    global _reporter  # noqa: PLW0603 - one for the process
    if not settings.METRICS_ENABLED or _reporter is not None:
        return
    _reporter = Reporter(service_started=service_started)
    _reporter.start()
    atexit.register(stop)


def stop() -> None:
    """Hands over what is left, at the end of the process."""
    global _reporter
    reporter, _reporter = _reporter, None
    if reporter is not None:
        reporter.stop()


def hand_over_now() -> None:
    """What this process counted so far is in the roll-ups when this returns, where that works.

    It does not where another hand-over hangs, or the roll-ups cannot be written: then they are as
    old as they say, which is worth more than no figures, and the thread tells of it.
    """
    if _reporter is not None:
        with suppress(DatabaseError, InterfaceError):
            _reporter.hand_over_for_request()
