"""Where nothing gathers, in threads: a beat has its deadline, none of a batch spoils another."""

import time

import pytest
from django.db import transaction

from parentalcontrols.problems import Problem
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import assert_invariant
from pins.tests.service import LONG, Home, gunicorn, hung, own_servers
from viewingtime import gathering, ledgers
from viewingtime.heartbeats import Heartbeat
from viewingtime.ledger import Answer
from viewingtime.models import ViewingSession
from viewingtime.tests.test_concurrency import Household, in_thread, pass_time
from viewingtime.tests.village import poisoned

#: Seconds within which a player is answered, and the service heals (docs/domain.md).
DEADLINE, RECOVERY = 2.0, 5.0


def test_while_the_database_hangs_each_beat_is_blocked_in_time_and_the_service_heals() -> None:
    threads = {"WORKER_CLASS": "gthread", "WORKERS": "1", "THREADS": "3"}
    with (
        own_servers() as (postgres, _, environment),
        gunicorn(environment["DATABASE_URL"], **environment, **threads) as service,
    ):
        home = Home.made_by(service, postgres.url)
        assert home.beat(service).status_code == 200
        with hung(postgres):
            # More often than there are threads, each with a connection of its own.
            for _ in range(5):
                began = time.monotonic()
                answer = home.beat(service)
                assert time.monotonic() - began < DEADLINE
                assert (answer.status_code, answer.json()["enforcement"]) == (503, "blocked")
            assert service.livez().status_code == 200
        assert wait_until(lambda: home.beat(service).status_code == 200, RECOVERY)
        assert {home.beat(service).status_code for _ in range(12)} == {200}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_steady", [True, False], ids=["steady", "first"])
def test_of_a_batch_the_beat_that_fails_and_the_child_that_is_held_are_refused_alone(
    is_steady: bool,
) -> None:
    home = Household(children=6)
    sessions = [home.open(child) if is_steady else None for child in home.children]
    pass_time(60)
    beats = [home.beat(child, id_) for child, id_ in zip(home.children, sessions, strict=True)]
    beats[1] = Heartbeat(home.children[1], home.title, "poison")
    beats[4] = Heartbeat(home.children[4], home.title, "another")
    with poisoned("poison"), transaction.atomic():
        ledgers.hold([home.children[4]])
        began = time.monotonic()
        answers = in_thread(lambda: gathering.process(beats, home.caller)).result(LONG)
        assert time.monotonic() - began < DEADLINE
    refused = {n: a.status for n, a in enumerate(answers) if isinstance(a, Problem)}
    assert refused == {1: 500, 4: 503}
    taken = [answer for answer in answers if isinstance(answer, Answer)]
    assert len(taken) == 4
    booked = ViewingSession.objects.filter(id__in=[answer.session_id for answer in taken])
    assert booked.count() == 4
    assert_invariant()
