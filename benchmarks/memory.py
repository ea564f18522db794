"""How large does a worker become? Row P9.

Batches and single beats until every worker has had its share of a million heartbeats; the resident
memory of each worker is read on the way.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import frame, report
from benchmarks.service import Stage, first_beats, one_household, serving
from benchmarks.wrk import Players

TARGET_MIB = 120.0
#: How much more memory the second half of the beats may take.
TARGET_GROWTH_MIB = 4.0
BATCH, BATCHES = 500, 4
_STEPS = 8


def measure(stage: Stage, beats: int) -> frame.Found:
    """The sizes after each step of so many beats."""
    sizes: list[dict[str, float]] = []
    home = one_household(BATCH * BATCHES)
    with serving(stage) as address:
        players = Players(address, stage.folder)
        alone = first_beats(address, stage.households, stage.title_id)
        single = players.write_single(alone, stage.households)
        together = first_beats(address, home, stage.title_id)
        batches = players.write_batches(together, home[0].token, BATCH)
        sent = 0
        for step in range(_STEPS):
            sent += players.play(single, connections=64, seconds=3).requests
            while sent < beats * (step + 1) / _STEPS:
                found = players.play(batches, connections=BATCHES, seconds=3, apart=True)
                sent += BATCH * found.requests
            largest = max(worker.memory_info().rss for worker in address.workers()) / 2**20
            sizes.append({"beats": sent, "largest_worker_mib": largest})
            print(f"{sent:,} beats: {largest:.1f} MiB", file=sys.stderr)
    last = sizes[-1]["largest_worker_mib"]
    growth = last - sizes[_STEPS // 2 - 1]["largest_worker_mib"]
    verdicts = [
        report.Verdict(
            "P9",
            f"largest worker after {sent:,} beats of all",
            f"{last:.0f} MiB",
            f"<= {TARGET_MIB:.0f} MiB",
            last <= TARGET_MIB,
        ),
        report.Verdict(
            "P9",
            "growth in the second half of them",
            f"{growth:.1f} MiB",
            f"<= {TARGET_GROWTH_MIB:.0f} MiB",
            growth <= TARGET_GROWTH_MIB,
        ),
    ]
    return frame.Found(verdicts, {"sizes": sizes})


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--beats", type=int, default=2_000_000, help="of all workers (2 million)")
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    return frame.run(
        "memory",
        lambda stage: measure(stage, options.beats),
        children=1000,
        output=options.output,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
