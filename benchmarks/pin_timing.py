"""Whether time tells a right PIN from a wrong one, or from none at all.

One client, no other load: attempts at a PIN that is right, one that is wrong and one that is not
set, in turn, each of a household of its own where it would lock. The target is that of the rule
(docs/domain.md, section 7): their medians differ by less than 20 ms.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import requests

from benchmarks import machine, report
from benchmarks.service import Address, Household, serving, stage, stop_on_sigterm
from parentalcontrols.processes import ServerError

TARGET_MS = 20.0
PIN = "2580"
KINDS = ("right", "wrong", "not set")
STATUS = {"right": 200, "wrong": 403, "not set": 400}
CODE = {"wrong": "incorrect_pin", "not set": "pin_not_set"}


def attempt(client: requests.Session, address: Address, token: str, kind: str) -> float:
    """How many milliseconds an attempt takes; raises where the answer is not that of its kind."""
    started = time.perf_counter()
    answer = client.post(
        f"http://{address.host}:{address.port}/api/v1/parental-controls/pin/verify",
        json={"pin": "0000" if kind == "wrong" else PIN},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    elapsed = 1000 * (time.perf_counter() - started)
    code = answer.json().get("code")
    if answer.status_code != STATUS[kind] or code != CODE.get(kind):
        raise ServerError(f"A {kind} PIN was answered {answer.status_code} {code}.")
    return elapsed


def give_pin(household: Household) -> None:
    """A PIN for a household, as its parent sets it."""
    from pins import audit, verification

    verification.set_pin(household.account_id, PIN, current_pin=None, actor=audit.OPERATOR)


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where the target is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.pin_timing", description=__doc__)
    parser.add_argument("--attempts", type=int, default=50, help="of each kind (50)")
    parser.add_argument("--worker-class", default="gevent")
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    options = parser.parse_args(arguments)
    stop_on_sigterm()
    # A wrong PIN locks after five: every household makes one wrong attempt.
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    try:
        with stage(children=options.attempts + 2) as prepared:
            unset, right, *others = prepared.households
            for household in (right, *others):
                give_pin(household)
            with serving(prepared, worker_class=options.worker_class) as address:
                client = requests.Session()
                for round_number in range(-3, options.attempts):
                    chosen = {
                        "right": right,
                        "wrong": others[round_number % len(others)],
                        "not set": unset,
                    }
                    for kind, household in chosen.items():
                        took = attempt(client, address, household.token, kind)
                        if round_number >= 0:
                            found[kind].append(took)
            context = {
                "machine": machine.described(prepared.folder),
                "software": machine.software(),
                "settings": prepared.settings(),
            }
    except ServerError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    medians = {kind: report.median(times) for kind, times in found.items()}
    spread = max(medians.values()) - min(medians.values())
    rows = [
        [kind, f"{medians[kind]:.1f}", f"{min(times):.1f}", f"{max(times):.1f}"]
        for kind, times in found.items()
    ]
    print("\n".join(report.table(["PIN", "median ms", "least", "most"], rows)))
    print(f"\nThe medians of {options.attempts} attempts differ by {spread:.1f} ms.")
    document = {"target_ms": TARGET_MS, "milliseconds": found, "spread_ms": spread, **context}
    print(f"All figures are in {report.write('pin_timing', document, options.output)}")
    return 0 if spread < TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
