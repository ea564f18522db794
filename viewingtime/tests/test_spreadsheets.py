"""History and weekly report as CSV: what is asked for, what stands in it, how it is sent."""

import csv
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from io import BytesIO, StringIO
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from parentalcontrols.models import Title
from parentalcontrols.postgresql import deadline
from parentalcontrols.tests.cast import API, Cast, assert_problem, database_now, watch
from parentalcontrols.wsgi import application
from viewingtime import spreadsheets
from viewingtime.tests import stored

REPORT = "/parental-controls/weekly-report"
MARK = b"\xef\xbb\xbf"


def history_of(cast: Cast) -> str:
    return f"/parental-controls/profiles/{cast.child.id}/history"


def file_of(answer: HttpResponse) -> bytes:
    assert answer.status_code == 200, answer.content
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    return answer.getvalue()


def rows_of(answer: HttpResponse) -> list[dict[str, str]]:
    """The rows as a reader of CSV sees them."""
    text = file_of(answer).removeprefix(MARK).decode()
    return list(csv.DictReader(StringIO(text, newline=""), strict=True))


# What stands in it


def test_a_history_file_has_a_row_for_each_session(cast: Cast) -> None:
    watch(cast.phone, cast.child, cast.documentary, 90)
    watch(cast.phone, cast.child, cast.cartoon, 200)
    (day,) = cast.phone.get(history_of(cast)).json()["days"]
    rows = rows_of(cast.phone.get(history_of(cast) + "?format=csv"))
    assert rows == [
        {
            "date": day["date"],
            "started_at": session["started_at"],
            "ended_at": session["ended_at"] or "",
            "title": session["title_name"],
            "device_type": session["device_type"],
            "is_educational": "true" if session["is_educational"] else "false",
            "duration_minutes": str(session["duration_minutes"]),
            "session_id": session["session_id"],
            "title_id": session["title_id"],
        }
        for session in day["sessions"]
    ]
    assert [row["ended_at"] == "" for row in rows] == [True, False]


def test_a_report_file_has_a_row_for_each_child_and_day(cast: Cast) -> None:
    cast.phone.put(
        f"/parental-controls/profiles/{cast.sibling.id}/viewing-time",
        {"weekday_limit_minutes": None, "weekend_limit_minutes": None},
    )
    watch(cast.phone, cast.child, cast.cartoon, 200)
    report = cast.phone.get(REPORT).json()
    answer = cast.phone.get(REPORT + "?format=csv")
    rows = rows_of(answer)
    assert rows == [
        {
            "profile_name": child["profile_name"],
            **{name: "" if value is None else str(value) for name, value in day.items()},
            "is_unlimited_override": "false",
            "profile_id": child["profile_id"],
        }
        for child in report["profiles"]
        for day in child["daily_totals"]
    ]
    assert len(rows) == 14
    assert {row["limit_minutes"] for row in rows[7:]} == {""}
    name = f"weekly-report-{report['week_start']}-{report['week_end']}.csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_files_are_named_after_the_days_that_were_asked_for(cast: Cast) -> None:
    query = "?format=csv&from_date=2026-01-01&to_date=2026-01-31"
    answer = cast.phone.get(history_of(cast) + query)
    name = f"history-{cast.child.id}-2026-01-01-2026-01-31.csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_an_empty_file_has_its_header_all_the_same(cast: Cast) -> None:
    header = ",".join(spreadsheets.HISTORY_COLUMNS).encode() + b"\r\n"
    assert file_of(cast.phone.get(history_of(cast) + "?format=csv")) == MARK + header
    cast.child.delete()
    cast.sibling.delete()
    header = ",".join(spreadsheets.REPORT_COLUMNS).encode() + b"\r\n"
    assert file_of(cast.phone.get(REPORT + "?format=csv")) == MARK + header


def test_names_of_any_kind_come_through_and_lines_end_as_rfc_4180_has_it(cast: Cast) -> None:
    names = ['Say "Ahoy", Paul', "Zwei\nZeilen", "Zwei\r\nZeilen", "Über Bäume 🌳", "a;b|c", "'"]
    # At noon the viewing day has the calendar's date, whatever time it is now.
    noon = (database_now() - timedelta(days=1)).replace(hour=12)
    for seconds, name in enumerate(names):
        title = Title.objects.create(title=name)
        stored.session(cast.child, title, noon.date(), noon + timedelta(seconds=seconds))
    answer = cast.phone.get(history_of(cast) + "?format=csv")
    content = answer.getvalue()
    assert content.startswith(MARK + b"date,started_at,")
    assert content.endswith(b"\r\n")
    assert content.count(b"\r\n") == len(names) + 2
    reader = csv.reader(StringIO(content.removeprefix(MARK).decode(), newline=""), strict=True)
    assert [row[3] for row in reader][:0:-1] == names


# Formulas


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", '=HYPERLINK("http://x","y")'),
        *("＝1+1", "＋1", "－1", "＠SUM(A1)"),  # noqa: RUF001
        *("\tx", "\rx", "\nx", "\t=1", " =1", "\u00a0=1", "\u200b=1", "\ufeff=1", "\x00=1"),
        *("\x1b=1", "  \r\n  @x", "-", "="),
    ],
)
def test_a_text_that_would_be_calculated_is_made_a_text(text: str) -> None:
    assert spreadsheets.cell(text) == "'" + text


@pytest.mark.parametrize("text", ["", " ", "x=1", "1-2", "'=1", "a@example.com", "٣", "Spider-Man"])
def test_any_other_text_stays_as_it_is(text: str) -> None:
    assert spreadsheets.cell(text) == text


def test_names_of_titles_and_children_are_safe_in_the_files(cast: Cast) -> None:
    Title.objects.filter(id=cast.cartoon.id).update(title="=1+1")
    type(cast.child).objects.filter(id=cast.child.id).update(name="@Mia")
    watch(cast.phone, cast.child, cast.cartoon, 60)
    (row,) = rows_of(cast.phone.get(history_of(cast) + "?format=csv"))
    assert row["title"] == "'=1+1"
    assert rows_of(cast.phone.get(REPORT + "?format=csv"))[0]["profile_name"] == "'@Mia"
    (day,) = cast.phone.get(history_of(cast)).json()["days"]
    assert day["sessions"][0]["title_name"] == "=1+1"


# Who gets which


@pytest.mark.parametrize("name", ["history", "report"])
@pytest.mark.parametrize(
    ("accept", "query", "is_csv"),
    [
        *((None, "", False), ("*/*", "", False), ("text/*", "", True), ("text/csv", "", True)),
        *(("text/csv; charset=utf-8", "", True), ("text/csv;q=0.5, */*", "", False)),
        *(("application/json, text/csv;q=0.9", "", False), ("text/html", "", False)),
        *(("text/html, text/csv;q=0.9", "", True), ("", "", False), ("x;q=y, \x80", "", False)),
        *(("text/csv;q=0", "", False), ("text/csv", "?format=json", False)),
        *(("application/json", "?format=csv", True), (None, "?format=csv", True)),
    ],
)
def test_csv_is_answered_to_who_prefers_it_and_json_to_all_others(
    cast: Cast, name: str, accept: str | None, query: str, is_csv: bool
) -> None:
    path = history_of(cast) if name == "history" else REPORT
    headers = {} if accept is None else {"Accept": accept}
    answer = cast.phone.send("GET", path + query, headers=headers)
    assert answer.status_code == 200
    told = answer.headers["Content-Type"]
    assert told == ("text/csv; charset=utf-8" if is_csv else "application/json")
    assert "Accept" in answer.headers["Vary"]
    assert ("Content-Disposition" in answer.headers) is is_csv


@pytest.mark.parametrize("text", ["", "CSV", "xml", "api", "csv,json", "\x00", "text/csv"])
def test_another_format_is_refused(cast: Cast, text: str) -> None:
    for path in (history_of(cast), REPORT):
        answer = cast.phone.send("GET", f"{path}?format={text}", headers={"Accept": "text/csv"})
        problem = assert_problem(answer, 400, "invalid")
        assert [error["field"] for error in problem["errors"]] == ["format"]


def test_a_file_has_no_pages(cast: Cast) -> None:
    problem = assert_problem(cast.phone.get(history_of(cast) + "?format=csv&cursor=x"), 400)
    assert [(e["field"], e["code"]) for e in problem["errors"]] == [("cursor", "not_paged")]


def test_an_error_is_a_problem_whatever_was_asked_for(cast: Cast) -> None:
    headers = {"Accept": "text/csv"}
    assert_problem(cast.child_tv.send("GET", REPORT, headers=headers), 403, "parent_required")
    foreign = f"/parental-controls/profiles/{cast.foreign_child.id}/history"
    assert_problem(cast.phone.send("GET", foreign, headers=headers), 404, "not_found")


@pytest.mark.django_db(transaction=True)
def test_head_is_answered_without_the_file(cast: Cast) -> None:
    """By the application itself: the tests' client would take a body away."""
    watch(cast.phone, cast.child, cast.cartoon, 60)
    token = {"Authorization": f"Bearer {cast.phone.token}"}
    request = RequestFactory().head(f"{API}{history_of(cast)}?format=csv", headers=token)
    told: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        told.update(headers, status=status)

    answer = application({**request.environ, "wsgi.input": BytesIO()}, start_response)
    assert b"".join(answer) == b""
    assert told["status"] == "200 OK"
    assert told["Content-Type"] == "text/csv; charset=utf-8"
    assert "Content-Length" not in told


# How it is sent


@pytest.fixture
def long_ago(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Cast:
    """Ninety sessions, which are sent ten at a time."""
    monkeypatch.setattr(spreadsheets, "PART_SESSIONS", 10)
    stored.store(
        cast.child,
        [cast.cartoon, cast.documentary],
        count=90,
        newest=database_now() - timedelta(hours=1),
        over=timedelta(days=10),
        reset_hour=(database_now() + timedelta(hours=12)).hour,
    )
    return cast


def parts_of(answer: HttpResponse) -> Iterator[bytes]:
    assert answer.status_code == 200
    assert answer.streaming
    return iter(answer.streaming_content)


def test_a_history_file_holds_every_session_of_all_pages_once(long_ago: Cast) -> None:
    rows = rows_of(long_ago.phone.get(history_of(long_ago) + "?format=csv"))
    (whole,) = [long_ago.phone.get(history_of(long_ago)).json()]
    listed = [session["session_id"] for day in whole["days"] for session in day["sessions"]]
    assert len(listed) == 90
    assert [row["session_id"] for row in rows] == listed


def test_a_part_is_read_when_the_one_before_it_was_sent(long_ago: Cast) -> None:
    with CaptureQueriesContext(connection) as before:
        parts = parts_of(long_ago.phone.get(history_of(long_ago) + "?format=csv"))
        assert next(parts).startswith(MARK)
        assert next(parts).count(b"\r\n") == 10
    seen = len(before)
    with CaptureQueriesContext(connection) as after:
        assert next(parts).count(b"\r\n") == 10
        assert len(after) == 1
        assert len(list(parts)) == 7
    # Nine parts, of which the first came with token, profile, today and two counts.
    assert (seen, len(after)) == (6, 8)


def test_every_part_has_a_deadline_of_its_own(long_ago: Cast) -> None:
    left: list[float | None] = []

    def noting(execute: Any, *query: Any) -> Any:
        left.append(deadline.seconds_left())
        return execute(*query)

    parts = parts_of(long_ago.phone.get(history_of(long_ago) + "?format=csv"))
    assert next(parts).startswith(MARK)
    assert next(parts).count(b"\r\n") == 10
    with connection.execute_wrapper(noting):
        for _ in parts:
            assert deadline.seconds_left() is None
    assert len(left) == 8
    assert all(seconds is not None and 0 < seconds <= 10 for seconds in left)


@pytest.mark.direct("it sets a limit of its own session")
@pytest.mark.django_db(transaction=True)
def test_a_fault_before_the_first_part_is_an_honest_503(long_ago: Cast) -> None:
    with closing(connection.copy()) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE viewing_sessions IN ACCESS EXCLUSIVE MODE")
        with connection.cursor() as own:
            own.execute("SET lock_timeout = 100")
        answer = long_ago.phone.get(history_of(long_ago) + "?format=csv")
        assert_problem(answer, 503, "unavailable")
        cursor.execute("ROLLBACK")
    with connection.cursor() as own:
        own.execute("RESET lock_timeout")


@pytest.mark.direct("who serves a connection is another one with each statement")
@pytest.mark.django_db(transaction=True)
def test_a_fault_on_the_way_ends_the_file_by_an_error(long_ago: Cast) -> None:
    """The server cuts the connection then: what was sent cannot be taken for the whole."""
    parts = parts_of(long_ago.phone.get(history_of(long_ago) + "?format=csv"))
    assert next(parts).startswith(MARK)
    assert next(parts).count(b"\r\n") == 10
    with closing(connection.copy()) as other, other.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid]
        )
        assert cursor.fetchone() == (True,)
    with pytest.raises(OperationalError):
        list(parts)
    connection.close()
