"""The figures of scenarios, one JSON file each, in the folder that `FAULT_RESULTS` names.

Nothing of the service is imported here: the table is made without it.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


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

    @property
    def has_passed(self) -> bool:
        return not (self.lost or self.over_grant or self.dishonest or self.not_recovered)


def forget(names: Iterable[str]) -> None:
    """Removes what an earlier run left, so that no table shows it beside a scenario that failed."""
    folder = os.environ.get("FAULT_RESULTS")
    for name in names if folder else ():
        Path(str(folder), f"{name}.json").unlink(missing_ok=True)


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
