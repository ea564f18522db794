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

from benchmarks import frame, report
from benchmarks.service import Address, Household, Stage, serving
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


def measure(stage: Stage, attempts: int, worker_class: str) -> frame.Found:
    """So many attempts of each kind, in turns."""
    # A wrong PIN locks after five: every household makes one wrong attempt.
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    unset, right, *others = stage.households
    for household in (right, *others):
        give_pin(household)
    with serving(stage, knobs={"WORKER_CLASS": worker_class}) as address:
        client = requests.Session()
        for number in range(-3, attempts):
            chosen = {"right": right, "wrong": others[number % len(others)], "not set": unset}
            for kind, household in chosen.items():
                took = attempt(client, address, household.token, kind)
                if number >= 0:
                    found[kind].append(took)
    medians = {kind: report.median(times) for kind, times in found.items()}
    spread = max(medians.values()) - min(medians.values())
    rows = [
        [kind, f"{medians[kind]:.1f}", f"{min(times):.1f}", f"{max(times):.1f}"]
        for kind, times in found.items()
    ]
    verdict = report.Verdict(
        "PIN",
        "medians of right, wrong and unset PINs differ by",
        f"{spread:.1f} ms",
        f"< {TARGET_MS:.0f} ms",
        spread < TARGET_MS,
    )
    return frame.Found(
        [verdict],
        {"milliseconds": found},
        report.table(["PIN", "median ms", "least", "most"], rows),
    )


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pin_timing", description=__doc__)
    parser.add_argument("--attempts", type=int, default=50, help="of each kind (50)")
    parser.add_argument("--worker-class", default="gevent", help="gunicorn's (gevent)")
    parser.add_argument("--output", type=Path, help="the JSON file (in benchmarks/results/)")
    options = parser.parse_args(arguments)
    return frame.run(
        "pin_timing",
        lambda stage: measure(stage, options.attempts, options.worker_class),
        children=options.attempts + 2,
        output=options.output,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
