"""Where nothing gathers, in threads: a beat has its deadline, none of a batch spoils another."""

import signal
import time
from collections.abc import Iterator

import psutil
import pytest
from django.db import connection, transaction

from parentalcontrols.problems import Problem
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import assert_invariant
from pins.tests.service import LONG, Home, gunicorn, own_servers
from viewingtime import gathering, ledgers
from viewingtime.heartbeats import Heartbeat
from viewingtime.ledger import Answer
from viewingtime.models import ViewingSession
from viewingtime.tests.test_concurrency import Household, in_thread, pass_time
from viewingtime.tests.test_gathering import ANTIDOTE, POISON

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
        server = psutil.Process(postgres.pid)
        hung = [server, *server.children(recursive=True)]
        for process in hung:
            process.send_signal(signal.SIGSTOP)
        try:
            # More often than there are threads, each with a connection of its own.
            for _ in range(5):
                began = time.monotonic()
                answer = home.beat(service)
                assert time.monotonic() - began < DEADLINE
                assert (answer.status_code, answer.json()["enforcement"]) == (503, "blocked")
            assert service.livez().status_code == 200
        finally:
            for process in hung:
                process.send_signal(signal.SIGCONT)
        assert wait_until(lambda: home.beat(service).status_code == 200, RECOVERY)
        assert {home.beat(service).status_code for _ in range(12)} == {200}


@pytest.fixture
def poison(transactional_db: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(POISON)
        yield
        cursor.execute(ANTIDOTE)


@pytest.mark.parametrize("is_steady", [True, False], ids=["steady", "first"])
def test_of_a_batch_the_beat_that_fails_and_the_child_that_is_held_are_refused_alone(
    poison: None, is_steady: bool
) -> None:
    home = Household(children=6)
    sessions = [home.open(child) if is_steady else None for child in home.children]
    pass_time(60)
    beats = [home.beat(child, id_) for child, id_ in zip(home.children, sessions, strict=True)]
    beats[1] = Heartbeat(home.children[1], home.title, "poison")
    beats[4] = Heartbeat(home.children[4], home.title, "another")
    with transaction.atomic():
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
