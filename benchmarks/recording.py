"""What do metrics cost? Each function of the recorder, and heartbeats with and without them.

A function is called 100,000 times, in microseconds, the best of five rounds. Heartbeats are those
of `alternatives`, in turns with METRICS_ENABLED on and off.
"""

import argparse
import sys
import timeit
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import alternatives, frame, report
from benchmarks.service import Stage

TARGET_MICROSECONDS = 2.0
#: By how many percent heartbeats without metrics may be more.
TARGET_PERCENT = 3.0
ROUNDS, CALLS = 5, 100_000


def microseconds(call: Callable[[], object]) -> float:
    """What one call costs."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def calls() -> dict[str, tuple[float, float]]:
    """Microseconds of each of the recorder's functions, on and off."""
    from adminmetrics import recorder

    measured: dict[str, Callable[[], object]] = {
        "heartbeats": lambda: recorder.heartbeats(1, 1, 0.0042),
        "count": lambda: recorder.count(recorder.CONFIG_CACHE_HITS),
        "observe": lambda: recorder.observe(recorder.HASH_WAIT_SECONDS, 0.0042),
        "gauge": lambda: recorder.gauge(recorder.HASHING_QUEUE, 3),
        "verdict": lambda: recorder.verdict("allowed"),
    }
    found = {}
    for name, call in measured.items():
        recorder.reset(is_on=True)
        on = microseconds(call)
        recorder.reset(is_on=False)
        found[name] = (on, microseconds(call))
    return found


def measure(stage: Stage, *, rounds: int, seconds: float) -> frame.Found:
    """Both."""
    cost = calls()
    names = (alternatives.AS_BUILT, alternatives.NO_METRICS)
    beats = alternatives.run(stage, names, rounds=rounds, seconds=seconds)
    more = 100 * (report.median(alternatives.shares(beats, alternatives.NO_METRICS)) - 1)
    dearest = max(on for on, _ in cost.values())
    verdicts = [
        report.Verdict(
            "recorder",
            "dearest call",
            f"{dearest:.2f} us",
            f"<= {TARGET_MICROSECONDS:.0f} us",
            dearest <= TARGET_MICROSECONDS,
        ),
        report.Verdict(
            "recorder",
            "beats that are answered more without metrics",
            f"{more:.1f} %",
            f"<= {TARGET_PERCENT:.0f} %",
            more <= TARGET_PERCENT,
        ),
    ]
    lines = [
        *report.table(
            ("microseconds", "on", "off"),
            [[f"recorder.{name}", f"{on:.2f}", f"{off:.2f}"] for name, (on, off) in cost.items()],
        ),
        "",
        *alternatives.table(beats),
    ]
    figures = {
        "microseconds": {name: {"on": on, "off": off} for name, (on, off) in cost.items()},
        "rounds": [{name: asdict(answered) for name, answered in r.items()} for r in beats],
    }
    return frame.Found(verdicts, figures, lines)


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="of heartbeats (8)")
    parser.add_argument("--seconds", type=float, default=4, help="measured of each (4)")
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    return frame.run(
        "recording",
        lambda stage: measure(stage, rounds=options.rounds, seconds=options.seconds),
        children=1000,
        output=options.output,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
