"""A parent, a child and a stranger do anything in any order, beside a model of what is theirs.

Whatever the child and the stranger try, nothing is loosened; what the parent was answered is what
the parent reads; and a child whose day is used up stays blocked until somebody with the right to
it gives more. `SOAK_SECONDS` makes it look longer.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.http import HttpResponse
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from parentalcontrols import authentication, profiles
from parentalcontrols.models import Account, Profile, RefreshFamily, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import (
    PASSWORD,
    Device,
    assert_invariant,
    assert_problem,
    beat_of,
    database_now,
    make_account,
)
from parentalcontrols.tests.routes import ROUTES, Route
from pins import verification
from pins.models import AuditAction, AuditEntry, Pin
from pins.tests.service import SOAK_SECONDS
from viewingtime.ledger import SILENCE
from viewingtime.models import TimeGrant, ViewingSession, ViewingTimeBalance
from viewingtime.tests import clock

pytestmark = pytest.mark.django_db
VERIFY, SET = "/parental-controls/pin/verify", "/parental-controls/pin"
#: Titles, and whether they are free.
TITLES = {"cartoon": False, "documentary": True}
PINS = ("0000", "1357", "2468")
#: Bodies that would loosen something where they are let through.
LOOSENING: dict[tuple[str, str], dict[str, Any]] = {
    ("viewing-time", "PUT"): {"weekday_limit_minutes": None, "weekend_limit_minutes": None},
    ("grant", "POST"): {"minutes": None},
    ("pin", "POST"): {"new_pin": "9999"},
    ("pin-reset", "POST"): {"password": "not-the-password", "new_pin": "9999"},
    ("profiles", "POST"): {"name": "Another", "is_kids": False},
    ("heartbeat", "POST"): {},
    ("heartbeats", "POST"): {"heartbeats": []},
}
#: What needs a token, and a hash of nobody's password.
TRIED = [r for r in ROUTES if r.name not in {"register", "login", "refresh", "pin-reset"}]


class Household(RuleBasedStateMachine):
    """One household, its child's TV, a sibling, and a stranger with a household of their own."""

    def __init__(self) -> None:
        super().__init__()
        clock.install()
        self.now: datetime = database_now()
        clock.set_to(self.now)
        parent = make_account(f"{uuid4()}@example.com")
        stranger = make_account(f"{uuid4()}@example.com")
        self.accounts = [parent.id, stranger.id]
        self.parent = Device(authentication.access_token(parent))
        self.stranger = Device(authentication.access_token(stranger))
        self.child = profiles.create(account=parent, name="Mia", is_kids=True)
        self.sibling = profiles.create(account=parent, name="Noah", is_kids=True)
        self.foreign = profiles.create(account=stranger, name="Olga", is_kids=True)
        self.names = ["Mia", "Noah"]
        self.tv = Device(authentication.access_token(parent, profile_id=self.child.id))
        self.titles = {
            name: Title.objects.create(title=name, is_educational=flag)
            for name, flag in TITLES.items()
        }
        self.pin: str | None = None
        self.failures = 0
        self.locked_until: datetime | None = None
        self.is_used_up = False
        self.last_session: str | None = None
        self.sessions: list[str] = []
        self.spent_tokens: list[str] = []
        self.limit: int | None = 15

    @initialize()
    def begin(self) -> None:
        """A quarter of an hour a day, and a day that began half a day ago."""
        change = {
            "weekday_limit_minutes": 15,
            "weekend_limit_minutes": 15,
            "reset_hour": (self.now + timedelta(hours=12)).hour,
        }
        ViewingTimeConfig.objects.filter(profile__account__in=self.accounts).update(**change)
        self.before = self.loosened()

    # What must not change by the wrong hand

    def loosened(self) -> dict[str, Any]:
        """Everything that a child would like to be otherwise, of both households."""
        ours = {"account__in": self.accounts}
        balances = ViewingTimeBalance.objects.filter(profile__account__in=self.accounts)
        given = balances.exclude(granted_seconds=0, is_unlimited_override=False)
        tables = {
            "accounts": Account.objects.filter(id__in=self.accounts),
            "profiles": Profile.objects.filter(**ours),
            "pins": Pin.objects.filter(account_id__in=self.accounts),
            "configs": ViewingTimeConfig.objects.filter(profile__account__in=self.accounts),
            "grants": TimeGrant.objects.filter(profile__account__in=self.accounts),
            "families": RefreshFamily.objects.filter(**ours),
            "given": given,
        }
        left_out = {"attempts_reserved", "attempts_cleared", "locked_until", "used_seconds"}
        left_out |= {"educational_seconds", "last_viewing_change_at", "updated_at"}
        found: dict[str, Any] = {
            name: sorted(
                ({k: v for k, v in row.items() if k not in left_out} for row in rows.values()),
                key=repr,
            )
            for name, rows in tables.items()
        }
        told = AuditEntry.objects.filter(account_id__in=self.accounts)
        found["told"] = told.exclude(action=AuditAction.PIN_LOCKED).count()
        return found

    def nothing_is_loosened(self) -> None:
        assert self.loosened() == self.before

    def somebody_may(self) -> None:
        """After what was done with the right to it: from here on that is how it stands."""
        self.before = self.loosened()
        self.is_used_up = False

    # Time and playing

    @rule(seconds=st.integers(1, 420))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        clock.set_to(self.now)

    @rule(
        title=st.sampled_from(list(TITLES)),
        paused=st.booleans(),
        device=st.sampled_from(["living-room-tv", "another"]),
        session=st.sampled_from(["last", "none", "old"]),
        twice=st.booleans(),
        seconds=st.sampled_from([0, 20, 200, 301]),
    )
    def the_child_watches(
        self, *, title: str, paused: bool, device: str, session: str, twice: bool, seconds: int
    ) -> None:
        self.time_passes(seconds)
        named = {"last": self.last_session, "none": None, "old": (self.sessions or [None])[0]}
        fields = {"session_id": named[session], "is_paused": paused, "device_id": device}
        before, running = self.counted(), self.running()
        for _ in range(1 + twice):
            answer = self.tv.beat(self.child, self.titles[title], **fields)
        self.judge_count(before, running, fields)
        # A session that goes on may be another title's, by a late duplicate.
        is_free = answer["is_educational"]
        if self.is_used_up and not is_free:
            assert answer["enforcement"] == "blocked"
        if answer["enforcement"] != "blocked" and not is_free:
            assert answer["remaining_minutes"] is None or answer["remaining_minutes"] > 0
        if answer["reason"] == "viewing_time_exhausted" and not is_free:
            self.is_used_up = True
        if answer["session_id"] is not None:
            self.last_session = answer["session_id"]
            self.sessions.append(answer["session_id"])
        self.nothing_is_loosened()

    def counted(self) -> dict[str, timedelta]:
        """What the child has used, and what was free."""
        (row,) = ViewingTimeBalance.objects.filter(profile=self.child).values_list(
            "used_seconds", "educational_seconds"
        ) or [(0, 0)]
        return dict(zip(TITLES, (timedelta(seconds=float(n)) for n in row), strict=True))

    def running(self) -> ViewingSession | None:
        return ViewingSession.objects.filter(profile=self.child, ended_at=None).first()

    def judge_count(
        self,
        before: dict[str, timedelta],
        running: ViewingSession | None,
        sent: dict[str, Any],
    ) -> None:
        """What runs counts what has passed since its last beat, once, and nothing counts more."""
        after = self.counted()
        counts = {name: after[name] - before[name] for name in TITLES}
        passed = timedelta(0) if running is None else self.now - running.last_heartbeat_at
        assert min(counts.values()) >= timedelta(0)
        assert sum(counts.values(), timedelta(0)) <= passed
        if (
            running is not None
            and running.paused_at is None
            and (str(running.id), running.device_id) == (sent["session_id"], sent["device_id"])
            and passed <= SILENCE
        ):
            played = "documentary" if running.is_educational else "cartoon"
            assert counts == {n: passed if n == played else timedelta(0) for n in TITLES}

    @precondition(lambda self: self.last_session is not None)
    @rule()
    def the_child_stops(self) -> None:
        assert self.tv.post(f"/viewing-time/session/{self.last_session}/end").status_code == 200
        self.nothing_is_loosened()

    @rule(title=st.sampled_from([None, *TITLES]))
    def the_child_asks_whether_it_may(self, title: str | None) -> None:
        query = "" if title is None else f"?title_id={self.titles[title].id}"
        answer = self.tv.get(f"/viewing-time/playback-eligible/{self.child.id}{query}")
        is_free = title is not None and TITLES[title]
        assert answer.json()["eligible"] in ({True} if is_free else {True, False})
        if self.is_used_up and not is_free:
            assert answer.json()["eligible"] is False

    # What the wrong ones try

    @rule(
        who=st.sampled_from(["tv", "stranger", "nobody", "forged"]),
        whose=st.sampled_from(["child", "sibling"]),
    )
    def somebody_tries_all_doors(self, who: str, whose: str) -> None:
        for route in TRIED:
            self.try_door(who, route, whose)

    def try_door(self, who: str, route: Route, whose: str) -> None:
        profile = self.child if whose == "child" else self.sibling
        ids = {"profile_id": profile.id, "session_id": self.last_session or uuid4()}
        body = LOOSENING.get((route.name, route.method))
        if route.name in {"heartbeat", "heartbeats"}:
            beat = beat_of(profile, self.titles["cartoon"])
            body = beat if route.name == "heartbeat" else {"heartbeats": [beat]}
        if route.name == "pin-verify":
            # Guesses have a rule of their own.
            return
        if who == "tv" and route.name in {"heartbeat", "heartbeats", "end-session"}:
            # So has watching.
            return
        answer = self.device(who).send(route.method, route.path(ids), body)
        if who in {"nobody", "forged"}:
            assert_problem(answer, 401, "not_authenticated")
        elif who == "stranger":
            self.judge_stranger(route, answer)
        else:
            own = {"viewing-time", "balance", "playback-eligible"}
            is_own = whose == "child" and route.name in own and route.method == "GET"
            assert answer.status_code in ({200} if is_own else {403, 404}), answer.content
        if who != "stranger" or route.parameters:
            self.nothing_is_loosened()
        else:
            # A stranger does in their own household as they like.
            self.before = self.loosened()

    def judge_stranger(self, route: Route, answer: HttpResponse) -> None:
        if route.name == "heartbeats":
            (result,) = answer.json()["results"]
            assert result["error"]["status"] == 404
        elif route.parameters or route.name == "heartbeat":
            assert_problem(answer, 404, "not_found")
        # A file that is taken away comes in parts.
        text = answer.getvalue().decode()
        for profile in (self.child, self.sibling):
            assert str(profile.id) not in text

    def device(self, who: str) -> Device:
        if who == "forged":
            head, claims, signature = str(self.tv.token).split(".")
            return Device(f"{head}.{claims}.{signature[::-1]}")
        return {"tv": self.tv, "stranger": self.stranger, "nobody": Device()}[who]

    # PINs

    def expected_of_pin(self, pin: str) -> tuple[int, str | None]:
        """What a try has to be answered, as the model counts; counts it."""
        if self.pin is None:
            return 400, "pin_not_set"
        if self.locked_until is not None:
            if self.now < self.locked_until:
                return 403, "pin_locked"
            self.locked_until, self.failures = None, 0
        if pin == self.pin:
            self.failures = 0
            return 200, None
        self.failures += 1
        if self.failures == 5:
            self.locked_until = self.now + timedelta(minutes=30)
        return 403, "incorrect_pin"

    def judge(self, answer: HttpResponse, expected: tuple[int, str | None]) -> bool:
        """Whether it was let through, as expected."""
        status, code = expected
        if status == 200:
            assert answer.status_code == 200, answer.content
            return True
        assert_problem(answer, status, code)
        return False

    @rule(pin=st.sampled_from(PINS), by_grant=st.booleans())
    def the_child_tries_a_pin(self, pin: str, by_grant: bool) -> None:
        """A right one was told to it: then it has what it bought, once."""
        expected = self.expected_of_pin(pin)
        grant = f"/parental-controls/profiles/{self.child.id}/viewing-time/grant"
        if by_grant:
            answer = self.tv.post(grant, {"minutes": 15, "pin": pin})
            if self.judge(answer, expected):
                self.somebody_may()
        elif self.judge(self.tv.post(VERIFY, {"pin": pin}), expected):
            pass
        self.nothing_is_loosened()

    @rule(pin=st.sampled_from(PINS))
    def the_child_spends_a_pin_token_as_often_as_it_can(self, pin: str) -> None:
        answer = self.tv.post(VERIFY, {"pin": pin})
        if not self.judge(answer, self.expected_of_pin(pin)):
            return
        token = answer.json()["pin_token"]
        of = "/parental-controls/profiles/{}/viewing-time"
        config = {"weekday_limit_minutes": None, "pin_token": token}
        assert_problem(self.tv.put(of.format(self.child.id), config), 403, "parent_required")
        # Nor does it help in the hands of the parent, who did not enter the PIN.
        put = self.parent.put(of.format(self.child.id), config)
        assert_problem(put, 403, "pin_token_invalid")
        body = {"minutes": 15, "pin_token": token}
        assert_problem(self.tv.post(of.format(self.sibling.id) + "/grant", body), 404)
        theirs = of.format(self.foreign.id) + "/grant"
        assert_problem(self.stranger.post(theirs, body), 403, "pin_token_invalid")
        self.nothing_is_loosened()
        assert self.tv.post(of.format(self.child.id) + "/grant", body).status_code == 200
        self.somebody_may()
        self.spent_tokens.append(token)

    @precondition(lambda self: self.spent_tokens)
    @rule()
    def the_child_spends_it_again(self) -> None:
        grant = f"/parental-controls/profiles/{self.child.id}/viewing-time/grant"
        for device in (self.tv, self.parent):
            answer = device.post(grant, {"minutes": 60, "pin_token": self.spent_tokens[-1]})
            assert_problem(answer, 403, "pin_token_invalid")
        self.nothing_is_loosened()

    # The parent

    @rule(pin=st.sampled_from(PINS))
    def the_parent_sets_a_pin(self, pin: str) -> None:
        body = {"new_pin": pin} if self.pin is None else {"new_pin": pin, "current_pin": self.pin}
        outlived = None
        if self.pin is not None:
            verified = self.parent.post(VERIFY, {"pin": self.pin})
            if self.judge(verified, self.expected_of_pin(self.pin)):
                outlived = {"pin_token": verified.json()["pin_token"]}
        is_first = self.pin is None
        expected = (200, None) if is_first else self.expected_of_pin(str(self.pin))
        if not self.judge(self.parent.post(SET, body), expected):
            return
        self.pin, self.failures = pin, 0
        self.before = self.loosened()
        if outlived is not None:
            # It was good for the PIN of before.
            path = f"/parental-controls/profiles/{self.child.id}/viewing-time"
            put = self.parent.put(path, {"weekday_limit_minutes": None, **outlived})
            grant = self.parent.post(path + "/grant", {"minutes": 60, **outlived})
            for answer in (put, grant):
                assert_problem(answer, 403, "pin_token_invalid")
            self.nothing_is_loosened()

    @rule(minutes=st.sampled_from([15, 30]), times=st.integers(1, 3))
    def the_parent_gives(self, minutes: int, times: int) -> None:
        """What is sent again with its key is given once."""
        path = f"/parental-controls/profiles/{self.child.id}/viewing-time"
        key = {"Idempotency-Key": uuid4().hex}
        sent = [
            self.parent.send("POST", path + "/grant", {"minutes": minutes}, headers=key)
            for _ in range(times)
        ]
        told = sent[0].json()
        assert [(answer.status_code, answer.json()) for answer in sent] == [(200, told)] * times
        read = self.parent.get(f"/viewing-time/balance/{self.child.id}").json()
        assert read["remaining_minutes"] == told["remaining_minutes"]
        if self.limit is not None:
            assert read["remaining_minutes"] >= minutes
        if self.is_used_up:
            # What was overrun is forgiven, and no more.
            assert read["remaining_minutes"] == minutes
        self.somebody_may()

    @rule(limit=st.sampled_from([15, 30, None]))
    def the_parent_sets_a_limit(self, limit: int | None) -> None:
        path = f"/parental-controls/profiles/{self.child.id}/viewing-time"
        change = {"weekday_limit_minutes": limit, "weekend_limit_minutes": limit}
        if self.pin is not None:
            assert_problem(self.parent.put(path, change), 403, "pin_required")
            verified = self.parent.post(VERIFY, {"pin": self.pin})
            if not self.judge(verified, self.expected_of_pin(self.pin)):
                return
            change["pin_token"] = verified.json()["pin_token"]
        told = self.parent.put(path, change)
        assert told.status_code == 200, told.content
        self.limit = limit
        self.somebody_may()
        assert self.parent.get(path).json() == told.json()

    @precondition(lambda self: len(self.names) < 4)
    @rule(is_kids=st.booleans())
    def the_parent_adds_a_profile(self, is_kids: bool) -> None:
        name = f"New {len(self.names)}"
        body = {"name": name, "is_kids": is_kids}
        assert self.parent.post("/auth/profiles", body).status_code == 201
        self.names.append(name)
        self.before = self.loosened()

    @rule()
    def the_parent_renews_the_childs_token(self) -> None:
        told = self.parent.post(f"/auth/profiles/{self.child.id}/token").json()
        renewed = Device().post("/auth/refresh", {"refresh_token": told["refresh_token"]}).json()
        self.tv = Device(renewed["access_token"])
        again = Device().post("/auth/refresh", {"refresh_token": told["refresh_token"]})
        assert_problem(again, 401)
        self.before = self.loosened()

    # After each step

    @invariant()
    def what_is_read_is_what_is_so(self) -> None:
        listed = self.parent.get("/auth/profiles").json()
        assert [profile["name"] for profile in listed] == self.names
        path = f"/parental-controls/profiles/{self.child.id}/viewing-time"
        config = self.parent.get(path).json()
        assert config["weekday_limit_minutes"] == config["weekend_limit_minutes"] == self.limit
        status = self.parent.get("/parental-controls/pin/status").json()
        is_locked = self.locked_until is not None and self.now < self.locked_until
        assert status["has_pin"] is (self.pin is not None)
        assert (status["locked_until"] is not None) is is_locked
        balance = self.parent.get(f"/viewing-time/balance/{self.child.id}").json()
        assert balance == self.tv.get(f"/viewing-time/balance/{self.child.id}").json()
        assert balance["limit_minutes"] == self.limit
        if self.is_used_up:
            assert balance["remaining_minutes"] == 0

    @invariant()
    def every_second_is_counted_once(self) -> None:
        assert_invariant()
        running = ViewingSession.objects.filter(profile=self.child, ended_at=None).count()
        assert running <= 1
        assert not ViewingSession.objects.filter(profile=self.sibling).exists()


def test_whatever_they_do_nobody_loosens_who_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "LEAST_SECONDS", 0.0)
    run_state_machine_as_test(
        Household,
        settings=settings(
            max_examples=round(SOAK_SECONDS),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_machine_knows_the_password_of_nobody() -> None:
    """So that what it tries at doors is never the right thing by chance."""
    assert PASSWORD not in str(LOOSENING)
