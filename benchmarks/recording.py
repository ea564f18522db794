"""What do metrics cost? A call of the recorder, a hand-over, and heartbeats with and without them.

A function is called 100,000 times, in microseconds, the best of five rounds. Heartbeats are single
steady ones over 64 connections. The same web processes answer them with metrics and without, by
turns of seconds (`switched`), so that what the machine does to one it does to both: a pair is two
turns, one after the other.
"""

import argparse
import os
import sys
import timeit
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from random import lognormvariate
from time import perf_counter

from benchmarks import alternatives, frame, report
from benchmarks.alternatives import AS_BUILT, NO_METRICS
from benchmarks.service import Stage, first_beats, serving
from benchmarks.wrk import Answered, Players
from parentalcontrols.processes import ServerError

TARGET_MICROSECONDS = 2.0
#: By how many percent heartbeats without metrics may be more.
TARGET_PERCENT = 3.0
ROUNDS, CALLS = 5, 100_000
#: Of one process, with the beats of two seconds in each.
HAND_OVERS, BEATS = 200, 2_000


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


def hand_overs() -> list[float]:
    """Milliseconds of each of some hand-overs to the roll-ups, the commit included."""
    from adminmetrics import recorder, rollup

    recorder.reset(is_on=True)
    reporter = rollup.Reporter()
    reporter.hand_over()
    found = []
    for _ in range(HAND_OVERS):
        for _ in range(BEATS):
            recorder.heartbeats(1, 1, lognormvariate(-3.5, 0.35))
        recorder.verdict("allowed", BEATS)
        recorder.count(recorder.CONFIG_CACHE_HITS, BEATS)
        began = perf_counter()
        reporter.hand_over()
        found.append(1000 * (perf_counter() - began))
    recorder.reset()
    return found


def pairs_of_turns(stage: Stage, *, pairs: int, seconds: float) -> list[dict[str, Answered]]:
    """What was answered in each pair, with metrics and without; they go first by turns.

    Raises ServerError where the metrics do not tell of just those beats that they should.
    """
    from benchmarks import switched

    sent = len(stage.households)
    with serving(stage, knobs={"DJANGO_SETTINGS_MODULE": switched.__name__}) as address:
        players = Players(address, stage.folder)
        beats = first_beats(address, stage.households, stage.title_id)
        requests = players.write_single(beats, stage.households)
        workers = address.workers()

        def switch(name: str) -> None:
            for worker in workers:
                worker.send_signal(switched.ON if name == AS_BUILT else switched.OFF)

        def play(name: str, seconds: float) -> Answered:
            nonlocal sent
            switch(name)
            answered = players.play(requests, connections=alternatives.CONNECTIONS, seconds=seconds)
            sent += answered.requests if name == AS_BUILT else 0
            return answered

        # Not measured: what is new to tables, caches and connections is slower than what follows.
        for name in (AS_BUILT, NO_METRICS):
            play(name, 5)
        found = []
        for number in range(pairs):
            order = (AS_BUILT, NO_METRICS) if number % 2 == 0 else (NO_METRICS, AS_BUILT)
            answered = {name: play(name, seconds) for name in order}
            rates = ", ".join(f"{name} {each.rate:.0f}/s" for name, each in answered.items())
            print(f"pair {number + 1}: {rates}", file=sys.stderr)
            found.append(answered)
        switch(AS_BUILT)
    # Beats whose answers nobody waited for, when a turn ended, are counted or not.
    doubt = alternatives.CONNECTIONS * 2 * (pairs + 1)
    counted = _counted()
    if abs(counted - sent) > doubt:
        raise ServerError(f"The metrics tell of {counted} beats, {sent} were sent with them on.")
    return found


def _counted() -> int:
    """How many beats the roll-ups tell of, when every web process has ended."""
    from adminmetrics import recorder
    from adminmetrics.models import MetricRollup

    rows = MetricRollup.objects.filter(name=recorder.HEARTBEATS)
    return sum(rows.exclude(worker=str(os.getpid())).values_list("count", flat=True))


def measure(stage: Stage, *, pairs: int, seconds: float) -> frame.Found:
    """Calls, hand-overs and heartbeats."""
    cost = calls()
    handed_over = hand_overs()
    beats = pairs_of_turns(stage, pairs=pairs, seconds=seconds)
    more = [100 * (share - 1) for share in alternatives.shares(beats, NO_METRICS)]
    middle = report.median(more)
    lowest, highest = report.median_between(more)
    dearest = max(on for on, _ in cost.values())
    refused = sum(a.refused + a.lost for pair in beats for a in pair.values())
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
            f"{middle:.1f} % (95 %: {lowest:.1f} to {highest:.1f})",
            f"<= {TARGET_PERCENT:.0f} %",
            middle <= TARGET_PERCENT,
        ),
    ]
    lines = [
        *report.table(
            ("microseconds", "on", "off"),
            [[f"recorder.{name}", f"{on:.2f}", f"{off:.2f}"] for name, (on, off) in cost.items()],
        ),
        "",
        f"A hand-over every METRICS_FLUSH_SECONDS: {report.median(handed_over):.1f} ms",
        "",
        *alternatives.table(beats),
    ]
    figures = {
        "microseconds": {name: {"on": on, "off": off} for name, (on, off) in cost.items()},
        "hand_over_ms": handed_over,
        "pairs": [{name: asdict(answered) for name, answered in pair.items()} for pair in beats],
    }
    failures = [f"{refused} beats were refused or lost."] if refused else []
    return frame.Found(verdicts, figures, lines, failures)


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__)
    parser.add_argument("--pairs", type=int, default=120, help="of turns (120; two at least)")
    parser.add_argument("--seconds", type=float, default=2, help="of a turn (2)")
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    if options.pairs < 2:
        parser.error("two pairs at least")
    return frame.run(
        "recording",
        lambda stage: measure(stage, pairs=options.pairs, seconds=options.seconds),
        children=1000,
        output=options.output,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
