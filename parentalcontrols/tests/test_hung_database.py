"""A web process stops waiting for a database that hung; who had little time tells nothing of it."""

from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection

from parentalcontrols.postgresql import deadline
from parentalcontrols.processes import wait_until
from pins.tests.service import LONG

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _of_a_web_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deadline, "_is_web_process", True)
        patch.setattr(deadline, "_hung_until", 0.0)
        yield
    # A wait that gave up has closed it; the server still sleeps.
    connection.close()
    assert wait_until(are_all_gone, LONG)


def are_all_gone() -> bool:
    """Ends what still sleeps; whether nothing does."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
        )
        return not cursor.fetchall()


def answer_after(seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])


def is_taken_for_hung() -> bool:
    with deadline.within(60):
        return deadline.is_over()


def test_one_that_answers_nothing_for_a_second_is_not_waited_for() -> None:
    with deadline.within(1.0), pytest.raises(OperationalError):
        answer_after(60)
    assert is_taken_for_hung()


def test_a_wait_that_had_little_time_tells_nothing_of_it() -> None:
    with deadline.within(0.2), pytest.raises(OperationalError):
        answer_after(60)
    assert not is_taken_for_hung()


def test_nor_does_the_rest_of_a_longer_one() -> None:
    with deadline.within(1.5):
        answer_after(1.0)
        with pytest.raises(OperationalError):
            answer_after(60)
    assert not is_taken_for_hung()
