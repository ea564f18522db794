"""Many children in front of a real service that runs on the tests' own database."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, transaction
from model_bakery import baker

from parentalcontrols import authentication
from parentalcontrols.models import Account, Profile, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import assert_invariant, database_now
from parentalcontrols.viewing_day import Schedule
from pins.tests.service import Line, Service, Told
from viewingtime.models import ViewingSession, ViewingTimeBalance

BEAT = "/viewing-time/heartbeat"
BEATS = "/viewing-time/heartbeats"
_POISON = """
CREATE FUNCTION be_poisoned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'poisoned';
END
$$;
CREATE TRIGGER be_poisoned BEFORE INSERT OR UPDATE ON viewing_sessions
FOR EACH ROW WHEN (NEW.device_id = '{device}') EXECUTE FUNCTION be_poisoned();
"""


@dataclass
class Child:
    """A child, alone in its household, whose day began some hours ago."""

    account: Account
    profile: Profile
    schedule: Schedule
    titles: list[Title]
    token: str
    lines: list[Line] = field(default_factory=list)

    @property
    def id(self) -> UUID:
        return self.profile.id

    @property
    def config_path(self) -> str:
        return f"/parental-controls/profiles/{self.id}/viewing-time"

    def beat(self, session_id: UUID | str | None = None, **fields: Any) -> dict[str, Any]:
        """A beat's body."""
        return {
            "profile_id": str(self.id),
            "title_id": str(self.titles[0].id),
            "device_id": "tv",
            "session_id": None if session_id is None else str(session_id),
            **fields,
        }

    def connect(self, service: Service, lines: int = 1) -> None:
        """Opens so many connections."""
        self.lines = [Line(service, self.token) for _ in range(lines)]
        for line in self.lines:
            line.connect()

    def hang_up(self) -> None:
        for line in self.lines:
            line.close()

    @property
    def today(self) -> date:
        return self.schedule.viewing_day(database_now()).date

    def has_watched(self, seconds: float) -> None:
        """Puts a session of that length into the day, and its time into the balance."""
        ended_at = database_now() - timedelta(seconds=60)
        baker.make(
            ViewingSession,
            profile=self.profile,
            title=self.titles[0],
            device_id="tv",
            is_kids=True,
            reset_date=self.today,
            started_at=ended_at - timedelta(seconds=seconds),
            last_heartbeat_at=ended_at,
            paused_at=None,
            ended_at=ended_at,
            end_reason="stopped",
            total_seconds=Decimal(str(seconds)),
            educational_seconds=0,
        )
        config = ViewingTimeConfig.objects.get(profile=self.profile)
        minutes = config.weekday_limit_minutes
        ViewingTimeBalance.objects.create(
            profile=self.profile,
            reset_date=self.today,
            used_seconds=Decimal(str(seconds)),
            limit_seconds=None if minutes is None else minutes * 60,
        )


def children(count: int, *, limit: int | None = 480) -> list[Child]:
    """Children with households of their own; `limit` in minutes, on any day."""
    hour = (database_now() + timedelta(hours=12)).astimezone(UTC).hour
    accounts = Account.objects.bulk_create(
        Account(email=f"{uuid4()}@example.com", password="!") for _ in range(count)
    )
    people = Profile.objects.bulk_create(
        Profile(account=account, name="Mia", is_kids=True) for account in accounts
    )
    ViewingTimeConfig.objects.bulk_create(
        ViewingTimeConfig(
            profile=profile,
            weekday_limit_minutes=limit,
            weekend_limit_minutes=limit,
            reset_hour=hour,
        )
        for profile in people
    )
    made = Title.objects.bulk_create(
        Title(title=name, is_educational=name == "documentary")
        for _ in people
        for name in ("cartoon", "other cartoon", "documentary")
    )
    return [
        Child(
            account=profile.account,
            profile=profile,
            schedule=Schedule.of(hour, "UTC", []),
            titles=made[3 * n : 3 * n + 3],
            token=authentication.access_token(profile.account),
        )
        for n, profile in enumerate(people)
    ]


def at_the_same_time(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the calls answer, each in a thread of its own; what one raises is raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def instant(microseconds: int) -> datetime:
    """Microseconds since 1970 as an instant, exactly."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


@contextmanager
def poisoned(device: str) -> Iterator[None]:
    """Inside, whatever writes a session of that device fails."""
    with connection.cursor() as cursor:
        cursor.execute(_POISON.format(device=device))
        try:
            yield
        finally:
            cursor.execute("DROP FUNCTION be_poisoned CASCADE")


def is_quiet() -> bool:
    """Whether nobody else is at work in the database: beats whose clients are gone are, too."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        return bool(cursor.fetchone() == (0,))


def assert_invariant_meanwhile() -> None:
    """The invariant at one instant, whatever is written at that moment."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert_invariant()


def told_session(told: Told) -> UUID:
    """The session of an answer that has one."""
    assert told.status == 200, json.dumps(told.body)
    return UUID(told.body["session_id"])
