"""What `verify_indexes` says of sound databases, empty and full, and to whom."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, transaction

from adminmetrics import catalogue, index_audit, plans
from adminmetrics.catalogue import Found, Index, Key, Table
from adminmetrics.declarations import Declared, declared_by, declared_models
from adminmetrics.plans import AuditedQuery, Verdict
from adminmetrics.tests.catalogues import FILL, mend, rows, run, state, verified, verify
from parentalcontrols.tests.cast import Cast
from viewingtime.audited_queries import audited

pytestmark = pytest.mark.django_db

MEANT = {
    "heartbeat: look-up": {
        *("viewing_sessions_pkey", "profiles_pkey", "accounts_pkey"),
        "viewing_time_configs_pkey",
    },
    "heartbeat: steady beats": {"viewing_sessions_pkey", "uq_vtb_profile_reset_date"},
    "heartbeat, grant: lock and read": {
        *("profiles_pkey", "viewing_sessions_pkey", "uq_vs_open_kids", "ix_vs_open_adult"),
        *("uq_vtb_profile_reset_date", "viewing_time_configs_pkey", "titles_pkey"),
    },
    "heartbeat, grant: write back": {
        *("profiles_pkey", "viewing_sessions_pkey", "viewing_time_configs_pkey"),
        "uq_vtb_profile_reset_date",
    },
    "balance: latest day": {"uq_vtb_profile_reset_date"},
    "sweep: silent profiles": {"uq_vs_open_kids", "ix_vs_open_adult"},
    "history: a page": {"ix_vs_profile_started", "titles_pkey"},
    "weekly report": {"ix_vs_profile_started", "uq_vtb_profile_reset_date", "titles_pkey"},
}
RUN = {
    *("heartbeat: look-up", "balance: latest day", "sweep: silent profiles"),
    *("history: a page", "weekly report"),
}
OURS = [model._meta.db_table for model in declared_models()]


@pytest.fixture
def filled(transactional_db: None) -> Iterator[None]:
    # Truncated afterwards: what is rolled back leaves large tables and statistics behind.
    run(*FILL.split(";"))
    yield
    # What a test dropped is not brought back by emptying the tables.
    mend()


@pytest.fixture
def reading_role(cast: Cast) -> Iterator[Cast]:
    """What the role may do to our tables, until the test is rolled back: read."""
    run(
        "SET CONSTRAINTS ALL IMMEDIATE",  # They are checked by right of the role.
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {', '.join(OURS)} FROM CURRENT_USER",
    )
    yield cast
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        run("UPDATE titles SET genre = 'x'")


def test_an_empty_database_is_sound() -> None:
    code, printed = verify()
    assert code == 0, printed
    assert printed.rstrip().endswith("Sound.")
    assert "Queries are asked for profile" not in printed
    for name in MEANT:
        assert name in printed


def test_a_household_is_sound_and_every_query_has_a_plan(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    code, report = verified()
    assert (code, report["is_sound"], report["findings"]) == (0, True, [])
    assert {query["name"] for query in report["queries"]} == MEANT.keys()
    assert report["profile_id"] == str(cast.child.id)


def test_where_the_planner_reads_small_tables_whole_it_is_asked_again(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    run(f"ANALYZE {', '.join(OURS)}")
    code, report = verified()
    assert (code, report["findings"]) == (0, [])
    judged = {query["name"]: query for query in report["queries"]}
    look_up = judged["heartbeat: look-up"]
    assert look_up["without_sequential_scans"]
    assert all(access["index"] for access in look_up["accesses"])
    _, printed = verify()
    assert "heartbeat: look-up *" in printed
    assert "* judged with sequential scans off, because tables are small." in printed


def test_a_small_table_may_be_read_by_another_index_while_its_own_stands(cast: Cast) -> None:
    run("CREATE INDEX ix_other ON titles (id, genre)", "ANALYZE titles")
    query = AuditedQuery(
        "by another",
        "SELECT genre, id FROM titles WHERE id = %s",
        [cast.cartoon.id],
        {"titles": ["ix_meant"]},
    )
    tables = catalogue.tables_of(OURS)
    served = plans.judge(query, tables, {"ix_meant"})
    assert (served.verdict, served.reason) == (
        Verdict.SERVED,
        "too small to need the indexes, which stand: titles",
    )
    lost = plans.judge(query, tables, set())
    assert lost.verdict is Verdict.NOT_SERVED
    assert "instead of ix_meant" in lost.reason


def test_a_small_table_that_no_index_helps_to_search_is_a_finding(cast: Cast) -> None:
    query = AuditedQuery(
        "by none", "SELECT id FROM titles WHERE synopsis = %s", [""], {"titles": ["titles_pkey"]}
    )
    judged = plans.judge(query, catalogue.tables_of(OURS), {"titles_pkey"})
    assert (judged.verdict, judged.without_sequential_scans) == (Verdict.NOT_SERVED, True)
    assert judged.reason == "reads all of titles instead of titles_pkey"


def test_in_a_full_database_the_planner_takes_the_indexes_by_itself(filled: None) -> None:
    code, report = verified()
    assert (code, report["findings"]) == (0, [])
    assert not any(query["without_sequential_scans"] for query in report["queries"])
    assert {
        query["name"]: {access["index"] for access in query["accesses"]}
        for query in report["queries"]
    } == MEANT


def test_the_sweep_reads_open_sessions_alone_and_no_more_than_a_batch(filled: None) -> None:
    (sweep,) = [query for query in audited() if query.name == "sweep: silent profiles"]
    tables = catalogue.tables_of(OURS)
    judged = plans.judge(sweep, tables, MEANT[sweep.name])
    assert judged.rows == 150 + 50
    assert judged.pages < tables["viewing_sessions"].pages / 10
    whole = plans.judge(
        AuditedQuery(
            name="one arm for both",
            statement="SELECT DISTINCT profile_id FROM viewing_sessions WHERE ended_at IS NULL",
            parameters=[],
            served_by=sweep.served_by,
        ),
        tables,
        MEANT[sweep.name],
    )
    assert (whole.verdict, whole.pages) == (
        Verdict.NOT_SERVED,
        tables["viewing_sessions"].pages,
    )


def test_tables_that_were_emptied_and_kept_their_size_are_small(filled: None) -> None:
    tables = ("sessions", "time_balances", "time_configs")
    run(*[f"DELETE FROM viewing_{table}" for table in tables])
    run("DELETE FROM profiles", "DELETE FROM titles", "ANALYZE viewing_sessions, titles, profiles")
    code, report = verified()
    assert (code, report["findings"]) == (0, [])


def test_a_plan_that_lost_its_index_is_a_finding(filled: None) -> None:
    run("DROP INDEX uq_vs_open_kids")
    code, report = verified()
    assert code == 1
    lost = {found["name"]: found["detail"] for found in report["findings"]}
    assert "The unique index is missing" in lost["uq_vs_open_kids"]
    assert "instead of uq_vs_open_kids or ix_vs_open_adult" in lost["sweep: silent profiles"]
    assert "heartbeat, grant: lock and read" in lost
    judged = {query["name"]: query for query in report["queries"]}
    assert judged["sweep: silent profiles"]["verdict"] == "not_served"
    assert judged["heartbeat: look-up"]["verdict"] == "served"


def test_without_the_index_of_its_upsert_a_query_cannot_be_planned_which_is_a_finding() -> None:
    run("ALTER TABLE viewing_time_balances DROP CONSTRAINT uq_vtb_profile_reset_date")
    _, report = verified()
    details = {found["name"]: found["detail"] for found in report["findings"]}
    assert "cannot be planned: there is no unique" in details["heartbeat: steady beats"]
    assert "cannot be planned: there is no unique" in details["heartbeat, grant: write back"]


def test_a_database_of_another_version_is_told_not_broken_by(cast: Cast) -> None:
    run("ALTER TABLE viewing_sessions DROP COLUMN ended_at CASCADE")
    code, report = verified()
    assert code == 1
    details = {found["name"]: found["detail"] for found in report["findings"]}
    assert details.keys() >= {"uq_vs_open_kids", "ix_vs_open_adult", "ck_vs_end"}
    assert "column viewing_sessions.ended_at does not exist" in details["all queries"]


def test_the_report_for_machines_is_complete(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    _, report = verified()
    assert report.keys() == {
        *("is_sound", "server_version", "tables", "indexes", "constraints", "profile_id"),
        *("findings", "queries", "notes"),
    }
    assert report["tables"] == len(OURS)
    assert report["indexes"] == sum(
        isinstance(one.what, Index) for model in declared_models() for one in declared_by(model)
    )
    for query in report["queries"]:
        assert query.keys() == {
            *("name", "verdict", "reason", "accesses", "without_sequential_scans"),
            *("rows", "pages", "milliseconds", "plan"),
        }
        assert query["plan"]["Plan"]["Node Type"]
        ran = query["name"] in RUN
        assert all((query[figure] is not None) == ran for figure in ("rows", "pages"))
        assert ("Execution Time" in query["plan"]) == ran
    run("DROP INDEX ix_vs_profile_started")
    _, report = verified()
    # The index itself, and the two queries that nothing serves without it.
    assert [finding["kind"] for finding in report["findings"]] == ["missing", "plan", "plan"]
    for finding in report["findings"]:
        assert finding.keys() == {"kind", "table", "name", "aspects", "detail", "fix"}


def test_a_role_that_may_only_read_is_told_what_it_cannot_be_told(reading_role: Cast) -> None:
    code, report = verified()
    assert (code, report["findings"], report["notes"]) == (0, [], [])
    judged = {query["name"]: (query["verdict"], query["reason"]) for query in report["queries"]}
    refused = ("not_judged", "not judged: this role may not write")
    assert judged["heartbeat: steady beats"] == refused
    assert judged["heartbeat, grant: write back"] == refused
    verdict, reason = judged["heartbeat, grant: lock and read"]
    assert verdict == "served"
    assert reason.startswith("planned without its locks: this role may not write")
    assert judged["heartbeat: look-up"][0] == "served"
    _, printed = verify()
    assert "heartbeat: steady beats: not judged: this role may not write." in printed


def test_a_role_that_may_only_read_finds_what_is_wrong(reading_role: Cast) -> None:
    run(
        "DROP INDEX ix_vs_open_adult",
        "CREATE INDEX ix_vs_open_adult ON viewing_sessions (profile_id) WHERE is_kids",
    )
    code, report = verified()
    assert code == 1
    assert [found["aspects"] for found in report["findings"]] == [["predicate"]]


def test_a_role_that_may_not_read_a_table_compares_all_but_its_expressions() -> None:
    run(
        "DROP INDEX ix_vs_open_adult",
        "CREATE INDEX ix_vs_open_adult ON viewing_sessions (title_id) WHERE is_kids",
        "REVOKE SELECT ON viewing_sessions FROM CURRENT_USER",
    )
    code, report = verified()
    assert code == 1
    assert [found["aspects"] for found in report["findings"]] == [["columns"]]
    assert report["notes"] == [
        "This role may not read viewing_sessions: its expressions were not compared.",
        "Queries were not planned: permission denied for table viewing_sessions.",
    ]


def test_a_role_that_may_not_read_a_table_takes_no_index_for_a_duplicate() -> None:
    run("REVOKE SELECT ON viewing_sessions FROM CURRENT_USER")
    code, report = verified()
    assert (code, report["findings"]) == (0, [])
    assert len(report["notes"]) == 2


def test_nothing_is_changed(cast: Cast) -> None:
    cast.phone.beat(cast.child, cast.cartoon)
    before = state()
    for arguments in ((), ("--json",), ("--fix-sql",)):
        assert verify(*arguments)[0] == 0
    assert state() == before


def test_a_query_that_says_it_only_reads_cannot_write(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "AUDITED_QUERIES", "adminmetrics.tests.test_verify_indexes.lying")
    with pytest.raises(CommandError, match="read-only transaction") as refused:
        call_command("verify_indexes")
    assert refused.value.returncode == 2
    assert rows("SELECT DISTINCT genre FROM titles") == [("",)]


def lying(profile_id: UUID | None) -> list[AuditedQuery]:
    return [AuditedQuery("lie", "UPDATE titles SET genre = 'x'", [], {"titles": ["titles_pkey"]})]


def test_a_query_that_takes_too_long_is_told_by_its_plan_alone(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "RUN_SECONDS", 0.001)
    slow = AuditedQuery(
        "slow",
        "SELECT pg_sleep(60), id FROM titles WHERE id = %s",
        [cast.cartoon.id],
        {"titles": ["titles_pkey"]},
    )
    judged = plans.judge(slow, catalogue.tables_of(OURS), {"titles_pkey"})
    assert (judged.verdict, judged.rows, judged.milliseconds) == (Verdict.SERVED, None, None)
    assert judged.reason == "stopped after 0.001 s"
    assert judged.plan is not None


def test_the_queries_are_asked_for_the_profile_that_is_named(cast: Cast) -> None:
    code, printed = verify("--profile", str(cast.sibling.id))
    assert code == 0
    assert f"Queries are asked for profile {cast.sibling.id}." in printed


def test_without_a_name_it_is_one_with_many_sessions(filled: None) -> None:
    run(
        "UPDATE viewing_sessions SET profile_id = md5('p7')::uuid "
        "WHERE ended_at IS NOT NULL AND random() < 0.2",
        "ANALYZE viewing_sessions",
    )
    (busiest,) = rows("SELECT md5('p7')::uuid")[0]
    assert {query.profile_id for query in audited()} == {busiest, None}


def test_an_unknown_profile_is_no_finding_but_no_answer_either(cast: Cast) -> None:
    assert verify("--profile", str(uuid4()))[0] == 2


def test_a_database_that_does_not_answer_is_told_in_a_sentence_with_exit_code_2() -> None:
    environment = os.environ | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    done = subprocess.run(
        [sys.executable, "manage.py", "verify_indexes"],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("CommandError: The database does not answer: ")
    assert "Traceback" not in done.stderr


def test_the_sql_for_a_sound_database_is_a_comment() -> None:
    code, printed = verify("--fix-sql")
    assert code == 0
    assert all(line.startswith("--") for line in printed.splitlines() if line)


def test_every_declared_expression_is_what_the_database_has() -> None:
    # The comparison is PostgreSQL's own; that it is not blind is shown by test_sabotage.
    same = catalogue.means_the_same
    assert same("viewing_sessions", '"ended_at" IS NULL AND "is_kids"', "is_kids") is False
    assert same("titles", "genre IN ('a', 'b')", "(genre)::text = ANY (ARRAY['a', 'b'])")
    assert (
        same(
            "titles",
            "(id IS NULL OR title = '') AND genre = ''",
            "id IS NULL OR (title = '' AND genre = '')",
        )
        is False
    )
    assert same("titles", "title = ''", "no_such_column = ''") is False


def test_a_superfluous_index_that_is_declared_is_a_finding_that_no_sql_mends() -> None:
    short = Index("short", "some", (Key(column="a", is_usual_operator_class=True),))
    long = Index("long", "some", (*short.keys, Key(column="b", is_usual_operator_class=True)))
    unique = replace(long, name="unique", is_unique=True)

    def findings(*indexes: Index) -> list[tuple[str, str, str, tuple[str, ...]]]:
        declared = [Declared(index, is_named=True) for index in indexes]
        found = [Found(index, is_valid=True, scans=7) for index in indexes]
        return [
            (one.kind, one.name, one.detail, one.fix)
            for one in index_audit._of_table(declared, found)
        ]

    (finding,) = findings(short, long)
    assert finding[:2] == ("duplicate", "short")
    assert finding[2].startswith("The models declare it, although long serves whatever it serves")
    assert finding[3] == ()
    # Django makes such pairs for the table between two others.
    assert findings(short, unique) == []
    assert [finding[1] for finding in findings(long, unique)] == ["long"]


def test_indexes_that_were_never_scanned_are_a_note_where_the_table_is_large() -> None:
    def found(table: str, name: str, *, scans: int = 0, is_unique: bool = False) -> Found:
        index = Index(name, table, (Key(column="id"),), is_unique=is_unique)
        return Found(index, is_valid=True, scans=scans)

    tables = {"large": Table("large", 5000, 90000, True), "small": Table("small", 5, 90, True)}
    notes = index_audit._never_scanned(
        [
            found("large", "idle"),
            found("large", "busy", scans=3),
            found("large", "unique", is_unique=True),
            found("small", "idle_in_a_small_table"),
        ],
        tables,
    )
    assert list(notes) == ["Never scanned since the statistics began: idle."]
