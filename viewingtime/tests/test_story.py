"""The whole story over HTTP: a child tries every way out it can think of, and the parent relents.

Against a real server with real processes. Time passes by moving what is stored into the past.
"""

import base64
import hmac
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import requests

from parentalcontrols.embedded_servers import throwaway_servers
from parentalcontrols.launcher import throwaway_environment
from parentalcontrols.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a long way home"
PIN = "7319"


@dataclass
class World:
    """The service's address, and its database to let time pass and to look."""

    url: str
    database: psycopg.Connection[Any]
    cartoon: str = field(default_factory=lambda: str(uuid4()))
    documentary: str = field(default_factory=lambda: str(uuid4()))

    def pass_time(self, seconds: float) -> None:
        """Moves what was watched into the past, as if so many seconds had gone by."""
        self.database.execute(
            "UPDATE viewing_sessions SET started_at = started_at - %(by)s,"
            " last_heartbeat_at = last_heartbeat_at - %(by)s, paused_at = paused_at - %(by)s,"
            " ended_at = ended_at - %(by)s",
            {"by": timedelta(seconds=seconds)},
        )

    def balance(self, profile_id: str) -> tuple[Decimal, Decimal, Decimal, bool, int | None]:
        """Used, educational and granted seconds, the override and the limit, as they are stored."""
        rows = self.database.execute(
            "SELECT used_seconds, educational_seconds, granted_seconds, is_unlimited_override,"
            " limit_seconds FROM viewing_time_balances WHERE profile_id = %s",
            [profile_id],
        ).fetchall()
        (row,) = rows
        return row

    def remaining(self, profile_id: str) -> Decimal:
        used, _, granted, _, limit = self.balance(profile_id)
        assert limit is not None
        return limit + granted - used

    def count(self, table: str) -> int:
        row = self.database.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])


@dataclass
class Client:
    """Somebody with a token, or with none."""

    world: World
    token: str | None = None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        url = f"{self.world.url}/api/v1{path}"
        return requests.request(method, url, json=body, headers=headers, timeout=20)

    def good(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.ask(method, path, body)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    def refused(
        self, status: int, code: str, method: str, path: str, body: Any = None, **headers: str
    ) -> None:
        """The request is refused with that status and code."""
        answer = self.ask(method, path, body, **headers)
        told = (answer.status_code, answer.json().get("code"))
        assert told == (status, code), (method, path, body, answer.text)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with throwaway_servers() as (postgres, valkey):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            **{k: v for k, v in os.environ.items() if k != "TEST_DATABASE_NAME"},
            **throwaway_environment(postgres, valkey),
            "DEMO": "true",
            "PORT": str(port),
            "WORKERS": "2",
            "THREADS": "4",
        }
        python = [sys.executable, "-W", "ignore"]
        subprocess.run(
            [*python, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True
        )
        command = ["-m", "gunicorn", "parentalcontrols.wsgi:application"]
        server = subprocess.Popen(
            [*python, *command, "-c", "parentalcontrols/gunicorn.conf.py"],
            cwd=ROOT,
            env=environment,
        )
        try:
            with psycopg.connect(postgres.url, autocommit=True) as database:
                running = World(f"http://127.0.0.1:{port}", database)
                titles = [(running.cartoon, False), (running.documentary, True)]
                for title, is_educational in titles:
                    database.execute(
                        "INSERT INTO titles (id, title, is_educational) VALUES (%s, 'a film', %s)",
                        [title, is_educational],
                    )

                def is_ready() -> bool:
                    try:
                        return requests.get(f"{running.url}/readyz", timeout=5).status_code == 200
                    except requests.ConnectionError:
                        return False

                assert wait_until(is_ready, 30)
                yield running
        finally:
            server.terminate()
            server.wait(40)


def part(document: Any) -> str:
    raw = json.dumps(document).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(token: str, **changes: Any) -> list[str]:
    """What a clever child makes of its token: a parent's, without the key."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["scope"] == "profile"
    claims |= {"scope": "account", **changes}
    del claims["pid"]
    none = f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}"
    mine = f"{header}.{part(claims)}"
    keyed = [hmac.digest(key, mine.encode(), "sha256") for key in (b"", b"secret", PIN.encode())]
    guessed = [base64.urlsafe_b64encode(d).rstrip(b"=").decode() for d in keyed]
    return [f"{none}.", f"{none}.{signature}", f"{mine}.{signature}", f"{mine}."] + [
        f"{mine}.{signature}" for signature in guessed
    ]


@dataclass
class Home:
    """The household: the parent's phone, and the child's TV with what it is to play."""

    world: World
    phone: Client
    adult: str
    child: str
    sibling: str
    tv: Client
    refresh_token: str
    session: str = ""

    @property
    def config(self) -> str:
        return f"/parental-controls/profiles/{self.child}/viewing-time"

    @property
    def grant(self) -> str:
        return f"{self.config}/grant"

    def beat_body(self, **fields: Any) -> dict[str, Any]:
        usual = {
            "profile_id": self.child,
            "title_id": self.world.cartoon,
            "device_id": "the-tv",
            "device_type": "tv",
            "session_id": self.session or None,
        }
        return usual | fields

    def beat(self, **fields: Any) -> dict[str, Any]:
        """The answer to a beat of the TV."""
        answered: dict[str, Any] = self.tv.good(
            "POST", "/viewing-time/heartbeat", self.beat_body(**fields)
        )
        return answered

    def play(self, seconds: float) -> dict[str, Any]:
        """The TV plays on for so long, and beats every five minutes at most."""
        answer = self.beat()
        while seconds > 0 and answer["enforcement"] != "blocked":
            self.session = answer["session_id"]
            step = min(seconds, 290.0)
            self.world.pass_time(step)
            answer = self.beat()
            seconds -= step
        return answer


def set_up(world: World) -> Home:
    """The parent's evening: an account, children, limits, a PIN, and a token for the TV."""
    email = f"{uuid4()}@example.com"
    anybody = Client(world)
    anybody.good("POST", "/auth/register", {"email": email, "password": PASSWORD})
    login = anybody.good("POST", "/auth/login", {"email": email, "password": PASSWORD})
    phone = Client(world, login["access_token"])
    adult, child, sibling = (
        phone.good("POST", "/auth/profiles", {"name": name, "is_kids": is_kids})["id"]
        for name, is_kids in (("Alex", False), ("Mia", True), ("Noah", True))
    )
    limits = {
        "weekday_limit_minutes": 15,
        "weekend_limit_minutes": 15,
        "educational_exempt": False,
        # The day began twelve hours ago: none ends while this runs.
        "reset_hour": (datetime.now(UTC) + timedelta(hours=12)).hour,
    }
    config = f"/parental-controls/profiles/{child}/viewing-time"
    assert phone.good("PUT", config, limits).items() >= limits.items()
    phone.good("POST", "/parental-controls/pin", {"new_pin": PIN})
    pair = phone.good("POST", f"/auth/profiles/{child}/token")
    assert (pair["scope"], pair["profile_id"]) == ("profile", child)
    tv = Client(world, pair["access_token"])
    return Home(world, phone, adult, child, sibling, tv, pair["refresh_token"])


def test_a_child_tries_every_way_out_and_thirty_minutes_are_thirty_minutes(world: World) -> None:
    home = set_up(world)
    tv, phone, child = home.tv, home.phone, home.child

    # The TV plays until the time is out.
    answer = home.beat()
    assert (answer["enforcement"], answer["remaining_minutes"]) == ("warning_15", 15.0)
    home.session = answer["session_id"]
    answer = home.play(890)
    assert answer["enforcement"] == "warning_5"
    assert 1 <= answer["next_heartbeat_seconds"] <= 10
    first_session = home.session
    answer = home.play(11)
    assert (answer["enforcement"], answer["reason"]) == ("blocked", "viewing_time_exhausted")
    assert world.balance(child)[0] >= 900
    stood = world.balance(child)
    siblings_session = phone.good(
        "POST",
        "/viewing-time/heartbeat",
        home.beat_body(profile_id=home.sibling, session_id=None, device_id="tablet"),
    )["session_id"]
    profiles, tokens = world.count("profiles"), world.count("refresh_families")
    sessions, grants = world.count("viewing_sessions"), world.count("time_grants")

    def assert_still_blocked() -> None:
        for session in (first_session, None):
            found = home.beat(session_id=session)
            assert found["enforcement"] == "blocked"
            assert found["reason"] == "viewing_time_exhausted"
            assert found["remaining_minutes"] == 0.0
        eligible = tv.good("GET", f"/viewing-time/playback-eligible/{child}")
        assert (eligible["eligible"], eligible["remaining_minutes"]) == (False, 0.0)
        assert world.balance(child) == stood

    assert_still_blocked()

    # Other limits, another day, a limit that is none, a film that counts as school.
    for change in (
        {"weekday_limit_minutes": 480, "weekend_limit_minutes": 480},
        {"weekday_limit_minutes": None, "weekend_limit_minutes": None},
        {"timezone": "Pacific/Kiritimati"},
        {"reset_hour": (datetime.now(UTC) + timedelta(hours=1)).hour},
        {"educational_exempt": True},
        {"weekday_limit_minutes": None, "pin_token": tv.token},
        {},
    ):
        tv.refused(403, "parent_required", "PUT", home.config, change)
    for method in ("PATCH", "POST", "DELETE"):
        tv.refused(403, "parent_required", method, home.config, {"reset_hour": 1})
    override = {"X-HTTP-Method-Override": "PUT"}
    assert tv.ask("GET", home.config, {"reset_hour": 1}, **override).status_code == 200
    assert_still_blocked()
    assert tv.good("GET", home.config)["weekday_limit_minutes"] == 15

    # More time, without the PIN and with what might pass for it.
    for body in (
        {"minutes": 15},
        {"minutes": None},
        {"minutes": 60, "pin": None, "pin_token": None},
        {"minutes": 60, "is_remote": True, "scope": "account"},
    ):
        tv.refused(403, "parent_required", "POST", home.grant, body)
        key = {"Idempotency-Key": "a key"}
        tv.refused(403, "parent_required", "POST", home.grant, body, **key)
    for token in (tv.token, home.refresh_token, "x", *forged(str(tv.token), token_type="pin")):
        body = {"minutes": 60, "pin_token": token}
        tv.refused(403, "pin_token_invalid", "POST", home.grant, body)
    for pin in (7319, "731", "73190", "", ["7319"], True):
        tv.refused(400, "invalid", "POST", home.grant, {"minutes": 60, "pin": pin})
    assert_still_blocked()

    # The PIN, guessed: five times by whatever way, and then not even the right one.
    verify = "/parental-controls/pin/verify"
    for turn, guess in enumerate(("0000", "1234", "1111", "2580", "2000")):
        way, body = (home.grant, {"minutes": 60}) if turn % 2 else (verify, {})
        tv.refused(403, "incorrect_pin", "POST", way, body | {"pin": guess})
    for pin in (PIN, "0000"):
        tv.refused(403, "pin_locked", "POST", verify, {"pin": pin})
        tv.refused(403, "pin_locked", "POST", home.grant, {"minutes": 60, "pin": pin})
    assert_still_blocked()

    # Another PIN.
    pins = "/parental-controls/pin"
    tv.refused(403, "parent_required", "POST", pins, {"new_pin": "0000"})
    tv.refused(403, "parent_required", "POST", pins, {"new_pin": "0000", "current_pin": PIN})
    for password in ("password", "Mia", PASSWORD):
        body = {"password": password, "new_pin": "0000"}
        tv.refused(403, "parent_required", "POST", f"{pins}/reset", body)
    tv.refused(403, "parent_required", "GET", f"{pins}/status")
    tv.refused(403, "parent_required", "GET", "/parental-controls/audit")
    assert_still_blocked()

    # Being somebody else, who there is or who there is not yet.
    beat = "/viewing-time/heartbeat"
    for profile in (home.adult, home.sibling, str(uuid4())):
        for session in (None, first_session, siblings_session):
            body = home.beat_body(profile_id=profile, session_id=session)
            tv.refused(404, "not_found", "POST", beat, body)
        tv.refused(404, "not_found", "GET", f"/viewing-time/balance/{profile}")
        tv.refused(404, "not_found", "GET", f"/viewing-time/playback-eligible/{profile}")
        other = f"/parental-controls/profiles/{profile}/viewing-time"
        tv.refused(404, "not_found", "GET", other)
        tv.refused(404, "not_found", "POST", f"{other}/grant", {"minutes": 60, "pin": PIN})
        tv.refused(403, "parent_required", "PUT", f"/auth/profiles/{profile}/select")
        tv.refused(403, "parent_required", "POST", f"/auth/profiles/{profile}/token")
    tv.refused(403, "parent_required", "POST", f"/auth/profiles/{child}/token")
    tv.refused(403, "parent_required", "GET", "/auth/profiles")
    tv.refused(403, "parent_required", "GET", "/auth/me")
    for is_kids in (True, False):
        body = {"name": "Mia", "is_kids": is_kids}
        tv.refused(403, "parent_required", "POST", "/auth/profiles", body)
    assert (world.count("profiles"), world.count("refresh_families")) == (profiles, tokens)
    assert_still_blocked()

    # Another device, another session, another film, no film, a pause.
    for fields in (
        {"device_id": "another-tv"},
        {"device_id": "another-tv", "session_id": None, "device_type": "mobile"},
        {"profile_id": child.upper()},
        {"title_id": world.documentary},
        {"title_id": world.documentary, "session_id": None},
        {"is_paused": True},
        {"is_paused": True, "session_id": None},
        {"now": "2020-01-01T00:00:00Z", "granted_minutes": 60, "enforcement": "allowed"},
    ):
        found = home.beat(**fields)
        assert found["enforcement"] == "blocked", fields
        assert found["session_id"] in {first_session, None}, fields
    for fields in (
        {"session_id": siblings_session},
        {"session_id": str(uuid4())},
        {"title_id": str(uuid4())},
    ):
        tv.refused(404, "not_found", "POST", beat, home.beat_body(**fields))
    tv.refused(404, "not_found", "POST", f"/viewing-time/session/{siblings_session}/end")
    ended = tv.good("POST", f"/viewing-time/session/{first_session}/end")
    assert ended["total_seconds"] == pytest.approx(float(stood[0]))
    assert home.beat(session_id=first_session)["enforcement"] == "blocked"
    assert_still_blocked()

    # All at once.
    beats = [
        home.beat_body(),
        home.beat_body(session_id=None, device_id="another-tv"),
        home.beat_body(profile_id=home.adult, session_id=None),
        home.beat_body(profile_id=home.sibling, session_id=siblings_session),
        home.beat_body(is_paused=True),
        {},
    ]
    results = tv.good("POST", "/viewing-time/heartbeats", {"heartbeats": beats * 80})["results"]
    told = [r["enforcement"] if "error" not in r else r["error"]["status"] for r in results]
    assert told == ["blocked", "blocked", 404, 404, "blocked", 400] * 80
    assert_still_blocked()

    # Other tokens: made, renewed, worn out, of no kind, of another household.
    for token in (*forged(str(tv.token)), "", "x", str(home.refresh_token)):
        liar = Client(world, token)
        liar.refused(401, "not_authenticated", "PUT", home.config, {"weekday_limit_minutes": None})
        liar.refused(401, "not_authenticated", "POST", home.grant, {"minutes": None})
        liar.refused(401, "not_authenticated", "POST", beat, home.beat_body())
    refresh = "/auth/refresh"
    anybody = Client(world)
    anybody.refused(401, "not_authenticated", "POST", beat, home.beat_body())
    for token in (str(tv.token), *forged(home.refresh_token)):
        anybody.refused(401, "not_authenticated", "POST", refresh, {"refresh_token": token})
    renewed = anybody.good("POST", refresh, {"refresh_token": home.refresh_token})
    young = Client(world, renewed["access_token"])
    young.refused(403, "parent_required", "PUT", home.config, {"weekday_limit_minutes": None})
    young.refused(403, "parent_required", "POST", home.grant, {"minutes": None})
    assert young.good("POST", beat, home.beat_body())["enforcement"] == "blocked"
    used = {"refresh_token": home.refresh_token}
    anybody.refused(401, "not_authenticated", "POST", refresh, used)
    # Its own copy was found out: that device has to be set up anew by the parent.
    spent = {"refresh_token": renewed["refresh_token"]}
    anybody.refused(401, "not_authenticated", "POST", refresh, spent)
    own = {"email": f"{uuid4()}@example.com", "password": "mias-own-secret-4"}
    stranger = Client(world, anybody.good("POST", "/auth/register", own)["access_token"])
    stranger.refused(404, "not_found", "PUT", home.config, {"weekday_limit_minutes": None})
    stranger.refused(404, "not_found", "POST", home.grant, {"minutes": None})
    stranger.refused(404, "not_found", "POST", beat, home.beat_body())
    stranger.refused(404, "not_found", "POST", f"/auth/profiles/{child}/token")
    assert_still_blocked()

    # None of it left anything behind.
    assert world.count("viewing_sessions") == sessions
    assert world.count("time_grants") == grants == 0
    assert world.count("profiles") == profiles
    audit = phone.good("GET", "/parental-controls/audit")["entries"]
    by_the_child = [entry for entry in audit if entry["actor"] == "profile"]
    assert [entry["action"] for entry in by_the_child] == ["pin_locked"]
    assert by_the_child[0]["actor_id"] == child

    # The parent gives 30 minutes from the phone, which needs no PIN; that one is locked still.
    granted = phone.good("POST", home.grant, {"minutes": 30})
    assert granted == {
        "granted_minutes": 30,
        "remaining_minutes": 30.0,
        "is_unlimited_override": False,
    }
    assert world.remaining(child) == 1800
    newest = phone.good("GET", "/parental-controls/audit")["entries"][0]
    assert (newest["action"], newest["actor"]) == ("time_granted", "account")
    assert (newest["after"]["minutes"], newest["after"]["is_remote"]) == (30, True)

    # The TV goes on with its very next beat, and has half an hour and not a second more.
    home.session = first_session
    on = home.beat()
    assert (on["enforcement"], on["reason"]) == ("allowed", None)
    assert on["remaining_minutes"] == 30.0
    assert on["session_id"] not in {None, first_session}
    home.session = on["session_id"]
    used_before = stood[0]
    answer = home.play(1790)
    assert answer["enforcement"] == "warning_5"
    assert 0 < answer["remaining_minutes"] <= 0.17
    answer = home.play(answer["remaining_minutes"] * 60 + 1)
    assert (answer["enforcement"], answer["reason"]) == ("blocked", "viewing_time_exhausted")
    assert 1800 <= world.balance(child)[0] - used_before < 1815
    assert world.remaining(child) <= 0
    assert home.beat(session_id=None)["enforcement"] == "blocked"
    sums = world.database.execute(
        "SELECT sum(total_seconds) FROM viewing_sessions WHERE profile_id = %s", [child]
    ).fetchone()
    assert sums == (world.balance(child)[0],)
