"""Every request has an id, the client's own or a new one: in its answer, its logs, its problems."""

import json
import logging
import re
from typing import Any

import pytest
from django.db import IntegrityError
from django.http import HttpResponse
from django.test import Client

from parentalcontrols import logs, profiles, request_ids
from parentalcontrols.models import Account
from parentalcontrols.tests.cast import Cast, Device, assert_problem


def ask(path: str = "/livez", sent: str | None = None, **options: Any) -> HttpResponse:
    headers = {} if sent is None else {"X-Request-ID": sent}
    return Client(raise_request_exception=False).get(path, headers=headers, **options)


@pytest.mark.parametrize("sent", ["a", "x" * 64, "0b77afa2-5851-4ff2-9cc2", "A.b_c-9", "-", "..."])
def test_a_good_id_is_taken_over(sent: str) -> None:
    assert ask(sent=sent).headers["X-Request-ID"] == sent


@pytest.mark.parametrize(
    "sent",
    ["", "x" * 65, "a b", "a\nb", "a\r\nSet-Cookie: x", "é", "\u0661", '"', "a,b", "a;b", "<>"],
)
def test_any_other_is_replaced_by_a_new_one(sent: str) -> None:
    answer = ask(sent=sent)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert answer.status_code == 200


def test_new_ids_are_never_the_same() -> None:
    assert len({ask().headers["X-Request-ID"] for _ in range(50)}) == 50


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/livez", "/api/docs/", "/admin/login/", "/nothing", "/api/v1/auth/me"]
)
def test_every_answer_tells_its_id(path: str) -> None:
    answer = ask(path, "mine")
    assert answer.headers["X-Request-ID"] == "mine"
    if answer.status_code >= 400:
        assert assert_problem(answer, answer.status_code)["request_id"] == "mine"


def test_a_fault_of_ours_tells_the_id_by_which_it_is_found(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_account: Any) -> None:
        logging.getLogger("parentalcontrols").warning("something")
        raise RuntimeError("oh")

    caplog.handler.addFilter(request_ids.RequestIdFilter())
    monkeypatch.setattr(profiles, "of_account", fail)
    answer = cast.phone.send("GET", "/auth/profiles", headers={"X-Request-ID": "mine"})
    assert assert_problem(answer, 500)["request_id"] == "mine"
    told = {r.name: r.request_id for r in caplog.records if hasattr(r, "request_id")}
    assert told == {"parentalcontrols": "mine", "django.request": "mine"}


def test_outside_of_requests_there_is_none() -> None:
    ask(sent="mine")
    assert request_ids.current() is None
    record = logging.makeLogRecord({})
    assert request_ids.RequestIdFilter().filter(record)
    assert not hasattr(record, "request_id")


# Log lines


def formatted(formatter: logging.Formatter, error: Exception) -> str:
    try:
        raise error
    except Exception as raised:
        info = (type(raised), raised, raised.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "it failed", (), info)
    record.request_id = "mine"
    return formatter.format(record)


def test_a_line_is_one_json_object_with_the_id() -> None:
    formatter = logs.JsonLines("%(levelname)s %(name)s %(message)s")
    line = formatted(formatter, ValueError("two\nlines"))
    assert "\n" not in line
    found = json.loads(line)
    assert (found["message"], found["request_id"]) == ("it failed", "mine")
    assert "two\nlines" in found["exc_info"]


@pytest.mark.django_db
@pytest.mark.parametrize("formatter", [logs.JsonLines(), logs.PlainLines()])
def test_the_rows_that_a_database_error_tells_are_not_logged(
    cast: Cast, formatter: logging.Formatter
) -> None:
    with pytest.raises(IntegrityError) as raised:
        Account.objects.bulk_create([Account(email=cast.parent.email)])
    assert "parent@example.com" in str(raised.value), "the driver tells it"
    text = formatted(formatter, raised.value)
    assert "uq_accounts_email" in text, "what went wrong is told"
    assert "DETAIL: (not logged)" in text
    assert "parent@example.com" not in text


def test_what_follows_a_detail_is_still_told() -> None:
    text = "Error: x\nDETAIL:  Key (email)=(a@b.c)\nmore of it\n\nThe above exception was"
    assert logs.without_values(text) == (
        "Error: x\nDETAIL: (not logged)\n\nThe above exception was"
    )


def test_a_client_of_another_origin_may_send_and_read_it(settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://player.example.com"]
    headers = {
        "Origin": "https://player.example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-request-id",
    }
    answer = Device().send("OPTIONS", "/auth/login", headers=headers)
    assert "x-request-id" in answer.headers["Access-Control-Allow-Headers"]
    answer = Device().send("GET", "/nothing", headers={"Origin": "https://player.example.com"})
    assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
