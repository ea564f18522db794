"""The config cache on a real server: what is told, what is forgotten, and when."""

import json
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from msgspec.structs import astuple

from parentalcontrols import config_cache, profiles
from parentalcontrols.config_cache import Known
from parentalcontrols.embedded_servers import Valkey, throwaway_servers
from parentalcontrols.models import Account, Profile, ViewingTimeConfig
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.caches import Process, address
from parentalcontrols.tests.cast import PASSWORD, Cast, make_account
from parentalcontrols.tests.test_admin import form_of, page_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with throwaway_servers() as (_, valkey):
        yield valkey


@pytest.fixture
def process(
    valkey: Valkey, settings: Any, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> Iterator[Process]:
    address(valkey, settings)
    process = Process(monkeypatch)
    with process.running():
        config_cache.clear()
        yield process


# Telling


def test_what_is_told_is_what_the_database_has(cast: Cast, process: Process) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        weekday_limit_minutes=None,
        timezone="Asia/Kathmandu",
        educational_exempt=False,
        earlier_schedules=[{"until": "2026-01-01", "reset_hour": 5, "timezone": "UTC"}],
    )
    config = ViewingTimeConfig.objects.get(profile=cast.child)
    for _ in range(2):
        told = config_cache.get(cast.child.id)
        assert told is not None
        assert (told.account_id, told.is_kids) == (cast.parent.id, True)
        assert (told.is_active, told.token_version) == (True, cast.parent.token_version)
        assert told.config is not None
        *limits_and_hours, earlier = astuple(told.config)
        assert limits_and_hours == [None, 120, config.reset_hour, "Asia/Kathmandu", False]
        assert json.loads(earlier) == config.earlier_schedules
    adult = config_cache.get(cast.adult.id)
    assert adult is not None
    assert adult.config is None
    assert adult.is_configured


def test_a_miss_is_one_query_and_a_hit_none(cast: Cast, process: Process) -> None:
    wanted = [cast.child.id, cast.sibling.id, cast.child.id]
    with CaptureQueriesContext(connection) as queries:
        first = config_cache.get_many(wanted)
    assert len(queries) == 1
    assert first.keys() == {cast.child.id, cast.sibling.id}
    with CaptureQueriesContext(connection) as queries:
        assert config_cache.get_many(wanted).keys() == first.keys()
    assert len(queries) == 0
    with CaptureQueriesContext(connection) as queries:
        assert len(config_cache.get_many([*wanted, cast.adult.id])) == 3
    assert len(queries) == 1
    assert config_cache.get_many([]) == {}


def test_hits_misses_and_invalidations_are_counted_and_logged(
    cast: Cast, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "parentalcontrols.config_cache")
    config_cache.get_many([cast.child.id, cast.sibling.id])
    config_cache.get_many([cast.child.id, cast.adult.id])
    config_cache.invalidate([cast.child.id])
    config_cache.invalidate([])
    assert (process.hits, process.misses, process.invalidations) == (1, 3, 1)
    child, sibling, adult = str(cast.child.id), str(cast.sibling.id), str(cast.adult.id)
    assert [(r.levelname, r.message, r.profile_id) for r in caplog.records] == [
        ("DEBUG", "config_cache_miss", child),
        ("DEBUG", "config_cache_miss", sibling),
        ("DEBUG", "config_cache_hit", child),
        ("DEBUG", "config_cache_miss", adult),
        ("INFO", "config_cache_invalidated", child),
    ]


def test_a_profile_that_does_not_exist_is_never_cached(cast: Cast, process: Process) -> None:
    id_ = uuid4()
    assert config_cache.get(id_) is None
    assert not process.has_entry(id_)
    Profile.objects.create(id=id_, account=cast.parent, name="Late", is_kids=False)
    assert config_cache.get(id_) is not None


def size_told(cast: Cast) -> int | None:
    """The size that staff are told."""
    answer = cast.staff_phone.get("/admin/metrics")
    assert answer.status_code == 200
    size: int | None = answer.json()["config_cache"]["current_size"]
    return size


def test_everything_can_be_forgotten(cast: Cast, process: Process) -> None:
    config_cache.get_many([cast.child.id, cast.sibling.id])
    assert config_cache.size() == size_told(cast) == 2
    config_cache.clear()
    assert config_cache.size() == size_told(cast) == 0
    assert process.entries() == set()
    assert not process.is_told_by_the_cache(cast.child.id)


@pytest.mark.parametrize("seed", range(3))
def test_an_entry_that_cannot_be_read_is_ignored_and_replaced(
    cast: Cast, process: Process, seed: int
) -> None:
    noise = random.Random(seed)
    assert config_cache.get(cast.child.id) is not None
    key = process.cache._key(cast.child.id)
    good = process.redis.get(key)
    garbled = [b"", b"\x00", b"null", b"\x95\xc0", b"[]", good[:-1], good + b"\x00", good[1:]]
    garbled += [noise.randbytes(noise.randrange(60)) for _ in range(60)]
    for value in garbled:
        process.redis.set(key, value)
        told = config_cache.get(cast.child.id)
        assert told is not None
        assert told.account_id == cast.parent.id
        assert process.is_told_by_the_cache(cast.child.id), value


# Forgetting


def exempt(cast: Cast) -> None:
    config = ViewingTimeConfig.objects.get(profile=cast.child)
    config.educational_exempt = False
    config.save()


def exempt_alone(cast: Cast) -> None:
    config = ViewingTimeConfig.objects.get(profile=cast.child)
    config.educational_exempt = False
    config.save(update_fields=["educational_exempt", "updated_at"])


def bulk_update(cast: Cast) -> None:
    config = ViewingTimeConfig.objects.get(profile=cast.child)
    config.timezone = "Europe/Berlin"
    ViewingTimeConfig.objects.bulk_update([config], ["timezone"])


def by_the_api(cast: Cast) -> None:
    path = f"/parental-controls/profiles/{cast.child.id}/viewing-time"
    assert cast.phone.put(path, {"weekend_limit_minutes": 15}).status_code == 200


def move_away(cast: Cast) -> None:
    cast.child.account = cast.outsider
    cast.child.save(update_fields=["account"])


OF_ONE_CHILD: list[Callable[[Cast], object]] = [
    exempt,
    exempt_alone,
    bulk_update,
    by_the_api,
    move_away,
    lambda cast: ViewingTimeConfig.objects.filter(profile=cast.child).update(reset_hour=3),
    lambda cast: ViewingTimeConfig.objects.filter(profile__name="Mia").update(reset_hour=3),
    lambda cast: ViewingTimeConfig.objects.update_or_create(
        profile=cast.child, defaults={"weekday_limit_minutes": 15}
    ),
    lambda cast: ViewingTimeConfig.objects.get(profile=cast.child).delete(),
    lambda cast: ViewingTimeConfig.objects.filter(profile=cast.child).delete(),
    lambda cast: Profile.objects.filter(id=cast.child.id).update(account_id=cast.outsider.id),
    lambda cast: cast.child.save(),
]


@pytest.mark.parametrize("change", OF_ONE_CHILD)
def test_a_change_of_one_childs_config_is_told_to_the_next_reader(
    cast: Cast, process: Process, change: Callable[[Cast], object]
) -> None:
    config_cache.get_many([cast.child.id, cast.sibling.id])
    change(cast)
    assert not process.has_entry(cast.child.id)
    assert process.has_entry(cast.sibling.id)
    told = process.get(cast.child.id)
    assert told is not None
    assert astuple(told) == astuple(config_cache.load([cast.child.id])[0])


MISSING_ONES: list[Callable[[Cast], object]] = [
    lambda cast: ViewingTimeConfig.objects.bulk_create([ViewingTimeConfig(profile=cast.child)]),
    lambda cast: ViewingTimeConfig.objects.create(profile=cast.child),
    lambda cast: profiles.config_of(Profile.objects.get(id=cast.child.id)),
    lambda cast: cast.child_tv.beat(cast.child, cast.cartoon),
]


@pytest.mark.parametrize("make", MISSING_ONES)
def test_a_config_that_was_missing_and_is_made_is_told(
    cast: Cast, process: Process, make: Callable[[Cast], object]
) -> None:
    ViewingTimeConfig.objects.filter(profile=cast.child).delete()
    told = config_cache.get(cast.child.id)
    assert told is not None
    assert not told.is_configured
    make(cast)
    told = config_cache.get(cast.child.id)
    assert told is not None
    assert told.is_configured


def toggle_in_the_admin(cast: Cast) -> None:
    browser = Client()
    browser.force_login(make_account("root@example.com", is_staff=True, is_superuser=True))
    fields = form_of(browser, cast.parent)
    del fields["is_active"]
    assert browser.post(page_of(cast.parent), fields).status_code == 302
    cast.parent.refresh_from_db()
    assert not cast.parent.is_active


def save_inactive(cast: Cast) -> None:
    cast.parent.is_active = False
    cast.parent.save()


def change_password(cast: Cast) -> None:
    cast.parent.set_password(f"{PASSWORD}-and-more")
    cast.parent.save(update_fields=["password"])


OF_AN_ACCOUNT: list[Callable[[Cast], object]] = [
    toggle_in_the_admin,
    save_inactive,
    change_password,
    lambda cast: Account.objects.filter(id=cast.parent.id).update(is_active=False),
    lambda cast: Account.objects.filter(id=cast.parent.id).update(token_version=7),
]


@pytest.mark.parametrize("change", OF_AN_ACCOUNT)
def test_what_ends_tokens_is_told_for_every_profile_of_the_account(
    cast: Cast, process: Process, change: Callable[[Cast], object]
) -> None:
    household = [cast.child.id, cast.sibling.id, cast.adult.id]
    before = config_cache.get_many([*household, cast.foreign_child.id])
    change(cast)
    assert process.has_entry(cast.foreign_child.id)
    for id_ in household:
        told = config_cache.get(id_)
        assert told is not None
        old = before[id_]
        assert (told.is_active, told.token_version) != (old.is_active, old.token_version)


@pytest.mark.parametrize(
    "delete",
    [
        lambda cast: cast.child.delete(),
        lambda cast: Profile.objects.filter(id=cast.child.id).delete(),
        lambda cast: cast.parent.delete(),
        lambda cast: Account.objects.filter(id=cast.parent.id).delete(),
    ],
    ids=["profile", "profiles", "account", "accounts"],
)
def test_what_is_deleted_is_not_told_any_more(
    cast: Cast, process: Process, delete: Callable[[Cast], object]
) -> None:
    assert config_cache.get(cast.child.id) is not None
    delete(cast)
    assert config_cache.get(cast.child.id) is None


NOT_OF_IT: list[Callable[[Cast], object]] = [
    lambda cast: cast.child.save(update_fields=["name"]),
    lambda cast: Profile.objects.filter(id=cast.child.id).update(name="Maja"),
    lambda cast: cast.parent.save(update_fields=["last_login"]),
    lambda cast: ViewingTimeConfig.objects.get(profile=cast.child).save(
        update_fields=["updated_at"]
    ),
    lambda cast: cast.child_tv.beat(cast.child, cast.cartoon),
    lambda cast: cast.phone.post(
        f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant", {"minutes": 15}
    ),
    lambda cast: profiles.create(account=cast.parent, name="Ida", is_kids=True),
]


@pytest.mark.parametrize("change", NOT_OF_IT)
def test_a_change_of_what_is_not_cached_forgets_nothing(
    cast: Cast, process: Process, change: Callable[[Cast], object]
) -> None:
    config_cache.get_many([cast.child.id, cast.sibling.id])
    change(cast)
    assert process.has_entry(cast.child.id)
    assert process.has_entry(cast.sibling.id)


# Transactions


def test_a_change_is_told_after_its_commit_and_not_before(cast: Cast, process: Process) -> None:
    config_cache.get(cast.child.id)
    with transaction.atomic():
        exempt(cast)
        assert process.has_entry(cast.child.id)
    assert not process.has_entry(cast.child.id)


def test_a_change_that_is_rolled_back_forgets_nothing(cast: Cast, process: Process) -> None:
    config_cache.get(cast.child.id)
    with transaction.atomic():
        exempt(cast)
        transaction.set_rollback(True)
    assert process.is_told_by_the_cache(cast.child.id)
    assert process.invalidations == 0


def test_inside_of_a_transaction_the_cache_is_neither_used_nor_filled(
    cast: Cast, process: Process
) -> None:
    config_cache.get(cast.child.id)
    counted = (process.hits, process.misses)
    with transaction.atomic():
        exempt(cast)
        inside = config_cache.get_many([cast.child.id, cast.sibling.id])
        config = inside[cast.child.id].config
        assert config is not None
        assert config.educational_exempt is False
        transaction.set_rollback(True)
    assert not process.has_entry(cast.sibling.id)
    assert (process.hits, process.misses) == counted
    told = config_cache.get(cast.child.id)
    assert told is not None
    assert told.config is not None
    assert told.config.educational_exempt is True


# Bounds


def entries_of(*ids: UUID) -> list[Known]:
    return [Known(id_, uuid4(), True, 0, False) for id_ in ids]


def use(*ids: UUID) -> None:
    assert len(config_cache.get_many(ids, lambda missing: entries_of(*missing))) == len(ids)


def test_the_least_recently_used_goes_first(process: Process, settings: Any) -> None:
    settings.CONFIG_CACHE_ENTRIES = 3
    a, b, c, d, e = (uuid4() for _ in range(5))
    for id_ in (a, b, c):
        use(id_)
    use(b)
    use(a)
    use(d)
    assert process.entries() == {str(id_) for id_ in (b, a, d)}
    use(e)
    assert process.entries() == {str(id_) for id_ in (a, d, e)}


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_uses_leaves_the_most_recent_ones(
    process: Process, settings: Any, seed: int
) -> None:
    settings.CONFIG_CACHE_ENTRIES = 3
    choose = random.Random(seed)
    people = [uuid4() for _ in range(7)]
    model: OrderedDict[UUID, None] = OrderedDict()
    for _ in range(150):
        id_ = choose.choice(people)
        use(id_)
        model[id_] = None
        model.move_to_end(id_)
        while len(model) > 3:
            model.popitem(last=False)
        assert process.entries() == {str(id_) for id_ in model}
        assert config_cache.size() == len(model)


def test_there_are_never_more_entries_than_the_bound(process: Process, settings: Any) -> None:
    settings.CONFIG_CACHE_ENTRIES = 3
    for _ in range(5):
        ids = [uuid4() for _ in range(10)]
        use(*ids)
        assert len(process.entries()) == config_cache.size() == 3
        assert process.entries() <= {str(id_) for id_ in ids}


def test_an_entry_lives_for_its_time_and_no_longer_however_often_it_is_used(
    process: Process, settings: Any
) -> None:
    settings.CONFIG_CACHE_SECONDS = 1
    id_ = uuid4()
    use(id_)
    misses = process.misses

    def is_missed() -> bool:
        use(id_)
        return process.misses > misses

    assert not is_missed()
    assert wait_until(is_missed, 10)
    other = uuid4()

    def is_forgotten() -> bool:
        # Told with the next fill: who has no entry any more is not counted either.
        use(uuid4())
        return process.redis.zscore(process.cache._key("recent"), process.cache._key(id_)) is None

    use(other)
    assert wait_until(is_forgotten, 10)
