"""Does checking PINs and passwords slow heartbeats down? Row P4.

Heartbeats come at a fixed rate; beside them, in every other phase, four clients check the right
PIN or log in without a pause, each for a household of its own. Phases alternate (without, PINs,
without, log-ins), so that each is compared with the quiet one right before it.
"""

import argparse
import http.client
import itertools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import frame, machine, report
from benchmarks.load import LoadGenerator, load_generator
from benchmarks.service import (
    PASSWORD,
    Address,
    Household,
    Stage,
    count_sessions,
    serving,
)
from parentalcontrols.processes import ServerError

#: How much higher the 95th percentile may be than without hashes, in milliseconds.
TARGET_GROWTH_MS = 10.0
CLIENTS = 4
CONNECTIONS = 64
#: Seconds of each phase before its measurement starts.
SETTLE_SECONDS = 1.0
PIN = "1234"
QUIET = "without"
KINDS = {"pins": "with PIN checks", "logins": "with log-ins"}
API = "/api/v1"


@dataclass(frozen=True, slots=True)
class Call:
    """A request that makes the service hash."""

    path: str
    body: Mapping[str, str]
    token: str | None = None


class SlowClient(threading.Thread):
    """Sends the same request over and over, each as soon as the one before is answered."""

    def __init__(self, address: Address, call: Call) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._call = call
        self._stopped = threading.Event()
        #: Of each answer: when it came (`time.perf_counter`), after how many milliseconds.
        self.answers: list[tuple[float, float]] = []
        self.statuses: Counter[str] = Counter()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=30)
        while not self._stopped.is_set():
            began = time.perf_counter()
            try:
                status = send(connection, self._call)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.statuses[type(error).__name__] += 1
                continue
            ended = time.perf_counter()
            self.statuses[str(status)] += 1
            self.answers.append((ended, (ended - began) * 1000))
        connection.close()

    def stop(self) -> None:
        """Lets the request under way be the last one."""
        self._stopped.set()


def send(connection: http.client.HTTPConnection, call: Call) -> int:
    """The status of the answer to a call, once it is complete."""
    headers = {"Content-Type": "application/json"}
    if call.token is not None:
        headers["Authorization"] = f"Bearer {call.token}"
    connection.request("POST", f"{API}{call.path}", json.dumps(call.body), headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


@contextmanager
def slow_clients(address: Address, calls: Sequence[Call]) -> Iterator[list[SlowClient]]:
    """Clients that call for the length of the block."""
    clients = [SlowClient(address, call) for call in calls]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        for client in clients:
            client.stop()
        for client in clients:
            client.join()


@dataclass(frozen=True, slots=True)
class Phase:
    """The figures of one phase; latencies in milliseconds, processor use in cores."""

    number: int
    kind: str
    beats: int
    p50: float
    p95: float
    p99: float
    longest: float
    late_p99: float
    refused: Mapping[str, int]
    hashes_per_second: float
    hash_p50: float
    hash_p95: float
    hashes_refused: Mapping[str, int]
    cores: Mapping[str, float]
    connections_per_worker: Sequence[int]


def measure(
    number: int,
    kind: str,
    *,
    address: Address,
    load: LoadGenerator,
    calls: Sequence[Call],
    rate: float,
    seconds: float,
) -> Phase:
    """One phase: beats, and beside them whoever calls."""
    with slow_clients(address, calls) as clients:
        before = machine.CpuClock.read(load_pid=load.pid)
        beats = load.beat(rate=rate, seconds=seconds, settle=SETTLE_SECONDS)
        cores = machine.CpuClock.read(load_pid=load.pid).cores_since(before)
        connections = machine.connections_per_worker(address.port)
    hashes = [
        latency
        for client in clients
        for instant, latency in client.answers
        if beats.began <= instant <= beats.ended
    ]
    statuses = sum((client.statuses for client in clients), Counter[str]())
    return Phase(
        number=number,
        kind=kind,
        beats=len(beats.latencies),
        p50=report.percentile(beats.latencies, 50),
        p95=report.percentile(beats.latencies, 95),
        p99=report.percentile(beats.latencies, 99),
        longest=max(beats.latencies, default=float("nan")),
        late_p99=report.percentile(beats.late, 99),
        refused=_refusals(beats.statuses),
        hashes_per_second=len(hashes) / seconds,
        hash_p50=report.percentile(hashes, 50),
        hash_p95=report.percentile(hashes, 95),
        hashes_refused=_refusals(statuses),
        cores=cores,
        connections_per_worker=connections,
    )


def _refusals(statuses: Mapping[str, int]) -> dict[str, int]:
    return {status: count for status, count in statuses.items() if status != "200"}


def growths(phases: Sequence[Phase], kind: str) -> list[float]:
    """By how many milliseconds p95 of each such phase is above that of the quiet one before it."""
    return [
        phase.p95 - before.p95
        for before, phase in itertools.pairwise(phases)
        if phase.kind == kind and before.kind == QUIET
    ]


def calls_of(kind: str, households: Sequence[Household]) -> list[Call]:
    """What the slow clients of a kind of phase send."""
    chosen = households[:CLIENTS]
    if kind == "pins":
        path = "/parental-controls/pin/verify"
        return [Call(path, {"pin": PIN}, household.token) for household in chosen]
    if kind == "logins":
        return [
            Call("/auth/login", {"email": household.email, "password": PASSWORD})
            for household in chosen
        ]
    return []


def give_pins(households: Sequence[Household]) -> None:
    """Gives the households of the slow clients their PIN."""
    from pins.hashing import hash_pin
    from pins.models import Pin

    Pin.objects.bulk_create(
        Pin(account_id=household.account_id, pin_hash=hash_pin(household.account_id, PIN))
        for household in households[:CLIENTS]
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    kinds: Sequence[str]
    rate: float
    rounds: int
    seconds: float
    children: int


def run(stage: Stage, plan: Plan, *, worker_class: str) -> list[Phase]:
    """All phases against web processes of one class."""
    phases: list[Phase] = []
    with (
        serving(stage, knobs={"WORKER_CLASS": worker_class}) as address,
        load_generator(stage.environment) as load,
    ):
        load.plan(
            host=address.host,
            port=address.port,
            connections=CONNECTIONS,
            title_id=stage.title_id,
            watchers=[household.watcher for household in stage.households],
        )
        load.open_sessions()
        sessions = count_sessions()
        for number in range(1, plan.rounds + 1):
            for kind in (name for loud in plan.kinds for name in (QUIET, loud)):
                phase = measure(
                    number,
                    kind,
                    address=address,
                    load=load,
                    calls=calls_of(kind, stage.households),
                    rate=plan.rate,
                    seconds=plan.seconds,
                )
                phases.append(phase)
                print(
                    f"{worker_class}, round {number}, {KINDS.get(kind, kind)}: "
                    f"p95 {phase.p95:.1f} ms, {phase.hashes_per_second:.1f} hashes/s",
                    file=sys.stderr,
                )
        if count_sessions() != sessions:
            raise ServerError("Beats opened sessions: they were not the steady ones.")
    return phases


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the target is met for one kind of hash; growth in milliseconds."""

    kind: str
    growth: float
    lowest: float
    highest: float

    @property
    def is_met(self) -> bool:
        return self.growth <= TARGET_GROWTH_MS


def judge(phases: Sequence[Phase], kinds: Sequence[str]) -> list[Verdict]:
    """The median growth of each kind, and how far the rounds lie apart."""
    found = []
    for kind in kinds:
        grown = growths(phases, kind)
        found.append(Verdict(kind, report.median(grown), min(grown), max(grown)))
    return found


HEADINGS = (
    *("heartbeats", "beats", "p50", "p95", "p99", "p95 grows by", "lowest", "highest"),
    *("hashes/s", "hash p50", "hash p95", "web", "database", "load", "others"),
)


def table(phases: Sequence[Phase], verdicts: Sequence[Verdict]) -> list[str]:
    """One line per kind of phase, of medians over its rounds."""
    judged = {verdict.kind: verdict for verdict in verdicts}
    rows = []
    for kind in (QUIET, *judged):
        chosen = [phase for phase in phases if phase.kind == kind]
        row = [KINDS.get(kind, kind), str(sum(phase.beats for phase in chosen))]
        row += [f"{report.median([getattr(p, n) for p in chosen]):.1f}" for n in _LATENCIES]
        if kind == QUIET:
            row += ["-"] * 6
        else:
            verdict = judged[kind]
            row += [f"{v:+.1f}" for v in (verdict.growth, verdict.lowest, verdict.highest)]
            row += [f"{report.median([getattr(p, n) for p in chosen]):.1f}" for n in _HASHES]
        row += [
            f"{100 * report.median([phase.cores[user] for phase in chosen]):.0f} %"
            for user in machine.USERS
        ]
        rows.append(row)
    return report.table(HEADINGS, rows)


_LATENCIES = ("p50", "p95", "p99")
_HASHES = ("hashes_per_second", "hash_p50", "hash_p95")


def complaints(phases: Sequence[Phase]) -> list[str]:
    """What spoils the run, one sentence each."""
    found = []
    for what, refused in (
        ("Heartbeats", sum((Counter(phase.refused) for phase in phases), Counter[str]())),
        ("Hashes", sum((Counter(phase.hashes_refused) for phase in phases), Counter[str]())),
    ):
        if refused:
            told = ", ".join(f"{count} x {status}" for status, count in sorted(refused.items()))
            found.append(f"{what} were answered other than 200: {told} (0 is no answer).")
    return found


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; ends the process with a sentence where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hashing", description=__doc__)
    parser.add_argument("--rate", type=float, default=200, help="beats a second (200)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("--seconds", type=float, default=10, help="measured in a phase (10)")
    parser.add_argument("--children", type=int, default=1000, help="who beat in turn (1000)")
    parser.add_argument(
        "--worker-class",
        nargs="+",
        default=["gevent"],
        metavar="CLASS",
        help="gunicorn's worker classes, one after the other (gevent)",
    )
    parser.add_argument(
        "--beside", nargs="+", choices=list(KINDS), default=list(KINDS), help="which hashes (all)"
    )
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    if not (options.rate > 0 and options.seconds > 0 and options.rounds > 0):
        parser.error("--rate, --seconds and --rounds are above 0")
    if options.children < CLIENTS:
        parser.error(f"--children is at least {CLIENTS}")
    # The service ends a session after five minutes of silence.
    if options.children / options.rate > 240:
        parser.error(
            "each child beats at least every four minutes: fewer --children or more --rate"
        )
    return options


def measure_all(stage: Stage, plan: Plan, worker_classes: Sequence[str]) -> frame.Found:
    """All phases, with one class of workers after the other."""
    runs, lines, failures, told = [], [], [], []
    give_pins(stage.households)
    for worker_class in worker_classes:
        phases = run(stage, plan, worker_class=worker_class)
        verdicts = judge(phases, plan.kinds)
        failures += [f"{worker_class}: {text}" for text in complaints(phases)]
        runs.append(
            {
                "worker_class": worker_class,
                "growth_of_p95_ms": {v.kind: asdict(v) | {"is_met": v.is_met} for v in verdicts},
                "phases": [asdict(phase) for phase in phases],
            }
        )
        lines += [
            f"{plan.rate:g} heartbeats/s of {plan.children} children, "
            f"{stage.environment['WORKERS']} {worker_class} workers; "
            f"medians of {plan.rounds} rounds of {plan.seconds:g} s, "
            "milliseconds, percent of a core",
            "",
            *table(phases, verdicts),
        ]
        told += [
            report.Verdict(
                "P4",
                f"p95 at {plan.rate:g} beats/s grows {KINDS[v.kind]} ({worker_class})",
                f"{v.growth:+.1f} ms",
                f"<= {TARGET_GROWTH_MS:.0f} ms",
                v.is_met,
            )
            for v in verdicts
        ]
    figures = {
        "plan": asdict(plan) | {"clients": CLIENTS, "connections": CONNECTIONS},
        "runs": runs,
    }
    return frame.Found(told, figures, lines, failures)


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where the target is missed or a request was refused."""
    options = read_arguments(arguments)
    plan = Plan(options.beside, options.rate, options.rounds, options.seconds, options.children)
    return frame.run(
        "hashing",
        lambda stage: measure_all(stage, plan, options.worker_class),
        children=plan.children,
        output=options.output,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
