"""What checking PINs tells the metrics."""

from collections.abc import Iterator

import pytest

from adminmetrics import recorder
from parentalcontrols.tests.cast import PIN, Cast, database_now, set_pin
from pins import hashing, verification
from pins.models import Pin

VERIFY = "/parental-controls/pin/verify"


@pytest.fixture(autouse=True)
def _nothing_counted_yet() -> Iterator[None]:
    recorder.reset(is_on=True)
    yield
    recorder.reset()


def outcomes() -> dict[str, int]:
    counters = recorder.read().counters
    found = {outcome: counters[f"pin_{outcome}"] for outcome in recorder.PIN_OUTCOMES}
    return {outcome: count for outcome, count in found.items() if count}


def test_every_pin_is_counted_by_its_outcome(cast: Cast) -> None:
    cast.phone.post(VERIFY, {"pin": PIN})
    set_pin(cast.parent)
    cast.phone.post(VERIFY, {"pin": PIN})
    for _ in range(6):
        cast.phone.post(VERIFY, {"pin": "9999"})
    assert outcomes() == {"not_set": 1, "right": 1, "wrong": 5, "locked": 1}


def test_a_pin_that_nobody_looked_at_is_counted_as_such(cast: Cast, settings: object) -> None:
    set_pin(cast.parent)
    hashers = hashing._hashers()
    taken = [hashers.take(number) for number in range(settings.HASHING_SLOTS)]
    try:
        assert cast.phone.post(VERIFY, {"pin": PIN}).status_code == 503
    finally:
        for number, was_taken in enumerate(taken):
            if was_taken:
                hashers.give_back(number)
    assert outcomes() == {"busy": 1}


def test_waits_for_a_turn_and_the_queue_are_told() -> None:
    with hashing.slot("somebody"):
        assert recorder.read().gauges[recorder.HASHING_QUEUE] == 1
        hashing.run(len, "x")
    found = recorder.read()
    assert found.gauges[recorder.HASHING_QUEUE] == 0
    assert sum(found.buckets[recorder.HASH_WAIT_SECONDS]) == 1


def test_locks_in_force_are_counted(cast: Cast) -> None:
    set_pin(cast.parent)
    set_pin(cast.outsider)
    assert verification.locked_now() == 0
    for _ in range(5):
        cast.phone.post(VERIFY, {"pin": "9999"})
    assert verification.locked_now() == 1
    Pin.objects.update(locked_until=database_now())
    assert verification.locked_now() == 0
