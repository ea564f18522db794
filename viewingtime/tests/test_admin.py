"""The admin's pages of what was watched: shown for one child, never rewritten."""

import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from adminmetrics import pages
from parentalcontrols.models import RefreshFamily, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    assert_problem,
    database_now,
    everything_stored,
    make_account,
)
from viewingtime import ledgers
from viewingtime.admin import at_length, hours
from viewingtime.models import TimeGrant, ViewingSession, ViewingTimeBalance

ADMIN = "/admin/viewingtime"
MODELS = ("viewingsession", "viewingtimebalance", "timegrant")


@pytest.fixture
def browser(cast):
    """A superuser's, signed in."""
    browser = Client()
    browser.force_login(make_account("root@example.com", is_staff=True, is_superuser=True))
    return browser


@pytest.fixture
def evening(cast):
    """What the child watched: 40 minutes of a cartoon today, half an hour of extra time."""
    return Evening(cast)


class Evening:
    def __init__(self, cast):
        viewer = ledgers.viewer_of(ViewingTimeConfig.objects.get(profile=cast.child))
        self.now, running = ledgers.read_balance(cast.child.pk, viewer)
        self.day = running.reset_date
        self.session = make_session(
            cast.child,
            cast.cartoon,
            self.now - timedelta(hours=1),
            reset_date=self.day,
            total_seconds=Decimal("2400.25"),
        )
        self.balance = ViewingTimeBalance.objects.create(
            profile=cast.child,
            reset_date=self.day,
            used_seconds=Decimal("2400.25"),
            granted_seconds=1800,
            limit_seconds=7200,
        )
        self.grant = TimeGrant.objects.create(
            profile=cast.child,
            account=cast.parent,
            reset_date=self.day,
            minutes=30,
            is_remote=True,
            granted_at=self.now,
        )

    @property
    def rows(self):
        return (self.session, self.balance, self.grant)


def make_session(profile, title, started_at, **fields):
    return ViewingSession.objects.create(
        **{
            "profile": profile,
            "title": title,
            "is_kids": profile.is_kids,
            "device_id": "living-room-tv",
            "device_type": "tv",
            "reset_date": started_at.date(),
            "started_at": started_at,
            "last_heartbeat_at": started_at + timedelta(minutes=40),
            "ended_at": started_at + timedelta(minutes=40),
            "end_reason": "stopped",
            **fields,
        }
    )


def page_of(row):
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/change/"


def page_text(browser, row):
    answer = browser.get(page_of(row))
    assert answer.status_code == 200
    return answer.content.decode()


def listed(browser, model, query=""):
    answer = browser.get(f"{ADMIN}/{model}/?{query}")
    assert answer.status_code == 200
    return list(answer.context["cl"].result_list)


def table(browser, profile, heading):
    """The cells of a table on a profile's page, tags left out."""
    page = browser.get(page_of(profile)).content.decode()
    section = re.search(rf"<h2 [^>]*>{heading}</h2>(.*?)</section>", page, re.DOTALL)
    assert section, heading
    return [
        [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", section[1])
        if "<td>" in row
    ]


def statements(queries, table):
    return [query["sql"] for query in queries if f'"{table}"' in query["sql"]]


def plan_of(statement):
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + statement.replace("%", "%%"), [])
        return "\n".join(row[0] for row in cursor.fetchall())


def many_sessions(cast, count):
    """So many sessions of three children in turn, a minute apart."""
    start = database_now() - timedelta(days=80)
    children = [cast.child, cast.sibling, cast.foreign_child]
    sessions = [
        ViewingSession(
            profile=children[number % 3],
            title=cast.cartoon,
            device_id="tv",
            reset_date=start.date(),
            started_at=start + timedelta(minutes=number),
            last_heartbeat_at=start + timedelta(minutes=number),
            ended_at=start + timedelta(minutes=number),
            end_reason="stopped",
        )
        for number in range(count)
    ]
    ViewingSession.objects.bulk_create(sessions, batch_size=1000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE viewing_sessions")


# A child's page


def test_a_childs_page_tells_what_is_left_today(cast, evening, browser):
    (today,) = table(browser, cast.child, "Today&#x27;s balance")
    assert today[1:] == ["2:00:00", "0:30:00", "0:40:00", "0:00:00", "1:49:59"]
    ViewingTimeBalance.objects.update(is_unlimited_override=True)
    (today,) = table(browser, cast.child, "Today&#x27;s balance")
    assert (today[1], today[5]) == ("lifted for today", "unlimited")


def test_a_day_without_a_row_is_told_by_the_config(cast, browser):
    (today,) = table(browser, cast.child, "Today&#x27;s balance")
    assert today[1:] == ["2:00:00", "0:00:00", "0:00:00", "0:00:00", "2:00:00"]
    assert not ViewingTimeBalance.objects.exists()


def test_a_child_without_a_config_has_the_defaults_and_gets_none_from_a_look(cast, browser):
    ViewingTimeConfig.objects.filter(profile=cast.sibling).delete()
    page = browser.get(page_of(cast.sibling)).content.decode()
    assert "None yet: the defaults are in force." in page
    assert not ViewingTimeConfig.objects.filter(profile=cast.sibling).exists()


def test_a_childs_page_tells_its_config_sessions_days_and_grants(cast, evening, browser):
    (config,) = table(browser, cast.child, "Viewing-time config")
    assert config[:2] == ["120 min", "120 min"]
    (session,) = table(browser, cast.child, "Latest sessions")
    assert session[1:5] == ["The Paper Boat", "0:40:00", "0:00:00", "Stopped"]
    (day,) = table(browser, cast.child, "Latest viewing days")
    assert day[0] == f"{evening.day}"
    (grant,) = table(browser, cast.child, "Latest grants")
    assert grant[1:3] == ["30 min", "yes"]
    page = browser.get(page_of(cast.child)).content.decode()
    for row in evening.rows:
        assert page_of(row) in page
        model = row._meta.model_name
        assert f"{ADMIN}/{model}/?profile__id__exact={cast.child.pk}" in page


def test_an_adults_page_tells_sessions_alone(cast, browser):
    make_session(cast.adult, cast.cartoon, database_now(), ended_at=None, end_reason=None)
    (session,) = table(browser, cast.adult, "Latest sessions")
    assert session[4] == "still open"
    page = browser.get(page_of(cast.adult)).content.decode()
    assert "balance" not in re.sub("(?s)<nav.*?</nav>", "", page)
    assert "Latest grants" not in page


def test_the_latest_sessions_are_few_newest_first_and_served_by_their_index(cast, browser):
    many_sessions(cast, 6_000)
    with CaptureQueriesContext(connection) as queries:
        rows = table(browser, cast.child, "Latest sessions")
    assert len(rows) == pages.EXCERPT_ROWS
    assert rows == sorted(rows, reverse=True)
    picture, latest = statements(queries, "viewing_sessions")
    for statement in (picture, latest):
        assert "ix_vs_profile_started" in plan_of(statement)
        assert "synopsis" not in statement
        assert "artwork_url" not in statement


def test_the_picture_of_the_day_holds_its_sessions_and_no_others(cast, evening, browser):
    yesterday = evening.now - timedelta(days=1)
    make_session(cast.child, cast.cartoon, yesterday, reset_date=evening.day - timedelta(days=1))
    make_session(cast.sibling, cast.cartoon, evening.now, reset_date=evening.day)
    page = browser.get(page_of(cast.child)).content.decode()
    assert page.count('<rect class="timeline-') == 1
    assert "1 session: 0:40 used of a limit of 2:30." in page
    assert " style=" not in page
    assert 'class="timeline"' not in browser.get(page_of(cast.adult)).content.decode()


def test_without_the_right_to_see_sessions_there_is_no_picture(cast, evening):
    staff = make_account("some@example.com", is_staff=True)
    rights = ("view_profile", "view_viewingtimebalance")
    staff.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(staff)
    page = client.get(page_of(cast.child)).content.decode()
    assert "balance" in page
    assert 'class="timeline"' not in page


def test_a_childs_page_takes_as_many_queries_for_many_rows_as_for_one(cast, evening, browser):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            assert browser.get(page_of(cast.child)).status_code == 200
        return len(captured)

    few = queries()
    for number in range(30):
        title = Title.objects.create(title=f"Title {number}")
        make_session(cast.child, title, evening.now - timedelta(days=1, hours=number))
        ViewingTimeBalance.objects.create(
            profile=cast.child, reset_date=evening.day - timedelta(days=number + 1)
        )
        TimeGrant.objects.create(
            profile=cast.child,
            account=cast.parent,
            reset_date=evening.day,
            is_remote=False,
            granted_at=evening.now,
        )
    assert queries() == few


def test_staff_who_may_see_profiles_alone_do_not_see_what_was_watched(cast, evening):
    cast.staff.user_permissions.add(Permission.objects.get(codename="view_profile"))
    browser = Client()
    browser.force_login(cast.staff)
    page = browser.get(page_of(cast.child)).content.decode()
    assert "<h2 id=" not in page
    for row in evening.rows:
        assert_problem(browser.get(page_of(row)), 403)
        assert_problem(browser.get(f"{ADMIN}/{row._meta.model_name}/"), 403)


def test_correcting_a_childs_name_leaves_what_it_watched_alone(cast, evening, browser):
    fields = {
        "name": "Mia-Sophie",
        "initial-name": "Mia",
        "viewing_sessions-TOTAL_FORMS": "1",
        "viewing_sessions-INITIAL_FORMS": "1",
        "viewing_sessions-0-id": str(evening.session.pk),
        "viewing_sessions-0-total_seconds": "0",
        "viewing_sessions-0-DELETE": "on",
    }
    before = everything_stored()
    assert browser.post(page_of(cast.child), fields).status_code == 302
    after = everything_stored()
    assert before.pop("profiles") != after.pop("profiles")
    assert before == after


# Lists


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_listed_or_counted_before_a_child_is_chosen(cast, evening, browser, model):
    for query in ("", "q=", "q=%20%20", "all=", "o=1"):
        with CaptureQueriesContext(connection) as queries:
            assert listed(browser, model, query) == []
        for row in evening.rows:
            assert not statements(queries, row._meta.db_table)
    page = browser.get(f"{ADMIN}/{model}/").content.decode()
    assert "Nothing is listed before a household or a profile is chosen." in page


@pytest.mark.parametrize("number", range(3))
def test_rows_are_listed_for_a_child_a_household_or_an_id(cast, evening, browser, number):
    row = evening.rows[number]
    model = row._meta.model_name
    child = cast.child.pk
    for query in (f"profile__id__exact={child}", "q=PARENT@example.com%20", f"q={child}"):
        assert listed(browser, model, query) == [row], query
    if model != "viewingtimebalance":
        assert listed(browser, model, f"q={row.pk}") == [row]
    others = ("q=outsider@example.com", "q=parent@", f"profile__id__exact={cast.sibling.pk}")
    for query in others:
        assert listed(browser, model, query) == [], query


def test_a_childs_list_of_sessions_is_bounded_and_served_by_its_index(cast, browser, monkeypatch):
    monkeypatch.setattr(pages, "MOST_ROWS", 500)
    many_sessions(cast, 9_000)
    with CaptureQueriesContext(connection) as queries:
        answer = browser.get(f"{ADMIN}/viewingsession/?profile__id__exact={cast.child.pk}")
    rows = list(answer.context["cl"].result_list)
    assert len(rows) == 100
    started = [row.started_at for row in rows]
    assert started == sorted(started, reverse=True)
    assert "These are the first 500. Search" in answer.content.decode()
    read = statements(queries, "viewing_sessions")
    assert len(read) == 2
    for statement in read:
        assert "synopsis" not in statement
        if "COUNT(" in statement:
            assert "LIMIT 501" in statement
        else:
            assert "ix_vs_profile_started" in plan_of(statement)


@pytest.mark.parametrize("model", MODELS)
def test_a_list_takes_as_many_queries_for_fifty_rows_as_for_one(cast, evening, browser, model):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            assert listed(browser, model, "q=parent@example.com")
        return len(captured)

    few = queries()
    for number in range(50):
        title = Title.objects.create(title=f"Title {number}")
        make_session(cast.sibling, title, evening.now - timedelta(hours=number))
        ViewingTimeBalance.objects.create(
            profile=cast.sibling, reset_date=evening.day - timedelta(days=number)
        )
        TimeGrant.objects.create(
            profile=cast.sibling,
            account=cast.parent,
            reset_date=evening.day,
            is_remote=False,
            granted_at=evening.now,
        )
    assert queries() == few


@pytest.mark.parametrize(
    "path", ["viewingsession/?device_id__icontains=a", "timegrant/?account__password__gt=b"]
)
def test_an_address_cannot_filter_by_what_is_hidden_or_slow(cast, browser, path):
    assert_problem(browser.get(f"{ADMIN}/{path}"), 400)


# Nothing can rewrite what was watched


@pytest.mark.parametrize("number", range(3))
def test_what_was_watched_is_never_added_changed_or_deleted(cast, evening, browser, number):
    row = evening.rows[number]
    model = f"{ADMIN}/{row._meta.model_name}"
    assert browser.get(page_of(row)).status_code == 200
    data = {
        "profile": str(cast.sibling.pk),
        "total_seconds": "0",
        "used_seconds": "0",
        "minutes": "60",
        "reset_date": "2026-01-01",
        "_save": "Save",
    }
    before = everything_stored()
    assert_problem(browser.post(page_of(row), data), 403)
    assert_problem(browser.post(f"{model}/add/", data), 403)
    assert_problem(browser.post(f"{model}/{row.pk}/delete/", {"post": "yes"}), 403)
    chosen = f"{model}/?profile__id__exact={cast.child.pk}"
    action = {"action": "delete_selected", "_selected_action": str(row.pk), "post": "yes"}
    browser.post(chosen, action)
    browser.post(
        chosen,
        {
            "form-TOTAL_FORMS": "1",
            "form-INITIAL_FORMS": "1",
            "form-0-id": str(row.pk),
            "form-0-total_seconds": "0",
            "_save": "Save",
        },
    )
    assert everything_stored() == before


def test_what_was_watched_is_not_deleted_with_its_owner_or_its_title(cast, evening, browser):
    before = everything_stored()
    for owner in (cast.parent, cast.child, cast.cartoon):
        model = f"/admin/parentalcontrols/{owner._meta.model_name}/"
        assert_problem(browser.post(f"{model}{owner.pk}/delete/", {"post": "yes"}), 403)
        action = {"action": "delete_selected", "_selected_action": str(owner.pk), "post": "yes"}
        browser.post(model, action)
    assert everything_stored() == before


# What a row's own page tells


def test_a_rows_page_tells_amounts_of_time_in_words(cast, evening, browser):
    told = {
        row: re.findall(r'<div class="readonly">(.*?)</div>', page_text(browser, row))
        for row in evening.rows
    }
    assert told[evening.session].count("0 h 40 min 00 s (2,400.25 seconds)") == 1
    assert told[evening.session].count("0 h 00 min 00 s (0 seconds)") == 1
    for amount in (
        "0 h 40 min 00 s (2,400.25 seconds)",
        "0 h 00 min 00 s (0 seconds)",
        "0 h 30 min 00 s (1,800 seconds)",
        "2 h 00 min 00 s (7,200 seconds)",
    ):
        assert told[evening.balance].count(amount) == 1, amount
    assert "30 min" in told[evening.grant]
    ViewingTimeBalance.objects.update(limit_seconds=None)
    TimeGrant.objects.update(minutes=None)
    for row in (evening.balance, evening.grant):
        assert '<div class="readonly">unlimited</div>' in page_text(browser, row)


def test_a_rows_page_is_headed_by_what_it_is_and_whose(cast, evening, browser):
    started, given = evening.session.started_at, evening.now
    for row, heading in zip(
        evening.rows,
        (
            f"The Paper Boat, watched by Mia, {started:%Y-%m-%d %H:%M} UTC",
            f"Mia on {evening.day}",
            f"30 min for Mia, {given:%Y-%m-%d %H:%M} UTC",
        ),
        strict=True,
    ):
        assert f"<h2>{heading}</h2>" in page_text(browser, row)
    TimeGrant.objects.update(minutes=None)
    assert "<h2>No limit for Mia, " in page_text(browser, evening.grant)


def test_a_list_of_sessions_tells_when_and_why_each_ended(cast, evening, browser):
    chosen = f"{ADMIN}/viewingsession/?profile__id__exact={cast.child.pk}"
    ended = f"{evening.session.ended_at:%Y-%m-%d %H:%M:%S}, stopped"
    assert f">{ended}</td>" in browser.get(chosen).content.decode()
    ViewingSession.objects.update(ended_at=None, end_reason=None)
    assert ">still open</td>" in browser.get(chosen).content.decode()


def test_names_are_for_people_to_read(cast, evening, browser):
    pages = [page_text(browser, row) for row in evening.rows]
    for model in MODELS:
        chosen = f"{ADMIN}/{model}/?profile__id__exact={cast.child.pk}"
        pages.append(browser.get(chosen).content.decode())
    for page in pages:
        assert re.search(r">\s*Viewing day:?\s*<", page)
        assert not re.search(r">\s*(Is [a-z ]+|Reset date|[A-Z][a-z]+ seconds):?\s*<", page)


# Every page


def every_page(cast, evening):
    family = RefreshFamily.objects.create(
        account=cast.parent, current_token_id=cast.parent.pk, expires_at=evening.now
    )
    config = ViewingTimeConfig.objects.get(profile=cast.child)
    rows = [cast.parent, cast.staff, cast.child, cast.cartoon, config, family, *evening.rows]
    yield from ("/admin/", "/admin/login/", "/admin/password_change/")
    yield from ("/admin/parentalcontrols/", "/admin/viewingtime/", "/admin/auth/group/add/")
    for row in rows:
        model = f"/admin/{row._meta.app_label}/{row._meta.model_name}/"
        yield from (model, f"{model}?q=parent@example.com")
        yield from (page_of(row), f"{model}{row.pk}/history/")


def test_no_page_shows_a_password_or_needs_more_than_the_content_policy_allows(
    cast, evening, browser
):
    # The beginnings of salt and hash: what Django's own masks would leave to be seen.
    parts = [
        part
        for account in (cast.parent, cast.staff)
        for part in (account.password[-53:-47], account.password[-31:-25])
    ]
    for path in every_page(cast, evening):
        answer = browser.get(path, follow=True)
        assert answer.status_code == 200, path
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "style-src 'self'" in policy
        page = answer.content.decode()
        assert not [part for part in parts if part in page], path
        assert "bcrypt" not in page, path
        assert not re.search(r"<script(?![^>]*\ssrc=)(?![^>]*application/json)", page), path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page), path


def test_every_model_of_ours_has_its_pages(cast, evening, browser):
    index = browser.get("/admin/").content.decode()
    for row in (cast.parent, cast.child, cast.cartoon, *evening.rows):
        assert f"/admin/{row._meta.app_label}/{row._meta.model_name}/" in index
    for model in ("viewingtimeconfig", "refreshfamily"):
        assert f"/admin/parentalcontrols/{model}/" in index


def test_amounts_of_time_are_told_in_hours():
    assert hours(None) == "unlimited"
    assert hours(Decimal("59.9")) == "0:00:59"
    assert hours(timedelta(hours=26, minutes=1, seconds=1)) == "26:01:01"
    assert hours(7200) == "2:00:00"
    assert at_length(None) == "unlimited"
    assert at_length(Decimal("3912.250000")) == "1 h 05 min 12 s (3,912.25 seconds)"
    assert at_length(Decimal(0)) == "0 h 00 min 00 s (0 seconds)"
    assert at_length(7200) == "2 h 00 min 00 s (7,200 seconds)"
