"""How often does a heartbeat ask the database? Row P3.

Seen on the wire by libpq's trace: every statement, and BEGIN and COMMIT. In this process, by the
same functions that a web process calls; `viewingtime/tests/test_statements.py` asserts the same.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import frame, report
from benchmarks.service import one_household
from parentalcontrols.processes import ServerError

#: What a client sends to run a statement: by the simple protocol, or a bound one.
_SENT = re.compile(r"^\S*\s*F\s+\d+\s+(Query|Execute)\b(.*)$", re.MULTILINE)


def messages_of(call: Callable[[], object]) -> list[tuple[str, str]]:
    """The messages that want an answer which a call sends to the database: kind and the rest."""
    from django.db import connection

    connection.ensure_connection()
    with tempfile.TemporaryFile("w+") as trace:
        pgconn = connection.connection.pgconn
        pgconn.trace(os.dup(trace.fileno()))
        pgconn.set_trace_flags(1)
        try:
            call()
        finally:
            pgconn.untrace()
        trace.seek(0)
        return _SENT.findall(trace.read())


def round_trips(call: Callable[[], object]) -> int:
    """How many such messages there are."""
    return len(messages_of(call))


def measure(title: object) -> list[report.Verdict]:
    """The cases of the row, each with its count."""
    from parentalcontrols import config_cache
    from parentalcontrols.authentication import Caller
    from viewingtime import heartbeats
    from viewingtime.heartbeats import Heartbeat
    from viewingtime.ledger import Answer

    home = one_household(500)
    caller = Caller(home[0].account_id, 0, "account")
    beats = [Heartbeat(h.child_id, title, "tv") for h in home]  # type: ignore[arg-type]

    def send(*sent: Heartbeat) -> list[object]:
        answers = list[object](heartbeats.process(sent, caller))
        if not all(isinstance(answer, Answer) for answer in answers):
            raise ServerError("A beat was refused.")
        return answers

    def opened() -> list[Heartbeat]:
        answers = send(*beats)
        return [
            replace(beat, session_id=getattr(answer, "session_id", None))
            for beat, answer in zip(beats, answers, strict=True)
        ]

    def forgotten(*sent: Heartbeat) -> None:
        config_cache.invalidate(beat.profile_id for beat in sent)
        send(*sent)

    steady = opened()
    for _ in range(3):
        send(steady[0])
        send(*steady)
        send(beats[0])
        steady = opened()
    mixed = [*steady[:250], *(replace(beat, device_id="phone") for beat in steady[250:])]
    cases = [
        ("a steady beat, warm", round_trips(lambda: send(steady[0])), 1),
        ("a steady beat, cold", round_trips(lambda: forgotten(steady[0])), 2),
        ("500 steady beats, warm", round_trips(lambda: send(*steady)), 1),
        ("any other beat, BEGIN and COMMIT included", round_trips(lambda: send(beats[0])), 5),
        ("250 steady and 250 others", round_trips(lambda: send(*mixed)), 6),
    ]
    return [
        report.Verdict("P3", f"round trips: {what}", str(count), f"<= {most}", count <= most)
        for what, count, most in cases
    ]


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.round_trips", description=__doc__)
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    return frame.run(
        "round_trips",
        lambda stage: frame.Found(measure(stage.title_id), {}),
        children=1,
        output=options.output,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
