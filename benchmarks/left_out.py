"""The service's settings without what `LEFT_OUT` names, to see what each part is worth.

Names, separated by commas: `gathering` (each beat is a statement of its own), `plain_beats` (each
request takes the way through Django).
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

from parentalcontrols.settings import *  # noqa: F403

_LEFT_OUT = set(os.environ["LEFT_OUT"].split(","))

if "gathering" in _LEFT_OUT:
    WEB_PROCESS_STARTS = ["viewingtime.plain_beats.rehearse"]
    PLAIN_REQUESTS = "benchmarks.left_out.alone"
if "plain_beats" in _LEFT_OUT:
    PLAIN_REQUESTS = "benchmarks.left_out.nothing"


def nothing(_environ: object, _start_response: object) -> None:
    """Leaves every request to Django."""


def alone(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
    """A beat with a connection of its own, which then goes back to the others."""
    from django.db import connection

    from viewingtime import plain_beats

    try:
        return plain_beats.answer(environ, start_response)
    finally:
        connection.close()
