"""What is each part of a heartbeat's way worth? The same load with one thing changed.

The alternatives take turns: each is started, sent single steady beats over 64 connections, and
stopped, in every round. The ratio is to the service as it is built, in the same round.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks import frame, report
from benchmarks.service import Stage, first_beats, serving
from benchmarks.wrk import Answered, Players

AS_BUILT: Final = "as built"
NO_METRICS: Final = "no metrics"
#: What else could be, by the environment of the web processes.
ALTERNATIVES: Final[Mapping[str, Mapping[str, str]]] = {
    AS_BUILT: {},
    "2 greenlets that credit": {"HEARTBEAT_CREDITORS": "2"},
    "4 greenlets that credit": {"HEARTBEAT_CREDITORS": "4"},
    NO_METRICS: {"METRICS_ENABLED": "false"},
    "through Django": {
        "DJANGO_SETTINGS_MODULE": "benchmarks.left_out",
        "LEFT_OUT": "plain_beats",
    },
    "no gathering": {"DJANGO_SETTINGS_MODULE": "benchmarks.left_out", "LEFT_OUT": "gathering"},
    "threads": {"WORKER_CLASS": "gthread"},
    "threads, through Django": {
        "WORKER_CLASS": "gthread",
        "DJANGO_SETTINGS_MODULE": "benchmarks.left_out",
        "LEFT_OUT": "plain_beats",
    },
}
CONNECTIONS: Final = 64


def run(
    stage: Stage, names: Sequence[str], *, rounds: int, seconds: float
) -> list[dict[str, Answered]]:
    """What each of the named did in each round; every round begins with another one."""
    with serving(stage) as address:
        beats = first_beats(address, stage.households, stage.title_id)
        # Not measured: what is new to the tables is slower than what comes after it.
        players = Players(address, stage.folder)
        script = players.write_single(beats, stage.households)
        players.play(script, connections=CONNECTIONS, seconds=seconds)
    found = []
    for number in range(rounds):
        answered = {}
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            with serving(stage, knobs=ALTERNATIVES[name]) as address:
                players = Players(address, stage.folder)
                script = players.write_single(beats, stage.households)
                players.play(script, connections=CONNECTIONS, seconds=1)
                answered[name] = players.play(script, connections=CONNECTIONS, seconds=seconds)
            print(f"round {number + 1}: {name}: {answered[name].rate:.0f}/s", file=sys.stderr)
        found.append({name: answered[name] for name in names})
    return found


def shares(rounds: Sequence[Mapping[str, Answered]], name: str) -> list[float]:
    """What one of them served in each round, as a share of the service as it is built."""
    return [found[name].served / found[AS_BUILT].served for found in rounds]


def table(rounds: Sequence[Mapping[str, Answered]]) -> list[str]:
    """Medians over the rounds; latencies in milliseconds."""
    rows = []
    for name in rounds[0]:
        answered = [found[name] for found in rounds]
        ratios = shares(rounds, name)
        rows.append(
            [
                name,
                f"{report.median([a.served for a in answered]):.0f}",
                f"{100 * report.median(ratios):.1f} %",
                f"{100 * min(ratios):.1f}",
                f"{100 * max(ratios):.1f}",
                f"{report.median([a.p50 for a in answered]):.1f}",
                f"{report.median([a.p95 for a in answered]):.1f}",
                str(sum(a.refused + a.lost for a in answered)),
            ]
        )
    return report.table(
        ("heartbeats", "beats/s", "as built", "lowest", "highest", "p50", "p95", "refused"), rows
    )


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alternatives", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--seconds", type=float, default=5, help="measured of each (5)")
    parser.add_argument(
        "--only", nargs="+", choices=ALTERNATIVES, help="these beside what is built (all)"
    )
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    names = [name for name in ALTERNATIVES if name in (AS_BUILT, *(options.only or ALTERNATIVES))]

    def measure(stage: Stage) -> frame.Found:
        rounds = run(stage, names, rounds=options.rounds, seconds=options.seconds)
        figures = [{name: asdict(answered) for name, answered in r.items()} for r in rounds]
        return frame.Found([], {"rounds": figures}, table(rounds))

    return frame.run("alternatives", measure, children=1000, output=options.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
