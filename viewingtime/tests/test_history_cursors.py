"""Cursors of a history: those that were made lead on, all others are refused."""

import base64
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from parentalcontrols.tests.cast import Cast, assert_problem, database_now
from viewingtime import history
from viewingtime.history import Key, Place
from viewingtime.tests import stored
from viewingtime.tests.test_history import ask, read

NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
A, B = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
EARLY, LATE = "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"
GOOD = ["2026-02-01", "2026-03-01", LATE, A, EARLY, A]


def made(document: Any) -> str:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(raw.replace(b", ", b",")).decode()


def changed(index: int, value: Any) -> list[Any]:
    return [*GOOD[:index], value, *GOOD[index + 1 :]]


def test_the_pattern_of_the_hostile_cursors_is_a_good_one(cast: Cast) -> None:
    assert read(cast.phone, cast.child, cursor=made(GOOD))["days"] == []


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "=", "====", "%", "\x00", "é", "A" * 5000, made(GOOD)[:-2], made(GOOD) + "A"),
        *(made(GOOD) + "=", " " + made(GOOD), made(GOOD) + "\n", json.dumps(GOOD)),
        *map(made, (5, "x", None, True, {}, [], [[]], GOOD[:5], [*GOOD, A], {"a": GOOD})),
        *(made(raw) for raw in (b"[" * 5000, b"[" * 5000 + b"]" * 5000, b"\xff", b"NaN", b"{")),
        made(json.dumps(GOOD).replace("[", "[ ").encode()),
        *(made(changed(0, v)) for v in ("2025-12-01", "2026-03-02", "0000-01-01", 5, None, {})),
        *(made(changed(1, v)) for v in ("2026-05-02", "2026-01-31", "2026-03-01T00:00:00Z")),
        *(made(changed(2, v)) for v in ("2026-02-28T00:00:00Z", "2026-03-02T00:00:00", 0, 10**30)),
        *(made(changed(4, v)) for v in ("2026-03-03T00:00:00Z", "10000-01-01T00:00:00Z", "", [])),
        *(made(changed(3, v)) for v in ("x", A.replace("-", ""), A.upper() + "x", 5, None, [A])),
        made([*GOOD[:2], EARLY, A, EARLY, B]),
    ],
    ids=lambda cursor: cursor[:40],
)
def test_a_cursor_that_was_never_made_is_refused(cast: Cast, cursor: str) -> None:
    problem = assert_problem(ask(cast.phone, cast.child, cursor=cursor), 400, "invalid")
    assert [(e["field"], e["code"]) for e in problem["errors"]] == [("cursor", "invalid")]


def test_cursors_at_the_ends_of_time_overflow_nothing(cast: Cast) -> None:
    for first, last, top, low in (
        ("0001-01-01", "0001-03-01", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-11-01", "9999-12-31", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z"),
        ("2026-01-01", "2026-01-02", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"),
    ):
        answer = ask(cast.phone, cast.child, cursor=made([first, last, top, A, low, A]))
        assert answer.status_code == 200, answer.content
        assert answer.json()["days"] == []


def test_a_cursor_of_another_profile_opens_nothing_of_it(cast: Cast) -> None:
    newest = database_now() - timedelta(days=2)
    stored.store(cast.child, [cast.cartoon], count=150, newest=newest, over=timedelta(days=20))
    cursor = read(cast.phone, cast.child)["next_cursor"]
    assert read(cast.phone, cast.sibling, cursor=cursor)["days"] == []
    assert_problem(ask(cast.foreign_phone, cast.child, cursor=cursor), 404, "not_found")


def test_the_statement_says_where_a_reading_begins(cast: Cast) -> None:
    place = Place(date(2026, 3, 1), date(2026, 3, 2), Key(NOON, UUID(A)), Key(NOON, UUID(B)))
    _, first = history.page_statement(
        profile_id=cast.child.id, place=Place(place.from_date, place.to_date), size=5
    )
    assert first["range_starts"] == datetime(2026, 2, 21, tzinfo=UTC)
    assert first["range_ends"] == first["last_at"] == datetime(2026, 3, 5, tzinfo=UTC)
    _, later = history.page_statement(profile_id=cast.child.id, place=place, size=5)
    assert (later["top_id"], later["last_id"]) == (UUID(A), UUID(B))
