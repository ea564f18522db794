"""The table of results: printed, or put into a document between its markers.

    python -m tests.faults.table FOLDER... [--write docs/reliability.md]

Each folder holds the figures of one run (`FAULT_RESULTS`). Of several runs beats are summed, and of
times the longest is told. The exit code is 1 where a scenario of a run did not pass.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.faults import results
from tests.faults.results import Result

BEGIN: Final = "<!-- figures: begin -->"
END: Final = "<!-- figures: end -->"
#: What was done, by the name of the scenario, in the order of the table.
SCENARIOS: Final = {
    "workers-killed": "workers killed (`kill -9`) while beats and batches are under way",
    "instance-killed": "one of two instances killed, master and workers",
    "postgresql-restarted": "PostgreSQL restarted (fast)",
    "postgresql-killed": "PostgreSQL killed, all its processes, and started again",
    "rows-locked": "rows of a third of the children locked, statements wait for them",
    "connections-exhausted": "all of `max_connections` taken by others, the service's own cut",
    "clock-stepped": "PostgreSQL's clock an hour forth, then back",
    "wal-full": "disk of the write-ahead log full, PostgreSQL panics, then started again",
    "valkey-killed": "Valkey killed, later started again",
    "valkey-hung": "Valkey hung",
    "valkey-slow": "Valkey 50 ms slow, then 200 ms, then unreachable without a word",
    "overload": "ten times the sustainable rate",
}
_HEAD: Final = (
    "| what was done | runs | beats taken | refused (503) | reset | longest answer to a beat "
    "| well again after | lost | too much | dishonest | passed |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def table(runs: Sequence[Sequence[Result]]) -> str:
    """Markdown; a line for each scenario of which there are figures."""
    lines = [*_HEAD]
    notes = []
    for name, what in SCENARIOS.items():
        found = [result for run in runs for result in run if result.name == name]
        ran = [result for result in found if not result.skipped]
        if ran:
            lines.append(_line(what, ran))
            notes += _notes(what, ran)
        elif found:
            lines.append(f"| {what} | 0 | not run: {found[0].skipped} |" + " |" * 8)
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def _line(what: str, ran: Sequence[Result]) -> str:
    recoveries = [result.recovery_seconds for result in ran]
    known = [seconds for seconds in recoveries if seconds is not None]
    recovery = f"{max(known):.1f} s" if known and len(known) == len(ran) else "not told"
    cells = [
        what,
        str(len(ran)),
        f"{sum(result.taken for result in ran):,}",
        f"{sum(result.refused for result in ran):,}",
        f"{sum(result.reset for result in ran):,}",
        f"{max(result.longest_beat_seconds for result in ran):.2f} s",
        recovery,
        str(sum(result.lost for result in ran)),
        str(sum(result.over_grant for result in ran)),
        str(sum(result.dishonest for result in ran)),
        f"{sum(result.has_passed for result in ran)} of {len(ran)}",
    ]
    return f"| {' | '.join(cells)} |"


def _notes(what: str, ran: Sequence[Result]) -> list[str]:
    """What a scenario told besides, of its last run."""
    figures = ran[-1].figures
    if not figures:
        return []
    return [f"- {what}: {', '.join(f'{name} {value}' for name, value in figures.items())}."]


def put_into(document: str, figures: str) -> str:
    """The document with these figures between its markers; ValueError where it has none."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no markers for the figures")
    return f"{head}{BEGIN}\n{figures}{END}{tail}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.table")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--write", type=Path, metavar="DOCUMENT")
    options = parser.parse_args(arguments)
    runs = [list(results.read(folder)) for folder in options.folders]
    figures = table(runs)
    if options.write is None:
        print(figures, end="")
    else:
        text = options.write.read_text(encoding="utf-8")
        options.write.write_text(put_into(text, figures), encoding="utf-8")
    return int(not all(result.has_passed for run in runs for result in run))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
