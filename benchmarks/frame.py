"""What all benchmarks do alike: set the stage, measure, tell, write."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.service import Stage, stage, stop_on_sigterm
from parentalcontrols.processes import ServerError

#: Exit codes: every target met, one missed or a request refused, nothing measured, interrupted.
MET, MISSED, NOTHING, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Found:
    """What a benchmark found: targets, figures for the JSON, lines to print.

    `failures` are sentences on what spoils the run whatever its figures.
    """

    verdicts: Sequence[report.Verdict]
    figures: Mapping[str, Any]
    lines: Sequence[str] = ()
    failures: Sequence[str] = field(default=())


def run(name: str, measure: Callable[[Stage], Found], *, children: int, output: Path | None) -> int:
    """Measures on a stage with so many children; the exit code."""
    stop_on_sigterm()
    try:
        with stage(children=children) as prepared:
            context = {
                "machine": machine.described(prepared.folder),
                "software": machine.software(),
                "settings": prepared.settings(),
            }
            found = measure(prepared)
    except ServerError as error:
        print(error, file=sys.stderr)
        return NOTHING
    except KeyboardInterrupt:
        return INTERRUPTED
    verdicts = report.verdict_table(found.verdicts) if found.verdicts else []
    print(
        "\n\n".join("\n".join(lines) for lines in (found.lines, verdicts, found.failures) if lines)
    )
    document = {
        "verdicts": [asdict(verdict) for verdict in found.verdicts],
        "failures": found.failures,
        **context,
        **found.figures,
    }
    print(f"\nAll figures are in {report.write(name, document, output)}")
    is_met = all(verdict.is_met for verdict in found.verdicts) and not found.failures
    return MET if is_met else MISSED
