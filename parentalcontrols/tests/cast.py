"""The people of the tests, what they watch, and the devices they hold."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import connection, models, transaction
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from parentalcontrols import authentication, profiles
from parentalcontrols.models import (
    Account,
    Profile,
    RateLimitWindow,
    Title,
    ViewingTimeConfig,
)
from pins import audit, verification
from viewingtime.models import ViewingSession, ViewingTimeBalance

API = "/api/v1"
PASSWORD = "watch-together-7"
PIN = "4711"
PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}
#: The same for every request of a test, so that answers can be compared.
REQUEST_ID = "a-request-of-the-tests"
APPS = ("parentalcontrols", "viewingtime", "pins", "adminmetrics")


class Device:
    """A client that speaks JSON, with a bearer token or without; paths start below `/api/v1`."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        # A fault of ours is answered as 500, as the real server does.
        self.http = Client(raise_request_exception=False)

    def send(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **options: Any
    ) -> HttpResponse:
        """A request; `raw` bytes instead of a body that is encoded; `headers` are added."""
        if raw is None and body is not None:
            raw = json.dumps(body).encode()
        headers = {"X-Request-ID": REQUEST_ID}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        options["headers"] = headers | options.get("headers", {})
        options.setdefault("content_type", "application/json")
        return self.http.generic(method, API + path, raw or b"", **options)

    def get(self, path: str) -> HttpResponse:
        return self.send("GET", path)

    def post(self, path: str, body: Any = None) -> HttpResponse:
        return self.send("POST", path, body)

    def put(self, path: str, body: Any = None) -> HttpResponse:
        return self.send("PUT", path, body)

    def beat(self, profile: Profile, title: Title, **fields: Any) -> dict[str, Any]:
        """The answer to a heartbeat that is accepted or blocked."""
        answer = self.post("/viewing-time/heartbeat", beat_of(profile, title, **fields))
        assert answer.status_code == 200, answer.content
        return answer.json()


class Cast:
    """A household with its devices, an outsider who has another one, staff, and three titles.

    `child` may watch two hours on any day, and its day began 11 to 12 hours ago: a test does the
    same at whatever hour it runs. `sibling` has the defaults.
    """

    def __init__(self) -> None:
        self.parent = make_account("parent@example.com")
        self.child = profiles.create(account=self.parent, name="Mia", is_kids=True)
        ViewingTimeConfig.objects.filter(profile=self.child).update(
            weekend_limit_minutes=120, reset_hour=(database_now() + timedelta(hours=12)).hour
        )
        self.sibling = profiles.create(account=self.parent, name="Noah", is_kids=True)
        self.adult = profiles.create(account=self.parent, name="Alex", is_kids=False)

        self.outsider = make_account("outsider@example.com")
        self.foreign_child = profiles.create(account=self.outsider, name="Olga", is_kids=True)
        self.foreign_adult = profiles.create(account=self.outsider, name="Otto", is_kids=False)

        self.staff = make_account("staff@example.com", is_staff=True)
        self.staff_phone = Device(authentication.access_token(self.staff))

        self.cartoon = Title.objects.create(title="The Paper Boat")
        self.documentary = Title.objects.create(title="How Bridges Stand", is_educational=True)
        self.withdrawn = Title.objects.create(title="Gone", withdrawn_at=timezone.now())

        self.anonymous = Device()
        self.phone = Device(authentication.access_token(self.parent))
        self.child_tv = Device(authentication.access_token(self.parent, profile_id=self.child.id))
        self.foreign_phone = Device(authentication.access_token(self.outsider))


def make_account(email: str, **rights: bool) -> Account:
    """An account whose password is `PASSWORD`."""
    return Account.objects.create_user(email, PASSWORD, **rights)


def set_pin(account: Account, pin: str = PIN) -> str:
    """Gives the household a PIN, and answers it."""
    verification.overwrite(account.id, pin, actor=audit.OPERATOR)
    return pin


def beat_of(profile: Profile, title: Title, **fields: Any) -> dict[str, Any]:
    """A heartbeat's body."""
    return {
        "profile_id": str(profile.id),
        "title_id": str(title.id),
        "device_id": "living-room-tv",
        **{name: str(v) if isinstance(v, UUID) else v for name, v in fields.items()},
    }


def pass_time(seconds: float, *, profile: Profile | None = None) -> None:
    """Moves what was watched into the past, as if so many seconds had gone by."""
    by = timedelta(seconds=seconds)
    sessions = ViewingSession.objects.all()
    if profile is not None:
        sessions = sessions.filter(profile=profile)
    sessions.update(
        started_at=models.F("started_at") - by,
        last_heartbeat_at=models.F("last_heartbeat_at") - by,
        paused_at=models.F("paused_at") - by,
        ended_at=models.F("ended_at") - by,
    )


def watch(device: Device, profile: Profile, title: Title, seconds: float) -> dict[str, Any]:
    """Plays a title for so long, beating every five minutes at most; answers the last beat."""
    answer = device.beat(profile, title)
    while seconds > 0 and answer["enforcement"] != "blocked":
        step = min(seconds, 299.0)
        pass_time(step, profile=profile)
        answer = device.beat(profile, title, session_id=answer["session_id"])
        seconds -= step
    return answer


def database_now() -> datetime:
    """The instant by the clock that decides."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    return now


def balance_of(profile: Profile) -> ViewingTimeBalance:
    """The latest balance row of a child."""
    return ViewingTimeBalance.objects.filter(profile=profile).latest("reset_date")


def everything_stored() -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of ours, to see whether something changed.

    But for what limits count: a refusal may count.
    """
    return {
        model._meta.db_table: sorted(model._default_manager.values_list(), key=repr)
        for model in _models()
        if model is not RateLimitWindow
    }


def _models() -> Iterator[type[models.Model]]:
    for label in APPS:
        yield from apps.get_app_config(label).get_models()


def assert_problem(response: HttpResponse, status: int, code: str | None = None) -> dict[str, Any]:
    """The answer is an RFC 9457 problem with every member that api.md promises."""
    assert response.status_code == status, (response.status_code, response.content[:500])
    assert response.headers["Content-Type"] == "application/problem+json"
    document = json.loads(response.content)
    assert document.keys() >= PROBLEM_MEMBERS
    assert document["status"] == status
    for member in PROBLEM_MEMBERS - {"status"}:
        assert isinstance(document[member], str), member
        assert document[member], member
    for error in document.get("errors", ()):
        assert error.keys() == {"field", "code", "detail"}
        assert all(isinstance(value, str) for value in error.values())
    if code is not None:
        assert document["code"] == code
    return document


def assert_invariant() -> None:
    """Per child and day, what its sessions lasted is what its balance counts (domain.md 2).

    At one instant, also while somebody writes.
    """
    if not connection.in_atomic_block:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            assert_invariant()
        return
    sums = ViewingSession.objects.filter(is_kids=True).values("profile_id", "reset_date")
    watched = {
        (row["profile_id"], row["reset_date"]): row["total"]
        for row in sums.annotate(total=models.Sum("total_seconds")).order_by()
    }
    for balance in ViewingTimeBalance.objects.all():
        total = watched.pop((balance.profile_id, balance.reset_date), Decimal(0))
        assert total == balance.used_seconds + balance.educational_seconds
    assert not watched
