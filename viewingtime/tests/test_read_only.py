"""A database that takes no writes, such as a standby, cannot answer: blocked, and no 500."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.db.utils import OperationalError
from django.http import HttpResponse
from django.test import Client

from parentalcontrols.doctor import State, database
from parentalcontrols.postgresql.base import UNAVAILABLE
from parentalcontrols.tests.cast import PASSWORD, Cast, Device, assert_problem, beat_of

pytestmark = pytest.mark.django_db
BLOCKED = {"enforcement": "blocked", "reason": "unavailable"}
WRITES: dict[str, tuple[Callable[[Cast, str], HttpResponse], dict[str, Any]]] = {
    "a first beat": (
        lambda cast, _: cast.phone.post(
            "/viewing-time/heartbeat", beat_of(cast.child, cast.cartoon)
        ),
        BLOCKED,
    ),
    "a steady beat": (
        lambda cast, session: cast.phone.post(
            "/viewing-time/heartbeat", beat_of(cast.child, cast.cartoon, session_id=session)
        ),
        BLOCKED,
    ),
    "the end of a session": (
        lambda cast, session: cast.phone.post(f"/viewing-time/session/{session}/end"),
        BLOCKED,
    ),
    "a grant": (
        lambda cast, _: cast.phone.post(
            f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant", {"minutes": 15}
        ),
        {},
    ),
    "a log-in": (
        lambda cast, _: Device().post(
            "/auth/login", {"email": cast.parent.email, "password": PASSWORD}
        ),
        {},
    ),
}


@contextmanager
def no_writes() -> Iterator[None]:
    """As on a standby, until the end of the block; what failed in it is rolled back."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
        yield
        transaction.set_rollback(True)


@pytest.mark.parametrize("what", WRITES)
def test_whatever_writes_is_unavailable(cast: Cast, what: str) -> None:
    session = cast.phone.beat(cast.child, cast.cartoon)["session_id"]
    send, members = WRITES[what]
    with no_writes():
        answer = send(cast, session)
    document = assert_problem(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert members.items() <= document.items()


@pytest.mark.parametrize("kind", UNAVAILABLE, ids=lambda kind: kind.__name__)
def test_what_the_database_cannot_do_now_is_no_fault_of_ours(kind: type[psycopg.Error]) -> None:
    with pytest.raises(OperationalError), connection.wrap_database_errors:
        raise kind("as the server says it")


def test_the_doctor_tells_that_it_takes_none() -> None:
    assert database.writable().state is State.OK
    with no_writes():
        finding = database.writable()
    assert finding.state is State.PROBLEM
    assert finding.advice


def test_an_instance_in_front_of_it_is_not_ready(client: Client) -> None:
    assert client.get("/readyz").status_code == 200
    with no_writes():
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "database": "read_only", "cache": "ok"}
