"""What is erased is gone, all of it, and nothing that was under way brings it back."""

import io
from uuid import UUID, uuid4

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from parentalcontrols import accounts, authentication
from parentalcontrols.models import Account, Profile
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    Cast,
    Device,
    assert_invariant,
    assert_problem,
    beat_of,
    everything_stored,
    set_pin,
    watch,
)
from pins import audit, erasures
from pins.models import AuditEntry, Erasure
from viewingtime import erasure
from viewingtime.models import ViewingTimeBalance

ERASE = "/account/erase"


def erase_path(profile: Profile) -> str:
    return f"/auth/profiles/{profile.id}/erase"


def grant_path(profile: Profile) -> str:
    return f"/parental-controls/profiles/{profile.id}/viewing-time/grant"


def pin_token(cast: Cast) -> str:
    answer = cast.phone.post("/parental-controls/pin/verify", {"pin": PIN})
    token: str = answer.json()["pin_token"]
    return token


def mentions(*ids: UUID | str) -> dict[str, int]:
    """In how many rows of which tables, Django's own included, one of those texts stands."""
    found: dict[str, int] = {}
    with connection.cursor() as cursor:
        for model in apps.get_models(include_auto_created=True):
            table = model._meta.db_table
            cursor.execute(
                f"SELECT count(*) FROM {table} AS t WHERE t::text ~ %s", ["|".join(map(str, ids))]
            )
            (count,) = cursor.fetchone()
            if count:
                found[table] = count
    return found


@pytest.fixture
def evening(cast: Cast) -> Cast:
    """Both children watched and were given time, on devices of their own; staff helped once."""
    set_pin(cast.parent)
    accounts.log_in(email=cast.parent.email, password=PASSWORD, address="192.0.2.1")
    for child in (cast.child, cast.sibling):
        watch(cast.phone, child, cast.cartoon, 400)
        cast.phone.post(f"/auth/profiles/{child.id}/token")
        headers = {"Idempotency-Key": f"key of {child.name}"}
        answer = cast.phone.send("POST", grant_path(child), {"minutes": 15}, headers=headers)
        assert answer.status_code == 200
    for row in (cast.parent, cast.child):
        LogEntry.objects.create(
            user=cast.staff,
            content_type=ContentType.objects.get_for_model(row),
            object_id=str(row.pk),
            object_repr=str(row),
            action_flag=CHANGE,
            change_message="deactivated",
        )
    watch(cast.foreign_phone, cast.foreign_child, cast.cartoon, 60)
    return cast


# A profile


def test_a_profile_goes_with_all_that_is_stored_of_it_and_the_others_stay(evening: Cast) -> None:
    cast = evening
    others = (cast.sibling, cast.adult, cast.foreign_child)
    kept = {other.id: mentions(other.id) for other in others}
    answer = cast.phone.post(erase_path(cast.child), {"pin_token": pin_token(cast)})
    assert answer.status_code == 200, answer.content
    receipt = answer.json()
    assert receipt["deleted"] == {
        "profiles": 1,
        "configs": 1,
        "log_ins": 1,
        "sessions": 1,
        "balances": 1,
        "grants": 1,
        "idempotency_keys": 1,
        "audit_entries": 3,
    }
    # The receipt alone, and the bare number in the admin's own log.
    assert mentions(cast.child.id) == {"erasures": 1, "django_admin_log": 1}
    assert mentions(cast.child.name) == {}
    for other in others:
        assert mentions(other.id) == kept[other.id]
    (entry,) = AuditEntry.objects.filter(action="profile_erased")
    assert entry.after == {"receipt_id": receipt["receipt_id"], "is_kids": True}
    assert entry.profile_id is None
    assert_invariant()


def test_what_its_device_did_to_the_pin_goes_along(cast: Cast) -> None:
    set_pin(cast.parent)
    for _ in range(5):
        cast.child_tv.post("/parental-controls/pin/verify", {"pin": "0001"})
    (locked,) = AuditEntry.objects.filter(action="pin_locked")
    assert (locked.actor_id, locked.profile_id) == (cast.child.id, cast.child.id)
    erasure.erase_profile(profile_id=cast.child.id, account_id=cast.parent.id, actor=audit.OPERATOR)
    assert mentions(cast.child.id) == {"erasures": 1}


def test_its_devices_are_let_in_nowhere_and_the_siblings_go_on(evening: Cast) -> None:
    cast = evening
    tv = cast.child_tv
    session = tv.beat(cast.child, cast.documentary)["session_id"]
    cast.phone.post(erase_path(cast.child), {"pin_token": pin_token(cast)})
    beat = beat_of(cast.child, cast.cartoon)
    for body in (beat, beat | {"session_id": session}):
        assert_problem(tv.post("/viewing-time/heartbeat", body), 401, "not_authenticated")
        assert_problem(cast.phone.post("/viewing-time/heartbeat", body), 404, "not_found")
    assert_problem(tv.get(f"/viewing-time/balance/{cast.child.id}"), 401, "not_authenticated")
    end = f"/viewing-time/session/{session}/end"
    assert_problem(cast.phone.post(end), 404, "not_found")
    assert_problem(tv.post(end), 401, "not_authenticated")
    repeated = cast.phone.send(
        "POST",
        grant_path(cast.child),
        {"minutes": 15},
        headers={"Idempotency-Key": f"key of {cast.child.name}"},
    )
    assert_problem(repeated, 404, "not_found")
    again = cast.phone.post(erase_path(cast.child), {"pin_token": pin_token(cast)})
    assert_problem(again, 404, "not_found")
    sibling = Device(authentication.access_token(cast.parent, profile_id=cast.sibling.id))
    assert sibling.beat(cast.sibling, cast.cartoon)["enforcement"] == "allowed"
    assert mentions(cast.child.id) == {"erasures": 1, "django_admin_log": 1}


def test_once_there_is_a_pin_nothing_is_erased_without_a_token_for_it(evening: Cast) -> None:
    cast = evening
    before = everything_stored()
    for path, body in ((erase_path(cast.child), {}), (ERASE, {"password": PASSWORD})):
        assert_problem(cast.phone.post(path, body), 403, "pin_required")
        wrong = body | {"pin_token": "none"}
        assert_problem(cast.phone.post(path, wrong), 403, "pin_token_invalid")
    assert {k: v for k, v in everything_stored().items() if k != "rate_limit_windows"} == {
        k: v for k, v in before.items() if k != "rate_limit_windows"
    }


def test_a_pin_token_of_a_childs_device_erases_nothing(evening: Cast) -> None:
    token = evening.child_tv.post("/parental-controls/pin/verify", {"pin": PIN}).json()["pin_token"]
    answer = evening.phone.post(erase_path(evening.child), {"pin_token": token})
    assert_problem(answer, 403, "pin_token_invalid")
    assert Profile.objects.filter(id=evening.child.id).exists()


# An account


def test_a_household_goes_with_all_that_is_stored_of_it(evening: Cast) -> None:
    cast = evening
    everybody = [cast.parent, cast.child, cast.sibling, cast.adult]
    ids = [one.id for one in everybody]
    kept = mentions(cast.outsider.id, cast.foreign_child.id, cast.foreign_adult.id)
    body = {"password": PASSWORD, "pin_token": pin_token(cast)}
    answer = cast.phone.post(ERASE, body)
    assert answer.status_code == 200, answer.content
    assert answer.json()["deleted"] == {
        "accounts": 1,
        "profiles": 3,
        "configs": 2,
        "log_ins": 3,
        "sessions": 2,
        "pins": 1,
        "balances": 2,
        "grants": 2,
        "idempotency_keys": 2,
        "audit_entries": 8,
    }
    assert mentions(*ids) == {"erasures": 1, "django_admin_log": 2}
    assert mentions(cast.parent.email, "Mia", "Noah", "Alex") == {}
    assert mentions(cast.outsider.id, cast.foreign_child.id, cast.foreign_adult.id) == kept
    (logged,) = Erasure.objects.all()
    assert (str(logged.id), logged.profile_id) == (answer.json()["receipt_id"], None)
    assert logged.deleted == answer.json()["deleted"]


def test_its_tokens_and_its_log_in_are_good_for_nothing(evening: Cast) -> None:
    cast = evening
    credentials = {"email": cast.parent.email, "password": PASSWORD}
    refresh = Device().post("/auth/login", credentials).json()["refresh_token"]
    body = {"password": PASSWORD, "pin_token": pin_token(cast)}
    assert cast.phone.post(ERASE, body).status_code == 200
    for device in (cast.phone, cast.child_tv):
        beat = device.post("/viewing-time/heartbeat", beat_of(cast.child, cast.cartoon))
        assert_problem(beat, 401, "not_authenticated")
    assert_problem(cast.phone.post(ERASE, body), 401, "not_authenticated")
    refreshed = Device().post("/auth/refresh", {"refresh_token": refresh})
    assert_problem(refreshed, 401, "not_authenticated")
    assert_problem(Device().post("/auth/login", credentials), 401, "wrong_login")
    # Whoever registers with the e-mail begins with nothing.
    fresh = Device().post("/auth/register", credentials)
    assert fresh.status_code == 201
    assert Device(fresh.json()["access_token"]).get("/auth/profiles").json() == []


def test_the_password_is_asked_for_and_guesses_at_it_are_counted(cast: Cast) -> None:
    for _ in range(10):
        answer = cast.phone.post(ERASE, {"password": "a-guess-at-it"})
        assert_problem(answer, 403, "incorrect_password")
    answer = cast.phone.post(ERASE, {"password": PASSWORD})
    assert_problem(answer, 429, "too_many_requests")
    # The same count as at log-in: no way around is left.
    credentials = {"email": cast.parent.email, "password": PASSWORD}
    assert_problem(Device().post("/auth/login", credentials), 429, "too_many_requests")
    assert Account.objects.filter(id=cast.parent.id).exists()


def test_staff_are_not_erased(cast: Cast) -> None:
    answer = cast.staff_phone.post(ERASE, {"password": PASSWORD})
    assert_problem(answer, 403, "staff_account")
    assert Account.objects.filter(id=cast.staff.id).exists()


# The log of erasures, and the audit


def test_no_statement_changes_or_deletes_a_row_of_the_log(evening: Cast) -> None:
    erasure.erase_profile(
        profile_id=evening.child.id, account_id=evening.parent.id, actor=audit.OPERATOR
    )
    for statement in ("UPDATE erasures SET at = now()", "DELETE FROM erasures"):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


@pytest.mark.django_db(transaction=True)
def test_what_the_audit_says_goes_in_the_transaction_of_its_erasure_alone() -> None:
    cast = Cast()
    entries = AuditEntry.objects.filter(account=cast.parent)
    before = set(entries.values_list("id", flat=True))
    erased = {"account_id": cast.parent.id, "profile_id": cast.child.id}
    with transaction.atomic():
        # An erasure of one child is none of the others'.
        erasures.record(**erased, actor=audit.OPERATOR, deleted={})
        with pytest.raises(DatabaseError, match="append-only"):
            entries.delete()
        transaction.set_rollback(True)
    assert set(entries.values_list("id", flat=True)) == before
    with transaction.atomic():
        erasures.record(**erased, actor=audit.OPERATOR, deleted={})
    AuditEntry.objects.create(**erased, action="config_changed")
    with pytest.raises(DatabaseError, match="append-only"):
        # An erasure that was recorded before is none of this transaction's.
        entries.filter(profile_id=cast.child.id).delete()


# The command


def test_the_command_erases_and_tells_the_receipt(evening: Cast) -> None:
    cast, out = evening, io.StringIO()
    with pytest.raises(CommandError, match="--yes"):
        call_command("erase_household", cast.parent.email)
    with pytest.raises(CommandError, match="no such thing"):
        call_command("erase_household", cast.parent.email, profile=cast.foreign_child.id, yes=True)
    assert Profile.objects.filter(id__in=[cast.child.id, cast.foreign_child.id]).count() == 2
    call_command("erase_household", cast.parent.email, profile=cast.child.id, yes=True, stdout=out)
    call_command("erase_household", str(cast.parent.id), yes=True, stdout=out)
    lines = out.getvalue().splitlines()
    for line, logged in zip(lines, Erasure.objects.order_by("at"), strict=True):
        assert line.startswith(f"receipt {logged.id} of ")
        assert f"sessions {logged.deleted['sessions']}" in line
    assert not Account.objects.filter(id=cast.parent.id).exists()


def test_what_a_restore_brought_back_is_erased_again(evening: Cast) -> None:
    """As after a restore: the log is told what was erased since the backup."""
    cast, out = evening, io.StringIO()
    for account_id, profile_id in (
        (cast.parent.id, cast.child.id),
        (cast.outsider.id, None),
        (uuid4(), None),
    ):
        Erasure.objects.create(
            account_id=account_id,
            profile_id=profile_id,
            actor="account",
            deleted={},
            transaction_id=1,
        )
    call_command("erase_household", repeat=True, stdout=out)
    assert out.getvalue().endswith("2 erased again\n")
    assert set(Profile.objects.values_list("id", flat=True)) == {cast.sibling.id, cast.adult.id}
    assert not Account.objects.filter(id=cast.outsider.id).exists()
    call_command("erase_household", repeat=True, stdout=out)
    assert out.getvalue().endswith("0 erased again\n")


def test_the_log_knows_the_ids_and_no_name(evening: Cast, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        body = {"password": PASSWORD, "pin_token": pin_token(evening)}
        assert evening.phone.post(ERASE, body).status_code == 200
    (line,) = [r for r in caplog.records if r.message == "account_erased"]
    assert line.receipt_id == str(Erasure.objects.get().id)
    assert line.account_id == str(evening.parent.id)
    assert evening.parent.email not in caplog.text


def test_balances_without_sessions_go_too(cast: Cast) -> None:
    ViewingTimeBalance.objects.create(profile=cast.child, reset_date="2020-01-01")
    receipt = erasure.erase_profile(
        profile_id=cast.child.id, account_id=cast.parent.id, actor=audit.OPERATOR
    )
    assert receipt.deleted["balances"] == 1
