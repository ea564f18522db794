"""Steady beats: many credited by one statement (`sql.CREDIT_STEADY`), without knowing their rows.

A steady beat needs of its profile which day is running, when it ends, and whether learning is
free. That is the same for all children of one config, so it is worked out once and kept as the
statement takes it. Which day runs is a guess by this host's clock, corrected by what the database
last told: the statement judges by the database's clock and the row, and leaves a beat alone that
was guessed wrong.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connection

from parentalcontrols.config_cache import Config, Known
from viewingtime import ledger, ledgers, sql
from viewingtime.ledger import ADULT, Answer, Viewer

if TYPE_CHECKING:
    from viewingtime.heartbeats import Heartbeat

_MICROSECOND = timedelta(microseconds=1)

#: The database's clock minus this host's, in seconds, as last seen.
_clock_ahead = 0.0


def note_clock(now: datetime) -> None:
    """Tells what the database's clock says right now."""
    _note_clock(now.timestamp())


def _note_clock(seconds: float) -> None:
    global _clock_ahead  # noqa: PLW0603 - one for all threads of the process
    _clock_ahead = seconds - time.time()


@dataclass(frozen=True, slots=True)
class Day:
    """A viewing day as the statement takes it: texts of PostgreSQL's array literals."""

    reset_date: str
    ends_at: str
    limit_seconds: str
    exempts: str
    starts: float
    ends: float


class Rules:
    """What steady beats need of a config; a viewing day is worked out once it is asked for."""

    __slots__ = ("_days", "_running", "viewer")

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self._days: dict[date, Day] = {}
        self._running: Day | None = None

    def running_day(self) -> Day:
        """The day that probably runs now."""
        now = time.time() + _clock_ahead
        running = self._running
        if running is None or not running.starts <= now < running.ends:
            instant = datetime.fromtimestamp(now, UTC)
            running = self.day(self.viewer.schedule.viewing_day(instant).date)
            self._running = running
        return running

    def day(self, reset_date: date) -> Day:
        """A day by its date."""
        day = self._days.get(reset_date)
        if day is None:
            bounds = self.viewer.schedule.bounds(reset_date)
            limit = ledgers.limit_seconds(self.viewer.limit(reset_date))
            day = Day(
                reset_date=reset_date.isoformat(),
                ends_at=f'"{bounds.ends_at.isoformat()}"',
                limit_seconds="NULL" if limit is None else str(limit),
                exempts="t" if self.viewer.educational_exempt else "f",
                starts=bounds.starts_at.timestamp(),
                ends=bounds.ends_at.timestamp(),
            )
            if len(self._days) >= 8:
                self._days.clear()
            self._days[reset_date] = day
        return day


@lru_cache(maxsize=16384)
def _childs_rules(config: Config | None) -> Rules:
    return Rules(ledgers.viewer_of(config))


_ADULTS_RULES = Rules(ADULT)


def rules_of(profile: Known) -> Rules:
    """The rules that a profile watches under; those of equal configs are one object."""
    return _childs_rules(profile.config) if profile.is_kids else _ADULTS_RULES


@dataclass(frozen=True, slots=True)
class Candidate:
    """A beat that names its session and looks steady."""

    beat: "Heartbeat"
    rules: Rules
    day: Day


def credit(candidates: Sequence[Candidate]) -> dict[int, Answer]:
    """Credits what is steady in one statement, committed; answers by place in the list.

    No two of the same session or profile. Those that turn out not to be steady are not answered.
    Raises database errors; sent again, a beat credits the time since, and none twice.
    """
    parameters = statement_parameters(candidates)
    connection.ensure_connection()
    raw = connection.connection
    prepared = raw.prepare_threshold is not None
    with connection.wrap_database_errors:
        rows = raw.execute(sql.CREDIT_STEADY, parameters, prepare=prepared or None).fetchall()
    credited = []
    standings: dict[UUID, tuple[int, int | None]] = {}
    for place, is_educational, is_exempt, microseconds, profile_id, used, remaining in rows:
        if place is not None:
            credited.append((place - 1, is_educational, is_exempt, microseconds))
        elif profile_id is not None:
            standings[profile_id] = (used, remaining)
        else:
            _note_clock(microseconds / 1_000_000)
    answers = {}
    for place, is_educational, is_exempt, paused_for in credited:
        beat = candidates[place].beat
        used, remaining = standings.get(beat.profile_id, (None, None))
        answers[place] = ledger.told_in_microseconds(
            session_id=beat.session_id,
            used=used,
            remaining=remaining,
            paused_for=paused_for,
            is_educational=is_educational,
            is_exempt=is_exempt,
        )
    return answers


def statement_parameters(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What `sql.CREDIT_STEADY` is sent: array literals, much cheaper than adapted lists."""
    beats = [candidate.beat for candidate in candidates]
    days = [candidate.day for candidate in candidates]
    return {
        "session_ids": _array([beat.session_id.hex for beat in beats if beat.session_id]),
        "profile_ids": _array([beat.profile_id.hex for beat in beats]),
        "title_ids": _array([beat.title_id.hex for beat in beats]),
        "device_ids": _array([_quoted(beat.device_id) for beat in beats]),
        "paused": _array(["t" if beat.is_paused else "f" for beat in beats]),
        "exempting": _array([day.exempts for day in days]),
        "days": _array([day.reset_date for day in days]),
        "ends": _array([day.ends_at for day in days]),
        "limits": _array([day.limit_seconds for day in days]),
    }


def _array(items: Sequence[str]) -> str:
    return "{" + ",".join(items) + "}"


def _quoted(text: str) -> str:
    """An element of an array literal, whatever it holds (PostgreSQL manual, 8.15.6)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
