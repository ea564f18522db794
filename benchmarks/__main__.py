"""Runs benchmarks one after the other: `python -m benchmarks [NAME ...]`, all without a name.

Each is a process of its own with its usual options; `python -m benchmarks.NAME --help` tells them.
In the end all targets stand in one table, and in one JSON file.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.frame import INTERRUPTED, NOTHING

#: In the order in which they run, the short ones first, with options of theirs.
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "round_trips": (),
    "pin_timing": (),
    "cold_start": (),
    "heartbeats": (),
    "memory": (),
    "hashing": ("--rate", "500"),
    "reads": (),
    "growth": (),
    "recording": (),
}


def main(arguments: Sequence[str]) -> int:
    """Runs them and tells how they ended; the worst exit code of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    names = options.names or list(BENCHMARKS)
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    codes: dict[str, int] = {}
    found: dict[str, Any] = {}
    for name in names:
        print(f"\n=== {name} ===\n", flush=True)
        path = report.path_of(name)
        command = [sys.executable, "-m", f"benchmarks.{name}", *BENCHMARKS[name]]
        try:
            codes[name] = subprocess.run([*command, "--output", str(path)], check=False).returncode
        except KeyboardInterrupt:
            # The terminal's Ctrl-C reached the benchmark, too.
            return INTERRUPTED
        if path.exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    verdicts = [report.Verdict(**verdict) for one in found.values() for verdict in one["verdicts"]]
    print("\n=== all ===\n")
    print("\n".join(report.verdict_table(sorted(verdicts, key=lambda verdict: verdict.row))))
    for name, code in codes.items():
        if code == NOTHING or code not in (0, 1):
            print(f"{name} measured nothing, or ended with {code}")
        for failure in found.get(name, {}).get("failures", ()):
            print(f"{name}: {failure}")
    path = report.write("all", {"codes": codes, "benchmarks": found}, options.output)
    print(f"\nAll figures are in {path}")
    return max(codes.values(), key=abs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
