"""Rows as COPY takes them: lines of text, written a table at a time.

What is written here are ids, numbers, instants and words of our own: nothing has a tab, a
backslash or a line end in it that would have to be escaped.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from django.db import connection, transaction

from viewingtime.generator.evenings import Day
from viewingtime.generator.households import Household, Person, new_id

# COPY locks what INSERT locks: its own new rows, and for the foreign keys FOR KEY SHARE what they
# refer to, which beats do not wait for. The order is that of the foreign keys.
COPY_ACCOUNTS = """
COPY accounts (
    id, email, password, is_superuser, is_active, is_staff, created_at
) FROM STDIN
"""
COPY_PROFILES = """
COPY profiles (id, account_id, name, is_kids, parental_rating, created_at) FROM STDIN
"""
COPY_CONFIGS = """
COPY viewing_time_configs (
    profile_id, weekday_limit_minutes, weekend_limit_minutes, reset_hour, timezone,
    educational_exempt, created_at, updated_at
) FROM STDIN
"""
COPY_BALANCES = """
COPY viewing_time_balances (
    profile_id, reset_date, used_seconds, educational_seconds, granted_seconds,
    is_unlimited_override, limit_seconds
) FROM STDIN
"""
COPY_SESSIONS = """
COPY viewing_sessions (
    id, profile_id, title_id, is_kids, device_id, device_type, is_educational, reset_date,
    started_at, last_heartbeat_at, ended_at, end_reason, total_seconds, educational_seconds
) FROM STDIN
"""
COPY_GRANTS = """
COPY time_grants (
    id, profile_id, reset_date, account_id, minutes, is_remote, granted_at
) FROM STDIN
"""

ANALYZE = """
ANALYZE
    accounts, profiles, viewing_time_configs, viewing_time_balances, viewing_sessions, time_grants
"""

_NULL: Final = r"\N"
_SECOND: Final = 1_000_000


@dataclass(slots=True)
class Rows:
    """Lines of each table, in the order in which they are written."""

    accounts: list[str] = field(default_factory=list)
    profiles: list[str] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)
    balances: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    grants: list[str] = field(default_factory=list)

    def add_household(self, household: Household, email: str, since: datetime) -> None:
        """An account that nobody can log in to, and its profiles; it registered at `since`."""
        # A password that starts with "!" fits nothing.
        password = f"!{household.rng.getrandbits(160):040x}"
        self.accounts.append(
            f"{household.account_id}\t{email}\t{password}\tf\tt\tf\t{since.isoformat()}\n"
        )
        for place, person in enumerate(household.people):
            # Lists are in order of creation.
            made_at = (since + timedelta(microseconds=place)).isoformat()
            self.profiles.append(
                f"{person.id}\t{person.account_id}\t{person.name}\t{_flag(person.is_kids)}\t"
                f"{person.parental_rating}\t{made_at}\n"
            )
            config = person.config
            if config is not None:
                self.configs.append(
                    f"{person.id}\t{_or_null(config.weekday_limit_minutes)}\t"
                    f"{_or_null(config.weekend_limit_minutes)}\t{config.reset_hour}\t"
                    f"{config.timezone}\t{_flag(config.educational_exempt)}\t"
                    f"{made_at}\t{made_at}\n"
                )

    def add_day(self, person: Person, made: Day, rng: random.Random) -> None:
        """The sessions of a viewing day; of a child also its balance and grants."""
        day, starts_at = made.day.date.isoformat(), made.day.starts_at
        kids = _flag(person.is_kids)
        append = self.sessions.append
        for film, device, started, last_beat, ended, reason, total, is_exempt in made.sessions:
            started_text = (starts_at + timedelta(0, 0, started)).isoformat()
            ended_text = (starts_at + timedelta(0, 0, ended)).isoformat()
            beat_text = (
                ended_text
                if last_beat == ended
                else (starts_at + timedelta(0, 0, last_beat)).isoformat()
            )
            seconds = f"{total // _SECOND}.{total % _SECOND:06}"
            append(
                f"{new_id(rng)}\t{person.id}\t{film.id}\t{kids}\t{device.id}\t{device.type}\t"
                f"{_flag(film.is_educational)}\t{day}\t{started_text}\t{beat_text}\t{ended_text}\t"
                f"{reason}\t{seconds}\t{seconds if is_exempt else '0'}\n"
            )
        if not person.is_kids:
            return
        limit = None if made.limit is None else made.limit // _SECOND
        self.balances.append(
            f"{person.id}\t{day}\t{_seconds(made.used)}\t{_seconds(made.educational)}\t"
            f"{_seconds(made.granted)}\t{_flag(made.is_unlimited)}\t{_or_null(limit)}\n"
        )
        for given in made.grants:
            at = (starts_at + timedelta(0, 0, given.at)).isoformat()
            self.grants.append(
                f"{new_id(rng)}\t{person.id}\t{day}\t{person.account_id}\t"
                f"{_or_null(given.minutes)}\t{_flag(given.is_remote)}\t{at}\n"
            )

    def write(self) -> None:
        """Writes everything in one transaction."""
        with transaction.atomic(), connection.cursor() as cursor:
            for statement, lines in self._tables():
                if lines:
                    with cursor.copy(statement) as copy:
                        copy.write("".join(lines))

    def _tables(self) -> Iterator[tuple[str, list[str]]]:
        yield COPY_ACCOUNTS, self.accounts
        yield COPY_PROFILES, self.profiles
        yield COPY_CONFIGS, self.configs
        yield COPY_BALANCES, self.balances
        yield COPY_SESSIONS, self.sessions
        yield COPY_GRANTS, self.grants


def _flag(value: bool) -> str:
    return "t" if value else "f"


def _or_null(value: int | None) -> str:
    return _NULL if value is None else str(value)


def _seconds(microseconds: int) -> str:
    return f"{microseconds // _SECOND}.{microseconds % _SECOND:06}"
