"""A deadline that passes while Django begins or ends a transaction costs one request, not all."""

from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection, transaction

from parentalcontrols.postgresql import base, deadline
from parentalcontrols.postgresql.pool import Pool
from parentalcontrols.processes import wait_until
from pins.tests.service import LONG

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """The connection of the tests comes from a pool, as a web process has it."""
    connection.close()
    made = Pool(size=2, wait_seconds=0.1)
    monkeypatch.setattr(base.DatabaseWrapper, "_own_pool", lambda _self: made)
    yield made
    connection.close()


def answers() -> bool:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return bool(cursor.fetchone() == (1,))


def pass_deadline() -> None:
    """Waits until the deadline that is in force has passed; it begins now, if it has not yet."""
    assert wait_until(deadline.is_over, LONG)


def work_past_the_deadline() -> None:
    with deadline.within(0.05), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        pass_deadline()


def begin_past_the_deadline() -> None:
    with deadline.within(0.05):
        pass_deadline()
        answers()


def test_one_that_passes_before_the_end_of_a_transaction(pool: Pool) -> None:
    idle = connection.copy()
    idle.ensure_connection()
    assert answers()
    # Somebody else's comes into the pool, which is the next that this one gets.
    idle.close()
    with pytest.raises(OperationalError):
        work_past_the_deadline()
    assert not connection.in_atomic_block
    assert answers()


def test_one_that_passes_before_a_transaction_begins(pool: Pool) -> None:
    assert answers()
    with pytest.raises(OperationalError):
        begin_past_the_deadline()
    assert not connection.in_atomic_block
    assert answers()


def test_no_place_in_the_pool_is_lost(pool: Pool) -> None:
    for _ in range(5):
        with pytest.raises(OperationalError):
            work_past_the_deadline()
    other = connection.copy()
    try:
        assert answers()
        other.ensure_connection()
    finally:
        other.close()
