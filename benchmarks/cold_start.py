"""Is the first request after a start as quick as any? Row P8.

The service is started again and again; each time one client sends steady beats, one after the
other, over one connection. Nobody else is there.
"""

import argparse
import http.client
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, report
from benchmarks.service import Address, Stage, serving, stage, stop_on_sigterm
from parentalcontrols.processes import ServerError

TARGET_RATIO = 2.0
#: Beats of which the median is taken.
USUAL = 400
#: Requests on connections of their own right after a start, of which the slowest counts.
FIRST = 1


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


def measure(address: Address, stage: Stage, session: str | None) -> tuple[float, float, str]:
    """Milliseconds of the slowest first request, the median of the later ones, the session."""
    first = 0.0
    for _ in range(FIRST):
        # Connected before the clock starts: what is measured is the service's answer.
        connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
        connection.connect()
        began = time.perf_counter()
        found = beat(connection, stage, session)
        if session is not None:
            first = max(first, (time.perf_counter() - began) * 1000)
        session = found
    usual = []
    for _ in range(USUAL):
        began = time.perf_counter()
        beat(connection, stage, session)
        usual.append((time.perf_counter() - began) * 1000)
    return first, statistics.median(usual), str(session)


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__)
    parser.add_argument("--starts", type=int, default=7, help="(7)")
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    stop_on_sigterm()
    starts = []
    try:
        with stage(children=1) as prepared:
            context = {
                "machine": machine.described(prepared.folder),
                "software": machine.software(),
                "settings": prepared.settings(),
            }
            session: str | None = None
            with serving(prepared) as address:
                _, _, session = measure(address, prepared, session)
            for number in range(1, options.starts + 1):
                with serving(prepared) as address:
                    first, usual, session = measure(address, prepared, session)
                starts.append({"first_ms": first, "usual_ms": usual})
                print(f"start {number}: first {first:.1f} ms, then {usual:.1f} ms", file=sys.stderr)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    ratio = report.median([start["first_ms"] / start["usual_ms"] for start in starts])
    return report.conclude(
        "cold_start",
        [
            report.Verdict(
                "P8",
                "slowest first request against the median of the later ones",
                f"{ratio:.2f}x",
                f"<= {TARGET_RATIO:.0f}x",
                ratio <= TARGET_RATIO,
            )
        ],
        {**context, "starts": starts},
        options.output,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
