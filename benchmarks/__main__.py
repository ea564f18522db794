"""Runs benchmarks one after the other: `python -m benchmarks [NAME ...]`, all without a name.

Each is a process of its own with its usual options; `python -m benchmarks.NAME --help` tells them.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

#: In the order in which they run: the short ones first.
NAMES = (
    *("round_trips", "pin_timing", "cold_start", "heartbeats", "memory"),
    *("hashing", "reads", "growth"),
)
_NO_MEASUREMENT = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Runs them and tells how they ended; the worst exit code of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    names = parser.parse_args(arguments).names or list(NAMES)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(NAMES)}")
    codes = {}
    for name in names:
        print(f"\n=== {name} ===\n", flush=True)
        try:
            codes[name] = subprocess.run(
                [sys.executable, "-m", f"benchmarks.{name}"], check=False
            ).returncode
        except KeyboardInterrupt:
            # The terminal's Ctrl-C reached the benchmark, too.
            return _INTERRUPTED
    words = {0: "met its target", 1: "missed its target", _NO_MEASUREMENT: "measured nothing"}
    print()
    for name, code in codes.items():
        print(f"{name} {words.get(code, f'ended with {code}')}")
    return max(codes.values(), key=abs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
