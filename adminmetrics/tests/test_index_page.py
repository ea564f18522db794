"""The admin's page of index health: what the audit tells, to whom, and that it changes nothing."""

from html import unescape
from time import monotonic

import pytest
from django.db import connection
from django.test import Client

from adminmetrics import catalogue, index_audit, index_health, plans
from adminmetrics.declarations import declared_models
from adminmetrics.plans import AuditedQuery, Verdict
from adminmetrics.tests.catalogues import rows, run, state, verified, verify
from adminmetrics.tests.test_groups import signed_in
from parentalcontrols.tests.cast import Cast

pytestmark = pytest.mark.django_db

PAGE = "/admin/adminmetrics/metricrollup/indexes/"
STARTED = "ix_vs_profile_started"
OURS = [model._meta.db_table for model in declared_models()]


def told(client: Client, status: int = 200) -> str:
    answer = client.get(PAGE)
    assert answer.status_code == status
    assert "no-store" in answer.headers["Cache-Control"]
    page = answer.content.decode()
    assert " style=" not in page
    return unescape(page)


@pytest.mark.parametrize("group", ["support", "operator"])
def test_of_a_sound_database_it_says_so_and_shows_every_plan(cast: Cast, group: str) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    page = told(signed_in(group))
    assert "Sound: indexes and constraints are as declared" in page
    assert "health-wrong" not in page
    assert f"Queries are asked for profile {cast.child.pk}." in page
    _, report = verified()
    assert len(report["queries"]) > 5
    for query in report["queries"]:
        assert f"<summary>Plan of {query['name']}</summary>" in page
        for access in query["accesses"]:
            # Where a table is small an index may be read whole, which is said before its name.
            assert f"{access['index']}</code>" in page
    assert page.count('"Node Type"') >= len(report["queries"])


def test_a_lost_index_is_told_in_the_words_and_with_the_sql_of_the_command(cast: Cast) -> None:
    client = signed_in("support")
    run(f"DROP INDEX {STARTED}")
    page = told(client)
    _, report = verified()
    assert f"Not sound: {len(report['findings'])} findings." in page
    assert 'class="health-verdict health-wrong"' in page
    for finding in report["findings"]:
        assert finding["detail"] in page
    _, printed = verify("--fix-sql")
    (statement,) = [line for line in printed.splitlines() if not line.startswith("--")]
    assert f'CREATE INDEX CONCURRENTLY "{STARTED}"' in statement
    assert f">{statement}</pre>" in page
    assert page.count("not served") == 2
    assert f"It reads all of viewing_sessions instead of {STARTED}" in page


def test_names_that_somebody_gave_are_shown_as_text(cast: Cast) -> None:
    client = signed_in("support")
    run('CREATE INDEX "<script>alert(1)</script>" ON titles (genre)')
    assert b"<script>alert" not in client.get(PAGE).content
    assert 'DROP INDEX CONCURRENTLY "<script>alert(1)</script>";' in told(client)


def test_what_a_role_may_not_plan_is_not_called_sound(cast: Cast) -> None:
    client = signed_in("support")
    run(
        "SET CONSTRAINTS ALL IMMEDIATE",  # They are checked by right of the role.
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {', '.join(OURS)} FROM CURRENT_USER",
    )
    page = told(client)
    assert "Nothing wrong was found, but 2 of 8 queries could not be judged." in page
    assert "Sound:" not in page
    assert "It not judged" not in page
    assert page.count(">not judged</span>") == 2
    assert "heartbeat: steady beats: not judged: this role may not write." in page


def test_where_no_query_may_be_planned_it_says_so(cast: Cast) -> None:
    client = signed_in("support")
    run("REVOKE SELECT ON viewing_sessions FROM CURRENT_USER")
    page = told(client)
    assert "Nothing wrong was found, but no query was judged." in page
    assert "Queries were not planned: permission denied for table viewing_sessions." in page


@pytest.mark.django_db(transaction=True)
def test_while_somebody_holds_a_table_it_says_that_it_cannot_tell(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = signed_in("support")
    monkeypatch.setattr(index_health, "PAGE_SECONDS", 0.5)
    somebody = connection.copy()
    try:
        with somebody.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("LOCK TABLE viewing_sessions IN ACCESS EXCLUSIVE MODE")
        page = told(client, status=503)
    finally:
        somebody.close()
    assert "It cannot be told now: the database did not answer (QueryCanceled)." in page
    assert "Check again" in page
    assert "Sound" not in page
    monkeypatch.undo()
    assert "Sound: " in told(client)


def test_when_time_is_up_queries_are_planned_and_not_run(cast: Cast) -> None:
    query = AuditedQuery(
        "slow",
        "SELECT pg_sleep(60), id FROM titles WHERE id = %s",
        [cast.cartoon.pk],
        {"titles": ["titles_pkey"]},
    )
    tables = catalogue.tables_of(OURS)
    judged = plans.judge(query, tables, {"titles_pkey"}, until=monotonic())
    assert (judged.verdict, judged.rows) == (Verdict.SERVED, None)
    assert judged.reason == "stopped: the time was up"
    assert index_health.figures(judged).rows == "~1"


def test_an_audit_with_a_limit_leaves_none_behind(cast: Cast) -> None:
    before = rows("SHOW statement_timeout")
    report = index_audit.audit(seconds=60)
    assert report.is_sound
    assert rows("SHOW statement_timeout") == before


def test_nothing_is_changed(cast: Cast) -> None:
    client = signed_in("support")
    cast.phone.beat(cast.child, cast.cartoon)
    run(f"DROP INDEX {STARTED}")
    before = state()
    assert "Not sound" in told(client)
    assert client.post(PAGE, {"sql": "DROP TABLE titles"}).status_code == 405
    assert state() == before


def test_staff_without_the_right_sees_nothing_of_it(cast: Cast) -> None:
    client = signed_in(None)
    assert client.get(PAGE).status_code == 403
    assert PAGE.encode() not in client.get("/admin/").content


def test_the_other_pages_of_metrics_lead_to_it(cast: Cast) -> None:
    client = signed_in("support")
    link = f'<a href="{PAGE}"'.encode()
    assert link in client.get("/admin/").content
    assert link in client.get("/admin/adminmetrics/metricrollup/").content
    assert f'{link.decode()} aria-current="page">' in told(client)


def test_who_is_not_signed_in_is_sent_to_the_log_in() -> None:
    answer = Client().get(PAGE)
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/admin/login/")
