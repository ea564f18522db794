"""Ledgers in the database: locked and read in one statement, written back in one statement.

Every change but a steady beat goes this way: `hold` the profiles inside a transaction, let the
rules of `viewingtime.ledger` decide, `write_back` what changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection, transaction

from parentalcontrols.config_cache import Config
from parentalcontrols.models import (
    DEFAULT_RESET_HOUR,
    DEFAULT_TIMEZONE,
    DEFAULT_WEEKDAY_LIMIT_MINUTES,
    DEFAULT_WEEKEND_LIMIT_MINUTES,
    Profile,
    ViewingTimeConfig,
)
from parentalcontrols.viewing_day import Schedule
from viewingtime import ledger, sql
from viewingtime.ledger import ADULT, Balance, Ledger, Session, Title, Viewer
from viewingtime.models import ViewingSession

_MICROSECOND = timedelta(microseconds=1)


class _Config(msgspec.Struct):
    weekday_limit_minutes: int | None = DEFAULT_WEEKDAY_LIMIT_MINUTES
    weekend_limit_minutes: int | None = DEFAULT_WEEKEND_LIMIT_MINUTES
    reset_hour: int = DEFAULT_RESET_HOUR
    timezone: str = DEFAULT_TIMEZONE
    educational_exempt: bool = True
    earlier_schedules: list[dict[str, Any]] = []


class _ProfileRow(msgspec.Struct):
    id: UUID
    is_kids: bool
    config: _Config | None


class _SessionRow(msgspec.Struct):
    id: UUID
    profile_id: UUID
    title_id: UUID
    device_id: str
    device_type: str
    is_educational: bool
    reset_date: date
    started_at: datetime
    last_heartbeat_at: datetime
    paused_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    total: int
    educational: int


class _BalanceRow(msgspec.Struct):
    profile_id: UUID
    reset_date: date
    used: int
    educational: int
    granted: int
    is_unlimited_override: bool
    limit_seconds: int | None


class _TitleRow(msgspec.Struct):
    id: UUID
    is_educational: bool
    is_withdrawn: bool


#: The columns of a config that say how a child watches.
CONFIG_FIELDS = _Config.__struct_fields__

_decode_profiles = msgspec.json.Decoder(list[_ProfileRow]).decode
_decode_sessions = msgspec.json.Decoder(list[_SessionRow]).decode
_decode_balances = msgspec.json.Decoder(list[_BalanceRow]).decode
_decode_titles = msgspec.json.Decoder(list[_TitleRow]).decode


def micros(amount: timedelta) -> int:
    """An amount of time as whole microseconds."""
    return amount // _MICROSECOND


def amount(microseconds: int | None) -> timedelta:
    """Whole microseconds as an amount of time."""
    return timedelta(microseconds=microseconds or 0)


def limit_of(seconds: int | None) -> timedelta | None:
    """A balance's limit; None = unlimited."""
    return None if seconds is None else timedelta(seconds=seconds)


def limit_seconds(limit: timedelta | None) -> int | None:
    """A limit as a balance's row has it; None = unlimited."""
    return None if limit is None else int(limit.total_seconds())


def viewer_of(config: ViewingTimeConfig | Config | _Config | None) -> Viewer:
    """The rules a child watches under; without a config those of the defaults."""
    config = config or _Config()
    weekday, weekend = config.weekday_limit_minutes, config.weekend_limit_minutes
    earlier = config.earlier_schedules
    if isinstance(earlier, str):
        earlier = msgspec.json.decode(earlier)
    return Viewer(
        is_kids=True,
        weekday_limit=None if weekday is None else timedelta(minutes=weekday),
        weekend_limit=None if weekend is None else timedelta(minutes=weekend),
        educational_exempt=config.educational_exempt,
        schedule=Schedule.of(config.reset_hour, config.timezone, earlier),
    )


def session_of(
    row: ViewingSession | _SessionRow,
    *,
    total: timedelta = ledger.ZERO,
    educational: timedelta = ledger.ZERO,
) -> Session:
    """A stored session as the rules take it; without its sums where they are not wanted."""
    return Session(
        id=row.id,
        title_id=row.title_id,
        device_id=row.device_id,
        device_type=row.device_type,
        is_educational=row.is_educational,
        reset_date=row.reset_date,
        started_at=row.started_at,
        last_heartbeat_at=row.last_heartbeat_at,
        paused_at=row.paused_at,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        total=total,
        educational=educational,
    )


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of some profiles at `now`, under their locks."""

    now: datetime
    viewers: Mapping[UUID, Viewer]
    ledgers: Mapping[UUID, Ledger]
    titles: Mapping[UUID, Title]
    unconfigured: frozenset[UUID]


def hold(
    profile_ids: Iterable[UUID],
    *,
    session_ids: Iterable[UUID] = (),
    title_ids: Iterable[UUID] = (),
    wait: bool = True,
) -> Held:
    """Locks profiles until the transaction ends and reads what the rules need.

    One statement, and again where somebody else changed a profile while we waited for it; without
    `wait` that can be another one each time, that was free by then.
    Profiles, sessions and titles that do not exist are missing in the answer; without `wait` the
    profiles that somebody else holds, too.
    """
    statement = sql.LOCK_AND_READ if wait else sql.LOCK_FREE_AND_READ
    parameters = {
        "profile_ids": list(profile_ids),
        "session_ids": list(session_ids),
        "title_ids": list(title_ids),
    }
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        row = cursor.fetchone()
        while not row[1]:
            cursor.execute(statement, parameters)
            row = cursor.fetchone()
    now, _, profiles, sessions, balances, titles = row
    viewers: dict[UUID, Viewer] = {}
    unconfigured = set()
    for profile in _decode_profiles(profiles):
        viewers[profile.id] = viewer_of(profile.config) if profile.is_kids else ADULT
        if profile.is_kids and profile.config is None:
            unconfigured.add(profile.id)
    held_sessions: dict[UUID, dict[UUID, Session]] = {id_: {} for id_ in viewers}
    for session in _decode_sessions(sessions):
        held_sessions[session.profile_id][session.id] = session_of(
            session, total=amount(session.total), educational=amount(session.educational)
        )
    held_balances: dict[UUID, dict[date, Balance]] = {id_: {} for id_ in viewers}
    for balance in _decode_balances(balances):
        held_balances[balance.profile_id][balance.reset_date] = Balance(
            reset_date=balance.reset_date,
            used=amount(balance.used),
            educational=amount(balance.educational),
            granted=amount(balance.granted),
            is_unlimited_override=balance.is_unlimited_override,
            limit=limit_of(balance.limit_seconds),
        )
    return Held(
        now=now,
        viewers=viewers,
        ledgers={id_: Ledger(held_sessions[id_], held_balances[id_]) for id_ in viewers},
        titles={
            t.id: Title(t.id, is_educational=t.is_educational, is_withdrawn=t.is_withdrawn)
            for t in _decode_titles(titles)
        },
        unconfigured=frozenset(unconfigured),
    )


def hold_deleted(instance: Profile, **_: Any) -> None:
    """Locks what is about to be deleted with a profile, before the first row of it goes.

    A deletion begins with the rows that depend on others: a beat under way would hold the session
    and wait for the balance, and the deletion the other way round.
    """
    hold([instance.id])


def write_back(held: Held, after: Mapping[UUID, Ledger]) -> None:
    """Writes what became of held ledgers, in one statement; nothing where nothing changed.

    `after` holds the new ledgers of the profiles that had an event.
    """
    changed: list[dict[str, Any]] = []
    opened: list[dict[str, Any]] = []
    booked: list[dict[str, Any]] = []
    touched: list[UUID] = []
    for profile_id in sorted(after):
        before, now = held.ledgers[profile_id], after[profile_id]
        count = len(changed) + len(opened) + len(booked)
        for session in now.sessions.values():
            old = before.sessions.get(session.id)
            if old is None:
                is_kids = held.viewers[profile_id].is_kids
                opened.append(_opened_row(session, profile_id, is_kids=is_kids))
            elif old != session:
                changed.append(_changed_row(session))
        for day, balance in now.balances.items():
            old_balance = before.balances.get(day)
            if old_balance != balance:
                booked.append(_booked_row(profile_id, balance, old_balance or Balance(day)))
        if len(changed) + len(opened) + len(booked) > count:
            touched.append(profile_id)
    unconfigured = sorted(held.unconfigured & after.keys())
    if not touched and not unconfigured:
        return
    parameters: dict[str, Any] = {
        "now": held.now,
        "profile_ids": touched,
        "unconfigured_ids": unconfigured,
        "changed": _json(changed),
        "opened": _json(opened),
        "booked": _json(booked),
    }
    with connection.cursor() as cursor:
        cursor.execute(sql.WRITE_BACK, parameters)
        if cursor.fetchone() != (len(changed), len(opened), len(booked)):
            raise RuntimeError("a row that is locked was not there to be written")


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return msgspec.json.encode(rows).decode()


def _changed_row(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "last_heartbeat_at": session.last_heartbeat_at,
        "paused_at": session.paused_at,
        "ended_at": session.ended_at,
        "end_reason": session.end_reason,
        "total": micros(session.total),
        "educational": micros(session.educational),
    }


def _opened_row(session: Session, profile_id: UUID, *, is_kids: bool) -> dict[str, Any]:
    return {
        **_changed_row(session),
        "profile_id": profile_id,
        "title_id": session.title_id,
        "is_kids": is_kids,
        "device_id": session.device_id,
        "device_type": session.device_type,
        "is_educational": session.is_educational,
        "reset_date": session.reset_date,
        "started_at": session.started_at,
    }


def _booked_row(profile_id: UUID, balance: Balance, before: Balance) -> dict[str, Any]:
    """What is added to a balance; the limit is that of a row which is made."""
    return {
        "profile_id": profile_id,
        "reset_date": balance.reset_date,
        "used": micros(balance.used - before.used),
        "educational": micros(balance.educational - before.educational),
        "granted": micros(balance.granted - before.granted),
        "is_unlimited_override": balance.is_unlimited_override,
        "limit_seconds": limit_seconds(balance.limit),
    }


def read_balance(profile_id: UUID, viewer: Viewer) -> tuple[datetime, Balance]:
    """The instant and the running day's balance of a child; one statement, no lock.

    A day without a row has what it would start with. A balance in another day than the latest
    row's is not looked for: the day never goes back behind it.
    """
    with connection.cursor() as cursor:
        cursor.execute(sql.LATEST_BALANCE, {"profile_id": profile_id})
        now, latest_day, used, educational, granted, override, limit = cursor.fetchone()
    day = viewer.schedule.viewing_day(now, latest_day).date
    if day != latest_day:
        return now, Balance(day, limit=viewer.limit(day))
    return now, Balance(
        day,
        used=amount(used),
        educational=amount(educational),
        granted=amount(granted),
        is_unlimited_override=override,
        limit=limit_of(limit),
    )


def set_limit(profile_id: UUID, balance: Balance) -> None:
    """Puts a running day's limit in force; the profile is held."""
    row = _booked_row(profile_id, balance, balance)
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SET_LIMIT,
            {key: row[key] for key in ("profile_id", "reset_date", "limit_seconds")},
        )


def mark_changed(profile_id: UUID, now: datetime) -> None:
    """Tells who waits for the held profile that what they read before is outdated."""
    Profile.objects.filter(id=profile_id).update(last_viewing_change_at=now)


def close_silent(*, batch: int = 500) -> int:
    """Ends every session that went silent, a batch of profiles per transaction; answers how many.

    Safe beside beats and beside itself: each batch holds its profiles and looks again. A profile
    that somebody holds is left to the next time: who waited for it would hold the others meanwhile.
    """
    closed = 0
    after = UUID(int=0)
    while True:
        with connection.cursor() as cursor:
            cursor.execute(sql.SILENT_PROFILES, {"after": after, "batch": batch})
            profile_ids = [row[0] for row in cursor.fetchall()]
        if not profile_ids:
            return closed
        with transaction.atomic():
            held = hold(profile_ids, wait=False)
            ledgers = {
                id_: ledger.close_silent(found, held.viewers[id_], held.now)
                for id_, found in held.ledgers.items()
            }
            closed += sum(
                session != held.ledgers[id_].sessions[session.id]
                for id_, found in ledgers.items()
                for session in found.sessions.values()
            )
            write_back(held, ledgers)
        after = profile_ids[-1]
