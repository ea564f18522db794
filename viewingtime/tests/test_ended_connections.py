"""Connections that the database ended while nobody used them: no beat is refused for that."""

import pytest
from django.db import connection

from pins.tests.service import Service
from viewingtime.tests.village import BEAT, at_the_same_time, children, told_session

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.direct("the pooler's connections are no process's own"),
]
LINES = 12


def end_all_others() -> int:
    """Ends the service's connections to the tests' database; how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        (count,) = cursor.fetchone()
    return int(count)


@pytest.mark.parametrize("names_its_session", [True, False], ids=["steady", "decided"])
def test_the_next_beats_are_taken(served: Service, *, names_its_session: bool) -> None:
    people = children(LINES)
    for child in people:
        child.connect(served)
    sessions = [told_session(child.lines[0].post(BEAT, child.beat())) for child in people]
    assert end_all_others() > 0
    bodies = [
        child.beat(session if names_its_session else None)
        for child, session in zip(people, sessions, strict=True)
    ]
    told = at_the_same_time(
        [
            lambda child=child, body=body: child.lines[0].post(BEAT, body)
            for child, body in zip(people, bodies, strict=True)
        ]
    )
    for child in people:
        child.hang_up()
    assert [answer.status for answer in told] == [200] * LINES
