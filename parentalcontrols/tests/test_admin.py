"""The admin's pages of the household: found fast, corrected within bounds, nothing deleted."""

import re
from html.parser import HTMLParser
from io import StringIO
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from adminmetrics import pages
from parentalcontrols.models import Account, Profile, RefreshFamily, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    PASSWORD,
    Device,
    assert_problem,
    everything_stored,
    make_account,
)

ADMIN = "/admin/parentalcontrols"
MODELS = ("account", "profile", "title", "viewingtimeconfig", "refreshfamily")


class FormFields(HTMLParser):
    """What a browser would send of a page's form if nobody touched it."""

    def __init__(self, page):
        super().__init__()
        self.fields = {}
        self._area = None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        name = attributes.get("name")
        if tag == "textarea":
            self._area, self.fields[name] = name, ""
        elif tag == "input" and name and attributes.get("type") not in {"submit", "button"}:
            box = attributes.get("type") == "checkbox"
            if not box or "checked" in attributes:
                self.fields[name] = attributes.get("value", "on" if box else "")

    def handle_data(self, data):
        if self._area:
            self.fields[self._area] += data

    def handle_endtag(self, tag):
        if tag == "textarea":
            self.fields[self._area] = self.fields[self._area].removeprefix("\n")
            self._area = None


@pytest.fixture
def browser(cast):
    """A superuser's, signed in."""
    return sign_in(make_account("root@example.com", is_staff=True, is_superuser=True))


def sign_in(account):
    browser = Client()
    browser.force_login(account)
    return browser


def allow(account, *permissions):
    account.user_permissions.add(*Permission.objects.filter(codename__in=permissions))


def page_of(row):
    return f"{ADMIN}/{row._meta.model_name}/{row.pk}/change/"


def form_of(browser, row):
    answer = browser.get(page_of(row))
    assert answer.status_code == 200
    return FormFields(answer.content.decode()).fields


def listed(browser, model, **parameters):
    """The rows of a list, as the changelist has them."""
    answer = browser.get(f"{ADMIN}/{model}/?{urlencode(parameters)}")
    assert answer.status_code == 200
    return list(answer.context["cl"].result_list)


def run_action(browser, model, action, *rows, **more):
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows], **more}
    return browser.post(f"{ADMIN}/{model}/", data, follow=True)


def statements(queries, table):
    return [query["sql"] for query in queries if f'"{table}"' in query["sql"]]


def plan_of(statement):
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + statement.replace("%", "%%"), [])
        return "\n".join(row[0] for row in cursor.fetchall())


def many_accounts(count):
    """Accounts `family-000001@example.com` and so on, each with a child."""
    accounts = [
        Account(email=f"family-{number:06}@example.com", password="!") for number in range(count)
    ]
    Account.objects.bulk_create(accounts, batch_size=1000)
    children = [Profile(account=account, name="Kim", is_kids=True) for account in accounts]
    Profile.objects.bulk_create(children, batch_size=1000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE accounts, profiles")


# Signing in


def test_staff_sign_in_with_their_e_mail_in_any_case_and_a_csrf_token(cast):
    browser = Client(enforce_csrf_checks=True)
    answer = browser.get("/admin/", follow=True)
    assert answer.redirect_chain == [("/admin/login/?next=/admin/", 302)]
    fields = FormFields(answer.content.decode()).fields
    fields |= {"username": " STAFF@Example.com", "password": PASSWORD}
    without_token = {name: fields[name] for name in ("username", "password")}
    assert browser.post("/admin/login/", without_token).status_code == 403
    answer = browser.post("/admin/login/?next=/admin/", fields, follow=True)
    assert answer.redirect_chain == [("/admin/", 302)]
    assert answer.status_code == 200
    assert "Viewing time administration" in answer.content.decode()


def test_a_parent_cannot_sign_in_to_the_admin(cast):
    browser = Client()
    answer = browser.post("/admin/login/", {"username": cast.parent.email, "password": PASSWORD})
    assert answer.status_code == 200
    assert "staff account" in answer.content.decode()
    assert browser.get("/admin/").status_code == 302


@pytest.mark.django_db
def test_createsuperuser_makes_somebody_who_can_sign_in(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    monkeypatch.setenv("DJANGO_SUPERUSER_EMAIL", "Boss@Example.com")
    call_command("createsuperuser", interactive=False, stdout=StringIO())
    boss = Account.objects.get(email="boss@example.com")
    assert boss.is_staff
    assert boss.is_superuser
    assert Client().login(username="boss@example.com", password=PASSWORD)
    with pytest.raises(CommandError, match="already taken"):
        call_command("createsuperuser", interactive=False, stdout=StringIO())


def test_staff_without_permissions_see_no_household(cast):
    browser = sign_in(cast.staff)
    assert browser.get("/admin/").status_code == 200
    for model in MODELS:
        assert_problem(browser.get(f"{ADMIN}/{model}/"), 403)
    for row in (cast.parent, cast.child, cast.cartoon):
        assert_problem(browser.get(page_of(row)), 403)


def test_staff_who_may_only_look_change_nothing(cast):
    allow(cast.staff, "view_account", "view_profile", "view_title")
    browser = sign_in(cast.staff)
    before = everything_stored()
    for row in (cast.parent, cast.child, cast.cartoon):
        assert browser.get(page_of(row)).status_code == 200
        data = {"name": "x", "title": "x", "initial-is_active": "True"}
        assert browser.post(page_of(row), data).status_code == 403
    run_action(browser, "account", "deactivate", cast.parent)
    run_action(browser, "title", "withdraw", cast.cartoon)
    assert everything_stored() == before


def test_a_page_tells_only_what_its_reader_may_see_elsewhere(cast):
    RefreshFamily.objects.create(
        account=cast.parent, current_token_id=cast.parent.id, expires_at=timezone.now()
    )
    allow(cast.staff, "view_account", "view_profile")
    browser = sign_in(cast.staff)
    household = browser.get(page_of(cast.parent)).content.decode()
    assert "Mia" in household
    assert "Latest log-ins" not in household
    child = browser.get(page_of(cast.child)).content.decode()
    assert "Viewing-time config" not in child


# Finding a household


@pytest.mark.parametrize("term", ["parent@example.com", " PARENT@Example.COM ", "parent@", "PAR"])
def test_a_household_is_found_by_its_e_mail_in_any_case(cast, browser, term):
    assert listed(browser, "account", q=term) == [cast.parent]
    assert listed(browser, "profile", q=term) == [cast.child, cast.sibling, cast.adult]


@pytest.mark.parametrize("term", ["arent@example.com", "%", "_arent", "nobody@example.com"])
def test_a_text_that_is_no_beginning_of_an_e_mail_finds_nobody(cast, browser, term):
    assert listed(browser, "account", q=term) == []
    assert listed(browser, "profile", q=term) == []


def test_a_whole_e_mail_finds_that_household_alone(cast, browser):
    make_account("parent@example.com.au")
    assert listed(browser, "account", q="parent@example.com") == [cast.parent]
    assert len(listed(browser, "account", q="parent@example.co")) == 2


def test_a_household_is_found_by_an_id_from_a_log(cast, browser):
    assert listed(browser, "account", q=str(cast.parent.id).upper()) == [cast.parent]
    assert listed(browser, "profile", q=str(cast.child.id)) == [cast.child]
    config = ViewingTimeConfig.objects.get(profile=cast.child)
    assert listed(browser, "viewingtimeconfig", q=str(cast.child.id)) == [config]
    assert len(listed(browser, "viewingtimeconfig", q="Parent@example.com")) == 2


def test_instants_are_written_in_one_way_in_lists_forms_and_excerpts(browser, cast):
    instant = "2026-01-05T13:04:05.678901Z"
    Account.objects.filter(pk=cast.parent.pk).update(created_at=instant)
    Profile.objects.filter(account=cast.parent).update(created_at=instant)
    for path in (f"{ADMIN}/account/", page_of(cast.parent), page_of(cast.child)):
        page = browser.get(path).content.decode()
        assert "2026-01-05 13:04:05<" in page
        assert "1:04 p.m." not in page
        assert "13:04:05." not in page
        assert "Times are UTC" in page


def test_a_config_tells_amounts_and_hours_and_one_without_a_limit_is_unlimited(browser, cast):
    ViewingTimeConfig.objects.filter(profile=cast.child).update(
        weekday_limit_minutes=None, weekend_limit_minutes=90, reset_hour=5
    )
    page = browser.get(f"{ADMIN}/viewingtimeconfig/?q={cast.child.id}").content.decode()
    for cell in ("unlimited", "90 min", "05:00"):
        assert f">{cell}</td>" in page
    page = browser.get(page_of(ViewingTimeConfig.objects.get(profile=cast.child))).content.decode()
    for told in ("unlimited", "90 min", "05:00"):
        assert f'<div class="readonly">{told}</div>' in page


def test_the_pages_of_configs_and_log_ins_are_headed_by_whose_they_are(browser, cast):
    family = RefreshFamily.objects.create(
        account=cast.parent, current_token_id=cast.parent.id, expires_at=timezone.now()
    )
    RefreshFamily.objects.filter(pk=family.pk).update(created_at="2026-01-05T13:04:05.678901Z")
    config = ViewingTimeConfig.objects.get(profile=cast.child)
    for row, heading in (
        (family, "Log-in of parent@example.com, 2026-01-05 13:04 UTC"),
        (config, "Viewing time of Mia"),
    ):
        assert f"<h2>{heading}</h2>" in browser.get(page_of(row)).content.decode()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/admin/", ("Refresh token families", "Viewing-time configs", "Viewing-time balances")),
        (f"{ADMIN}/account/", ("Active", "Staff")),
        (f"{ADMIN}/profile/", ("Child",)),
        (f"{ADMIN}/title/", ("Educational",)),
        (f"{ADMIN}/viewingtimeconfig/", ("Educational titles exempt",)),
    ],
)
def test_names_are_for_people_to_read(browser, cast, path, words):
    page = browser.get(path).content.decode()
    for word in words:
        assert re.search(rf">\s*{word}\s*<", page), word
    assert not re.search(r">\s*(Is [a-z]+|Reset date|[A-Z][a-z ]* url)\s*<", page)


def test_who_makes_staff_of_an_account_reads_what_each_group_may_do(cast, browser):
    page = browser.get(page_of(cast.outsider)).content.decode()
    assert "support sees every page and changes nothing" in page
    assert "operator also deactivates and reactivates accounts, unlocks PINs" in page


def test_searches_of_twenty_thousand_households_are_served_by_indexes(cast, browser):
    many_accounts(20_000)
    for model in ("account", "profile"):
        for term in ("family-000123@example.com", "family-0001", "zz"):
            with CaptureQueriesContext(connection) as queries:
                listed(browser, model, q=term)
            for statement in statements(queries, "accounts"):
                plan = plan_of(statement)
                assert "Seq Scan on accounts" not in plan, plan
                assert "Seq Scan on profiles" not in plan, plan


def test_lists_of_twenty_thousand_households_are_in_the_order_of_an_index(cast, browser):
    many_accounts(20_000)
    for model, index in (("account", "ix_accounts_created"), ("profile", "ix_profiles_account")):
        with CaptureQueriesContext(connection) as queries:
            assert len(listed(browser, model, o="1")) == 100
        (page,) = [sql for sql in statements(queries, f"{model}s") if "LIMIT 100" in sql[-10:]]
        plan = plan_of(page)
        assert index in plan, plan
        assert not re.search(r"^ *(->  )?Sort", plan, re.MULTILINE), plan


def test_a_list_is_counted_up_to_a_bound_and_says_so(cast, browser, monkeypatch):
    monkeypatch.setattr(pages, "MOST_ROWS", 120)
    many_accounts(300)
    for model in ("account", "profile", "title"):
        with CaptureQueriesContext(connection) as queries:
            answer = browser.get(f"{ADMIN}/{model}/")
        counts = [sql for sql in statements(queries, f"{model}s") if "COUNT(" in sql]
        assert counts
        assert all("LIMIT 121" in sql for sql in counts)
        told = "These are the first 120 of about 30" in answer.content.decode()
        assert told == (model != "title")
    searched = browser.get(f"{ADMIN}/account/?q=family")
    assert "These are the first 120. Search" in searched.content.decode()
    assert len(listed(browser, "account", p="2")) == 20
    assert browser.get(f"{ADMIN}/account/?p=3").status_code == 302


def test_a_table_that_was_never_analysed_is_cut_without_a_guess(cast, browser, monkeypatch):
    monkeypatch.setattr(pages, "MOST_ROWS", 2)
    paginator = pages.BoundedPaginator(Title.objects.order_by("id"), 100)
    assert paginator.count == 2
    assert paginator.is_cut
    monkeypatch.setattr(pages, "TABLE_ESTIMATE", "SELECT -1::bigint, %s::text")
    assert paginator.estimate == ""


@pytest.mark.parametrize("model", ["account", "profile", "viewingtimeconfig", "title"])
def test_a_list_takes_as_many_queries_for_fifty_rows_as_for_a_few(cast, browser, model):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            listed(browser, model)
        return len(captured)

    few = queries()
    many_accounts(50)
    ViewingTimeConfig.objects.bulk_create(
        ViewingTimeConfig(profile=profile) for profile in Profile.objects.filter(name="Kim")
    )
    Title.objects.bulk_create(Title(title=f"Title {number}") for number in range(50))
    assert queries() == few


@pytest.mark.parametrize(
    "path",
    [
        "account/?password__startswith=bcrypt",
        "account/?email__icontains=a",
        "account/?is_active=1",
        "profile/?account__password__startswith=b",
        "profile/?name__icontains=a",
        "title/?synopsis__icontains=a",
        "refreshfamily/?current_token_id=" + "0" * 32,
    ],
)
def test_an_address_cannot_filter_by_what_is_hidden_or_slow(cast, browser, path):
    assert_problem(browser.get(f"{ADMIN}/{path}"), 400)


# The household


def test_a_households_page_leads_to_its_profiles_and_log_ins(cast, browser):
    token_id = Account().pk
    RefreshFamily.objects.create(
        account=cast.parent, current_token_id=token_id, expires_at=timezone.now()
    )
    page = browser.get(page_of(cast.parent)).content.decode()
    for profile in (cast.child, cast.sibling, cast.adult):
        assert f'<a href="{page_of(profile)}">{profile.name}</a>' in page
    assert page_of(cast.foreign_child) not in page
    assert f"{ADMIN}/profile/?account__id__exact={cast.parent.id}" in page
    assert listed(browser, "profile", account__id__exact=cast.parent.id) == [
        cast.child,
        cast.sibling,
        cast.adult,
    ]
    assert "Latest log-ins" in page
    log_ins = browser.get(f"{ADMIN}/refreshfamily/?account__id__exact={cast.parent.id}")
    assert "1 refresh token family" in log_ins.content.decode()
    assert str(token_id) not in page + log_ins.content.decode()


def test_log_ins_are_listed_for_one_household_alone(cast, browser):
    RefreshFamily.objects.create(
        account=cast.parent, current_token_id=cast.parent.id, expires_at=timezone.now()
    )
    assert listed(browser, "refreshfamily") == []
    assert len(listed(browser, "refreshfamily", q="PARENT@example.com")) == 1
    assert listed(browser, "refreshfamily", q="outsider@example.com") == []


def test_a_deactivated_account_is_refused_until_it_is_reactivated(cast, browser):
    fields = form_of(browser, cast.parent)
    del fields["is_active"]
    assert browser.post(page_of(cast.parent), fields).status_code == 302
    assert_problem(cast.phone.get("/auth/me"), 401)
    run_action(browser, "account", "reactivate", cast.parent)
    # The old tokens stay ended: the household logs in again.
    assert_problem(cast.phone.get("/auth/me"), 401)
    credentials = {"email": cast.parent.email, "password": PASSWORD}
    token = cast.anonymous.post("/auth/login", credentials).json()["access_token"]
    assert Device(token).get("/auth/me").status_code == 200
    assert cast.foreign_phone.get("/auth/me").status_code == 200
    messages = LogEntry.objects.filter(object_id=str(cast.parent.id)).order_by("id")
    assert [entry.get_change_message() for entry in messages] == [
        "Changed Active.",
        "Reactivated.",
    ]


def test_an_action_reaches_the_ticked_rows_and_never_a_whole_table(cast, browser):
    run_action(browser, "account", "deactivate", cast.parent, select_across="1")
    inactive = Account.objects.filter(is_active=False)
    assert list(inactive) == [cast.parent]
    page = browser.get(f"{ADMIN}/account/").content.decode()
    assert "across all pages" not in page


def test_an_accounts_page_changes_nothing_but_whether_it_is_active(cast):
    allow(cast.staff, "change_account")
    browser = sign_in(cast.staff)
    fields = form_of(browser, cast.parent)
    hostile = {
        "email": "stolen@example.com",
        "password": "a-new-password-9",
        "is_staff": "on",
        "is_superuser": "on",
        "token_version": "7",
        "groups": [str(Group.objects.create(name="Support").pk)],
    }
    before = everything_stored()
    assert browser.post(page_of(cast.parent), fields | hostile).status_code == 302
    assert everything_stored() == before


def test_only_a_superuser_changes_the_accounts_of_staff(cast):
    boss = make_account("boss@example.com", is_superuser=True)
    colleague = make_account("colleague@example.com", is_staff=True)
    allow(cast.staff, "change_account")
    browser = sign_in(cast.staff)
    for account in (boss, colleague, cast.staff):
        assert browser.post(page_of(account), {"initial-is_active": "True"}).status_code == 403
    run_action(browser, "account", "deactivate", boss, colleague, cast.staff)
    assert not Account.objects.filter(is_active=False).exists()
    run_action(sign_in(boss_of_all()), "account", "deactivate", colleague)
    assert list(Account.objects.filter(is_active=False)) == [colleague]


def boss_of_all():
    return make_account("root@example.com", is_staff=True, is_superuser=True)


def test_a_superuser_lets_somebody_in_and_out_but_never_locks_himself_out(cast, browser):
    support = Group.objects.create(name="Support")
    fields = form_of(browser, cast.outsider) | {"is_staff": "on", "groups": [str(support.pk)]}
    assert browser.post(page_of(cast.outsider), fields).status_code == 302
    cast.outsider.refresh_from_db()
    assert cast.outsider.is_staff
    assert list(cast.outsider.groups.all()) == [support]

    root = Account.objects.get(email="root@example.com")
    browser.post(page_of(root), {"initial-is_active": "True", "initial-is_staff": "True"})
    run_action(browser, "account", "deactivate", root)
    root.refresh_from_db()
    assert root.is_active
    assert root.is_staff


# Profiles


def test_staff_correct_a_profiles_name_and_nothing_else_of_the_row_is_written(cast, browser):
    fields = form_of(browser, cast.child) | {
        "name": "Mia-Sophie",
        "is_kids": "",
        "account": str(cast.outsider.id),
        "last_viewing_change_at": "2001-01-01",
    }
    with CaptureQueriesContext(connection) as queries:
        assert browser.post(page_of(cast.child), fields).status_code == 302
    (update,) = [sql for sql in statements(queries, "profiles") if sql.startswith("UPDATE")]
    assert re.search(r"""SET "name" = 'Mia-Sophie'\S* WHERE""", update), update
    child = Profile.objects.get(pk=cast.child.pk)
    assert (child.name, child.is_kids, child.account_id) == ("Mia-Sophie", True, cast.parent.id)


def test_a_page_that_was_opened_earlier_does_not_undo_what_a_parent_changed_since(cast, browser):
    fields = form_of(browser, cast.child) | {"name": "Mia-Sophie"}
    Profile.objects.filter(pk=cast.child.pk).update(parental_rating="PG")
    assert browser.post(page_of(cast.child), fields).status_code == 302
    child = Profile.objects.get(pk=cast.child.pk)
    assert (child.name, child.parental_rating) == ("Mia-Sophie", "PG")


def test_a_form_that_changes_nothing_writes_nothing(cast, browser):
    for row in (cast.parent, cast.child, cast.cartoon):
        fields = form_of(browser, row)
        with CaptureQueriesContext(connection) as queries:
            assert browser.post(page_of(row), fields).status_code == 302
        assert not [sql for sql in statements(queries, row._meta.db_table) if "UPDATE" in sql[:6]]


def test_an_avatar_must_be_an_address_of_the_web(cast, browser):
    fields = form_of(browser, cast.child) | {"avatar_url": "javascript:alert(1)"}
    answer = browser.post(page_of(cast.child), fields)
    assert answer.status_code == 200
    assert "Enter a valid URL." in answer.content.decode()


def test_a_config_is_shown_and_cannot_be_changed(cast, browser):
    config = ViewingTimeConfig.objects.get(profile=cast.child)
    assert "Viewing-time config" in browser.get(page_of(cast.child)).content.decode()
    assert browser.get(page_of(config)).status_code == 200
    before = everything_stored()
    assert_problem(browser.post(page_of(config), {"weekday_limit_minutes": "480"}), 403)
    assert everything_stored() == before


# Titles


def test_staff_correct_a_title(cast, browser):
    before = Title.objects.get(pk=cast.cartoon.pk)
    fields = form_of(browser, cast.cartoon) | {
        "title": "The Paper Ship",
        "is_educational": "on",
        "synopsis": "It sails.\nFar.",
        "external_id": "stolen",
    }
    assert browser.post(page_of(cast.cartoon), fields).status_code == 302
    title = Title.objects.get(pk=cast.cartoon.pk)
    assert (title.title, title.is_educational) == ("The Paper Ship", True)
    assert title.synopsis.split() == ["It", "sails.", "Far."]
    assert title.external_id is None
    assert title.updated_at > before.updated_at
    assert (title.created_at, title.withdrawn_at) == (before.created_at, None)


def test_titles_are_withdrawn_and_restored(cast, browser):
    since = cast.withdrawn.withdrawn_at
    run_action(browser, "title", "withdraw", cast.cartoon, cast.withdrawn)
    cast.cartoon.refresh_from_db()
    cast.withdrawn.refresh_from_db()
    assert cast.cartoon.withdrawn_at is not None
    assert cast.withdrawn.withdrawn_at == since
    run_action(browser, "title", "restore", cast.cartoon, cast.documentary)
    cast.cartoon.refresh_from_db()
    assert cast.cartoon.withdrawn_at is None
    messages = LogEntry.objects.order_by("id").values_list("object_id", "change_message")
    assert list(messages) == [
        (str(cast.cartoon.pk), "Withdrawn."),
        (str(cast.cartoon.pk), "Restored."),
    ]


def test_a_title_is_found_by_its_beginning_and_by_its_ids(cast, browser):
    Title.objects.filter(pk=cast.cartoon.pk).update(external_id="tt-77")
    for term in ("the paper", "THE P", "tt-77", str(cast.cartoon.pk)):
        assert listed(browser, "title", q=term) == [cast.cartoon], term
    for term in ("paper", "tt-7", "%"):
        assert listed(browser, "title", q=term) == [], term


def test_the_list_of_titles_loads_no_heavy_field_and_is_served_by_indexes(cast, browser):
    titles = [Title(title=f"Title {number:05}") for number in range(10_000)]
    Title.objects.bulk_create(titles, batch_size=1000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE titles")
    for parameters in ({}, {"q": "Title 00"}):
        with CaptureQueriesContext(connection) as queries:
            assert len(listed(browser, "title", **parameters)) == 100
        for statement in statements(queries, "titles"):
            assert "synopsis" not in statement
            if "COUNT(" not in statement:
                assert "Seq Scan" not in plan_of(statement)


# Nothing is added, nothing is deleted


@pytest.mark.parametrize("model", MODELS)
def test_nothing_of_a_household_is_added_or_deleted(cast, browser, model):
    family = RefreshFamily.objects.create(
        account=cast.parent, current_token_id=cast.parent.id, expires_at=timezone.now()
    )
    row = {
        "account": cast.parent,
        "profile": cast.child,
        "title": cast.cartoon,
        "viewingtimeconfig": cast.child,
        "refreshfamily": family,
    }[model]
    before = everything_stored()
    assert_problem(browser.get(f"{ADMIN}/{model}/add/"), 403)
    assert_problem(browser.post(f"{ADMIN}/{model}/add/", {"email": "x@example.com"}), 403)
    assert_problem(browser.get(f"{ADMIN}/{model}/{row.pk}/delete/"), 403)
    assert_problem(browser.post(f"{ADMIN}/{model}/{row.pk}/delete/", {"post": "yes"}), 403)
    run_action(browser, model, "delete_selected", row, post="yes")
    assert everything_stored() == before
