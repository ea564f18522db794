"""Readers and writers of the config cache in every order, and a cache server that is away."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.exceptions import RedisError

from parentalcontrols import config_cache
from parentalcontrols.config_cache import Known
from parentalcontrols.embedded_servers import Valkey, throwaway_servers
from parentalcontrols.models import ViewingTimeConfig
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.caches import Process, address
from parentalcontrols.tests.cast import Cast
from pins.tests.service import hung

pytestmark = pytest.mark.django_db(transaction=True)
#: Seconds after which a test gives up waiting for a server that is back.
LONG = 20.0


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with throwaway_servers() as (_, valkey):
        yield valkey


@pytest.fixture
def processes(
    valkey: Valkey, settings: Any, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> Iterator[list[Process]]:
    """Three processes of the service; nobody else uses their cache server."""
    address(valkey, settings)
    processes = [Process(monkeypatch) for _ in range(3)]
    with processes[0].running():
        config_cache.clear()
    yield processes
    # Whoever still waits for the server would go on with the next test's.
    assert wait_until(lambda: all(process.is_back for process in processes), LONG)


def limit_of(told: Known | None) -> int | None:
    assert told is not None
    assert told.config is not None
    return told.config.weekday_limit_minutes


def writes(process: Process, cast: Cast, limit: int) -> Callable[[], None]:
    """A process sets the child's limit: commits, and tells the cache."""

    def write() -> None:
        with process.running():
            ViewingTimeConfig.objects.filter(profile=cast.child).update(weekday_limit_minutes=limit)

    return write


# Who comes in between


def test_what_was_loaded_before_a_change_is_not_put_back_after_it(
    cast: Cast, processes: list[Process]
) -> None:
    reader, writer, other = processes
    assert limit_of(reader.get(cast.child.id, writes(writer, cast, 15))) == 120
    assert not other.has_entry(cast.child.id)
    assert limit_of(other.get(cast.child.id)) == 15
    assert other.is_told_by_the_cache(cast.child.id)
    assert limit_of(reader.get(cast.child.id)) == 15


def test_a_change_between_two_readers_is_known_to_the_second_and_stays(
    cast: Cast, processes: list[Process]
) -> None:
    first, second, writer = processes

    def write_and_read() -> None:
        writes(writer, cast, 15)()
        assert limit_of(second.get(cast.child.id)) == 15

    # The first one loaded before all that, and fills after it.
    assert limit_of(first.get(cast.child.id, write_and_read)) == 120
    for process in processes:
        assert limit_of(process.get(cast.child.id)) == 15
        assert process.is_told_by_the_cache(cast.child.id)


def test_of_two_readers_at_once_one_fills(cast: Cast, processes: list[Process]) -> None:
    first, second, third = processes
    told = first.get(cast.child.id, lambda: second.get(cast.child.id))
    assert limit_of(told) == 120
    assert third.is_told_by_the_cache(cast.child.id)


def test_a_change_while_two_readers_load_is_put_back_by_neither(
    cast: Cast, processes: list[Process]
) -> None:
    first, second, writer = processes

    def read_too() -> None:
        assert limit_of(second.get(cast.child.id, writes(writer, cast, 15))) == 120

    assert limit_of(first.get(cast.child.id, read_too)) == 120
    assert not writer.has_entry(cast.child.id)
    assert limit_of(first.get(cast.child.id)) == 15


def test_many_changes_while_somebody_loads_leave_the_last(
    cast: Cast, processes: list[Process]
) -> None:
    first, second, writer = processes

    def change_often() -> None:
        for limit in (15, 30, 45):
            # None of them is filled, so each of them loads.
            second.get(cast.child.id, writes(writer, cast, limit))

    first.get(cast.child.id, change_often)
    assert {limit_of(process.get(cast.child.id)) for process in processes} == {45}


@pytest.mark.parametrize("how", ["expired", "flushed"])
def test_a_reader_whose_lease_is_gone_fills_nothing(
    cast: Cast, processes: list[Process], how: str
) -> None:
    reader, writer, other = processes
    key = reader.cache._key(cast.child.id)

    def lose_the_lease() -> None:
        if how == "flushed":
            other.redis.flushall()
        else:
            assert other.redis.pexpire(key, 1)
            assert wait_until(lambda: not other.redis.exists(key), LONG)
        # From here on there is nothing that a change could take away.
        writes(writer, cast, 15)()

    assert limit_of(reader.get(cast.child.id, lose_the_lease)) == 120
    assert not other.has_entry(cast.child.id)
    assert limit_of(reader.get(cast.child.id)) == 15
    assert reader.is_told_by_the_cache(cast.child.id)


def test_a_reader_whose_lease_was_followed_by_another_fills_nothing(
    cast: Cast, processes: list[Process]
) -> None:
    reader, writer, other = processes

    def flush_change_and_load() -> None:
        other.redis.flushall()
        writes(writer, cast, 15)()
        # The second holds a lease of its own while the first fills.
        assert limit_of(other.get(cast.child.id, lambda: None)) == 15
        writes(writer, cast, 30)()

    assert limit_of(reader.get(cast.child.id, flush_change_and_load)) == 120
    assert limit_of(other.get(cast.child.id)) == 30


# A server that is away


def test_without_the_server_everything_comes_from_the_database(
    cast: Cast, processes: list[Process], valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    process = processes[0]
    process.get(cast.child.id)
    valkey.stop()
    try:
        began = time.monotonic()
        for round_ in range(20):
            writes(process, cast, 15 + 15 * (round_ % 2))()
            assert limit_of(process.get(cast.child.id)) == 15 + 15 * (round_ % 2)
        assert time.monotonic() - began < 2
        assert not process.is_back
        with process.running():
            assert config_cache.size() is None
            # It spoils no other figure.
            answer = cast.staff_phone.get("/admin/metrics")
            assert (answer.status_code, answer.json()["config_cache"]["current_size"]) == (
                200,
                None,
            )
            with pytest.raises(RedisError):
                config_cache.clear()
        assert [r.message for r in caplog.records].count("config_cache_unavailable") == 1
    finally:
        valkey.start()
    assert wait_until(lambda: process.is_back, LONG)
    process.get(cast.child.id)
    assert process.is_told_by_the_cache(cast.child.id)


def test_a_server_that_hangs_is_waited_for_once(
    cast: Cast, processes: list[Process], valkey: Valkey
) -> None:
    process = processes[0]
    process.get(cast.child.id)
    with hung(valkey):
        began = time.monotonic()
        for _ in range(50):
            assert limit_of(process.get(cast.child.id)) == 120
        # A tenth of a second for the first, and no other asks.
        assert time.monotonic() - began < 2
    assert wait_until(lambda: process.is_back, LONG)


@pytest.mark.parametrize("changes", [1, 5])
def test_who_comes_back_first_does_not_read_what_another_could_not_forget(
    cast: Cast, processes: list[Process], valkey: Valkey, changes: int
) -> None:
    """The change is answered although nobody could be told; from then on it is in force."""
    writer, reader, _ = processes
    assert limit_of(reader.get(cast.child.id)) == 120
    with hung(valkey):
        # The reader notices first, and so it is the first to come back.
        reader.get(cast.child.id)
        for _ in range(changes):
            writes(writer, cast, 15)()
        assert not reader.is_back
        assert not writer.is_back
    rounds = 0
    while not (reader.is_back and writer.is_back and rounds > 200):
        assert limit_of(reader.get(cast.child.id)) == 15
        assert limit_of(writer.get(cast.child.id)) == 15
        rounds += 1
    assert reader.is_told_by_the_cache(cast.child.id)


def test_once_the_writer_is_back_nobody_reads_what_it_could_not_forget(
    cast: Cast, processes: list[Process], valkey: Valkey
) -> None:
    writer, _, idle = processes
    assert limit_of(idle.get(cast.child.id)) == 120
    with hung(valkey):
        writes(writer, cast, 15)()
    assert wait_until(lambda: writer.is_back, LONG)
    assert limit_of(idle.get(cast.child.id)) == 15


def test_a_change_while_a_process_is_still_away_is_told_to_those_who_are_back(
    cast: Cast, processes: list[Process], valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader, _ = processes
    monkeypatch.setattr(config_cache, "_PROBE_SECONDS", 3.0)
    with hung(valkey):
        writes(writer, cast, 30)()
    assert limit_of(reader.get(cast.child.id)) == 30
    assert reader.is_told_by_the_cache(cast.child.id)
    writes(writer, cast, 15)()
    assert not writer.is_back
    assert limit_of(reader.get(cast.child.id)) == 15
