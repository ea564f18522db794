"""Behind a pooler in transaction mode nothing is kept in a session, and limits are looked for."""

import logging
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings, settings
from django.db import connection, transaction
from django.db.utils import OperationalError
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.module_loading import import_string

from parentalcontrols.postgresql import limits
from parentalcontrols.tests.test_settings import start, value_of

LIMITS = {
    "lock_timeout": 1400,
    "statement_timeout": 15000,
    "client_connection_check_interval": 500,
    "idle_in_transaction_session_timeout": 10000,
}


def database_of(**variables: str) -> Any:
    """How a web process connects under those variables."""
    return value_of("DATABASES", SERVING="1", **variables)["default"]


def test_a_web_process_brings_its_limits_along_and_prepares_statements() -> None:
    found = database_of()
    for name, value in LIMITS.items():
        assert f"-c {name}={value}" in found["OPTIONS"]["options"]
    assert found["OPTIONS"]["prepare_threshold"] == 2
    assert found["OPTIONS"]["server_side_binding"] is True
    assert found["DISABLE_SERVER_SIDE_CURSORS"] is False


@pytest.mark.parametrize("switch", [{"DATABASE_PREPARED": "false"}, {"DATABASE_POOLED": "true"}])
def test_behind_a_pooler_it_sends_no_start_up_option_and_opens_no_cursor_on_the_server(
    switch: dict[str, str],
) -> None:
    found = database_of(**switch)
    assert "options" not in found["OPTIONS"]
    assert found["DISABLE_SERVER_SIDE_CURSORS"] is True


def test_a_pooler_that_knows_prepared_statements_may_have_them() -> None:
    assert database_of(DATABASE_PREPARED="false")["OPTIONS"]["prepare_threshold"] is None
    assert database_of(DATABASE_POOLED="true")["OPTIONS"]["prepare_threshold"] == 2


def test_without_prepared_statements_and_without_a_pooler_limits_are_brought_along() -> None:
    found = database_of(DATABASE_PREPARED="false", DATABASE_POOLED="false")
    assert "lock_timeout=1400" in found["OPTIONS"]["options"]
    assert found["OPTIONS"]["prepare_threshold"] is None


def test_options_of_the_address_are_the_operators_affair() -> None:
    url = "postgresql://user:word@db.example.com/viewing?options=-c%20search_path%3Dtv"
    assert database_of(DATABASE_URL=url, DATABASE_POOLED="true")["OPTIONS"]["options"] == (
        "-c search_path=tv"
    )


def test_the_limits_follow_the_settings() -> None:
    told = value_of("DATABASE_LIMITS", REQUEST_DEADLINE_MS="1000", STATEMENT_TIMEOUT_MS="5000")
    assert told == LIMITS | {"lock_timeout": 600, "statement_timeout": 5000}
    assert value_of("DATABASE_LIMITS") == LIMITS


def limited_to(**milliseconds: int) -> None:
    """Puts limits on the running transaction alone."""
    with connection.cursor() as cursor:
        for name, value in milliseconds.items():
            cursor.execute("SELECT set_config(%s, %s, true)", [name, str(value)])


@pytest.fixture
def limited(db: None) -> Iterator[None]:
    """A transaction with all limits in force."""
    with transaction.atomic():
        limited_to(**LIMITS)
        yield


def test_limits_that_are_in_force_are_not_missed(limited: None) -> None:
    assert limits.missing() == {}
    limited_to(lock_timeout=200, statement_timeout=3000)
    assert limits.missing() == {}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, 60_000])
def test_a_limit_that_is_none_or_too_high_is_missed(limited: None, name: str, value: int) -> None:
    limited_to(**{name: value})
    assert limits.missing() == {name: LIMITS[name]}


@pytest.fixture
def pooled(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DATABASE_POOLED = True
    # The transaction of the test goes on.
    monkeypatch.setattr(connection, "close", lambda: None)


def test_a_start_behind_a_pooler_warns_of_limits_that_are_missing(
    limited: None, pooled: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger=limits.__name__):
        limits.look()
        assert caplog.records == []
        limited_to(lock_timeout=0)
        limits.look()
    (record,) = caplog.records
    assert record.message == "database_limits_missing"
    assert record.limits == {"lock_timeout": 1400}  # type: ignore[attr-defined]


def test_a_start_behind_a_pooler_does_not_wait_for_a_database_that_is_away(
    pooled: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(limits, "missing", refused)
    with caplog.at_level(logging.WARNING, logger=limits.__name__):
        limits.look()
    assert [record.message for record in caplog.records] == ["database_unavailable_at_start"]


def test_check_deploy_finds_nothing_in_a_production_environment() -> None:
    check = ("manage.py", "check", "--deploy", "--fail-level", "WARNING")
    done = start(*check, HTTPS_ONLY="true", SECRET_KEY=secrets.token_urlsafe(48))
    assert done.returncode == 0, done.stderr
    # One of those that are not shown is about a middleware that is there by another name.
    assert any(
        issubclass(middleware, CsrfViewMiddleware)
        for middleware in map(import_string, settings.MIDDLEWARE)
        if isinstance(middleware, type)
    )
