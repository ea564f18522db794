"""Everything that is stored of a household, as one JSON document (docs/api.md, "Export").

Read in one snapshot, a page at a time, into a file that is compressed and, past a mebibyte, on
disk; sent from there. So no more than a page is in memory, however much there is, and a client
that reads slowly keeps neither a connection to the database nor a snapshot.

No secret is in it: no hash of password or PIN, no token, no key of a repeat.
"""

import gzip
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models import Q

from parentalcontrols.models import Account, Profile, RefreshFamily, ViewingTimeConfig
from parentalcontrols.problems import not_found, unavailable
from pins.models import AuditEntry, Pin
from viewingtime import read_sql
from viewingtime.models import TimeGrant, ViewingTimeBalance

logger = logging.getLogger(__name__)

FORMAT: Final = "viewing-time-export/1"
#: The longest a request may take until the first byte is sent, in seconds.
SECONDS: Final = 60.0
#: Rows that are read at a time.
PAGE_ROWS: Final = 500
#: Exports that one process reads at a time; one more is refused.
MOST_AT_ONCE: Final = 2

_MEMORY_BYTES: Final = 1024 * 1024
_PART_BYTES: Final = 64 * 1024

_reading = threading.BoundedSemaphore(MOST_AT_ONCE)
_encode = msgspec.json.Encoder(decimal_format="number").encode

_SESSION_FIELDS: Final = (
    *("session_id", "title_id", "title_name", "device_id", "device_type", "is_educational"),
    *("reset_date", "started_at", "last_heartbeat_at", "paused_at", "ended_at", "end_reason"),
    *("total_seconds", "educational_seconds"),
)
_EARLIEST: Final = datetime.fromisoformat("0001-01-01T00:00:00+00:00")
_NOBODY: Final = UUID(int=0)


@dataclass(slots=True)
class _Written:
    """A compressed file that is written, and how long what is in it is."""

    file: gzip.GzipFile
    size: int = 0

    def add(self, part: bytes) -> None:
        self.file.write(part)
        self.size += len(part)


@dataclass(frozen=True, slots=True)
class Export:
    """A document that was read, of `size` bytes; `parts` sends it once and lets the file go."""

    size: int
    file: IO[bytes]

    def parts(self) -> Iterator[bytes]:
        with self.file, gzip.GzipFile(fileobj=self.file, mode="rb") as document:
            while part := document.read(_PART_BYTES):
                yield part


def export(account_id: UUID) -> Export:
    """Reads a household; locks nothing. Raises a `Problem`: 404 where there is none, 503 where the
    folder of temporary files has no room for it.

    Outside of a transaction everything is as it was at one instant.
    """
    # Let go by whoever has sent it.
    file: IO[bytes] = SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115
    try:
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed, _snapshot():
            written = _Written(packed)
            _write(account_id, written.add)
        file.seek(0)
        return Export(written.size, file)
    except OSError as error:
        # Psycopg's errors are Django's by now: it is the folder of temporary files that is full.
        logger.warning("export_not_written", extra={"cause": error.strerror})
        file.close()
        raise unavailable() from None
    except BaseException:
        file.close()
        raise


@contextmanager
def turn() -> Iterator[None]:
    """A place among the exports that this process reads; a 503 `Problem` where none is free."""
    if not _reading.acquire(blocking=False):
        raise unavailable()
    try:
        yield
    finally:
        _reading.release()


@contextmanager
def _snapshot() -> Iterator[None]:
    """One snapshot for all that is read; inside a transaction, that one's."""
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def _write(account_id: UUID, add: Callable[[bytes], None]) -> None:
    account = Account.objects.filter(id=account_id).first()
    if account is None:
        raise not_found()
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        (exported_at,) = cursor.fetchone()
    add(b'{"format":' + _encode(FORMAT) + b',"exported_at":' + _encode(exported_at))
    add(b',"account":' + _encode(_account(account)))
    add(b',"pin":' + _encode(_pin(account_id)))
    _write_list(add, "log_ins", _log_ins(account_id))
    _write_list(add, "audit", _audit(account_id))
    add(b',"profiles":[')
    profiles = Profile.objects.filter(account_id=account_id).order_by("created_at", "id")
    for place, profile in enumerate(profiles.select_related("viewing_time_config")):
        # The object stays open for its lists.
        add((b"," if place else b"") + _encode(_profile(profile))[:-1])
        _write_list(add, "balances", _balances(profile.id))
        _write_list(add, "grants", _grants(profile.id))
        _write_list(add, "sessions", _sessions(profile.id))
        add(b"}")
    add(b"]}\n")


def _write_list(
    add: Callable[[bytes], None], name: str, pages: Iterable[list[dict[str, Any]]]
) -> None:
    """A member that is a list, page after page."""
    add(b"," + _encode(name) + b":[")
    first = True
    for page in pages:
        if page:
            add((b"" if first else b",") + _encode(page)[1:-1])
            first = False
    add(b"]")


def _account(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "email": account.email,
        "is_active": account.is_active,
        "is_staff": account.is_staff,
        "created_at": account.created_at,
        "last_login": account.last_login,
    }


def _pin(account_id: UUID) -> dict[str, Any] | None:
    pin = Pin.objects.filter(account_id=account_id).first()
    if pin is None:
        return None
    return {
        "created_at": pin.created_at,
        "changed_at": pin.changed_at,
        "locked_until": pin.locked_until,
        "wrong_attempts": pin.attempts_reserved - pin.attempts_cleared,
    }


def _profile(profile: Profile) -> dict[str, Any]:
    config: ViewingTimeConfig | None = getattr(profile, "viewing_time_config", None)
    return {
        "id": profile.id,
        "name": profile.name,
        "is_kids": profile.is_kids,
        "parental_rating": profile.parental_rating,
        "avatar_url": profile.avatar_url,
        "created_at": profile.created_at,
        "config": config
        and {
            "weekday_limit_minutes": config.weekday_limit_minutes,
            "weekend_limit_minutes": config.weekend_limit_minutes,
            "reset_hour": config.reset_hour,
            "timezone": config.timezone,
            "educational_exempt": config.educational_exempt,
            "earlier_schedules": config.earlier_schedules,
            "created_at": config.created_at,
            "updated_at": config.updated_at,
        },
    }


def _log_ins(account_id: UUID) -> Iterator[list[dict[str, Any]]]:
    fields = ("id", "profile_id", "created_at", "expires_at", "revoked_at")
    last = _NOBODY
    while True:
        rows = RefreshFamily.objects.filter(account_id=account_id, id__gt=last).order_by("id")
        page = list(rows.values(*fields)[:PAGE_ROWS])
        yield page
        if len(page) < PAGE_ROWS:
            return
        last = page[-1]["id"]


def _audit(account_id: UUID) -> Iterator[list[dict[str, Any]]]:
    fields = (
        *("id", "at", "action", "profile_id", "actor", "actor_id", "login_id", "device"),
        *("before", "after"),
    )
    last = 0
    while True:
        rows = AuditEntry.objects.filter(account_id=account_id, id__gt=last).order_by("id")
        page = list(rows.values(*fields)[:PAGE_ROWS])
        yield page
        if len(page) < PAGE_ROWS:
            return
        last = page[-1]["id"]


def _balances(profile_id: UUID) -> Iterator[list[dict[str, Any]]]:
    fields = (
        *("reset_date", "used_seconds", "educational_seconds", "granted_seconds"),
        *("is_unlimited_override", "limit_seconds"),
    )
    last = _EARLIEST.date()
    while True:
        rows = ViewingTimeBalance.objects.filter(profile_id=profile_id, reset_date__gt=last)
        page = list(rows.order_by("reset_date").values(*fields)[:PAGE_ROWS])
        yield page
        if len(page) < PAGE_ROWS:
            return
        last = page[-1]["reset_date"]


def _grants(profile_id: UUID) -> Iterator[list[dict[str, Any]]]:
    fields = ("id", "reset_date", "minutes", "is_remote", "granted_at")
    at, last = _EARLIEST, _NOBODY
    while True:
        rows = TimeGrant.objects.filter(
            Q(granted_at__gt=at) | Q(id__gt=last, granted_at=at),
            profile_id=profile_id,
            granted_at__gte=at,
        )
        page = list(rows.order_by("granted_at", "id").values(*fields)[:PAGE_ROWS])
        yield page
        if len(page) < PAGE_ROWS:
            return
        at, last = page[-1]["granted_at"], page[-1]["id"]


def _sessions(profile_id: UUID) -> Iterator[list[dict[str, Any]]]:
    at, last = _EARLIEST, _NOBODY
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                read_sql.EXPORT_SESSIONS,
                {"profile_id": profile_id, "last_at": at, "last_id": last, "size": PAGE_ROWS},
            )
            rows = cursor.fetchall()
        yield [dict(zip(_SESSION_FIELDS, row, strict=True)) for row in rows]
        if len(rows) < PAGE_ROWS:
            return
        at, last = rows[-1][7], rows[-1][0]
