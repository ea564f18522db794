"""History and weekly report as CSV (RFC 4180) for spreadsheets: UTF-8 with a byte order mark.

Files are streamed: no more than a part of one is in memory. A fault on the way cuts the
connection, so that no file looks complete that is not.
"""

import csv
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

from django.db import connection
from django.http import HttpRequest, StreamingHttpResponse

from parentalcontrols.postgresql import deadline
from parentalcontrols.problems import invalid
from parentalcontrols.views import REQUEST_SECONDS
from viewingtime import history
from viewingtime.history import Page, Place
from viewingtime.reports import Report
from viewingtime.serializers import minutes

CSV = "text/csv"
JSON = "application/json"
_CSV_AS_SENT = "text/csv; charset=utf-8"

#: Sessions that are read, and sent, at a time.
PART_SESSIONS = 1000

HISTORY_COLUMNS = (
    "date",
    "started_at",
    "ended_at",
    "title",
    "device_type",
    "is_educational",
    "duration_minutes",
    "session_id",
    "title_id",
)
REPORT_COLUMNS = (
    "profile_name",
    "date",
    "minutes",
    "counted_minutes",
    "educational_minutes",
    "limit_minutes",
    "granted_minutes",
    "is_unlimited_override",
    "profile_id",
)

#: What makes a spreadsheet take a text for a formula, or end a cell within it
#: (https://owasp.org/www-community/attacks/CSV_Injection).
_FORMULA = frozenset(
    "=+-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
    "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
)
_BREAKS = ("\t", "\r", "\n")
#: Categories of characters that are not shown: controls, formats.
_UNSEEN = frozenset({"Cc", "Cf"})


def asked_for(request: HttpRequest) -> bool:
    """Whether a request asks for CSV: by `format`, or else by `Accept`; a 400 for other formats."""
    wanted = request.GET.get("format")
    if wanted is None:
        return request.get_preferred_type([JSON, CSV, _CSV_AS_SENT]) in {CSV, _CSV_AS_SENT}
    if wanted not in {"json", "csv"}:
        detail = "One of json and csv is needed."
        raise invalid([{"field": "format", "code": "invalid", "detail": detail}])
    return wanted == "csv"


def history_file(*, profile_id: UUID, place: Place) -> StreamingHttpResponse:
    """Every session from there on, a row each; the first part is read before the answer starts."""
    first = history.read(profile_id=profile_id, place=place, size=PART_SESSIONS)
    name = f"history-{profile_id}-{place.from_date}-{place.to_date}.csv"
    return _file(name, HISTORY_COLUMNS, _history_parts(profile_id, first))


def _history_parts(profile_id: UUID, page: Page) -> Iterator[list[Sequence[Any]]]:
    while True:
        yield [
            (
                day.date,
                session.started_at,
                session.ended_at,
                session.title_name,
                session.device_type,
                session.is_educational,
                session.total,
                session.id,
                session.title_id,
            )
            for day in page.days
            for session in day.sessions
        ]
        if page.next is None:
            return
        # The view's own deadline ended when the answer started.
        with deadline.within(REQUEST_SECONDS):
            page = history.read(profile_id=profile_id, place=page.next, size=PART_SESSIONS)


def report_file(report: Report) -> StreamingHttpResponse:
    """A row for each child and day."""
    parts = (
        [
            (
                child.name,
                day.date,
                day.total,
                day.counted,
                day.educational,
                day.limit,
                day.granted,
                day.is_unlimited_override,
                child.profile_id,
            )
            for day in child.days
        ]
        for child in report.children
    )
    name = f"weekly-report-{report.week_start}-{report.week_end}.csv"
    return _file(name, REPORT_COLUMNS, parts)


def _file(
    name: str, columns: Sequence[str], parts: Iterable[Iterable[Sequence[Any]]]
) -> StreamingHttpResponse:
    """The answer that streams a table, part after part."""
    return StreamingHttpResponse(
        _lines(columns, parts),
        content_type=_CSV_AS_SENT,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _lines(columns: Sequence[str], parts: Iterable[Iterable[Sequence[Any]]]) -> Iterator[bytes]:
    head = ("\N{BYTE ORDER MARK}" + _table([columns])).encode()
    _leave_the_database()
    yield head
    for part in parts:
        rows = _table(part).encode()
        _leave_the_database()
        yield rows


def _leave_the_database() -> None:
    """Gives the connection back to its pool: a client that reads slowly keeps nobody from it."""
    if connection.settings_dict.get("POOL"):
        connection.close()


def _table(rows: Iterable[Sequence[Any]]) -> str:
    buffer = StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerows(map(cell, row) for row in rows)
    return buffer.getvalue()


def cell(value: Any) -> str:
    """A value as a cell's text: amounts of time in minutes, instants in UTC, None as nothing.

    A text that a spreadsheet would calculate gets an apostrophe before it, which makes it a text.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case timedelta():
            return str(minutes(value))
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date() | UUID():
            return str(value)
        case _:
            return f"'{value}" if _is_dangerous(str(value)) else str(value)


def _is_dangerous(text: str) -> bool:
    """Whether a text begins, after what is not shown, like a formula."""
    if text.startswith(_BREAKS):
        return True
    shown = (c for c in text if not c.isspace() and unicodedata.category(c) not in _UNSEEN)
    return next(shown, "") in _FORMULA
