"""Profiles that somebody holds are left out, those that are gone are not found."""

from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from parentalcontrols.models import Profile
from parentalcontrols.problems import Problem
from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, database_of_tests
from viewingtime import heartbeats, ledgers, sql
from viewingtime.heartbeats import Request
from viewingtime.ledger import Answer
from viewingtime.ledgers import Held
from viewingtime.tests.test_concurrency import Household, in_thread

pytestmark = pytest.mark.django_db(transaction=True)

_PROFILES = "WHERE p.id = ANY(%(profile_ids)s::uuid[])"


def test_what_is_held_is_left_without_an_answer_and_not_waited_for() -> None:
    home = Household(children=3)
    _, held, gone = home.children
    request = Request([home.beat(child) for child in home.children], home.caller)
    Profile.objects.get(id=gone).delete()
    with psycopg.connect(database_of_tests()) as holder:
        holder.execute("SELECT FROM profiles WHERE id = %s FOR UPDATE", [held])
        heartbeats.decide([request], wait=False)
    assert isinstance(request.answers[0], Answer)
    assert 1 not in request.answers
    assert isinstance(request.answers[2], Problem)
    assert request.answers[2].status == 404
    assert not request.is_answered
    heartbeats.decide([request], wait=False)
    assert isinstance(request.answers[1], Answer)
    assert request.is_answered


@pytest.mark.direct("it holds locks of a session")
def test_whoever_becomes_free_and_has_changed_meanwhile_is_read_once_more() -> None:
    """Each round of the statement locks a profile that its snapshot saw in an older version."""
    home = Household(children=2)
    first, second = home.children
    sessions = {child: home.open(child) for child in home.children}
    rounds: list[int] = []

    def after_the_snapshot(execute: Any, query: str, *rest: Any) -> Any:
        """Lets each of the first two rounds wait between its snapshot and its locks."""
        if query == sql.LOCK_FREE_AND_READ:
            rounds.append(len(rounds) + 1)
            if rounds[-1] <= 2:
                pause = f"(SELECT pg_advisory_xact_lock({rounds[-1]})::text) IS NOT NULL"
                assert query.count(_PROFILES) == 1
                query = query.replace(_PROFILES, f"{_PROFILES} AND {pause}")
        return execute(query, *rest)

    def hold() -> Held:
        with connection.execute_wrapper(after_the_snapshot), transaction.atomic():
            return ledgers.hold(home.children, wait=False)

    def is_paused(round_: int) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks "
                "WHERE locktype = 'advisory' AND objid = %s AND NOT granted",
                [round_],
            )
            return bool(cursor.fetchone() == (1,))

    change = "UPDATE profiles SET last_viewing_change_at = now() WHERE id = %s"
    url = database_of_tests()
    with psycopg.connect(url, autocommit=True) as pause, psycopg.connect(url) as holder:
        pause.execute("SELECT pg_advisory_lock(1), pg_advisory_lock(2)")
        holder.execute(change, [second])
        holding = in_thread(hold)
        assert wait_until(lambda: is_paused(1), LONG)
        Profile.objects.filter(id=first).update(last_viewing_change_at=None)
        pause.execute("SELECT pg_advisory_unlock(1)")
        assert wait_until(lambda: is_paused(2), LONG)
        holder.commit()
        pause.execute("SELECT pg_advisory_unlock(2)")
        held = holding.result(timeout=LONG)
    assert rounds == [1, 2, 3]
    assert {id_: set(book.sessions) for id_, book in held.ledgers.items()} == {
        child: {session} for child, session in sessions.items()
    }
