"""The figures of scenarios, one JSON file each, in the folder that `FAULT_RESULTS` names."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.books import all_outcomes, counts
from tests.faults.judge import Evidence, Findings


@dataclass(frozen=True)
class Result:
    """What came out of a scenario. `skipped`: why it was not run, and there are no figures."""

    name: str
    seconds: float = 0.0
    taken: int = 0
    refused: int = 0
    reset: int = 0
    decisions: int = 0
    longest_beat_seconds: float = 0.0
    longest_decision_seconds: float = 0.0
    recovery_seconds: float | None = None
    lost: int = 0
    over_grant: int = 0
    dishonest: int = 0
    not_recovered: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        evidence: Evidence,
        findings: Findings,
        *,
        seconds: float,
        figures: Mapping[str, Any],
    ) -> "Result":
        found = counts(evidence.books)
        longest = {"beat": 0.0, "grant": 0.0, "config": 0.0}
        for outcome in all_outcomes(evidence.books):
            longest[outcome.kind] = max(longest[outcome.kind], outcome.seconds)
        recoveries = [fault.recovered_after for fault in evidence.faults]
        return cls(
            name=name,
            seconds=round(seconds, 1),
            taken=found["beat 200"],
            refused=found["beat 503"],
            reset=sum(count for what, count in found.items() if what.endswith(" 0")),
            decisions=found["grant 200"] + found["config 200"],
            longest_beat_seconds=round(longest["beat"], 3),
            longest_decision_seconds=round(max(longest["grant"], longest["config"]), 3),
            recovery_seconds=(
                round(max(after for after in recoveries if after is not None), 2)
                if recoveries and None not in recoveries
                else None
            ),
            lost=len(findings.lost),
            over_grant=len(findings.over_grant),
            dishonest=len(findings.dishonest),
            not_recovered=len(findings.not_recovered),
            figures=figures,
        )

    @property
    def has_passed(self) -> bool:
        return not (self.lost or self.over_grant or self.dishonest or self.not_recovered)


def write(result: Result) -> None:
    """Keeps the figures, where a folder is named for them."""
    folder = os.environ.get("FAULT_RESULTS")
    if folder:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        file = path / f"{result.name}.json"
        file.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> Iterator[Result]:
    """The results in a folder, by name."""
    for file in sorted(folder.glob("*.json")):
        yield Result(**json.loads(file.read_text(encoding="utf-8")))
