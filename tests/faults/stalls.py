"""When the machine had no processor to give, which is nobody's lateness.

A thread wants to wake every few milliseconds and notes how much later it did. Players, the service
and the servers share the processors with it; whoever is late although it was not has to answer.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

_TICK_SECONDS: Final = 0.02
#: What a thread that is not kept from running may be late by.
_USUAL_SECONDS: Final = 0.02


@dataclass
class Stalls:
    """The instants at which a stall ended, in microseconds since 1970, and its seconds."""

    noted: list[tuple[int, float]] = field(default_factory=list)

    def seconds_between(self, start: int, end: int) -> float:
        """How much of the time between two instants was kept from everybody."""
        return sum(
            min(seconds, (woke_at - start) / 1e6)
            for woke_at, seconds in self.noted
            if start < woke_at <= end
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, stalls are noted."""
        is_over = threading.Event()
        watching = threading.Thread(target=self._watch, args=(is_over,), name="stalls")
        watching.start()
        try:
            yield
        finally:
            is_over.set()
            watching.join()

    def _watch(self, is_over: threading.Event) -> None:
        while not is_over.is_set():
            began = time.monotonic()
            time.sleep(_TICK_SECONDS)
            late = time.monotonic() - began - _TICK_SECONDS
            if late > _USUAL_SECONDS:
                self.noted.append((time.time_ns() // 1000, late))
