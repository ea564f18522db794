"""The token for a device in a child's hands: how it is made, renewed and ended, and not forged."""

import hmac
import json
import threading
from collections.abc import Callable
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

from parentalcontrols import authentication
from parentalcontrols.authentication import Caller
from parentalcontrols.models import Account, Profile, RefreshFamily
from parentalcontrols.tests.cast import (
    PASSWORD,
    PIN,
    Cast,
    Device,
    assert_problem,
    beat_of,
    database_now,
    everything_stored,
    pass_time,
    set_pin,
)
from parentalcontrols.tests.test_auth import claims_of, part, refresh, signed
from viewingtime import heartbeats
from viewingtime.tests.test_concurrency import Household
from viewingtime.tests.test_statements import statements_of

ME, BEAT, BATCH = "/auth/me", "/viewing-time/heartbeat", "/viewing-time/heartbeats"


def ask_token(device: Device, profile: Profile) -> HttpResponse:
    return device.post(f"/auth/profiles/{profile.id}/token")


def issue(device: Device, profile: Profile) -> dict[str, Any]:
    """A pair of tokens for a child's device."""
    answer = ask_token(device, profile)
    assert answer.status_code == 200, answer.content
    return answer.json()


def unread(token: str) -> dict[str, Any]:
    """What a token claims, whoever signed it."""
    return jwt.decode(token, options={"verify_signature": False})


def balance_path(profile: Profile) -> str:
    return f"/viewing-time/balance/{profile.id}"


def assert_speaks_for(device: Device, cast: Cast, child: Profile, other: Profile) -> None:
    """It beats and reads for that child, and is nobody's parent."""
    assert device.beat(child, cast.cartoon)["enforcement"] == "allowed"
    assert device.get(balance_path(child)).status_code == 200
    assert_problem(device.get(balance_path(other)), 404, "not_found")
    assert_problem(device.post(BEAT, beat_of(other, cast.cartoon)), 404, "not_found")
    assert_problem(device.get(ME), 403, "parent_required")


def child_claims(cast: Cast, **changes: Any) -> dict[str, Any]:
    """The claims of a good token of the child's device, but for the changes; None leaves out."""
    return claims_of(cast.parent, **{"scope": "profile", "pid": str(cast.child.id), **changes})


def assert_no_token(cast: Cast, token: str) -> None:
    """Neither what reads the account first nor what reads nothing first lets it in."""
    device = Device(token)
    before = everything_stored()
    for answer in (
        device.get(balance_path(cast.child)),
        device.get(ME),
        device.post(BEAT, beat_of(cast.child, cast.cartoon)),
        device.post(BATCH, {"heartbeats": [beat_of(cast.child, cast.cartoon)]}),
        device.post(f"/viewing-time/session/{uuid4()}/end"),
    ):
        assert_problem(answer, 401, "not_authenticated")
    assert everything_stored() == before


# Issuing


def test_a_parent_gets_a_token_for_a_childs_device(cast: Cast) -> None:
    pair = issue(cast.phone, cast.child)
    assert pair.keys() == {
        *("access_token", "refresh_token", "token_type", "scope", "profile_id"),
    }
    assert (pair["token_type"], pair["scope"]) == ("bearer", "profile")
    assert pair["profile_id"] == str(cast.child.id)
    assert_speaks_for(Device(pair["access_token"]), cast, cast.child, cast.sibling)
    other = issue(cast.phone, cast.sibling)
    assert_speaks_for(Device(other["access_token"]), cast, cast.sibling, cast.child)


def test_an_adult_needs_no_token_of_its_own(cast: Cast) -> None:
    before = everything_stored()
    assert_problem(ask_token(cast.phone, cast.adult), 400, "not_a_kids_profile")
    assert everything_stored() == before


def test_a_foreign_child_is_as_good_as_a_missing_one(cast: Cast) -> None:
    missing = ask_token(cast.phone, Profile())
    assert_problem(missing, 404, "not_found")
    before = everything_stored()
    for profile in (cast.foreign_child, cast.foreign_adult):
        assert ask_token(cast.phone, profile).content == missing.content
    assert everything_stored() == before


def test_a_childs_device_issues_no_tokens(cast: Cast) -> None:
    before = everything_stored()
    for profile in (cast.child, cast.sibling, cast.adult, cast.foreign_child):
        assert_problem(ask_token(cast.child_tv, profile), 403, "parent_required")
    assert everything_stored() == before


def test_what_the_body_says_makes_no_other_token(cast: Cast) -> None:
    body = {"scope": "account", "profile_id": str(cast.sibling.id), "is_kids": False}
    pair = cast.phone.post(f"/auth/profiles/{cast.child.id}/token", body).json()
    assert_speaks_for(Device(pair["access_token"]), cast, cast.child, cast.sibling)


# Renewing


def test_a_refresh_keeps_the_scope_the_child_and_the_device(cast: Cast) -> None:
    pair = issue(cast.phone, cast.child)
    logins = {unread(pair["access_token"])["fam"]}
    for _ in range(3):
        answer = refresh(pair["refresh_token"])
        assert answer.status_code == 200, answer.content
        pair = answer.json()
        assert pair.keys() == {"access_token", "refresh_token", "token_type"}
        assert_speaks_for(Device(pair["access_token"]), cast, cast.child, cast.sibling)
        logins.add(unread(pair["access_token"])["fam"])
    assert logins == {str(RefreshFamily.objects.get().id)}
    assert RefreshFamily.objects.get().profile_id == cast.child.id


def test_a_used_refresh_token_ends_its_family_and_no_other(cast: Cast) -> None:
    tv, tablet, siblings = (
        issue(cast.phone, profile) for profile in (cast.child, cast.child, cast.sibling)
    )
    second = refresh(tv["refresh_token"]).json()
    assert_problem(refresh(tv["refresh_token"]), 401, "not_authenticated")
    assert_problem(refresh(second["refresh_token"]), 401, "not_authenticated")
    for pair in (tablet, siblings):
        assert refresh(pair["refresh_token"]).status_code == 200
    assert RefreshFamily.objects.exclude(revoked_at=None).count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_racing_refreshes_of_a_childs_device_exactly_one_wins(cast: Cast) -> None:
    for _ in range(3):
        token = issue(cast.phone, cast.child)["refresh_token"]
        barrier = threading.Barrier(4)

        def run(token: str = token, barrier: threading.Barrier = barrier) -> int:
            try:
                connection.ensure_connection()
                barrier.wait(timeout=30)
                return refresh(token).status_code
            finally:
                connection.close()

        with ThreadPoolExecutor(4) as pool:
            racing = [pool.submit(run) for _ in range(4)]
            assert sorted(future.result(timeout=30) for future in racing) == [200, 401, 401, 401]


def test_a_family_of_one_child_renews_nobody_elses_token(cast: Cast) -> None:
    """Signed with the right key, which nobody has: the family's own row is asked as well."""
    issue(cast.phone, cast.child)
    family = RefreshFamily.objects.get()
    ids = {"family_id": family.id, "token_id": family.current_token_id}
    for profile_id in (None, cast.sibling.id, cast.adult.id):
        forged = authentication.refresh_token(cast.parent, profile_id=profile_id, **ids)
        assert_problem(refresh(forged), 401)
    foreign = authentication.refresh_token(cast.outsider, profile_id=cast.child.id, **ids)
    assert_problem(refresh(foreign), 401)
    # None of it ended the family.
    good = authentication.refresh_token(cast.parent, profile_id=cast.child.id, **ids)
    assert refresh(good).status_code == 200


def test_a_parents_family_renews_no_childs_token(cast: Cast) -> None:
    Device().post("/auth/login", {"email": cast.parent.email, "password": PASSWORD})
    family = RefreshFamily.objects.get()
    ids = {"family_id": family.id, "token_id": family.current_token_id}
    forged = authentication.refresh_token(cast.parent, profile_id=cast.child.id, **ids)
    assert_problem(refresh(forged), 401)
    good = authentication.refresh_token(cast.parent, **ids)
    assert refresh(good).status_code == 200


def test_a_childs_tokens_end_with_their_time(cast: Cast) -> None:
    pair = issue(cast.phone, cast.child)
    device = Device(pair["access_token"])
    now = datetime.now(UTC)
    with time_machine.travel(now + timedelta(seconds=settings.ACCESS_TOKEN_SECONDS - 60)):
        assert device.get(balance_path(cast.child)).status_code == 200
    with time_machine.travel(now + timedelta(seconds=settings.ACCESS_TOKEN_SECONDS + 60)):
        assert_no_token(cast, pair["access_token"])
    RefreshFamily.objects.update(expires_at=database_now() - timedelta(seconds=1))
    assert_problem(refresh(pair["refresh_token"]), 401)


# Ending


def delete_child(cast: Cast) -> None:
    Profile.objects.get(id=cast.child.id).delete()


def deactivate(cast: Cast) -> None:
    Account.objects.filter(id=cast.parent.id).update(is_active=False)


def deactivate_and_reactivate(cast: Cast) -> None:
    deactivate(cast)
    Account.objects.filter(id=cast.parent.id).update(is_active=True)


def change_password(cast: Cast) -> None:
    account = Account.objects.get(id=cast.parent.id)
    account.set_password("something-else-8")
    account.save()


def delete_account(cast: Cast) -> None:
    Account.objects.get(id=cast.parent.id).delete()


ENDS = [delete_child, deactivate, deactivate_and_reactivate, change_password, delete_account]


@pytest.mark.parametrize("end", ENDS)
def test_every_door_of_a_childs_device_closes_at_once(
    cast: Cast, end: Callable[[Cast], None]
) -> None:
    set_pin(cast.parent)
    pair = issue(cast.phone, cast.child)
    device = Device(pair["access_token"])
    siblings = cast.phone.beat(cast.sibling, cast.cartoon)["session_id"]
    session = device.beat(cast.child, cast.cartoon)["session_id"]
    pass_time(20)
    assert device.beat(cast.child, cast.cartoon, session_id=session)["enforcement"] == "allowed"
    first = beat_of(cast.child, cast.cartoon)
    steady = first | {"session_id": session}
    config = f"/parental-controls/profiles/{cast.child.id}/viewing-time"
    end(cast)
    before = everything_stored()
    for method, path, body in (
        ("POST", BEAT, steady),
        ("POST", BEAT, first),
        ("POST", BEAT, first | {"session_id": str(uuid4())}),
        ("POST", BEAT, beat_of(cast.sibling, cast.cartoon, session_id=siblings)),
        ("POST", BATCH, {"heartbeats": [steady]}),
        ("POST", BATCH, {"heartbeats": [first, steady]}),
        ("POST", BATCH, {"heartbeats": [{}]}),
        ("POST", f"/viewing-time/session/{session}/end", None),
        ("POST", f"/viewing-time/session/{siblings}/end", None),
        ("POST", f"/viewing-time/session/{uuid4()}/end", None),
        ("GET", balance_path(cast.child), None),
        ("GET", f"/viewing-time/playback-eligible/{cast.child.id}", None),
        ("GET", config, None),
        ("PUT", config, {"reset_hour": 5}),
        ("POST", f"{config}/grant", {"minutes": 15, "pin": PIN}),
        ("POST", "/parental-controls/pin/verify", {"pin": PIN}),
        ("GET", ME, None),
    ):
        assert_problem(device.send(method, path, body), 401, "not_authenticated")
    assert_problem(refresh(pair["refresh_token"]), 401, "not_authenticated")
    assert everything_stored() == before


def test_with_a_child_that_is_deleted_its_own_tokens_end_alone(cast: Cast) -> None:
    pair, other = issue(cast.phone, cast.child), issue(cast.phone, cast.sibling)
    delete_child(cast)
    assert_problem(refresh(pair["refresh_token"]), 401)
    assert refresh(other["refresh_token"]).status_code == 200
    assert Device(other["access_token"]).beat(cast.sibling, cast.cartoon)["session_id"]
    assert cast.phone.get(ME).status_code == 200


def test_logging_in_anew_does_not_revive_a_childs_token(cast: Cast) -> None:
    pair = issue(cast.phone, cast.child)
    change_password(cast)
    login = {"email": cast.parent.email, "password": "something-else-8"}
    phone = Device(Device().post("/auth/login", login).json()["access_token"])
    assert_no_token(cast, pair["access_token"])
    again = issue(phone, cast.child)
    assert_speaks_for(Device(again["access_token"]), cast, cast.child, cast.sibling)


# What it costs


@pytest.mark.django_db(transaction=True)
def test_a_steady_beat_of_a_childs_device_is_one_statement_as_with_a_parents_token() -> None:
    home = Household(children=1)
    child = home.children[0]
    beat = home.beat(child, home.open(child))
    callers = [home.caller, Caller(home.account.id, home.account.token_version, "profile", child)]
    costs = [
        statements_of(lambda caller=caller: heartbeats.process([beat], caller))
        for caller in callers
    ]
    assert costs == [(1, 0), (1, 0)]


@pytest.mark.django_db(transaction=True)
def test_a_steady_beat_costs_the_same_over_http_whoever_sends_it(cast: Cast) -> None:
    costs = []
    for device in (cast.phone, cast.child_tv):
        beat = beat_of(cast.child, cast.cartoon)
        beat["session_id"] = device.beat(cast.child, cast.cartoon)["session_id"]
        costs.append(statements_of(lambda device=device, beat=beat: device.post(BEAT, beat)))
    assert costs == [(1, 0), (1, 0)]


@pytest.mark.django_db(transaction=True)
def test_a_first_beat_of_a_childs_device_costs_no_more_than_a_parents() -> None:
    home = Household(children=1)
    child = home.children[0]
    device = Caller(home.account.id, home.account.token_version, "profile", child)
    costs = [
        statements_of(lambda caller=caller: heartbeats.process([home.beat(child)], caller))
        for caller in (home.caller, device)
    ]
    assert costs[0] == costs[1]


# Forging


def test_the_forger_of_these_tests_can_make_a_good_one(cast: Cast) -> None:
    token = signed(child_claims(cast))
    assert_speaks_for(Device(token), cast, cast.child, cast.sibling)


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": "account"},
        {"pid": None},
        {"pid": ""},
        {"pid": "not-a-uuid"},
        {"pid": 5},
        {"pid": []},
        {"pid": {}},
        {"pid": "5b0c3f0e-3a54-4b57-9d0e-0f4f0f3c8a11"},
        {"scope": None},
        {"scope": "Profile"},
        {"scope": "profile account"},
        {"scope": ["profile"]},
        {"scope": ["profile", "account"]},
        {"scope": {"profile": True}},
        {"iss": "somebody-else"},
        {"iss": None},
        {"aud": "another-service"},
        {"aud": None},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"token_type": "refresh"},
        {"token_type": "pin"},
        {"token_type": None},
        {"sub": None},
        {"sub": "5b0c3f0e-3a54-4b57-9d0e-0f4f0f3c8a11"},
        {"ver": 7},
        {"ver": None},
        {"fam": "not-a-uuid"},
    ],
    ids=str,
)
def test_a_childs_token_with_another_claim_is_refused(cast: Cast, changes: dict[str, Any]) -> None:
    assert_no_token(cast, signed(child_claims(cast, **changes)))


def test_a_null_is_no_missing_child(cast: Cast) -> None:
    """A claim that is there and null neither makes a parent of the device nor a child."""
    for scope in ("account", "profile"):
        claims = child_claims(cast, scope=scope)
        assert_no_token(cast, signed(claims | {"pid": None}))


def test_a_foreign_child_in_a_token_is_refused(cast: Cast) -> None:
    session = cast.foreign_phone.beat(cast.foreign_child, cast.cartoon)["session_id"]
    token = signed(child_claims(cast, pid=str(cast.foreign_child.id)))
    assert_no_token(cast, token)
    beat = beat_of(cast.foreign_child, cast.cartoon, session_id=session)
    assert_problem(Device(token).post(BEAT, beat), 401)
    assert_problem(Device(token).get(balance_path(cast.foreign_child)), 401)


def without_key(token: str, **changes: Any) -> list[str]:
    """What can be made of a token without the key: other claims, under its own signature."""
    header, payload, signature = token.split(".")
    claims = unread(token)
    for name, value in changes.items():
        if value is None:
            claims.pop(name)
        else:
            claims[name] = value
    changed = part(claims)
    assert changed != payload
    none = part({"alg": "none", "typ": "JWT"})
    return [
        f"{header}.{changed}.{signature}",
        f"{header}.{changed}.",
        f"{header}.{changed}",
        f"{none}.{changed}.",
        f"{none}.{changed}",
        f"{none}.{changed}.{signature}",
        f"{header}.{payload}.{signature}.{changed}",
        f"{changed}.{payload}.{signature}",
    ]


def test_the_scope_is_not_the_devices_to_choose(cast: Cast) -> None:
    token = issue(cast.phone, cast.child)["access_token"]
    for changes in (
        {"scope": "account", "pid": None},
        {"scope": "account"},
        {"pid": str(cast.sibling.id)},
        {"pid": str(cast.adult.id)},
        {"exp": 10**10},
    ):
        for forged in without_key(token, **changes):
            assert_no_token(cast, forged)
    assert Device(token).get(balance_path(cast.child)).status_code == 200


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "nOnE", "", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"]
)
def test_the_algorithm_is_not_the_devices_to_choose(cast: Cast, algorithm: str) -> None:
    """Not even where the signature is right by the service's own key."""
    payload = part(json.loads(json.dumps(child_claims(cast), default=lambda at: at.timestamp())))
    message = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{payload}"
    key = settings.TOKEN_SIGNING_KEY.encode()
    for digest in ("sha256", "sha384", "sha512"):
        signature = part(hmac.digest(key, message.encode(), digest))
        assert_no_token(cast, f"{message}.{signature}")
    assert_no_token(cast, f"{message}.")


def test_other_keys_sign_nothing(cast: Cast) -> None:
    public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----"
    header = part({"alg": "HS256", "typ": "JWT"})
    payload = signed(child_claims(cast)).split(".")[1]
    keys = ["", "secret", public, settings.SECRET_KEY, settings.PIN_PEPPER, str(cast.parent.id)]
    for key in keys:
        signature = part(hmac.digest(key.encode(), f"{header}.{payload}".encode(), "sha256"))
        assert_no_token(cast, f"{header}.{payload}.{signature}")


def test_each_kind_of_token_is_good_for_its_own_use_alone(cast: Cast) -> None:
    set_pin(cast.parent)
    pair = issue(cast.phone, cast.child)
    device = Device(pair["access_token"])
    pin_token = device.post("/parental-controls/pin/verify", {"pin": PIN}).json()["pin_token"]
    for token in (pair["refresh_token"], pin_token):
        assert_no_token(cast, token)
    for token in (pair["access_token"], pin_token):
        assert_problem(refresh(token), 401, "not_authenticated")
    grant = f"/parental-controls/profiles/{cast.child.id}/viewing-time/grant"
    for token in (pair["access_token"], pair["refresh_token"], cast.phone.token):
        answer = device.post(grant, {"minutes": 15, "pin_token": token})
        assert_problem(answer, 403, "pin_token_invalid")
    # None of it spent anything.
    assert refresh(pair["refresh_token"]).status_code == 200
    assert device.post(grant, {"minutes": 15, "pin_token": pin_token}).status_code == 200


def test_a_refresh_token_cannot_be_widened(cast: Cast) -> None:
    token = issue(cast.phone, cast.child)["refresh_token"]
    before = everything_stored()
    for changes in ({"scope": "account", "pid": None}, {"pid": str(cast.sibling.id)}):
        for forged in without_key(token, **changes):
            assert_problem(refresh(forged), 401)
    assert everything_stored() == before
    assert refresh(token).status_code == 200


def test_a_device_is_told_apart_by_the_login_its_token_descends_from(cast: Cast) -> None:
    logins = {UUID(unread(issue(cast.phone, cast.child)["access_token"])["fam"]) for _ in range(2)}
    assert logins == set(RefreshFamily.objects.values_list("id", flat=True))
    assert len(logins) == 2
