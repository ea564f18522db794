"""The sweep ends silent sessions of children and adults, in batches, whatever their order."""

from uuid import UUID

import pytest
from django.db import connection, transaction

from parentalcontrols import profiles
from parentalcontrols.tests.cast import assert_invariant
from pins import audit
from viewingtime import ledgers, sql
from viewingtime.models import ViewingSession
from viewingtime.tests.test_concurrency import Household, in_thread, pass_time

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def silent() -> Household:
    """Four children and three adults, of whom one watches on two devices; all went silent."""
    home = Household(children=4)
    adults = [
        profiles.create(account=home.account, name=name, is_kids=False, actor=audit.OPERATOR).id
        for name in ("Alex", "Bo", "Chris")
    ]
    home.send(*[home.beat(profile) for profile in (*home.children, *adults)])
    home.send(home.beat(adults[0], device="phone"))
    pass_time(400)
    return home


@pytest.mark.parametrize("batch", [1, 2, 3, 500])
def test_all_silent_sessions_end_whatever_the_batch(silent: Household, batch: int) -> None:
    assert ledgers.close_silent(batch=batch) == 8
    assert not ViewingSession.objects.filter(ended_at=None).exists()
    assert set(ViewingSession.objects.values_list("end_reason", flat=True)) == {"stale"}
    assert ledgers.close_silent(batch=batch) == 0
    assert_invariant()


def test_each_profile_is_told_once_in_order_and_no_more_than_a_batch(silent: Household) -> None:
    everybody = sorted(set(ViewingSession.objects.values_list("profile_id", flat=True)))
    told, after = [], UUID(int=0)
    with connection.cursor() as cursor:
        while True:
            cursor.execute(sql.SILENT_PROFILES, {"after": after, "batch": 2})
            batch = [row[0] for row in cursor.fetchall()]
            if not batch:
                break
            assert len(batch) <= 2
            told += batch
            after = batch[-1]
    assert told == everybody


def test_a_child_that_somebody_holds_is_left_to_the_next_time_and_keeps_nobody_waiting(
    silent: Household,
) -> None:
    held = silent.children[2]
    with transaction.atomic():
        ledgers.hold([held])
        assert in_thread(lambda: ledgers.close_silent(batch=2)).result(timeout=20) == 7
    assert ViewingSession.objects.get(ended_at=None).profile_id == held
    assert ledgers.close_silent() == 1
    assert_invariant()


def test_who_is_heard_goes_on(silent: Household) -> None:
    heard = silent.send(silent.beat(silent.children[0]))[0].session_id
    assert ledgers.close_silent(batch=1) == 7
    assert ViewingSession.objects.get(ended_at=None).id == heard
    assert_invariant()
