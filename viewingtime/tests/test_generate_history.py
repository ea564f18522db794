"""`manage.py generate_history`: what it writes is what the service would have booked."""

from datetime import timedelta
from io import StringIO
from itertools import pairwise
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Max, Min

from parentalcontrols import demo
from parentalcontrols.authentication import access_token
from parentalcontrols.models import Account, Profile, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    PASSWORD,
    Device,
    assert_invariant,
    database_now,
    everything_stored,
    make_account,
)
from viewingtime import grants, ledgers
from viewingtime.generator import history
from viewingtime.generator.demo import DAYS, SESSIONS, fill
from viewingtime.models import TimeGrant, ViewingSession, ViewingTimeBalance

pytestmark = pytest.mark.django_db


def generate(**options: Any) -> str:
    out = StringIO()
    options = {"sessions": 2000, "profiles": 40, "yes": True} | options
    call_command("generate_history", stdout=out, **options)
    return out.getvalue()


def test_it_writes_what_it_was_asked_for_and_says_so():
    report = generate()
    assert ViewingSession.objects.count() == 2000
    assert Profile.objects.filter(is_kids=True).count() == 40
    assert ViewingTimeConfig.objects.count() == 40
    assert ViewingSession.objects.filter(is_kids=False).count() == pytest.approx(200, abs=20)
    assert report == (
        f"2,000 sessions and {TimeGrant.objects.count():,} grants of 40 children in "
        f"{Account.objects.count():,} households created, generated-1-1@example.com and so on.\n"
    )


def test_the_sums_of_the_sessions_are_the_balances():
    generate()
    assert_invariant()
    assert ViewingTimeBalance.objects.filter(educational_seconds__gt=0).exists()
    assert ViewingTimeBalance.objects.filter(used_seconds__gt=0).exists()


def test_every_session_is_over_and_in_the_viewing_day_of_its_profiles_own_schedule():
    before = database_now()
    generate(days=5)
    configs = {config.profile_id: config for config in ViewingTimeConfig.objects.all()}
    assert len({config.timezone for config in configs.values()}) > 5
    assert len({config.reset_hour for config in configs.values()}) > 3
    for session in ViewingSession.objects.all():
        config = configs.get(session.profile_id)
        viewer = ledgers.viewer_of(config) if config else ledgers.ADULT
        running = viewer.schedule.viewing_day(before)
        day = viewer.schedule.bounds(session.reset_date)
        assert day.starts_at <= session.started_at < session.ended_at <= day.ends_at
        assert day.ends_at <= running.starts_at
        assert running.date - session.reset_date <= timedelta(days=5)


def test_no_two_sessions_of_a_child_overlap():
    generate(sessions=20_000)
    sessions = ViewingSession.objects.filter(is_kids=True).order_by("profile_id", "started_at")
    for one, after in pairwise(sessions.only("profile_id", "started_at", "ended_at")):
        assert one.profile_id != after.profile_id or one.ended_at <= after.started_at


def test_grants_have_their_rows_and_their_sum_covers_them():
    generate(sessions=6000)
    given = list(TimeGrant.objects.select_related("profile"))
    assert {grant.is_remote for grant in given} == {True, False}
    for grant in given:
        assert grant.account_id == grant.profile.account_id
        balance = ViewingTimeBalance.objects.get(
            profile=grant.profile_id, reset_date=grant.reset_date
        )
        if grant.minutes is None:
            assert balance.is_unlimited_override
        else:
            assert balance.granted_seconds >= grant.minutes * 60


def test_titles_of_the_catalogue_are_watched_and_withdrawn_ones_are_not():
    here = [Title.objects.create(title=f"title {n}") for n in range(3)]
    gone = Title.objects.create(title="Gone", withdrawn_at=database_now())
    generate()
    watched = set(ViewingSession.objects.values_list("title_id", flat=True))
    assert watched == {title.id for title in here}
    assert gone.id not in watched
    assert Title.objects.count() == 4


def test_the_flag_of_a_session_is_that_of_its_title():
    generate()
    flags = ViewingSession.objects.values_list("is_educational", "title__is_educational")
    assert {one for one, title in flags if one != title} == set()
    assert Title.objects.filter(is_educational=True).exists()


def test_nobody_can_log_in_to_a_made_up_household():
    generate()
    account = Account.objects.first()
    assert not account.has_usable_password()
    answer = Device().post("/auth/login", {"email": account.email, "password": PASSWORD})
    assert answer.status_code == 401


def test_the_same_seed_at_the_same_instant_makes_the_same_rows():
    plan = history.Plan(sessions=500, kids=10, days=7)
    now, catalogue = database_now(), history._catalogue()

    def lines(one: history.Plan) -> list[list[str]]:
        rows = next(history._chunks(one, catalogue, now))
        return [lines for _, lines in rows._tables()]

    assert lines(plan) == lines(plan)
    other = lines(history.Plan(sessions=500, kids=10, days=7, seed=2))
    assert not {line for table in lines(plan) for line in table} & {
        line for table in other for line in table
    }


def test_titles_that_it_makes_are_the_same_in_every_database():
    history._catalogue()
    before = set(Title.objects.values_list("id", "title"))
    Title.objects.all().delete()
    history._catalogue()
    assert set(Title.objects.values_list("id", "title")) == before


def test_another_seed_or_prefix_adds_households_and_the_same_again_is_refused():
    generate()
    generate(seed=2)
    generate(prefix="more")
    assert ViewingSession.objects.count() == 6000
    before = everything_stored()
    with pytest.raises(CommandError, match="this seed and prefix have been used here"):
        generate()
    assert everything_stored() == before
    assert_invariant()


def test_outside_of_a_demo_it_writes_nothing_without_a_yes(settings):
    with pytest.raises(CommandError, match="give --yes if no real family is in there"):
        generate(yes=False)
    assert not Account.objects.exists()
    assert not Title.objects.exists()
    settings.DEMO = True
    generate(yes=False)
    assert Account.objects.exists()


def test_more_than_a_child_can_watch_is_refused():
    with pytest.raises(CommandError, match="more than 1000 sessions for each child and day"):
        generate(sessions=7001, profiles=1, days=7)
    assert not Account.objects.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--sessions", "0"),
        ("--profiles", "-1"),
        ("--days", "0"),
        ("--days", "4000"),
        ("--adults", "1"),
        ("--adults", "-0.1"),
        ("--prefix", "Family"),
        ("--prefix", "a\tb"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(option, value):
    with pytest.raises(CommandError, match=f"argument {option}"):
        call_command("generate_history", f"{option}={value}", "--yes")
    assert not Account.objects.exists()


def test_the_usual_number_of_children_follows_from_the_sessions():
    generate(sessions=1200, profiles=None, days=30, adults=0.0)
    assert Profile.objects.filter(is_kids=True).count() == 10
    assert not Profile.objects.filter(is_kids=False).exists()


def test_five_thousand_sessions_of_one_child_in_a_month_are_possible():
    generate(sessions=5000, profiles=1, days=30, adults=0.0)
    assert ViewingSession.objects.count() == 5000
    assert_invariant()


@pytest.mark.django_db(transaction=True)
def test_an_interruption_leaves_whole_households(monkeypatch):
    monkeypatch.setattr(history, "CHUNK_SESSIONS", 300)
    chunks = 0

    def interrupted(sessions: int) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        history.generate(history.Plan(sessions=2000, kids=40), progress=interrupted)
    assert 900 <= ViewingSession.objects.count() < 2000
    assert_invariant()
    assert not Account.objects.filter(profiles=None).exists()
    assert not Profile.objects.filter(is_kids=True, viewing_time_config=None).exists()


class TestTheDemo:
    @pytest.fixture(autouse=True)
    def household(self, settings):
        settings.DEMO = True
        call_command("seed_demo", stdout=StringIO())
        self.parent = Account.objects.get(email=demo.PARENT_EMAIL)

    def test_each_of_the_household_has_four_weeks_of_history(self):
        call_command("generate_history", "--demo", stdout=(out := StringIO()))
        assert out.getvalue() == "Demo: 336 sessions of the last four weeks created.\n"
        for profile in self.parent.profiles.all():
            found = profile.viewing_sessions.aggregate(
                first=Min("reset_date"), last=Max("reset_date")
            )
            assert profile.viewing_sessions.count() == SESSIONS
            assert timedelta(days=DAYS - 8) < found["last"] - found["first"] < timedelta(days=DAYS)
            assert profile.viewing_sessions.filter(is_educational=True).exists()
        assert_invariant()

    def test_a_second_start_adds_nothing(self):
        fill()
        before = everything_stored()
        call_command("generate_history", "--demo", stdout=(out := StringIO()))
        assert out.getvalue() == "Demo: 0 sessions of the last four weeks created.\n"
        assert everything_stored() == before

    def test_a_household_that_has_watched_or_was_given_time_is_left_alone(self):
        child = self.parent.profiles.filter(is_kids=True).first()
        grants.grant(
            profile_id=child.id,
            account_id=self.parent.id,
            minutes=15,
            is_remote=True,
            actor=grants.audit.OPERATOR,
        )
        assert fill() == 0
        assert not ViewingSession.objects.exists()

    def test_the_running_day_is_untouched(self):
        fill()
        phone = Device(access_token(self.parent))
        for child in self.parent.profiles.filter(is_kids=True):
            viewer = ledgers.viewer_of(child.viewing_time_config)
            today = viewer.schedule.viewing_day(database_now()).date
            limit = viewer.limit(today)
            answer = phone.beat(child, Title.objects.get(id=demo.SHORT_FILM_ID))
            assert answer["used_minutes"] == 0
            assert answer["remaining_minutes"] == (
                None if limit is None else limit.total_seconds() / 60
            )

    def test_without_the_household_there_is_nothing_to_fill(self):
        self.parent.delete()
        make_account("other@example.com")
        assert fill() == 0

    def test_it_refuses_to_run_outside_demo_mode(self, settings):
        settings.DEMO = False
        with pytest.raises(CommandError, match="set DEMO=true first"):
            call_command("generate_history", "--demo", "--yes")
        assert not ViewingSession.objects.exists()


def test_tables_are_analyzed_in_the_end():
    generate()
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE oid = 'viewing_sessions'::regclass")
        assert cursor.fetchone()[0] == 2000
