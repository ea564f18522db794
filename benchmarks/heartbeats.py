"""How many heartbeats a second, beside what PostgreSQL itself can do? Rows P1 and P2.

In each round pgbench measures the limit, then the service answers single beats over 64 and 256
connections, then batches of 500 beats over 4. Twelve times as many connections tell what becomes
of it under overload. Steady beats of children with sessions open, over HTTP, against the real
service; the database is durable, and everything shares the machine.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import frame, report
from benchmarks.limits import Limits, limits
from benchmarks.service import (
    Stage,
    count_sessions,
    first_beats,
    one_household,
    serving,
)
from benchmarks.wrk import Answered, Players
from parentalcontrols.processes import ServerError

#: What the service that this one replaces does, as a share of the limit (docs/performance.md).
REPLACED_SHARE = 0.0155
#: Ten times that; and what is aimed at.
TARGET_SHARE, AIM_SHARE = 0.155, 0.20
TARGET_P95_MS = 50.0
#: How much of the rate over 64 connections is left over 256.
TARGET_CROWD = 0.8
TARGET_BATCH_SHARE = 0.20
#: How much of the peak is left with many times the connections that it takes.
TARGET_OVERLOAD = 0.8
TARGET_HIT_RATE = 0.99
BATCH = 500
FEW, MANY, OVERLOAD, BATCHES = 64, 256, 768, 4


@dataclass(frozen=True, slots=True)
class Round:
    """One round: the limits and what the service did beside them."""

    number: int
    limit_single: float
    limit_batch: float
    few: Answered
    many: Answered
    overload: Answered
    batches: Answered

    @property
    def share(self) -> float:
        return self.few.rate / self.limit_single

    @property
    def batch_share(self) -> float:
        return BATCH * self.batches.rate / self.limit_batch


def run(stage: Stage, *, rounds: int, seconds: float) -> tuple[list[Round], float]:
    """All rounds, and the hit rate of the config cache meanwhile.

    Raises ServerError where a session was opened, so that beats were not steady.
    """
    home = one_household(BATCHES * BATCH)
    found = []
    with serving(stage) as address, limits(stage.environment["DATABASE_URL"], stage.folder) as best:
        players = Players(address, stage.folder)
        alone = first_beats(address, stage.households, stage.title_id)
        single = players.write_single(alone, stage.households)
        together = first_beats(address, home, stage.title_id)
        batches = players.write_batches(together, home[0].token, BATCH)
        sessions = count_sessions()
        # Not measured: what is prepared and cached once.
        players.play(single, connections=FEW, seconds=2)
        players.play(batches, connections=BATCHES, seconds=2, apart=True)
        asked, hits = cached()
        for number in range(1, rounds + 1):
            found.append(
                _round(number, best, players, single=single, batches=batches, seconds=seconds)
            )
            _tell(found[-1])
        asked_then, hits_then = cached()
    if count_sessions() != sessions:
        raise ServerError("Beats opened sessions: they were not the steady ones.")
    return found, (hits_then - hits) / (asked_then - asked)


def _round(
    number: int, best: Limits, players: Players, *, single: Path, batches: Path, seconds: float
) -> Round:
    return Round(
        number=number,
        limit_single=best.one_by_one(seconds),
        few=players.play(single, connections=FEW, seconds=seconds),
        many=players.play(single, connections=MANY, seconds=seconds),
        overload=players.play(single, connections=OVERLOAD, seconds=seconds),
        limit_batch=best.gathered(seconds),
        batches=players.play(batches, connections=BATCHES, seconds=seconds, apart=True),
    )


def _tell(found: Round) -> None:
    print(
        f"round {found.number}: {found.few.rate:.0f} of {found.limit_single:.0f}/s "
        f"({100 * found.share:.1f} %), batches {BATCH * found.batches.rate:.0f} of "
        f"{found.limit_batch:.0f}/s ({100 * found.batch_share:.1f} %)",
        file=sys.stderr,
    )


HEADINGS = ("load", "beats/s", "limit", "share", "p50", "p95", "p99", "refused")


def table(rounds: Sequence[Round]) -> list[str]:
    """Medians over the rounds; latencies of requests in milliseconds."""
    cases = (
        (f"single, {FEW} connections", "few", 1, "limit_single"),
        (f"single, {MANY} connections", "many", 1, "limit_single"),
        (f"single, {OVERLOAD} connections", "overload", 1, "limit_single"),
        (f"batches of {BATCH}, {BATCHES} connections", "batches", BATCH, "limit_batch"),
    )
    rows = []
    for name, case, size, limit in cases:
        answered: list[Answered] = [getattr(r, case) for r in rounds]
        limits_ = [float(getattr(r, limit)) for r in rounds]
        shares = [size * a.served / best for a, best in zip(answered, limits_, strict=True)]
        rows.append(
            [
                name,
                f"{report.median([size * a.served for a in answered]):.0f}",
                f"{report.median(limits_):.0f}",
                f"{100 * report.median(shares):.1f} %",
                *(
                    f"{report.median([getattr(a, p) for a in answered]):.1f}"
                    for p in ("p50", "p95", "p99")
                ),
                str(sum(a.refused + a.lost for a in answered)),
            ]
        )
    return report.table(HEADINGS, rows)


def cached() -> tuple[int, int]:
    """How often the web processes asked their config cache, and how often it had the answer."""
    from adminmetrics import queries, recorder

    # What they counted until now is handed over every two seconds.
    time.sleep(3)
    figures = queries.figures()
    hits = figures.count(recorder.CONFIG_CACHE_HITS)
    return hits + figures.count(recorder.CONFIG_CACHE_MISSES), hits


def verdicts(rounds: Sequence[Round], *, hit_rate: float) -> list[report.Verdict]:
    """The targets, each with its figure."""
    share = report.median([r.share for r in rounds])
    p95 = report.median([r.few.p95 for r in rounds])
    crowd = report.median([r.many.served / r.few.served for r in rounds])
    batch = report.median([r.batch_share for r in rounds])
    overload = report.median([r.overload.served / r.few.served for r in rounds])
    refused = sum(a.refused + a.lost for r in rounds for a in (r.few, r.many, r.batches))
    return [
        report.Verdict(
            "P1",
            f"single beats, share of the limit ({share / REPLACED_SHARE:.1f}x the old)",
            f"{100 * share:.1f} %",
            f">= {100 * TARGET_SHARE:.1f} %",
            share >= TARGET_SHARE,
        ),
        report.Verdict(
            "P1",
            f"p95 over {FEW} connections",
            f"{p95:.1f} ms",
            f"<= {TARGET_P95_MS:.0f} ms",
            p95 <= TARGET_P95_MS,
        ),
        report.Verdict(
            "P1",
            f"rate over {MANY} connections against {FEW}",
            f"{100 * crowd:.0f} %",
            f">= {100 * TARGET_CROWD:.0f} %",
            crowd >= TARGET_CROWD,
        ),
        report.Verdict(
            "P2",
            f"batches of {BATCH}, share of the limit",
            f"{100 * batch:.1f} %",
            f">= {100 * TARGET_BATCH_SHARE:.0f} %",
            batch >= TARGET_BATCH_SHARE,
        ),
        report.Verdict(
            "overload",
            f"served over {OVERLOAD} connections against {FEW}",
            f"{100 * overload:.0f} %",
            f">= {100 * TARGET_OVERLOAD:.0f} %",
            overload >= TARGET_OVERLOAD,
        ),
        report.Verdict(
            "cache",
            "configs that were cached",
            f"{100 * hit_rate:.2f} %",
            f"> {100 * TARGET_HIT_RATE:.0f} %",
            hit_rate > TARGET_HIT_RATE,
        ),
        report.Verdict(
            "P1", "beats refused or lost below overload", str(refused), "0", not refused
        ),
    ]


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; ends the process with a sentence where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heartbeats", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--seconds", type=float, default=8, help="measured in a phase (8)")
    parser.add_argument("--children", type=int, default=1000, help="who beat alone (1000)")
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    if not (options.seconds > 0 and options.rounds > 0 and options.children > 0):
        parser.error("--seconds, --rounds and --children are above 0")
    return options


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where a target is missed."""
    options = read_arguments(arguments)

    def measure(stage: Stage) -> frame.Found:
        rounds, hit_rate = run(stage, rounds=options.rounds, seconds=options.seconds)
        figures = {"rounds": [asdict(r) for r in rounds], "hit_rate": hit_rate}
        return frame.Found(verdicts(rounds, hit_rate=hit_rate), figures, table(rounds))

    return frame.run("heartbeats", measure, children=options.children, output=options.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
