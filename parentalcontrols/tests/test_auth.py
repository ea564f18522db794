"""Registering, logging in, refreshing, and what a token is worth."""

import base64
import hmac
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
import time_machine
from django.conf import settings
from django.db import connection
from django.http import HttpResponse
from rest_framework.exceptions import AuthenticationFailed

from parentalcontrols import authentication
from parentalcontrols.models import Account, RefreshFamily
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    Cast,
    Device,
    assert_problem,
    beat_of,
    database_now,
    everything_stored,
    make_account,
)
from parentalcontrols.tests.routes import OPEN, ROUTES

REGISTER, LOGIN, REFRESH, ME = "/auth/register", "/auth/login", "/auth/refresh", "/auth/me"


def register(email: str, password: str = PASSWORD) -> HttpResponse:
    return Device().post(REGISTER, {"email": email, "password": password})


def log_in(email: str, password: str = PASSWORD) -> HttpResponse:
    return Device().post(LOGIN, {"email": email, "password": password})


def refresh(token: str) -> HttpResponse:
    return Device().post(REFRESH, {"refresh_token": token})


def pair_of(answer: HttpResponse) -> dict[str, str]:
    """The tokens of a good answer, whose access token works."""
    assert answer.status_code in {200, 201}, answer.content
    pair: dict[str, str] = answer.json()
    assert pair.keys() == {"access_token", "refresh_token", "token_type"}
    assert pair["token_type"] == "bearer"
    assert Device(pair["access_token"]).get(ME).status_code == 200
    return pair


def claims_of(account: Account, **changes: Any) -> dict[str, Any]:
    """The claims of a good access token, but for the changes; None leaves one out."""
    now = datetime.now(UTC)
    claims = {
        "token_type": "access",
        "sub": str(account.id),
        "ver": account.token_version,
        "scope": "account",
        "iss": settings.TOKEN_ISSUER,
        "aud": settings.TOKEN_AUDIENCE,
        "iat": now,
        "exp": now + timedelta(hours=1),
        "jti": str(uuid4()),
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def signed(claims: dict[str, Any], key: str | None = None) -> str:
    return jwt.encode(claims, key or settings.TOKEN_SIGNING_KEY, "HS256")


def part(document: Any) -> str:
    """A part of a token, encoded as it has to be."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def errors_of(answer: HttpResponse) -> set[tuple[str, str]]:
    document = assert_problem(answer, 400, "invalid")
    return {(error["field"], error["code"]) for error in document["errors"]}


# Registering


@pytest.mark.django_db
def test_registering_makes_an_account_and_logs_it_in() -> None:
    answer = register("new@example.com")
    assert answer.status_code == 201
    pair = pair_of(answer)
    me = Device(pair["access_token"]).get(ME).json()
    account = Account.objects.get()
    assert me.keys() == {"id", "email", "is_admin", "created_at"}
    assert UUID(me["id"]) == account.id
    assert (me["email"], me["is_admin"]) == ("new@example.com", False)
    assert abs(database_now() - datetime.fromisoformat(me["created_at"])) < timedelta(minutes=1)
    assert account.check_password(PASSWORD)
    assert PASSWORD not in account.password


@pytest.mark.django_db
def test_staff_is_told_to_be_admin() -> None:
    make_account("staff@example.com", is_staff=True)
    token = pair_of(log_in("staff@example.com"))["access_token"]
    assert Device(token).get(ME).json()["is_admin"] is True


@pytest.mark.django_db
def test_nobody_can_register_as_staff() -> None:
    body = {"email": "a@example.com", "password": PASSWORD, "is_staff": True, "is_admin": True}
    assert Device().post(REGISTER, body).status_code == 201
    account = Account.objects.get()
    assert not account.is_staff
    assert not account.is_superuser


@pytest.mark.django_db
def test_an_email_is_the_same_in_whatever_case() -> None:
    register("Mixed.Case@Example.COM")
    assert Account.objects.get().email == "mixed.case@example.com"
    for email in ("mixed.case@example.com", "MIXED.CASE@EXAMPLE.COM", "mIxEd.cAsE@example.com"):
        assert errors_of(register(email)) == {("email", "email_taken")}
        pair_of(log_in(email))
    assert Account.objects.count() == 1


@pytest.mark.django_db
def test_an_email_that_is_taken_keeps_its_password() -> None:
    register("a@example.com")
    register("a@example.com", "another-password-9")
    assert log_in("a@example.com", "another-password-9").status_code == 401
    assert log_in("a@example.com").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize(
    "email",
    [
        "",
        "a",
        "a@",
        "@example.com",
        "a@b",
        "a b@example.com",
        "a@example.com\x00",
        "a@@b.com",
        "a" * 250 + "@example.com",
        "a@example.com, b@example.com",
        "a@exa mple.com",
        None,
        5,
    ],
)
def test_what_is_no_email_is_refused(email: Any) -> None:
    assert {field for field, _ in errors_of(register(email))} == {"email"}
    assert not Account.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("length", [8, 128])
def test_passwords_of_8_to_128_characters_are_good(length: int) -> None:
    password = ("kQ7-xw!z" * 16)[:length]
    assert register("a@example.com", password).status_code == 201
    pair_of(log_in("a@example.com", password))


@pytest.mark.django_db
@pytest.mark.parametrize(("length", "code"), [(0, "blank"), (7, "min_length"), (129, "max_length")])
def test_shorter_and_longer_passwords_are_refused(length: int, code: str) -> None:
    password = ("kQ7-xw!z" * 17)[:length]
    assert ("password", code) in errors_of(register("a@example.com", password))
    assert not Account.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "password", ["password", "12345678", "qwertyuiop", "iloveyou1", "Passw0rd"]
)
def test_common_passwords_are_refused(password: str) -> None:
    assert errors_of(register("a@example.com", password)) == {("password", "password_too_common")}


@pytest.mark.django_db
@pytest.mark.parametrize("character", ["ü", "漢", "🎬"])
def test_long_multibyte_passwords_are_hashed_to_their_last_character(character: str) -> None:
    password = character * 120
    assert register("a@example.com", password).status_code == 201
    pair_of(log_in("a@example.com", password))
    assert_problem(log_in("a@example.com", password[:-1] + "x"), 401)


@pytest.mark.django_db
def test_spaces_around_a_password_belong_to_it() -> None:
    assert register("a@example.com", "  watch together  ").status_code == 201
    assert log_in("a@example.com", "watch together").status_code == 401
    pair_of(log_in("a@example.com", "  watch together  "))


# Logging in


def test_a_wrong_password_and_an_unknown_email_answer_the_same(cast: Cast) -> None:
    wrong = log_in("parent@example.com", "not-the-password")
    unknown = log_in("nobody@example.com", "not-the-password")
    assert_problem(wrong, 401, "wrong_login")
    assert wrong.content == unknown.content
    assert wrong.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_deactivated_account_cannot_log_in(cast: Cast) -> None:
    Account.objects.filter(id=cast.parent.id).update(is_active=False)
    answer = log_in("parent@example.com")
    assert answer.content == log_in("parent@example.com", "not-the-password").content


def test_every_log_in_starts_a_family_of_its_own(cast: Cast) -> None:
    first, second = (pair_of(log_in("parent@example.com")) for _ in range(2))
    refresh(first["refresh_token"])
    assert refresh(first["refresh_token"]).status_code == 401
    pair_of(refresh(second["refresh_token"]))


# Refreshing


def test_a_refresh_token_buys_the_next_pair(cast: Cast) -> None:
    first = pair_of(log_in("parent@example.com"))
    second = pair_of(refresh(first["refresh_token"]))
    assert second["refresh_token"] != first["refresh_token"]
    third = pair_of(refresh(second["refresh_token"]))
    assert len({pair["access_token"] for pair in (first, second, third)}) == 3


def test_a_used_refresh_token_ends_its_whole_family(cast: Cast) -> None:
    first = pair_of(log_in("parent@example.com"))
    second = pair_of(refresh(first["refresh_token"]))
    assert_problem(refresh(first["refresh_token"]), 401)
    assert_problem(refresh(second["refresh_token"]), 401)
    assert RefreshFamily.objects.get().revoked_at is not None


@pytest.mark.django_db(transaction=True)
def test_of_two_racing_refreshes_exactly_one_wins() -> None:
    make_account("parent@example.com")
    for _ in range(5):
        token = pair_of(log_in("parent@example.com"))["refresh_token"]
        barrier = threading.Barrier(2)

        def run(token: str = token, barrier: threading.Barrier = barrier) -> int:
            try:
                connection.ensure_connection()
                barrier.wait(timeout=30)
                return refresh(token).status_code
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as pool:
            racing = [pool.submit(run) for _ in range(2)]
            assert sorted(future.result(timeout=30) for future in racing) == [200, 401]


_TAKES_NOTHING_BACK = """
CREATE FUNCTION take_nothing_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = 'disk_full'; END
$$;
CREATE TRIGGER take_nothing_back BEFORE UPDATE ON rate_limit_windows
FOR EACH ROW WHEN (NEW.count < OLD.count) EXECUTE FUNCTION take_nothing_back();
"""


@pytest.mark.django_db(transaction=True)
def test_a_refresh_that_is_answered_503_may_be_sent_again() -> None:
    make_account("parent@example.com")
    token = pair_of(log_in("parent@example.com"))["refresh_token"]
    with connection.cursor() as cursor:
        cursor.execute(_TAKES_NOTHING_BACK)
        try:
            assert_problem(refresh(token), 503, "unavailable")
        finally:
            cursor.execute("DROP FUNCTION take_nothing_back CASCADE")
    pair_of(refresh(token))


def test_a_refresh_token_outlives_its_time_by_nothing(cast: Cast) -> None:
    token = pair_of(log_in("parent@example.com"))["refresh_token"]
    RefreshFamily.objects.update(expires_at=database_now() - timedelta(seconds=1))
    assert_problem(refresh(token), 401)


@pytest.mark.parametrize("token", ["x", "a.b.c", "é" * 10, ".", "..", "Bearer x", "x" * 4096])
def test_what_is_no_refresh_token_is_refused(cast: Cast, token: str) -> None:
    assert_problem(refresh(token), 401)


def test_a_refresh_token_of_a_family_that_is_gone_is_refused(cast: Cast) -> None:
    token = pair_of(log_in("parent@example.com"))["refresh_token"]
    RefreshFamily.objects.all().delete()
    assert_problem(refresh(token), 401)


def test_a_refresh_token_for_somebody_elses_family_is_refused(cast: Cast) -> None:
    pair_of(log_in("parent@example.com"))
    family = RefreshFamily.objects.get()
    forged = authentication.refresh_token(
        cast.outsider, family_id=family.id, token_id=family.current_token_id
    )
    assert_problem(refresh(forged), 401)


# What a token is worth


def test_a_refresh_token_opens_no_door_and_an_access_token_buys_nothing(cast: Cast) -> None:
    pair = pair_of(log_in("parent@example.com"))
    assert_problem(Device(pair["refresh_token"]).get(ME), 401, "not_authenticated")
    assert_problem(refresh(pair["access_token"]), 401)
    pair_of(refresh(pair["refresh_token"]))


def test_the_forger_of_these_tests_can_make_a_good_one(cast: Cast) -> None:
    assert Device(signed(claims_of(cast.parent))).get(ME).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody-else"},
        {"iss": None},
        {"aud": "another-service"},
        {"aud": None},
        {"aud": []},
        {"token_type": "refresh"},
        {"token_type": None},
        {"scope": "everything"},
        {"scope": None},
        {"scope": ["account"]},
        {"sub": None},
        {"sub": "not-a-uuid"},
        {"sub": "5b0c3f0e-3a54-4b57-9d0e-0f4f0f3c8a11"},
        {"ver": None},
        {"ver": 7},
        {"ver": "x"},
        {"exp": 1_000_000_000},
        {"exp": "tomorrow"},
        {"nbf": 10**10},
        {"iat": 10**10},
    ],
    ids=str,
)
def test_a_token_with_another_claim_is_refused(cast: Cast, changes: dict[str, Any]) -> None:
    token = signed(claims_of(cast.parent, **changes))
    assert_problem(Device(token).get(ME), 401, "not_authenticated")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_the_right_key_with_another_algorithm_is_refused(cast: Cast, algorithm: str) -> None:
    payload = signed(claims_of(cast.parent)).split(".")[1]

    def sign(name: str, digest: str) -> str:
        message = f"{part({'alg': name, 'typ': 'JWT'})}.{payload}"
        key = settings.TOKEN_SIGNING_KEY.encode()
        return f"{message}.{part(hmac.digest(key, message.encode(), digest))}"

    assert Device(sign("HS256", "sha256")).get(ME).status_code == 200
    assert_problem(Device(sign(algorithm, f"sha{algorithm[2:]}")).get(ME), 401)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", "HS384", "RS256", "ES256"]
)
def test_the_algorithm_is_not_the_tokens_to_choose(cast: Cast, algorithm: str) -> None:
    good = signed(claims_of(cast.parent)).split(".")
    header = part({"alg": algorithm, "typ": "JWT"})
    for signature in (good[2], ""):
        assert_problem(Device(f"{header}.{good[1]}.{signature}").get(ME), 401)


def test_a_token_signed_with_another_key_is_refused(cast: Cast) -> None:
    for key in ("another-key-of-some-length-0123456789", settings.SECRET_KEY):
        assert_problem(Device(signed(claims_of(cast.parent), key)).get(ME), 401)


def test_a_token_whose_claims_were_exchanged_is_refused(cast: Cast) -> None:
    mine, theirs = (signed(claims_of(account)) for account in (cast.parent, cast.outsider))
    header, _, signature = mine.split(".")
    assert_problem(Device(f"{header}.{theirs.split('.')[1]}.{signature}").get(ME), 401)


@pytest.mark.parametrize(
    "header",
    [
        [],
        {},
        None,
        5,
        {"alg": None},
        {"alg": ["HS256"]},
        {"alg": {"HS256": 1}},
        {"alg": "HS256", "kid": 5},
        {"alg": "HS256", "kid": "../../dev/null"},
        {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "b64": False},
        b"not json",
        b"\xff\xfe",
        b"NaN",
        b"[" * 2500,
        b'{"a":' * 500,
        b'{"alg": "HS256", "a": ' + b"1" * 2400 + b"}",
    ],
    ids=lambda header: repr(header)[:30],
)
def test_hostile_token_headers_are_refused(cast: Cast, header: Any) -> None:
    _, payload, signature = signed(claims_of(cast.parent)).split(".")
    for rest in (f"{payload}.{signature}", "..", "e30.", "x"):
        assert_problem(Device(f"{part(header)}.{rest}").get(ME), 401)
    assert_problem(refresh(f"{part(header)}.{payload}.{signature}"), 401)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "token",
        "Basic dXNlcjpwYXNz",
        "Bearer a b",
        "Bearer a, Bearer b",
        "Bearer é",
        "Bearer \x80ÿ",
        "Bearer " + "x" * 7000,
        "Token {}",
        "Bearer {} {}",
        "{}",
        "Bearer {}x",
        "Bearer x{}",
        'Bearer "{}"',
        "Bearer {},",
        "Bearer\x0b{}.",
        ",Bearer {}",
    ],
    ids=lambda value: repr(value)[:20],
)
def test_other_authorization_headers_are_refused(cast: Cast, authorization: str) -> None:
    header = authorization.replace("{}", cast.phone.token or "")
    for path in (ME, f"/viewing-time/balance/{cast.child.id}"):
        answer = Device().send("GET", path, headers={"Authorization": header})
        assert_problem(answer, 401, "not_authenticated")
    answer = Device().send(
        "POST",
        "/viewing-time/heartbeat",
        beat_of(cast.child, cast.cartoon),
        headers={"Authorization": header},
    )
    assert_problem(answer, 401, "not_authenticated")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_the_scheme_may_be_written_in_any_case(cast: Cast, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {cast.phone.token}"}
    assert Device().send("GET", ME, headers=headers).status_code == 200


def test_an_access_token_ends_with_its_time(cast: Cast) -> None:
    device = Device(pair_of(log_in("parent@example.com"))["access_token"])
    now = datetime.now(UTC)
    with time_machine.travel(now + timedelta(seconds=settings.ACCESS_TOKEN_SECONDS - 60)):
        assert device.get(ME).status_code == 200
    with time_machine.travel(now + timedelta(seconds=settings.ACCESS_TOKEN_SECONDS + 60)):
        assert_problem(device.get(ME), 401)
        beat = beat_of(cast.child, cast.cartoon)
        assert_problem(device.post("/viewing-time/heartbeat", beat), 401)


def test_a_refresh_token_ends_with_its_time(cast: Cast) -> None:
    token = pair_of(log_in("parent@example.com"))["refresh_token"]
    later = datetime.now(UTC) + timedelta(seconds=settings.REFRESH_TOKEN_SECONDS + 60)
    with time_machine.travel(later):
        assert_problem(refresh(token), 401)


# Accounts that do not honour their tokens any more


def doors(cast: Cast, session_id: str) -> list[tuple[str, str, Any]]:
    """Every route that asks for a token, with a request that is good."""
    child, beat = cast.child.id, beat_of(cast.child, cast.cartoon)
    steady = beat | {"session_id": session_id}
    return [
        ("GET", ME, None),
        ("GET", "/auth/profiles", None),
        ("POST", "/auth/profiles", {"name": "New", "is_kids": True}),
        ("PUT", f"/auth/profiles/{child}/select", None),
        ("POST", f"/auth/profiles/{child}/token", None),
        ("GET", "/parental-controls/pin/status", None),
        ("POST", "/parental-controls/pin", {"new_pin": PIN}),
        ("POST", "/parental-controls/pin/verify", {"pin": PIN}),
        ("POST", "/parental-controls/pin/reset", {"password": PASSWORD, "new_pin": PIN}),
        ("GET", "/parental-controls/audit", None),
        ("GET", "/admin/metrics", None),
        ("GET", f"/parental-controls/profiles/{child}/viewing-time", None),
        ("PUT", f"/parental-controls/profiles/{child}/viewing-time", {"reset_hour": 5}),
        ("POST", f"/parental-controls/profiles/{child}/viewing-time/grant", {"minutes": 15}),
        ("GET", f"/parental-controls/profiles/{child}/history", None),
        ("GET", "/parental-controls/weekly-report", None),
        ("GET", f"/viewing-time/balance/{child}", None),
        ("GET", f"/viewing-time/playback-eligible/{child}", None),
        ("POST", "/viewing-time/heartbeat", beat),
        ("POST", "/viewing-time/heartbeat", steady),
        ("POST", "/viewing-time/heartbeats", {"heartbeats": [beat, steady]}),
        ("POST", "/viewing-time/heartbeats", {"heartbeats": [steady]}),
        ("POST", f"/viewing-time/session/{session_id}/end", None),
        ("POST", f"/viewing-time/session/{uuid4()}/end", None),
        ("GET", "/account/export", None),
        ("POST", f"/auth/profiles/{child}/erase", {}),
        ("POST", "/account/erase", {"password": PASSWORD}),
    ]


def test_no_door_is_forgotten(cast: Cast) -> None:
    session_id = str(uuid4())
    ids = {"profile_id": str(cast.child.id), "session_id": session_id}
    tried = {(method, path) for method, path, _ in doors(cast, session_id)}
    closed = {(route.method, route.path(ids)) for route in ROUTES if route.name not in OPEN}
    assert closed <= tried


def deactivate(account: Account) -> None:
    Account.objects.filter(id=account.id).update(is_active=False)


def change_password(account: Account) -> None:
    account.set_password("something-else-8")
    account.save()


@pytest.mark.parametrize("end", [deactivate, change_password])
def test_every_door_closes_at_once(cast: Cast, end: Any) -> None:
    pair = pair_of(log_in("parent@example.com"))
    device = Device(pair["access_token"])
    session_id = device.beat(cast.child, cast.cartoon)["session_id"]
    end(cast.parent)
    before = everything_stored()
    for method, path, body in doors(cast, session_id):
        assert_problem(device.send(method, path, body), 401, "not_authenticated")
    assert_problem(refresh(pair["refresh_token"]), 401)
    assert everything_stored() == before


def test_a_new_password_gets_new_tokens(cast: Cast) -> None:
    change_password(cast.parent)
    assert_problem(log_in("parent@example.com"), 401)
    pair_of(refresh(pair_of(log_in("parent@example.com", "something-else-8"))["refresh_token"]))


def test_the_tokens_of_an_account_that_was_deleted_are_refused(cast: Cast) -> None:
    session_id = cast.foreign_phone.beat(cast.foreign_child, cast.cartoon)["session_id"]
    cast.outsider.delete()
    for method, path, body in doors(cast, session_id):
        assert_problem(cast.foreign_phone.send(method, path, body), 401)


def test_a_token_stays_refused_once_its_account_was_deactivated(cast: Cast) -> None:
    token = authentication.access_token(cast.parent)
    older = Account.objects.get(id=cast.parent.id)
    Account.objects.filter(id=cast.parent.id).update(is_active=False)
    Account.objects.filter(id=cast.parent.id).update(is_active=True)
    # A save of an older copy does not bring it back.
    older.save()
    with pytest.raises(AuthenticationFailed):
        authentication.require_live(
            Account.objects.get(id=cast.parent.id), authentication.read_access_token(token)
        )


def test_two_new_passwords_at_the_same_time_are_two_versions(cast: Cast) -> None:
    first, second = (Account.objects.get(id=cast.parent.id) for _ in range(2))
    first.set_password("the first of two")
    first.save()
    between = Account.objects.get(id=cast.parent.id).token_version
    second.set_password("the second of two")
    second.save()
    assert Account.objects.get(id=cast.parent.id).token_version > between


def test_a_batch_of_bad_beats_is_refused_when_the_account_is_gone(cast: Cast) -> None:
    Account.objects.filter(id=cast.parent.id).update(is_active=False)
    answer = cast.phone.post("/viewing-time/heartbeats", {"heartbeats": [{}]})
    assert answer.status_code == 401
