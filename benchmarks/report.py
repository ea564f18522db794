"""Percentiles, the table that is printed, and the JSON that is written."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of them do not exceed; NaN where there are none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle; NaN where there are none."""
    return statistics.median(values) if values else math.nan


def median_between(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of all such values lies with 95 %, by the order of these alone.

    Each value is as likely below that median as above it, whatever its distribution, so how many
    of n are below is binomial, and 1.96 standard deviations are 0.98 times the root of n. Two
    values at least (W. J. Conover, "Practical Nonparametric Statistics", 3.2).
    """
    ordered = sorted(values)
    reach = 0.98 * math.sqrt(len(ordered))
    lowest = max(0, math.floor(len(ordered) / 2 - reach))
    return ordered[lowest], ordered[-1 - lowest]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column to the left and figures to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (headings, *rows)
    ]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]


def path_of(name: str) -> Path:
    """Where the results of a benchmark go that is run now."""
    return RESULTS / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"


def write(name: str, document: Mapping[str, Any], output: Path | None) -> Path:
    """Writes the results of a benchmark, by default to `results/NAME-DATE.json`; where to."""
    path = output or path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    finished_at = datetime.now(UTC).isoformat()
    text = json.dumps(_plain({"benchmark": name, "finished_at": finished_at, **document}))
    path.write_text(f"{text}\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    """The value as JSON can say it: there is no NaN, and nobody reads sixteen digits."""
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target with what was measured, in words; `row` names it (P1 to P9)."""

    row: str
    what: str
    figure: str
    target: str
    is_met: bool


def verdict_table(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each target."""
    return table(
        ("target", "figure", "wanted", ""),
        [
            [f"{v.row:8} {v.what}", v.figure, v.target, "met" if v.is_met else "MISSED"]
            for v in verdicts
        ],
    )
