"""How long history and weekly report take with a million sessions stored. Rows P5 and P6.

A history is the first page of thirty days in which a child has 5,000 sessions; a weekly report is
that of a household of 10 children, or of 100, with 40 sessions each in the week. Both over HTTP
from the real service, by 1 and by 8 connections that ask without a pause, in turns.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import frame, machine, report
from benchmarks.closed_loop import Page, Reader, reader
from benchmarks.households import MONTH_DAYS, WEEK_DAYS, Family, families, grow_to, settle_down
from benchmarks.queries import Asked, ask
from benchmarks.service import Address, Stage, serving
from parentalcontrols.processes import ServerError

API = "/api/v1/parental-controls"
SETTLE_SECONDS = 1.0
MOST_QUERIES = 3
CHILDREN = (10, 100)
#: Of each child in the week, and of the child with a long history in thirty days.
WEEK_SESSIONS = 40
MONTH_SESSIONS = 5000
#: Households of each kind, so that not one and the same answer is read over and over.
HOUSEHOLDS = 10


@dataclass(frozen=True, slots=True)
class Case:
    """An endpoint with those whom it is asked about; the target is in milliseconds."""

    name: str
    row: str
    pages: Sequence[Page]
    target_p95: float | None


def history_pages(of: Sequence[Family]) -> list[Page]:
    """The first page of each child's default history."""
    return [
        Page(f"{API}/profiles/{child}/history", family.token)
        for family in of
        for child in family.child_ids
    ]


def report_pages(of: Sequence[Family]) -> list[Page]:
    """Each household's weekly report."""
    return [Page(f"{API}/weekly-report", family.token) for family in of]


def prepare(sessions: int) -> list[Case]:
    """Fills the database; what is asked for of whom."""
    long = families("long", count=1, children=HOUSEHOLDS, sessions=MONTH_SESSIONS, days=MONTH_DAYS)
    cases = [Case("history, 5,000 sessions", "P6", history_pages(long), 25.0)]
    for children in CHILDREN:
        found = families(
            f"week-{children}",
            count=HOUSEHOLDS,
            children=children,
            sessions=WEEK_SESSIONS,
            days=WEEK_DAYS,
        )
        target = 15.0 if children == CHILDREN[0] else None
        cases.append(Case(f"report, {children} children", "P5", report_pages(found), target))
    grow_to(sessions, seed=1)
    settle_down()
    return cases


@dataclass(frozen=True, slots=True)
class Phase:
    """The figures of one phase; latencies in milliseconds, processor use in cores."""

    number: int
    case: str
    connections: int
    requests: int
    p50: float
    p95: float
    p99: float
    rate: float
    refused: Mapping[str, int]
    cores: Mapping[str, float]


def measure(
    number: int,
    case: Case,
    *,
    address: Address,
    load: Reader,
    connections: int,
    seconds: float,
) -> Phase:
    """One phase: the pages of a case over and over."""
    before = machine.CpuClock.read(load_pid=load.pid)
    reads = load.read(
        host=address.host,
        port=address.port,
        pages=case.pages,
        connections=connections,
        seconds=seconds,
        settle=SETTLE_SECONDS,
    )
    cores = machine.CpuClock.read(load_pid=load.pid).cores_since(before)
    return Phase(
        number=number,
        case=case.name,
        connections=connections,
        requests=len(reads.latencies),
        p50=report.percentile(reads.latencies, 50),
        p95=report.percentile(reads.latencies, 95),
        p99=report.percentile(reads.latencies, 99),
        rate=reads.rate,
        refused=reads.refused,
        cores=cores,
    )


def run(
    stage: Stage, cases: Sequence[Case], *, connections: Sequence[int], rounds: int, seconds: float
) -> list[Phase]:
    """All phases, case after case in each round."""
    phases = []
    with (
        serving(stage) as address,
        reader(stage.environment) as load,
    ):
        for number in range(1, rounds + 1):
            for case in cases:
                for count in connections:
                    phase = measure(
                        number,
                        case,
                        address=address,
                        load=load,
                        connections=count,
                        seconds=seconds,
                    )
                    phases.append(phase)
                    print(
                        f"round {number}, {case.name}, {count} connections: "
                        f"p95 {phase.p95:.1f} ms, {phase.rate:.0f}/s",
                        file=sys.stderr,
                    )
    return phases


HEADINGS = (
    *("endpoint", "connections", "p50", "p95", "p99", "answers/s", "queries", "target p95"),
    *("web", "database", "load", "others"),
)


def table(phases: Sequence[Phase], cases: Sequence[Case], asked: Mapping[str, Asked]) -> list[str]:
    """One line per case and number of connections, of medians over the rounds."""
    rows = []
    for case in cases:
        for count in sorted({phase.connections for phase in phases}):
            chosen = [p for p in phases if p.case == case.name and p.connections == count]
            row = [case.name, str(count)]
            row += [f"{report.median([getattr(p, n) for p in chosen]):.1f}" for n in _LATENCIES]
            row += [f"{report.median([p.rate for p in chosen]):.0f}"]
            row += [str(len(asked[case.name].statements))]
            row += [f"{case.target_p95:.0f}" if count == 1 and case.target_p95 else "-"]
            row += [
                f"{100 * report.median([p.cores[user] for p in chosen]):.0f} %"
                for user in machine.USERS
            ]
            rows.append(row)
    return report.table(HEADINGS, rows)


_LATENCIES = ("p50", "p95", "p99")


def judge(
    phases: Sequence[Phase], cases: Sequence[Case], asked: Mapping[str, Asked]
) -> list[report.Verdict]:
    """The targets: p95 over one connection, and the number of queries."""
    found = []
    for case in cases:
        alone = [p.p95 for p in phases if p.case == case.name and p.connections == 1]
        if case.target_p95 is not None and alone:
            p95 = report.median(alone)
            found.append(
                report.Verdict(
                    case.row,
                    f"{case.name}: p95 over one connection",
                    f"{p95:.1f} ms",
                    f"<= {case.target_p95:.0f} ms",
                    p95 <= case.target_p95,
                )
            )
        queries = len(asked[case.name].statements)
        found.append(
            report.Verdict(
                case.row,
                f"{case.name}: queries, the token's apart",
                str(queries),
                f"<= {MOST_QUERIES}",
                queries <= MOST_QUERIES,
            )
        )
    return found


def complaints(
    phases: Sequence[Phase], cases: Sequence[Case], asked: Mapping[str, Asked]
) -> list[str]:
    """What spoils the run, one sentence each."""
    found = []
    for case in cases:
        made = asked[case.name]
        if made.reads_whole_table:
            found.append(f"{case.name}: a query reads the whole table of sessions.")
        if made.spills:
            found.append(f"{case.name}: {made.spills} sorts went to disk.")
        for phase in phases:
            if phase.case == case.name and phase.refused:
                told = ", ".join(f"{count} x {status}" for status, count in phase.refused.items())
                found.append(f"{case.name}: answered other than 200: {told} (0 is no answer).")
    counts = {len(asked[case.name].statements) for case in cases if case.row == "P5"}
    if len(counts) > 1:
        found.append("The report takes more queries for more children.")
    return found


def check_answers(asked: Mapping[str, Asked], cases: Sequence[Case]) -> None:
    """Raises ServerError where an answer does not hold what was filled in."""
    for children in CHILDREN:
        answer = asked[f"report, {children} children"].answer
        if len(answer["profiles"]) != children:
            raise ServerError(f"A report of {children} children holds {len(answer['profiles'])}.")
        if not all(profile["total_minutes"] > 0 for profile in answer["profiles"]):
            raise ServerError("A report leaves out what a child has watched.")
    history: dict[str, Any] = asked[cases[0].name].answer
    if not history["days"]:
        raise ServerError("A history is empty.")


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; ends the process with a sentence where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reads", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="stored (1000000)")
    parser.add_argument(
        "--connections", type=int, nargs="+", default=[1, 8], help="at a time (1 8)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("--seconds", type=float, default=5, help="measured in a phase (5)")
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    if not (options.rounds > 0 and options.seconds > 0 and min(options.connections) > 0):
        parser.error("--rounds, --seconds and --connections are above 0")
    return options


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where a target is missed or a request was refused."""
    options = read_arguments(arguments)

    def measure_all(stage: Stage) -> frame.Found:
        cases = prepare(options.sessions)
        asked = {case.name: ask(case.pages[0]) for case in cases}
        check_answers(asked, cases)
        phases = run(
            stage,
            cases,
            connections=options.connections,
            rounds=options.rounds,
            seconds=options.seconds,
        )
        lines = [
            f"{options.sessions:,} sessions stored; medians of {options.rounds} rounds of "
            f"{options.seconds:g} s, milliseconds, percent of a core; queries without the one "
            "that checks the token",
            "",
            *table(phases, cases, asked),
        ]
        queries = {
            name: {"statements": one.statements, "scans": one.scans, "sorts_on_disk": one.spills}
            for name, one in asked.items()
        }
        figures = {
            "plan": vars(options) | {"output": None},
            "phases": [asdict(phase) for phase in phases],
            "queries": queries,
        }
        return frame.Found(
            judge(phases, cases, asked), figures, lines, complaints(phases, cases, asked)
        )

    return frame.run("reads", measure_all, children=1, output=options.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
