"""Is the first request after a start as quick as any? Row P8.

The service is started again and again; each time one client sends steady beats, each after a pause
and on a connection of its own, as players do. Nobody else is there. What the same beats take one
upon the other is told for comparison.
"""

import argparse
import http.client
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import frame, report
from benchmarks.service import Address, Stage, serving
from parentalcontrols.processes import ServerError

TARGET_RATIO = 2.0
#: Before the first beat all workers are up and nobody asks anything; so it is before the later
#: ones that it is compared with. A processor that was idle is slow for a moment whatever it does.
PAUSE_SECONDS = 1.0
#: Beats of which the median is taken: after pauses, and one upon the other.
USUAL = 9
INCESSANT = 300


def beat(connection: http.client.HTTPConnection, stage: Stage, session: str | None) -> str:
    """One beat of the first household; answers its session."""
    household = stage.households[0]
    body = {
        "profile_id": str(household.child_id),
        "title_id": str(stage.title_id),
        "device_id": "tv",
        "session_id": session,
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {household.token}"}
    connection.request("POST", "/api/v1/viewing-time/heartbeat", json.dumps(body), headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    if response.status != 200:
        raise ServerError(f"A beat was answered {response.status}.")
    return str(answer["session_id"])


def timed_beat(address: Address, stage: Stage, session: str | None) -> tuple[float, str]:
    """Milliseconds of a beat on a connection of its own, after a pause; and its session."""
    time.sleep(PAUSE_SECONDS)
    # Connected before the clock starts: what is measured is the service's answer.
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    connection.connect()
    began = time.perf_counter()
    session = beat(connection, stage, session)
    milliseconds = (time.perf_counter() - began) * 1000
    connection.close()
    return milliseconds, session


def figures_of(address: Address, stage: Stage, session: str | None) -> tuple[dict[str, float], str]:
    """Milliseconds of the first beat and the medians of later ones; and the session."""
    first, session = timed_beat(address, stage, session)
    usual = []
    for _ in range(USUAL):
        milliseconds, session = timed_beat(address, stage, session)
        usual.append(milliseconds)
    incessant = []
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    for _ in range(INCESSANT):
        began = time.perf_counter()
        beat(connection, stage, session)
        incessant.append((time.perf_counter() - began) * 1000)
    figures = {
        "first_ms": first,
        "usual_ms": statistics.median(usual),
        "incessant_ms": statistics.median(incessant),
    }
    return figures, session


def measure(stage: Stage, starts: int) -> frame.Found:
    """The figures of so many starts."""
    found = []
    session: str | None = None
    with serving(stage) as address:
        _, session = figures_of(address, stage, session)
    for number in range(1, starts + 1):
        with serving(stage) as address:
            figures, session = figures_of(address, stage, session)
        found.append(figures)
        print(
            "start {number}: first {first_ms:.1f} ms, then {usual_ms:.1f} ms after pauses, "
            "{incessant_ms:.1f} ms without".format(number=number, **figures),
            file=sys.stderr,
        )
    ratio = report.median([start["first_ms"] / start["usual_ms"] for start in found])
    verdict = report.Verdict(
        "P8",
        "first beat after a start against the median of later ones",
        f"{ratio:.2f}x",
        f"<= {TARGET_RATIO:.0f}x",
        ratio <= TARGET_RATIO,
    )
    return frame.Found([verdict], {"starts": found})


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__)
    parser.add_argument("--starts", type=int, default=7, help="(7)")
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    return frame.run(
        "cold_start",
        lambda stage: measure(stage, options.starts),
        children=1,
        output=options.output,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
