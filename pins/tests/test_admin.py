"""The admin's pages of PINs and of the audit, what they tell of staff, and how staff get in."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection, transaction
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext

from parentalcontrols import problems
from parentalcontrols.models import Account, RateLimitWindow
from parentalcontrols.processes import wait_until
from parentalcontrols.settings import Rate
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    assert_problem,
    database_now,
    everything_stored,
    make_account,
    set_pin,
)
from parentalcontrols.tests.test_admin import (
    allow,
    form_of,
    plan_of,
    run_action,
    sign_in,
    statements,
)
from pins import audit, hashing, verification
from pins.models import ActorKind, AuditAction, AuditEntry, Pin, UsedPinToken

ADMIN = "/admin/pins"
HALF_AN_HOUR = timedelta(minutes=30)


@pytest.fixture
def browser(cast):
    """A superuser's, signed in."""
    return sign_in(make_account("root@example.com", is_staff=True, is_superuser=True))


def page_of(row):
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/change/"


def listed(browser, model, **parameters):
    """The rows of a list, as the changelist has them."""
    answer = browser.get(f"{ADMIN}/{model}/?{urlencode(parameters)}")
    assert answer.status_code == 200
    return list(answer.context["cl"].result_list)


def unlock(browser, *pins):
    data = {"action": "unlock", "_selected_action": [str(pin.pk) for pin in pins]}
    return browser.post(f"{ADMIN}/pin/", data, follow=True)


def pin_of(account, *, failed=0, locked_for=None):
    """The account's PIN, after so many wrong attempts, locked for so long."""
    set_pin(account)
    until = None if locked_for is None else database_now() + locked_for
    Pin.objects.filter(account=account).update(attempts_reserved=failed, locked_until=until)
    return Pin.objects.get(account=account)


def locked_pin_of(account):
    return pin_of(account, failed=5, locked_for=HALF_AN_HOUR)


def entry_of(account, action=AuditAction.CONFIG_CHANGED, **fields):
    audit.record(
        account_id=account.pk, action=action, **{"actor": audit.Actor(ActorKind.ACCOUNT), **fields}
    )
    return AuditEntry.objects.latest("id")


def recorded(account):
    """What the audit tells of an account that staff did to it, and which of them."""
    entries = AuditEntry.objects.filter(account=account, actor=ActorKind.STAFF)
    return [(entry.action, entry.actor_id) for entry in entries.order_by("id")]


def table(browser, account, heading):
    """The cells of a table on an account's page, tags left out."""
    page = browser.get(page_of(account)).content.decode()
    section = re.search(rf"<h2 [^>]*>{heading}</h2>(.*?)</section>", page, re.DOTALL)
    assert section, heading
    return [
        [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", section[1])
        if "<td>" in row
    ]


def many_pins(count, locked):
    """So many more households with a PIN, of which the first `locked` are locked."""
    accounts = [Account(email=f"family-{n:06}@example.com", password="!") for n in range(count)]
    Account.objects.bulk_create(accounts, batch_size=1000)
    until = database_now() + HALF_AN_HOUR
    pins = [
        Pin(account=account, pin_hash="!", locked_until=until if n < locked else None)
        for n, account in enumerate(accounts)
    ]
    Pin.objects.bulk_create(pins, batch_size=1000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE accounts, pins")


# Unlocking


def test_staff_unlock_a_pin_and_the_household_can_see_who_did(cast):
    allow(cast.staff, "view_pin", "change_pin")
    pin, other = locked_pin_of(cast.parent), locked_pin_of(cast.outsider)
    answer = unlock(sign_in(cast.staff), pin)
    assert "PINs unlocked: 1." in answer.content.decode()
    pin.refresh_from_db()
    assert (pin.locked_until, pin.failed_attempts) == (None, 0)
    assert verification.check(cast.parent.pk, PIN, actor=audit.OPERATOR) == pin.version
    assert recorded(cast.parent) == [(AuditAction.PIN_UNLOCKED, cast.staff.pk)]
    (log,) = LogEntry.objects.all()
    assert (log.user_id, log.object_id, log.get_change_message()) == (
        cast.staff.pk,
        str(pin.pk),
        "Unlocked.",
    )
    assert other.locked_until == Pin.objects.get(pk=other.pk).locked_until


def test_unlocking_needs_the_permission_to_change(cast):
    allow(cast.staff, "view_pin", "view_account", "change_account")
    pin = locked_pin_of(cast.parent)
    browser = sign_in(cast.staff)
    assert listed(browser, "pin") == [pin]
    assert "Unlock" not in browser.get(f"{ADMIN}/pin/").content.decode()
    before = everything_stored()
    unlock(browser, pin)
    assert everything_stored() == before
    assert not LogEntry.objects.exists()


def test_staff_without_permissions_see_no_pin_and_no_audit(cast):
    pin, entry = locked_pin_of(cast.parent), entry_of(cast.parent)
    browser = sign_in(cast.staff)
    for row in (pin, entry):
        assert_problem(browser.get(page_of(row)), 403)
        assert_problem(browser.get(f"{ADMIN}/{row._meta.model_name}/"), 403)
    assert_problem(unlock(browser, pin), 403)
    assert Pin.objects.get(pk=pin.pk).is_locked


@pytest.mark.parametrize("ended", [None, timedelta(seconds=-1)])
def test_unlocking_an_open_pin_gives_no_attempts_back(cast, browser, ended):
    pin = pin_of(cast.parent, failed=4, locked_for=ended)
    before = everything_stored()
    answer = unlock(browser, pin)
    assert "PINs unlocked: 0." in answer.content.decode()
    assert everything_stored() == before
    assert not LogEntry.objects.exists()


def test_an_unlocking_that_cannot_be_audited_does_not_happen(cast, browser, monkeypatch):
    def fail(**_):
        raise RuntimeError

    pin = locked_pin_of(cast.parent)
    monkeypatch.setattr(audit, "record", fail)
    with pytest.raises(RuntimeError):
        unlock(browser, pin)
    assert Pin.objects.get(pk=pin.pk).is_locked
    assert not LogEntry.objects.exists()


def test_a_pins_own_page_has_nothing_to_save(cast, browser):
    pin = locked_pin_of(cast.parent)
    page = browser.get(page_of(pin)).content.decode()
    assert f"locked until {pin.locked_until:%Y-%m-%d %H:%M:%S} UTC" in page
    assert 'name="_save"' not in page
    assert "deletelink" not in page
    before = everything_stored()
    data = {"pin_hash": "x", "locked_until_0": "", "attempts_cleared": "5", "_save": "Save"}
    assert_problem(browser.post(page_of(pin), data), 403)
    assert_problem(browser.post(f"{ADMIN}/pin/add/", {"account": str(cast.outsider.pk)}), 403)
    assert_problem(browser.post(f"{ADMIN}/pin/{pin.pk}/delete/", {"post": "yes"}), 403)
    data = {"action": "delete_selected", "_selected_action": str(pin.pk), "post": "yes"}
    browser.post(f"{ADMIN}/pin/", data)
    assert everything_stored() == before
    assert not LogEntry.objects.exists()


# The list of PINs


def test_a_list_tells_which_pins_are_locked_and_how_often_they_were_guessed(cast, browser):
    pins = {
        "locked until": locked_pin_of(cast.parent),
        "open": pin_of(cast.outsider, failed=3),
        "open again": pin_of(cast.staff, failed=5, locked_for=timedelta(seconds=-1)),
    }
    page = browser.get(f"{ADMIN}/pin/").content.decode()
    rows = {
        pk: re.findall(r'<td class="field-[^"]*">(.*?)</td>', row)[:2]
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
        for pk in re.findall(r'name="_selected_action" value="([^"]*)"', row)
    }
    locked = pins["locked until"]
    assert rows == {
        str(locked.pk): [f"locked until {locked.locked_until:%Y-%m-%d %H:%M:%S} UTC", "5"],
        str(pins["open"].pk): ["open", "3"],
        str(pins["open again"].pk): ["open", "0"],
    }
    for email in (cast.parent.email, cast.outsider.email, cast.staff.email):
        assert email in page


def test_the_filter_shows_the_locks_in_force_first_to_end_first(cast, browser):
    # Not in the order of their keys.
    first, second = sorted((cast.parent, cast.outsider), key=lambda account: account.pk)
    late = pin_of(first, failed=5, locked_for=HALF_AN_HOUR)
    soon = pin_of(second, failed=5, locked_for=timedelta(minutes=1))
    pin_of(cast.staff, failed=5, locked_for=timedelta(seconds=-1))
    assert listed(browser, "pin", locked="now") == [soon, late]
    assert len(listed(browser, "pin", locked="whatever")) == 3


def test_the_lists_of_ten_thousand_pins_are_served_by_indexes(cast, browser):
    many_pins(10_000, locked=300)
    for parameters, index in (({}, "pins_pkey"), ({"locked": "now"}, "ix_pins_locked")):
        with CaptureQueriesContext(connection) as queries:
            assert len(listed(browser, "pin", **parameters)) == 100
        pages = [sql for sql in statements(queries, "pins") if "COUNT(" not in sql]
        assert pages
        for statement in pages:
            plan = plan_of(statement)
            assert index in plan, plan
            assert "Seq Scan on pins" not in plan, plan


def test_a_pin_is_found_by_the_households_whole_e_mail_or_the_accounts_id(cast, browser):
    pin = pin_of(cast.parent)
    pin_of(cast.outsider)
    for term in ("PARENT@example.com ", str(cast.parent.pk)):
        assert listed(browser, "pin", q=term) == [pin], term
    for term in ("parent@", "arent@example.com", "%", str(cast.child.pk)):
        assert listed(browser, "pin", q=term) == [], term


@pytest.mark.parametrize("model", ["pin", "auditentry"])
def test_a_list_takes_as_many_queries_for_fifty_rows_as_for_one(cast, browser, model):
    by_profile = {
        "profile_id": cast.child.pk,
        "actor": audit.Actor(ActorKind.PROFILE, cast.child.pk),
        "after": {"minutes": 15},
    }
    lookups = {"account__id__exact": cast.parent.pk} if model == "auditentry" else {}

    def queries():
        with CaptureQueriesContext(connection) as captured:
            rows = listed(browser, model, **lookups)
        return len(captured), len(rows)

    pin_of(cast.parent)
    entry_of(cast.parent, **by_profile)
    few, rows = queries()
    many_pins(50, locked=25)
    for _ in range(50):
        entry_of(cast.parent, **by_profile)
    assert queries() == (few, rows + 50)


@pytest.mark.parametrize(
    "path",
    [
        "pin/?pin_hash__startswith=$2b",
        "pin/?account__password__startswith=b",
        "auditentry/?device__icontains=a",
        "auditentry/?actor_id=" + "0" * 32,
    ],
)
def test_an_address_cannot_filter_by_what_is_hidden_or_slow(cast, browser, path):
    assert_problem(browser.get(f"{ADMIN}/{path}"), 400)


def test_no_page_shows_or_loads_a_hash_or_breaks_the_content_policy(cast, browser):
    pin = locked_pin_of(cast.parent)
    unlock(browser, pin)
    entries = AuditEntry.objects.filter(account=cast.parent)
    rows = (pin, cast.parent, *entries)
    paths = ["/admin/", f"{ADMIN}/", f"{ADMIN}/pin/?locked=now", f"{ADMIN}/pin/?q={pin.pk}"]
    paths.append(f"{ADMIN}/auditentry/?account__id__exact={cast.parent.pk}")
    for row in rows:
        model = f"/admin/{row._meta.app_label}/{row._meta.model_name}/"
        paths += [model, page_of(row), f"{model}{row.pk}/history/"]
    # The beginning of the salt and that of the hash, whatever is put around them.
    parts = (pin.pin_hash, pin.pin_hash[7:13], pin.pin_hash[-31:-25], "$2b$", str(pin.version))
    assert pin.pin_hash.startswith("$2b$")
    for path in paths:
        with CaptureQueriesContext(connection) as queries:
            answer = browser.get(path)
        assert answer.status_code == 200, path
        page = answer.content.decode()
        assert not [part for part in parts if part in page], path
        assert not [query for query in queries if "pin_hash" in query["sql"]], path
        assert not re.search(r"<script(?![^>]*\ssrc=)(?![^>]*application/json)", page), path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page), path


def test_spent_tokens_have_no_page(cast, browser):
    token = UsedPinToken.objects.create(token_id=uuid4(), expires_at=database_now())
    assert browser.get(f"{ADMIN}/usedpintoken/").status_code == 404
    assert browser.get(page_of(token)).status_code == 404


# The audit


def test_no_entry_is_listed_or_counted_before_a_household_is_chosen(cast, browser):
    entry_of(cast.parent)
    for parameters in ({}, {"q": " "}, {"o": "1"}):
        with CaptureQueriesContext(connection) as queries:
            assert listed(browser, "auditentry", **parameters) == []
        assert not statements(queries, "audit_entries")


def test_a_households_entries_are_listed_newest_first_and_no_others(cast, browser):
    earlier = list(AuditEntry.objects.filter(account=cast.parent).order_by("-id"))
    first, second = entry_of(cast.parent), entry_of(cast.parent)
    entry_of(cast.outsider)
    expected = [second, first, *earlier]
    for parameters in (
        {"q": "Parent@example.com"},
        {"q": str(cast.parent.pk)},
        {"account__id__exact": cast.parent.pk},
        {"account__id__exact": cast.parent.pk, "o": "1"},
    ):
        assert listed(browser, "auditentry", **parameters) == expected, parameters
    for term in ("parent@", str(cast.child.pk), str(first.pk)):
        assert listed(browser, "auditentry", q=term) == [], term


def test_an_entry_tells_who_did_what_to_whom_on_which_device(cast, browser):
    entry = entry_of(
        cast.parent,
        AuditAction.TIME_GRANTED,
        actor=audit.Actor(ActorKind.PROFILE, cast.child.pk, device="<TV>"),
        profile_id=cast.child.pk,
        before={"limit": None, "granted": 0, "same": 1},
        after={"limit": 90, "granted": 900, "same": 1, "is_remote": False},
    )
    lists = f"{ADMIN}/auditentry/?account__id__exact={cast.parent.pk}"
    for path in (lists, page_of(entry)):
        page = browser.get(path).content.decode()
        assert "Extra time granted" in page
        assert f'profile token <a href="{page_of(cast.child)}">Mia</a>' in page
        assert f'<a href="{page_of(cast.parent)}">parent@example.com</a>' in page
        assert f">{cast.child.pk}<" not in page
        assert f">{cast.parent.pk}<" not in page
        assert "&lt;TV&gt;" in page
    row = browser.get(lists).content.decode()
    assert "limit: null -&gt; 90; granted: 0 -&gt; 900; is_remote: - -&gt; false" in row
    assert "same" not in row


def test_an_entry_of_staff_leads_to_their_account(cast, browser):
    entry = entry_of(cast.parent, actor=audit.Actor(ActorKind.STAFF, cast.staff.pk))
    page = browser.get(page_of(entry)).content.decode()
    assert f'member of staff <a href="{page_of(cast.staff)}">staff@example.com</a>' in page


def test_the_pages_of_pins_and_entries_are_headed_by_what_they_are(cast, browser):
    pin, entry = pin_of(cast.parent), entry_of(cast.parent, AuditAction.TIME_GRANTED)
    for row, heading in (
        (pin, "PIN of parent@example.com"),
        (entry, f"Extra time granted, {entry.at:%Y-%m-%d %H:%M:%S} UTC"),
    ):
        assert f"<h2>{heading}</h2>" in browser.get(page_of(row)).content.decode()


def test_a_list_of_entries_is_counted_without_their_names(cast, browser):
    entry_of(cast.parent)
    with CaptureQueriesContext(connection) as queries:
        listed(browser, "auditentry", account__id__exact=cast.parent.pk)
    count, rows = statements(queries, "audit_entries")
    assert "COUNT(" in count
    assert '"profiles"' not in count
    assert '"profiles"' in rows


def test_what_was_recorded_is_read_also_when_its_account_is_gone(cast, browser):
    gone = make_account("gone@example.com")
    child = uuid4()
    entry = entry_of(
        gone,
        actor=audit.Actor(ActorKind.ACCOUNT, gone.pk),
        profile_id=child,
        after={"weekday_limit_minutes": 480},
    )
    Account.objects.filter(pk=gone.pk).delete()
    assert listed(browser, "auditentry", account__id__exact=gone.pk) == [entry]
    assert listed(browser, "auditentry", q=str(gone.pk)) == [entry]
    for path in (page_of(entry), f"{ADMIN}/auditentry/?account__id__exact={gone.pk}"):
        page = browser.get(path).content.decode()
        assert "weekday_limit_minutes" in page
        assert f">{gone.pk}</a>" in page
        assert f'account token <a href="{page_of(gone)}">{gone.pk}</a>' in page
        assert f">{child}</a>" in page


def test_a_superuser_can_neither_add_nor_change_nor_delete_an_entry(cast, browser):
    entry = entry_of(cast.parent, after={"minutes": 15})
    model = f"{ADMIN}/auditentry"
    chosen = f"{model}/?account__id__exact={cast.parent.pk}"
    page = browser.get(page_of(entry)).content.decode()
    assert 'name="_save"' not in page
    assert "deletelink" not in page
    assert 'name="action"' not in browser.get(chosen).content.decode()
    data = {
        "account": str(cast.outsider.pk),
        "action": "pin_set",
        "actor": "staff",
        "device": "x",
        "after": "{}",
        "_save": "Save",
    }
    before = everything_stored()
    assert_problem(browser.get(f"{model}/add/"), 403)
    assert_problem(browser.post(f"{model}/add/", data), 403)
    assert_problem(browser.post(page_of(entry), data), 403)
    assert_problem(browser.post(page_of(entry), data | {"_saveasnew": "1"}), 403)
    assert_problem(browser.get(f"{model}/{entry.pk}/delete/"), 403)
    assert_problem(browser.post(f"{model}/{entry.pk}/delete/", {"post": "yes"}), 403)
    action = {"action": "delete_selected", "_selected_action": str(entry.pk), "post": "yes"}
    browser.post(chosen, action)
    browser.post(chosen, action | {"select_across": "1"})
    browser.post(
        chosen,
        {
            "form-TOTAL_FORMS": "1",
            "form-INITIAL_FORMS": "1",
            "form-0-id": str(entry.pk),
            "form-0-device": "x",
            "_save": "Save",
        },
    )
    assert everything_stored() == before


# The household's page


def test_a_households_page_tells_the_state_of_its_pin(cast, browser):
    assert not table(browser, cast.parent, "PIN")
    assert "None set." in browser.get(page_of(cast.parent)).content.decode()
    pin = locked_pin_of(cast.parent)
    ((_, state, failed),) = table(browser, cast.parent, "PIN")
    assert state == f"locked until {pin.locked_until:%Y-%m-%d %H:%M:%S} UTC"
    assert failed == "5"
    assert f'<a href="{page_of(pin)}">' in browser.get(page_of(cast.parent)).content.decode()


def test_a_households_page_tells_its_five_latest_changes(cast, browser):
    for _ in range(5):
        entry_of(cast.parent, AuditAction.CONFIG_CHANGED)
    entry_of(cast.parent, AuditAction.PROFILE_CREATED)
    entry_of(cast.outsider, AuditAction.PIN_SET)
    told = [row[1] for row in table(browser, cast.parent, "Latest changes")]
    assert told == ["Profile created"] + ["Viewing-time config changed"] * 4
    page = browser.get(page_of(cast.parent)).content.decode()
    assert f"{ADMIN}/auditentry/?account__id__exact={cast.parent.pk}" in page


def test_a_households_page_tells_of_pin_and_changes_only_to_who_may_see_them(cast):
    locked_pin_of(cast.parent)
    allow(cast.staff, "view_account")
    page = sign_in(cast.staff).get(page_of(cast.parent)).content.decode()
    assert "locked until" not in page
    assert "Latest changes" not in page


def test_actions_on_accounts_are_audited_once_for_each_that_changed(cast, browser):
    root = Account.objects.get(email="root@example.com")
    for action in ("deactivate", "deactivate", "reactivate"):
        run_action(browser, "account", action, cast.parent, root)
    assert recorded(cast.parent) == [
        (AuditAction.ACCOUNT_DEACTIVATED, root.pk),
        (AuditAction.ACCOUNT_REACTIVATED, root.pk),
    ]
    assert recorded(cast.outsider) == recorded(root) == []


def test_the_box_on_an_accounts_page_is_audited_like_the_action(cast, browser):
    root = Account.objects.get(email="root@example.com")
    fields = form_of(browser, cast.parent)
    inactive = {name: value for name, value in fields.items() if name != "is_active"}
    assert browser.post(page_of(cast.parent), fields).status_code == 302
    assert recorded(cast.parent) == []
    # The same form twice, as from a page that was opened before somebody else's change.
    for _ in range(2):
        assert browser.post(page_of(cast.parent), inactive).status_code == 302
    assert not Account.objects.get(pk=cast.parent.pk).is_active
    assert recorded(cast.parent) == [(AuditAction.ACCOUNT_DEACTIVATED, root.pk)]
    fields = form_of(browser, cast.parent) | {"is_active": "on"}
    assert browser.post(page_of(cast.parent), fields).status_code == 302
    assert recorded(cast.parent)[1:] == [(AuditAction.ACCOUNT_REACTIVATED, root.pk)]


def test_a_deactivation_that_cannot_be_audited_does_not_happen(cast, browser, monkeypatch):
    def fail(**_):
        raise RuntimeError

    fields = form_of(browser, cast.parent)
    del fields["is_active"]
    monkeypatch.setattr(audit, "record", fail)
    with pytest.raises(RuntimeError):
        run_action(browser, "account", "deactivate", cast.parent)
    with pytest.raises(RuntimeError):
        browser.post(page_of(cast.parent), fields)
    assert Account.objects.get(pk=cast.parent.pk).is_active
    assert not LogEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_who_deactivate_an_account_at_once_one_did_it():
    parent = make_account("parent@example.com")
    browser = sign_in(make_account("root@example.com", is_staff=True, is_superuser=True))

    def deactivate():
        try:
            return run_action(browser, "account", "deactivate", parent).content.decode()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Account.objects.filter(pk=parent.pk).update(is_active=False)
            second = pool.submit(deactivate)
            assert wait_until(_somebody_waits_for_a_lock, 10)
        assert "Accounts deactivated: 0." in second.result(timeout=20)
    assert recorded(parent) == []


def _somebody_waits_for_a_lock():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone() != (0,)


# Signing in


class Door:
    """The log-in page of the admin."""

    def __init__(self, email="staff@example.com"):
        self.email = email

    def enter(self, password=PASSWORD, **options):
        """Whether it opens for a password; `said` is what the page told."""
        fields = {"username": self.email, "password": password}
        browser = Client()
        answer = browser.post("/admin/login/?next=/admin/", fields, **options)
        self.said = answer.content.decode()
        assert "Traceback" not in self.said
        if answer.status_code == 302:
            return True
        assert answer.status_code == 200
        assert "_auth_user_id" not in browser.session
        return False

    def guess(self, count, **options):
        for _ in range(count):
            assert not self.enter("wrong-password-7", **options)
            assert "Please enter the correct" in self.said


def test_after_ten_wrong_passwords_the_right_one_is_refused_too(cast):
    door = Door()
    door.guess(10)
    for password in ("wrong-password-7", PASSWORD):
        assert not door.enter(password)
        assert "Too many attempts. Try again in 15 minutes." in door.said
        assert "Please enter the correct" not in door.said
    # From another address and in other letters it is the same account.
    door.email = " STAFF@example.com"
    assert not door.enter(REMOTE_ADDR="203.0.113.9")


def test_the_right_password_in_time_lets_the_count_start_anew(cast):
    door = Door()
    for _ in range(2):
        door.guess(9)
        assert door.enter()


def test_a_form_without_a_password_neither_counts_nor_forgives_a_guess(cast):
    door = Door()
    door.guess(9)
    for _ in range(12):
        assert not door.enter("")
        assert "Too many attempts" not in door.said
    door.guess(1)
    assert not door.enter()
    assert "Too many attempts" in door.said


def test_the_admin_and_the_api_count_guesses_together(cast):
    credentials = {"email": cast.staff.email, "password": PASSWORD}
    for _ in range(9):
        cast.anonymous.post("/auth/login", credentials | {"password": "wrong-password-7"})
    door = Door()
    door.guess(1)
    assert not door.enter()
    assert "Too many attempts" in door.said
    assert_problem(cast.anonymous.post("/auth/login", credentials), 429)


def test_a_parents_right_password_opens_nothing_and_forgives_nothing(cast):
    door = Door(cast.parent.email)
    for _ in range(10):
        assert not door.enter()
        assert "Please enter the correct" in door.said
    assert not door.enter()
    assert "Too many attempts" in door.said


def test_an_address_that_tries_many_accounts_is_refused(cast, settings):
    settings.RATELIMITS = settings.RATELIMITS | {"LOGIN_ADDRESS": Rate(3, 60)}
    for number in range(3):
        Door(f"nobody-{number}@example.com").guess(1)
    door = Door()
    assert not door.enter()
    assert "Too many attempts. Try again in 1 minute." in door.said
    assert door.enter(REMOTE_ADDR="203.0.113.9")


def test_a_count_that_is_over_lets_in_again(cast):
    door = Door()
    door.guess(10)
    assert not door.enter()
    RateLimitWindow.objects.update(ends_at=F("ends_at") - timedelta(minutes=16))
    assert door.enter()


def test_when_too_many_passwords_are_being_checked_the_page_says_so(cast, monkeypatch):
    def full(owner):
        raise problems.unavailable()

    door = Door()
    with monkeypatch.context() as patch:
        patch.setattr(hashing, "slot", full)
        assert not door.enter()
        assert "The service is busy. Try again shortly." in door.said
    assert door.enter()
