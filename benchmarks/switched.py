"""The service's settings with a switch: signals tell a web process to record metrics or not to.

Two processes are never alike (where their memory lies, how their strings are hashed), and what they
differ by anyway would be mistaken for the cost of metrics. So both are measured in the same ones.
"""

import signal

from parentalcontrols.settings import *  # noqa: F403
from parentalcontrols.settings import WEB_PROCESS_STARTS as _STARTS

WEB_PROCESS_STARTS = [*_STARTS, "benchmarks.switched.listen"]

ON, OFF = signal.SIGRTMIN, signal.SIGRTMIN + 1


def listen() -> None:
    """From now on `OFF` leaves a web process as METRICS_ENABLED=false does, until `ON` comes.

    The service itself has no such switch: it is never turned while it runs.
    """
    from adminmetrics import recorder, rollup

    hand_over = rollup.Reporter.hand_over

    def hand_over_if_on(self: rollup.Reporter, *, is_last: bool = False) -> None:
        if recorder._is_on:
            hand_over(self, is_last=is_last)

    def switch(number: int, _frame: object) -> None:
        recorder._is_on = number == ON

    rollup.Reporter.hand_over = hand_over_if_on  # type: ignore[method-assign]
    for number in (ON, OFF):
        signal.signal(number, switch)
