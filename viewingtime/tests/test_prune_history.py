"""`manage.py prune_history`: sessions that no history shows go, all else stays."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from parentalcontrols import profiles
from parentalcontrols.models import Account, Profile, Title, ViewingTimeConfig
from parentalcontrols.problems import Problem
from parentalcontrols.processes import wait_until
from parentalcontrols.tests.cast import assert_problem, beat_of, database_now, make_account
from parentalcontrols.viewing_day import ADULT_SCHEDULE, changed_schedules
from pins.models import AuditEntry
from viewingtime import heartbeats, ledgers, retention
from viewingtime.models import TimeGrant, ViewingSession, ViewingTimeBalance
from viewingtime.tests import clock
from viewingtime.tests.test_concurrency import Household, at_once

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)


@pytest.fixture
def frozen() -> None:
    clock.install()
    clock.set_to(NOW)


@pytest.fixture
def title(db: None) -> Title:
    return Title.objects.create(title="The Paper Boat")


@pytest.fixture
def account(db: None) -> Account:
    return make_account("parent@example.com")


def make_child(account: Account, **config: Any) -> Profile:
    child = profiles.create(account=account, name="Mia", is_kids=True)
    ViewingTimeConfig.objects.filter(profile=child).update(**config)
    return child


def make_session(
    profile: Profile, title: Title, day: date, started_at: datetime, **fields: Any
) -> ViewingSession:
    """A session of a viewing day, over after a minute."""
    ended = {"ended_at": started_at + 60 * SECOND, "end_reason": "stopped"}
    return ViewingSession.objects.create(
        profile=profile,
        title=title,
        is_kids=profile.is_kids,
        device_id="tv",
        reset_date=day,
        started_at=started_at,
        last_heartbeat_at=started_at,
        **ended | fields,
    )


def make_old(profile: Profile, title: Title, count: int = 1, **fields: Any) -> list[ViewingSession]:
    """Sessions of a hundred days ago."""
    started = database_now() - 100 * DAY
    return [
        make_session(profile, title, started.date(), started + n * SECOND, **fields)
        for n in range(count)
    ]


def prune(*arguments: str) -> str:
    out = StringIO()
    call_command("prune_history", *arguments, stdout=out)
    return out.getvalue()


def deleted(**options: Any) -> int:
    return sum(one.sessions for one in retention.prune(days=91, **options))


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("reset_hour", [0, 6, 16, 23])
@pytest.mark.parametrize(
    "zone",
    ["UTC", "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"],
)
def test_of_each_zone_91_days_before_the_running_one_are_kept(account, title, zone, reset_hour):
    child = make_child(account, timezone=zone, reset_hour=reset_hour)
    schedule = ledgers.viewer_of(ViewingTimeConfig.objects.get(profile=child)).schedule
    running = schedule.viewing_day(NOW)

    def on_day(ago: int) -> list[ViewingSession]:
        """Of a viewing day, from its first instant to its last."""
        day = schedule.bounds(running.date - ago * DAY)
        instants = (day.starts_at, day.starts_at + 5 * 3600 * SECOND, day.ends_at - SECOND / 10**6)
        return [make_session(child, title, day.date, instant) for instant in instants]

    on_day(92)
    on_day(400)
    kept = on_day(91) + on_day(90) + on_day(1)
    assert prune() == "6 sessions of viewing days more than 91 days ago deleted\n"
    assert set(ViewingSession.objects.all()) == set(kept)

    # Up to the reset nothing more goes, and with it the next day.
    clock.set_to(running.ends_at - SECOND / 10**6)
    assert deleted() == 0
    clock.set_to(running.ends_at)
    assert deleted() == 3
    assert set(ViewingSession.objects.all()) == set(kept[3:])


@pytest.mark.usefixtures("frozen")
def test_adults_and_children_without_a_config_go_by_their_own_days(account, title):
    adult = profiles.create(account=account, name="Alex", is_kids=False)
    child = Profile.objects.create(account=account, name="Noah", is_kids=True)
    running = ADULT_SCHEDULE.viewing_day(NOW).date
    kept = []
    for one in (adult, child):
        for ago in (91, 92):
            day = ADULT_SCHEDULE.bounds(running - ago * DAY)
            session = make_session(one, title, day.date, day.starts_at)
            kept += [session] if ago == 91 else []
    assert deleted() == 2
    assert set(ViewingSession.objects.all()) == set(kept)


@pytest.mark.usefixtures("frozen")
def test_the_running_day_is_never_earlier_than_the_latest_balance(account, title):
    """The clock was stepped back over a reset: the day that was recorded counts."""
    child = make_child(account)
    ViewingTimeBalance.objects.create(profile=child, reset_date=NOW.date() + DAY)
    make_session(child, title, NOW.date() - 91 * DAY, NOW - 91 * DAY)
    kept = make_session(child, title, NOW.date() - 90 * DAY, NOW - 90 * DAY)
    assert deleted() == 1
    assert set(ViewingSession.objects.all()) == {kept}


@pytest.mark.usefixtures("frozen")
def test_a_day_that_began_later_under_an_earlier_schedule_goes_whole(account, title):
    """It started two days after where the zone of today would have it start."""
    child = make_child(account, timezone="Pacific/Kiritimati", reset_hour=0)
    day = ledgers.viewer_of(child.viewing_time_config).schedule.viewing_day(NOW).date - 92 * DAY
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    make_session(child, title, day, noon + 2 * DAY)
    assert deleted() == 1


@pytest.mark.usefixtures("frozen")
def test_a_pending_change_of_the_schedule_does_not_count_yet(account, title):
    child = make_child(account, timezone="UTC", reset_hour=6)
    running = ledgers.viewer_of(ViewingTimeConfig.objects.get(profile=child)).schedule
    today = running.viewing_day(NOW).date
    earlier = changed_schedules(
        reset_hour=6,
        timezone="UTC",
        earlier=[],
        new_reset_hour=0,
        new_timezone="Pacific/Kiritimati",
        now=NOW,
        latest_day=today,
    )
    ViewingTimeConfig.objects.filter(profile=child).update(
        timezone="Pacific/Kiritimati", reset_hour=0, earlier_schedules=earlier
    )
    bounds = running.bounds(today - 91 * DAY)
    kept = make_session(child, title, bounds.date, bounds.starts_at)
    make_session(child, title, bounds.date - DAY, bounds.starts_at - DAY)
    assert deleted() == 1
    assert set(ViewingSession.objects.all()) == {kept}


def test_balances_grants_and_the_audit_stay(account, title):
    child = make_child(account)
    make_old(child, title, 3)
    day = database_now().date() - 100 * DAY
    ViewingTimeBalance.objects.create(profile=child, reset_date=day, used_seconds=180)
    TimeGrant.objects.create(
        profile=child,
        reset_date=day,
        account=account,
        minutes=15,
        is_remote=True,
        granted_at=database_now() - 100 * DAY,
    )
    entries = AuditEntry.objects.count()
    assert deleted() == 3
    assert ViewingTimeBalance.objects.get().used_seconds == 180
    assert TimeGrant.objects.count() == 1
    assert AuditEntry.objects.count() == entries > 0
    assert Title.objects.get() == title


def test_an_open_session_is_left_until_the_sweep_has_closed_it(account, title):
    child = make_child(account)
    make_old(child, title, ended_at=None, end_reason=None)
    assert deleted() == 0
    assert ledgers.close_silent() == 1
    assert deleted() == 1


def test_a_beat_that_names_a_pruned_session_finds_none_and_changes_nothing(cast):
    (old,) = make_old(cast.child, cast.cartoon)
    assert deleted() == 1
    answer = cast.phone.post(
        "/viewing-time/heartbeat", beat_of(cast.child, cast.cartoon, session_id=old.id)
    )
    assert_problem(answer, 404)
    assert_problem(cast.phone.post(f"/viewing-time/session/{old.id}/end"), 404)
    assert not ViewingSession.objects.exists()
    # Without it the child goes on.
    assert cast.phone.beat(cast.child, cast.cartoon)["enforcement"] == "allowed"


def test_the_setting_says_how_many_days_are_kept(account, title, settings):
    child = make_child(account)
    make_old(child, title)
    settings.HISTORY_RETENTION_DAYS = 101
    assert prune() == "0 sessions of viewing days more than 101 days ago deleted\n"
    settings.HISTORY_RETENTION_DAYS = 98
    assert prune() == "1 sessions of viewing days more than 98 days ago deleted\n"


def test_a_dry_run_counts_and_deletes_nothing(account, title):
    make_old(make_child(account), title, 7)
    kept = make_session(make_child(account), title, database_now().date(), database_now())
    assert prune("--dry-run", "--batch=3") == (
        "7 sessions of viewing days more than 91 days ago would be deleted\n"
        "A dry run: nothing was deleted.\n"
    )
    assert ViewingSession.objects.count() == 8
    assert prune("--batch=0") == "7 sessions of viewing days more than 91 days ago deleted\n"
    assert set(ViewingSession.objects.all()) == {kept}


@pytest.mark.parametrize("batch", [1, 2, 5, 12, 13, 5000])
@pytest.mark.parametrize("of_profiles", [1, 2, 1000])
def test_whatever_the_batch_everything_goes_once(account, title, batch, of_profiles):
    for count in (0, 5, 1, 0, 6):
        make_old(make_child(account), title, count)
    reports = list(retention.prune(days=91, batch=batch, profiles=of_profiles))
    assert sum(one.sessions for one in reports) == 12
    assert sum(one.profiles for one in reports) == 5
    assert max(one.sessions for one in reports) <= batch
    assert not ViewingSession.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_batches_before_an_interruption_stay_deleted(account, title):
    make_old(make_child(account), title, 6)
    reports = retention.prune(days=91, batch=2)
    assert next(reports).sessions == next(reports).sessions == 2
    reports.close()
    assert ViewingSession.objects.count() == 2
    assert deleted(batch=2) == 2


@pytest.mark.django_db(transaction=True)
def test_four_at_once_delete_each_session_once(account, title):
    for _ in range(20):
        make_old(make_child(account), title, 20)
    counts = at_once(*[lambda: deleted(batch=7) for _ in range(4)])
    assert sum(counts) == 400
    assert not ViewingSession.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_what_somebody_holds_is_left_for_the_next_run_without_waiting(account, title):
    held, _ = make_old(make_child(account), title, 2)
    with transaction.atomic():
        ViewingSession.objects.select_for_update().get(id=held.id)
        assert at_once(deleted) == [1]
    assert set(ViewingSession.objects.all()) == {held}
    assert deleted() == 1


@pytest.mark.django_db(transaction=True)
def test_it_does_not_wait_for_a_beat_nor_a_beat_for_it():
    home = Household()
    (child,) = home.children
    title = Title.objects.get(id=home.title)
    session = home.open(child)
    profile = Profile.objects.get(id=child)
    make_old(profile, title, 3)
    with transaction.atomic():
        # What a beat holds: the profile, its open session and balance.
        ledgers.hold([child])
        assert at_once(deleted) == [3]
    make_old(profile, title, 3)
    with transaction.atomic():
        assert deleted() == 3
        steady, first = at_once(
            lambda: home.send(home.beat(child, session))[0],
            lambda: home.send(home.beat(child, device="tablet"))[0],
        )
    assert {steady.enforcement, first.enforcement} <= {"allowed", "blocked"}
    assert not ViewingSession.objects.filter(started_at__lt=database_now() - DAY).exists()


@pytest.mark.django_db(transaction=True)
def test_a_beat_of_a_session_that_is_being_deleted_waits_and_finds_none():
    home = Household()
    (child,) = home.children
    (old,) = make_old(Profile.objects.get(id=child), Title.objects.get(id=home.title))
    started = threading.Event()

    def beat() -> object:
        try:
            started.set()
            return heartbeats.process([home.beat(child, old.id)], home.caller)[0]
        finally:
            connection.close()

    def someone_waits() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return cursor.fetchone()[0] > 0

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            assert deleted() == 1
            answer = pool.submit(beat)
            assert wait_until(someone_waits, 30)
        found = answer.result(timeout=60)
    assert isinstance(found, Problem)
    assert found.status == 404
    assert not ViewingSession.objects.exists()


@pytest.mark.parametrize("statement", [retention.DELETE_SESSIONS, retention.COUNT_SESSIONS])
def test_the_range_of_a_profile_is_served_by_its_index(statement):
    parameters = retention._parameters([retention.Kept(uuid4(), NOW.date(), NOW)])
    with transaction.atomic(), connection.cursor() as cursor:
        # Tables of a test are too small for any plan but one that reads them whole.
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_bitmapscan = off")
        cursor.execute("EXPLAIN " + statement, {**parameters, "batch": 5000})
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Index Scan using ix_vs_profile_started" in plan
    assert "Index Cond: ((profile_id = p.profile_id) AND (started_at < p.before))" in plan
