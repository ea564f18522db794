"""Does anything become slower as sessions and profiles become many? Row P7.

One database grows step by step, from a hundred thousand stored sessions to ten million, then, if
asked for, by a million profiles. On each step, round after round: heartbeats at a fixed rate, the
first pages of long histories, and weekly reports.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import frame, machine, report
from benchmarks.closed_loop import Reader, reader
from benchmarks.households import (
    MONTH_DAYS,
    WEEK_DAYS,
    add_profiles,
    families,
    grow_to,
    settle_down,
)
from benchmarks.load import LoadGenerator, load_generator
from benchmarks.reads import (
    MONTH_SESSIONS,
    WEEK_SESSIONS,
    Case,
    Phase,
    history_pages,
    measure,
    report_pages,
)
from benchmarks.service import Address, Stage, count_sessions, serving
from parentalcontrols.processes import ServerError

#: How many times that of the smallest step p95 of heartbeats may be.
TARGET_RATIO = 1.2
CONNECTIONS = 64
SETTLE_SECONDS = 1.0
#: Who is asked for the history of, and for reports of 10 children.
LONG_HISTORIES = 5
REPORTS = 5


@dataclass(frozen=True, slots=True)
class Step:
    """A size of the database."""

    sessions: int
    profiles: int

    def __str__(self) -> str:
        return f"{self.sessions:,} sessions, {self.profiles:,} profiles"


@dataclass(frozen=True, slots=True)
class Round:
    """The figures of one round on a step; latencies in milliseconds, processor use in cores."""

    step: Step
    number: int
    beat_p50: float
    beat_p95: float
    beat_p99: float
    history_p50: float
    history_p95: float
    report_p50: float
    report_p95: float
    refused: Mapping[str, int]
    cores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured; with `profiles` a last step adds so many."""

    steps: Sequence[int]
    profiles: int
    children: int
    rate: float
    rounds: int
    seconds: float
    reads: bool


class Bench:
    """The running service, the generators, and whom the reads are about."""

    def __init__(
        self, plan: Plan, address: Address, load: LoadGenerator, pages: Reader, cases: list[Case]
    ) -> None:
        self._plan = plan
        self._address = address
        self._load = load
        self._pages = pages
        self._cases = cases

    def measure(self, step: Step) -> list[Round]:
        """All rounds on a step."""
        # What was open before the database grew has gone silent by now.
        self._load.open_sessions()
        sessions = count_sessions()
        # Not measured: statements are planned anew and pages come to memory.
        self._load.beat(rate=self._plan.rate, seconds=self._plan.seconds, settle=0.0)
        rounds = [self._round(step, number) for number in range(1, self._plan.rounds + 1)]
        if count_sessions() != sessions:
            raise ServerError("Beats opened sessions: they were not the steady ones.")
        return rounds

    def _round(self, step: Step, number: int) -> Round:
        plan = self._plan
        before = machine.CpuClock.read(load_pid=self._load.pid)
        beats = self._load.beat(rate=plan.rate, seconds=plan.seconds, settle=SETTLE_SECONDS)
        cores = machine.CpuClock.read(load_pid=self._load.pid).cores_since(before)
        refused = {s: count for s, count in beats.statuses.items() if s != "200"}
        reads: dict[str, Phase] = {}
        for case in self._cases:
            phase = measure(
                number,
                case,
                address=self._address,
                load=self._pages,
                connections=1,
                seconds=plan.seconds / 2,
            )
            reads[case.name] = phase
            refused |= {f"{case.name}: {s}": count for s, count in phase.refused.items()}
        history, weekly = reads.get("history"), reads.get("report")
        made = Round(
            step=step,
            number=number,
            beat_p50=report.percentile(beats.latencies, 50),
            beat_p95=report.percentile(beats.latencies, 95),
            beat_p99=report.percentile(beats.latencies, 99),
            history_p50=history.p50 if history else math.nan,
            history_p95=history.p95 if history else math.nan,
            report_p50=weekly.p50 if weekly else math.nan,
            report_p95=weekly.p95 if weekly else math.nan,
            refused=refused,
            cores=cores,
        )
        print(f"{step}, round {number}: heartbeats p95 {made.beat_p95:.1f} ms", file=sys.stderr)
        return made


def prepare(plan: Plan) -> list[Case]:
    """Those whom the reads are about; they are there on every step."""
    if not plan.reads:
        return []
    long = families(
        "long", count=1, children=LONG_HISTORIES, sessions=MONTH_SESSIONS, days=MONTH_DAYS
    )
    week = families("week", count=REPORTS, children=10, sessions=WEEK_SESSIONS, days=WEEK_DAYS)
    return [
        Case("history", "P7", history_pages(long), None),
        Case("report", "P7", report_pages(week), None),
    ]


def run(stage: Stage, plan: Plan) -> list[Round]:
    """Grows the database and measures on each step."""
    from parentalcontrols.models import Profile

    rounds: list[Round] = []
    cases = prepare(plan)
    with (
        serving(stage) as address,
        load_generator(stage.environment) as load,
        reader(stage.environment) as pages,
    ):
        load.plan(
            host=address.host,
            port=address.port,
            connections=CONNECTIONS,
            title_id=stage.title_id,
            watchers=[household.watcher for household in stage.households],
        )
        bench = Bench(plan, address, load, pages, cases)
        for seed, target in enumerate([*plan.steps, *([0] if plan.profiles else [])], start=1):
            if target:
                print(f"Growing to {target:,} sessions", file=sys.stderr)
                grow_to(target, seed=seed)
            else:
                print(f"Adding {plan.profiles:,} profiles", file=sys.stderr)
                add_profiles(plan.profiles, seed=seed)
            settle_down()
            step = Step(count_sessions(), Profile.objects.count())
            rounds += bench.measure(step)
    return rounds


HEADINGS = (
    *("stored", "beat p50", "p95", "p99", "p95 ratio", "history p50", "p95", "ratio"),
    *("report p50", "p95", "ratio", "web", "database", "load", "others"),
)


def medians(rounds: Sequence[Round], name: str) -> dict[Step, float]:
    """The median over the rounds of a figure, of each step in order."""
    steps = dict.fromkeys(one.step for one in rounds)
    return {
        step: report.median([getattr(one, name) for one in rounds if one.step == step])
        for step in steps
    }


def ratios(rounds: Sequence[Round], name: str) -> dict[Step, float]:
    """How many times that of the first step the median of a figure is."""
    found = medians(rounds, name)
    first = next(iter(found.values()))
    return {step: value / first for step, value in found.items()}


def table(rounds: Sequence[Round]) -> list[str]:
    """One line per step, of medians over its rounds, with ratios to the first one."""
    rows = []
    columns = [
        *((medians(rounds, name), ".1f") for name in ("beat_p50", "beat_p95", "beat_p99")),
        (ratios(rounds, "beat_p95"), ".2f"),
        *((medians(rounds, name), ".1f") for name in ("history_p50", "history_p95")),
        (ratios(rounds, "history_p95"), ".2f"),
        *((medians(rounds, name), ".1f") for name in ("report_p50", "report_p95")),
        (ratios(rounds, "report_p95"), ".2f"),
    ]
    for step in dict.fromkeys(one.step for one in rounds):
        row = [str(step)]
        row += [
            "-" if math.isnan(values[step]) else format(values[step], form)
            for values, form in columns
        ]
        row += [
            f"{100 * report.median([one.cores[user] for one in rounds if one.step == step]):.0f} %"
            for user in machine.USERS
        ]
        rows.append(row)
    return report.table(HEADINGS, rows)


def judge(rounds: Sequence[Round]) -> list[report.Verdict]:
    """The target, for each step after the first."""
    return [
        report.Verdict(
            "P7",
            f"p95 of heartbeats with {step} against the first",
            f"{ratio:.2f}x",
            f"<= {TARGET_RATIO}x",
            ratio <= TARGET_RATIO,
        )
        for step, ratio in list(ratios(rounds, "beat_p95").items())[1:]
    ]


def complaints(rounds: Sequence[Round]) -> list[str]:
    """What spoils the run, one sentence each."""
    found = []
    for one in rounds:
        if one.refused:
            told = ", ".join(f"{count} x {status}" for status, count in one.refused.items())
            found.append(f"{one.step}: answered other than 200: {told} (0 is no answer).")
    return found


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; ends the process with a sentence where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument(
        "--steps",
        type=int,
        nargs="+",
        default=[100_000, 1_000_000, 10_000_000],
        help="sessions stored, upwards (100000 1000000 10000000)",
    )
    parser.add_argument(
        "--profiles",
        type=int,
        default=0,
        help="a last step adds so many children who never beat (0: no such step)",
    )
    parser.add_argument("--children", type=int, default=1000, help="who beat in turn (1000)")
    parser.add_argument("--rate", type=float, default=200, help="beats a second (200)")
    parser.add_argument("--rounds", type=int, default=3, help="on each step (3)")
    parser.add_argument("--seconds", type=float, default=10, help="of beats in a round (10)")
    parser.add_argument("--beats-only", action="store_true", help="leave history and report out")
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    if not (options.rate > 0 and options.seconds > 0 and options.rounds > 0):
        parser.error("--rate, --seconds and --rounds are above 0")
    if options.steps != sorted(set(options.steps)) or options.steps[0] < 1:
        parser.error("--steps go upwards")
    # The service ends a session after five minutes of silence; reads take as long as beats do.
    if 2.5 * options.children / options.rate > 240:
        parser.error(
            "each child beats at least every four minutes: fewer --children or more --rate"
        )
    return options


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where the target is missed or a request was refused."""
    options = read_arguments(arguments)
    plan = Plan(
        steps=options.steps,
        profiles=options.profiles,
        children=options.children,
        rate=options.rate,
        rounds=options.rounds,
        seconds=options.seconds,
        reads=not options.beats_only,
    )

    def measure_all(stage: Stage) -> frame.Found:
        rounds = run(stage, plan)
        lines = [
            f"{plan.rate:g} heartbeats/s of {plan.children} children over {CONNECTIONS} "
            f"connections, reads over one; medians of {plan.rounds} rounds of {plan.seconds:g} s, "
            "milliseconds, ratios to the first line, percent of a core",
            "",
            *table(rounds),
        ]
        figures = {
            "plan": asdict(plan) | {"connections": CONNECTIONS},
            "rounds": [asdict(one) for one in rounds],
        }
        return frame.Found(judge(rounds), figures, lines, complaints(rounds))

    return frame.run("growth", measure_all, children=plan.children, output=options.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
