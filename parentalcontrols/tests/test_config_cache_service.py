"""A change that was answered is in force for every beat after it, in every process."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connections

from parentalcontrols.models import Account
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import PASSWORD, assert_invariant
from pins.tests.service import LONG, SOAK_SECONDS, Line, Service
from viewingtime.tests.village import BEAT, Child, at_the_same_time, children

pytestmark = pytest.mark.django_db(transaction=True)

#: Half as long as other soaks: each round asks many times.
SECONDS = SOAK_SECONDS / 2
CHILDREN, READERS, WRITERS = 4, 24, 2


@dataclass(frozen=True, eq=False)
class Phase:
    """What a parent has set, from the answer to one change to the start of the next."""

    is_exempt: bool | None

    @property
    def verdict(self) -> tuple[str, str | None]:
        """Enforcement and reason."""
        return ("allowed", None) if self.is_exempt else ("blocked", "viewing_time_exhausted")


class Home:
    """A child with no time left in front of a documentary: it may watch while that is exempt.

    It is watching already. First beats that race supersede each other's sessions, and a superseded
    one stays blocked, whatever a parent sets (domain.md section 3).
    """

    def __init__(self, child: Child, service: Service) -> None:
        self.child = child
        child.has_watched(900)
        self.documentary = str(child.titles[2].id)
        self.phase = Phase(True)
        self.session_id: str | None = None
        line = Line(service, child.token)
        assert self.beat(line) == "allowed"
        line.close()

    def set_exempt(self, line: Line, is_exempt: bool) -> None:
        self.phase = Phase(None)
        told = line.send("PUT", self.child.config_path, {"educational_exempt": is_exempt})
        assert told.status == 200
        self.phase = Phase(is_exempt)

    def beat(self, line: Line) -> str | None:
        """Beats, and judges the answer where nothing changed meanwhile; how it was answered."""
        phase = self.phase
        told = line.post(BEAT, self.child.beat(self.session_id, title_id=self.documentary))
        if told.status == 503:
            assert told.is_honest_refusal
            return None
        assert told.status == 200, told.body
        self.session_id = told.body["session_id"]
        if phase is not self.phase or phase.is_exempt is None:
            return None
        assert (told.body["enforcement"], told.body["reason"]) == phase.verdict, told.body
        return phase.verdict[0]


def test_no_beat_after_a_change_is_judged_by_what_was_before(served: Service) -> None:
    homes = [Home(child, served) for child in children(CHILDREN, limit=15)]
    judged: Counter[str] = Counter()
    stop = threading.Event()

    def read(n: int) -> None:
        choose = random.Random(n)
        lines = {home: Line(served, home.child.token) for home in homes}
        mine = homes[n % CHILDREN]
        while not stop.is_set():
            # Its own child often, so that entries are used, and another at times.
            home = mine if choose.random() < 0.7 else choose.choice(homes)
            judged[home.beat(lines[home]) or "neither"] += 1
        for line in lines.values():
            line.close()

    def write(n: int) -> None:
        mine = homes[n::WRITERS]
        lines = {home: Line(served, home.child.token) for home in mine}
        # Each line is another process, as often as not.
        others = {home: [Line(served, home.child.token) for _ in range(4)] for home in mine}
        choose = random.Random(n)
        while not stop.is_set():
            for home in mine:
                # Readers who missed after one change load while the next one is made.
                for _ in range(choose.randint(1, 4)):
                    home.set_exempt(lines[home], not home.phase.is_exempt)
                calls = [lambda h=home, o=other: h.beat(o) for other in others[home]]
                judged.update(answer or "neither" for answer in at_the_same_time(calls))
        for line in [*lines.values(), *(line for many in others.values() for line in many)]:
            line.close()

    with ThreadPoolExecutor(READERS + WRITERS) as pool:
        running = [pool.submit(read, n) for n in range(READERS)]
        running += [pool.submit(write, n) for n in range(WRITERS)]
        stop.wait(SECONDS)
        # Both are to be seen, many times each, however slow the machine is.
        wait_until(
            lambda: (
                min(judged["allowed"], judged["blocked"]) >= 20
                or any(future.done() for future in running)
            ),
            LONG,
        )
        stop.set()
        for future in running:
            future.result()
    assert min(judged["allowed"], judged["blocked"]) >= 20
    assert_invariant()


def deactivate(account: Account) -> None:
    account.is_active = False
    account.save()


def change_password(account: Account) -> None:
    account.set_password(f"{PASSWORD}-anew")
    account.save(update_fields=["password"])


def test_after_the_end_of_an_account_or_a_child_no_beat_of_any_process_is_taken(
    served: Service,
) -> None:
    people = children(9)
    ways: list[Any] = [
        lambda child: deactivate(child.account),
        lambda child: change_password(child.account),
        lambda child: child.account.delete(),
    ]

    def end(n: int) -> None:
        child, way = people[n], ways[n % len(ways)]
        lines = [Line(served, child.token) for _ in range(6)]
        beats = [child.beat(device_id=f"tv {place}") for place in range(len(lines))]
        ended_at: list[int] = []
        answers: list[tuple[int, int]] = []

        def play(place: int) -> None:
            """Beats all the while, and some times more once it is over."""
            left = 5
            while left:
                left -= bool(ended_at)
                answer = lines[place].post(BEAT, beats[place])
                answers.append((answer.sent_at, answer.status))
                beats[place]["session_id"] = answer.body.get("session_id")

        with ThreadPoolExecutor(len(lines)) as pool:
            playing = [pool.submit(play, place) for place in range(len(lines))]
            try:
                assert wait_until(lambda: len(answers) > 5 * len(lines), LONG)
                way(child)
            finally:
                ended_at.append(time.time_ns() // 1000)
                connections.close_all()
            for future in playing:
                future.result()
        for line in lines:
            line.close()
        after = {status for sent_at, status in answers if sent_at > ended_at[0]}
        before = {status for sent_at, status in answers if sent_at <= ended_at[0]}
        assert after == {401}
        assert 200 in before
        # A beat that was under way may find the child gone.
        assert before <= {200, 401, 404}

    for n in range(0, len(people), 3):
        at_the_same_time([lambda n=n: end(n) for n in range(n, n + 3)])
