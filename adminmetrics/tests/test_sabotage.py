"""Whatever is done to an index or a constraint is found, told in words, and mended by its SQL."""

from collections.abc import Iterator
from typing import Any

import pytest

from adminmetrics.tests.catalogues import interrupted, mend, run, verified, verify

pytestmark = pytest.mark.django_db(transaction=True)

STARTED = "ix_vs_profile_started"
TO_ACCOUNT = "time_grants_account_id_550da6b4_fk_accounts_id"

# What is done, and what has to be found: kind, table, name, aspects, words.
SABOTAGE: dict[str, tuple[tuple[str, ...], str, str, str, list[str], str]] = {
    "an index dropped": (
        (f"DROP INDEX {STARTED}",),
        *("missing", "viewing_sessions", STARTED, []),
        "The index is missing: btree (profile_id uuid_ops, started_at timestamptz_ops DESC).",
    ),
    "an index ascending": (
        (
            f"DROP INDEX {STARTED}",
            f"CREATE INDEX {STARTED} ON viewing_sessions (profile_id, started_at)",
        ),
        *("different", "viewing_sessions", STARTED, ["order"]),
        "has started_at ascending, declared descending",
    ),
    "nulls on the other side": (
        (
            f"DROP INDEX {STARTED}",
            f"CREATE INDEX {STARTED} ON viewing_sessions (profile_id, started_at DESC NULLS LAST)",
        ),
        *("different", "viewing_sessions", STARTED, ["order"]),
        "has started_at descending with nulls last, declared descending",
    ),
    "another predicate": (
        (
            "DROP INDEX ix_vs_open_adult",
            "CREATE INDEX ix_vs_open_adult ON viewing_sessions (profile_id) "
            "WHERE ended_at IS NULL AND is_kids",
        ),
        *("different", "viewing_sessions", "ix_vs_open_adult", ["predicate"]),
        "holds the rows where ((ended_at IS NULL) AND is_kids), declared the rows where "
        '("ended_at" IS NULL AND NOT "is_kids")',
    ),
    "no predicate": (
        (
            "DROP INDEX uq_vs_open_kids",
            "CREATE UNIQUE INDEX uq_vs_open_kids ON viewing_sessions (profile_id)",
        ),
        *("different", "viewing_sessions", "uq_vs_open_kids", ["predicate"]),
        "holds all rows, declared the rows where",
    ),
    "columns in another order": (
        (
            "DROP INDEX ix_profiles_account",
            "CREATE INDEX ix_profiles_account ON profiles (created_at, account_id, id)",
        ),
        *("different", "profiles", "ix_profiles_account", ["columns"]),
        "is on (created_at, account_id, id), declared on (account_id, created_at, id)",
    ),
    "a column less": (
        (
            "DROP INDEX ix_profiles_account",
            "CREATE INDEX ix_profiles_account ON profiles (account_id, created_at)",
        ),
        *("different", "profiles", "ix_profiles_account", ["columns"]),
        "is on (account_id, created_at), declared on (account_id, created_at, id)",
    ),
    "an included column": (
        (
            "DROP INDEX ix_audit_account",
            "CREATE INDEX ix_audit_account ON audit_entries (account_id, id DESC) INCLUDE (at)",
        ),
        *("different", "audit_entries", "ix_audit_account", ["included columns"]),
        "includes at, declared without",
    ),
    "another expression": (
        (
            "DROP INDEX ix_titles_title_year",
            "CREATE INDEX ix_titles_title_year ON titles (upper(title), release_year)",
        ),
        *("different", "titles", "ix_titles_title_year", ["columns"]),
        "is on ((upper((title)::text)), release_year), "
        'declared on ((LOWER("title")), release_year)',
    ),
    "another operator class": (
        (
            "DROP INDEX ix_titles_title",
            "CREATE INDEX ix_titles_title ON titles (title text_pattern_ops, id)",
        ),
        *("different", "titles", "ix_titles_title", ["operator class"]),
        "has title by text_pattern_ops, declared as its type has it",
    ),
    "another collation": (
        (
            "DROP INDEX ix_titles_title",
            'CREATE INDEX ix_titles_title ON titles (title COLLATE "C", id)',
        ),
        *("different", "titles", "ix_titles_title", ["collation"]),
        "has title collated by C, declared collated as the column",
    ),
    "another access method": (
        (
            "DROP INDEX ix_rate_limit_ends",
            "CREATE INDEX ix_rate_limit_ends ON rate_limit_windows USING brin (ends_at)",
        ),
        *("different", "rate_limit_windows", "ix_rate_limit_ends", ["access method"]),
        "is brin, declared btree",
    ),
    "not unique any more": (
        (
            "DROP INDEX uq_vs_open_kids",
            "CREATE INDEX uq_vs_open_kids ON viewing_sessions (profile_id) "
            "WHERE ended_at IS NULL AND is_kids",
        ),
        *("different", "viewing_sessions", "uq_vs_open_kids", ["uniqueness"]),
        "is not unique, declared unique",
    ),
    "unique, though nobody said so": (
        (
            "DROP INDEX ix_pins_locked",
            "CREATE UNIQUE INDEX ix_pins_locked ON pins (locked_until) "
            "WHERE locked_until IS NOT NULL",
        ),
        *("different", "pins", "ix_pins_locked", ["uniqueness"]),
        "is unique, declared not to be",
    ),
    "a unique constraint is an index alone": (
        (
            "ALTER TABLE viewing_time_balances DROP CONSTRAINT uq_vtb_profile_reset_date",
            "CREATE UNIQUE INDEX uq_vtb_profile_reset_date "
            "ON viewing_time_balances (profile_id, reset_date)",
        ),
        *("different", "viewing_time_balances", "uq_vtb_profile_reset_date", ["kind"]),
        "is an index alone, declared a unique constraint",
    ),
    "a unique constraint that is deferred": (
        (
            "ALTER TABLE accounts DROP CONSTRAINT uq_accounts_email",
            "ALTER TABLE accounts ADD CONSTRAINT uq_accounts_email UNIQUE (email) "
            "DEFERRABLE INITIALLY DEFERRED",
        ),
        *("different", "accounts", "uq_accounts_email", ["deferral"]),
        "is not deferred as declared",
    ),
    "nulls that are equal": (
        (
            "ALTER TABLE titles DROP CONSTRAINT uq_titles_external_id",
            "ALTER TABLE titles ADD CONSTRAINT uq_titles_external_id "
            "UNIQUE NULLS NOT DISTINCT (external_id)",
        ),
        *("different", "titles", "uq_titles_external_id", ["uniqueness"]),
        "treats nulls as equal, not declared so",
    ),
    "a primary key dropped": (
        ("ALTER TABLE used_pin_tokens DROP CONSTRAINT used_pin_tokens_pkey",),
        *("missing", "used_pin_tokens", "used_pin_tokens_pkey", []),
        "The primary key is missing: unique, btree (token_id).",
    ),
    "the unique columns of a table between two others": (
        (
            "ALTER TABLE accounts_groups "
            "DROP CONSTRAINT accounts_groups_account_id_group_id_f16ff131_uniq",
        ),
        *("missing", "accounts_groups", "accounts_groups_account_id_group_id_f16ff131_uniq", []),
        "The unique constraint is missing: unique, btree (account_id, group_id).",
    ),
    "the index of a foreign key dropped": (
        ("DROP INDEX time_grants_account_id_550da6b4",),
        *("missing", "time_grants", "time_grants_account_id_550da6b4", []),
        "The index is missing: btree (account_id).",
    ),
    "an index that nobody declared": (
        ("CREATE INDEX ix_ad_hoc ON viewing_sessions (title_id)",),
        *("undeclared", "viewing_sessions", "ix_ad_hoc", []),
        "No model declares this index: btree (title_id); scanned 0 times.",
    ),
    "a duplicate": (
        ("CREATE INDEX ix_a_copy ON viewing_sessions (profile_id, started_at DESC)",),
        *("duplicate", "viewing_sessions", "ix_a_copy", []),
        "ix_vs_profile_started serves whatever it serves; scanned 0 times.",
    ),
    "a duplicate of a unique index": (
        ("CREATE INDEX ix_a_copy ON viewing_time_balances (profile_id, reset_date)",),
        *("duplicate", "viewing_time_balances", "ix_a_copy", []),
        "uq_vtb_profile_reset_date serves whatever it serves",
    ),
    "a copy of the index of a foreign key": (
        ("CREATE INDEX a_copy ON time_grants (account_id)",),
        *("duplicate", "time_grants", "a_copy", []),
        "time_grants_account_id_550da6b4 serves whatever it serves",
    ),
    "the beginning of another index": (
        ("CREATE INDEX ix_beginning ON viewing_sessions (profile_id)",),
        *("duplicate", "viewing_sessions", "ix_beginning", []),
        "ix_vs_profile_started serves whatever it serves",
    ),
    "a unique constraint that nobody declared": (
        ("ALTER TABLE pins ADD CONSTRAINT uq_ad_hoc UNIQUE (version)",),
        *("undeclared", "pins", "uq_ad_hoc", []),
        "No model declares this unique constraint: unique, btree (version)",
    ),
    "a check dropped": (
        ("ALTER TABLE viewing_sessions DROP CONSTRAINT ck_vs_seconds",),
        *("missing", "viewing_sessions", "ck_vs_seconds", []),
        "The CHECK constraint is missing: CHECK",
    ),
    "a check that is looser": (
        (
            "ALTER TABLE time_grants DROP CONSTRAINT ck_grants_minutes",
            "ALTER TABLE time_grants ADD CONSTRAINT ck_grants_minutes "
            "CHECK (minutes IS NULL OR minutes IN (15, 30, 60, 90))",
        ),
        *("different", "time_grants", "ck_grants_minutes", ["condition"]),
        "checks (((minutes IS NULL) OR (minutes = ANY (ARRAY[15, 30, 60, 90])))), declared",
    ),
    "a check with its parentheses elsewhere": (
        (
            "ALTER TABLE viewing_time_configs DROP CONSTRAINT ck_vtc_weekday_limit",
            "ALTER TABLE viewing_time_configs ADD CONSTRAINT ck_vtc_weekday_limit CHECK ("
            "(weekday_limit_minutes IS NULL OR weekday_limit_minutes >= 15) "
            "AND weekday_limit_minutes <= 480 AND mod(weekday_limit_minutes, 15) = 0)",
        ),
        *("different", "viewing_time_configs", "ck_vtc_weekday_limit", ["condition"]),
        "checks (",
    ),
    "a check that was not validated": (
        (
            "ALTER TABLE viewing_sessions DROP CONSTRAINT ck_vs_device_type",
            "ALTER TABLE viewing_sessions ADD CONSTRAINT ck_vs_device_type "
            "CHECK (device_type IN ('tv', 'mobile', 'tablet', 'web')) NOT VALID",
        ),
        *("invalid", "viewing_sessions", "ck_vs_device_type", []),
        "The CHECK constraint is not validated: rows from before it may break it.",
    ),
    "the check of a positive number dropped": (
        (
            "ALTER TABLE viewing_time_balances "
            "DROP CONSTRAINT viewing_time_balances_limit_seconds_check",
        ),
        *("missing", "viewing_time_balances", "viewing_time_balances_limit_seconds_check", []),
        'CHECK ("limit_seconds" >= 0)',
    ),
    "a check that nobody declared": (
        ("ALTER TABLE titles ADD CONSTRAINT ck_ad_hoc CHECK (runtime_minutes < 600)",),
        *("undeclared", "titles", "ck_ad_hoc", []),
        "No model declares this CHECK constraint: CHECK ((runtime_minutes < 600)).",
    ),
    "a foreign key dropped": (
        (
            "ALTER TABLE viewing_sessions "
            "DROP CONSTRAINT viewing_sessions_title_id_c296aee6_fk_titles_id",
        ),
        *("missing", "viewing_sessions", "viewing_sessions_title_id_c296aee6_fk_titles_id", []),
        "The foreign key is missing: (title_id) to titles (id).",
    ),
    "a foreign key that deletes": (
        (
            f"ALTER TABLE time_grants DROP CONSTRAINT {TO_ACCOUNT}",
            "ALTER TABLE time_grants "
            f"ADD CONSTRAINT {TO_ACCOUNT} "
            "FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE "
            "DEFERRABLE INITIALLY DEFERRED",
        ),
        *("different", "time_grants", TO_ACCOUNT, ["actions"]),
        "acts on DELETE or UPDATE in a way that is not declared",
    ),
}


@pytest.fixture(autouse=True)
def sound() -> Iterator[None]:
    """The next test finds the database as declared, whatever this one left."""
    yield
    mend()
    assert verify()[0] == 0


def findings() -> list[dict[str, Any]]:
    code, report = verified()
    assert (code == 0) == (not report["findings"]) == report["is_sound"]
    return report["findings"]


@pytest.mark.parametrize("what", SABOTAGE)
def test_it_is_found_told_and_mended(what: str) -> None:
    statements, kind, table, name, aspects, words = SABOTAGE[what]
    run(*statements)
    code, printed = verify()
    assert code == 1
    assert f"{kind}  {table}: {name}\n" in printed
    assert words in printed
    (found,) = [finding for finding in findings() if finding["kind"] != "plan"]
    assert (found["kind"], found["table"], found["name"]) == (kind, table, name)
    assert found["aspects"] == aspects
    assert mend() == found["fix"] != []
    assert verify()[0] == 0
    assert findings() == []


def test_an_invalid_index_that_an_interrupted_build_left_is_found_and_mended() -> None:
    run(f"DROP INDEX {STARTED}")
    interrupted(
        f"CREATE INDEX CONCURRENTLY {STARTED} ON viewing_sessions (profile_id, started_at DESC)",
        table="viewing_sessions",
    )
    found, *plans = findings()
    assert (found["kind"], found["name"]) == ("invalid", STARTED)
    assert "its build was interrupted" in found["detail"]
    assert {plan["name"] for plan in plans} == {"history: a page", "weekly report"}
    assert mend()[0] == f'DROP INDEX CONCURRENTLY "{STARTED}";'
    assert findings() == []


def test_a_key_that_others_point_to_is_mended_before_them() -> None:
    run("ALTER TABLE titles DROP CONSTRAINT titles_pkey CASCADE")
    missing = [found["name"] for found in findings() if found["kind"] == "missing"]
    assert missing == ["titles_pkey", "viewing_sessions_title_id_c296aee6_fk_titles_id"]
    mend()
    assert findings() == []


def test_several_at_once_are_all_told_and_mended() -> None:
    run(
        f"DROP INDEX {STARTED}",
        "ALTER TABLE viewing_sessions DROP CONSTRAINT ck_vs_end",
        'CREATE INDEX "an ""odd"" name" ON titles (genre)',
        "ALTER TABLE viewing_time_balances DROP CONSTRAINT uq_vtb_profile_reset_date",
    )
    names = {found["name"] for found in findings() if found["kind"] != "plan"}
    assert names == {STARTED, "ck_vs_end", 'an "odd" name', "uq_vtb_profile_reset_date"}
    mend()
    assert findings() == []


def test_a_name_cannot_break_out_of_the_comments_of_the_sql() -> None:
    run('CREATE INDEX "x\nDROP TABLE titles; --" ON titles (genre)')
    _, printed = verify("--fix-sql")
    assert not any(line.startswith("DROP TABLE") for line in printed.splitlines()[:2])
    assert "-- titles: x DROP TABLE titles; --: No model declares" in printed
    run('DROP INDEX "x\nDROP TABLE titles; --"')


def test_tables_of_others_are_none_of_its_business() -> None:
    run(
        "CREATE TABLE of_another (id integer, account_id uuid REFERENCES accounts (id))",
        "CREATE INDEX a ON of_another (id)",
        "CREATE INDEX b ON of_another (id)",
        "CREATE INDEX c ON django_session (session_data)",
    )
    try:
        assert verify()[0] == 0
    finally:
        run("DROP TABLE of_another", "DROP INDEX c")


def test_a_missing_table_is_told_and_nothing_is_planned() -> None:
    run("ALTER TABLE used_pin_tokens RENAME TO elsewhere")
    try:
        code, report = verified()
        assert code == 1
        (found,) = report["findings"]
        assert (found["kind"], found["table"], found["fix"]) == (
            "table_missing",
            "used_pin_tokens",
            [],
        )
        assert report["queries"] == []
        assert "Queries were not planned: tables are missing." in report["notes"]
    finally:
        run("ALTER TABLE elsewhere RENAME TO used_pin_tokens")
