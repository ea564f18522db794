"""The index of history and report: as declared, and replaced where it is not."""

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection
from django.db.migrations.executor import MigrationExecutor

pytestmark = pytest.mark.django_db(transaction=True)

BEFORE = [("viewingtime", "0001_initial")]
NAME = "ix_vs_profile_started"
DECLARED = (
    "CREATE INDEX ix_vs_profile_started ON public.viewing_sessions "
    "USING btree (profile_id, started_at DESC)"
)


def definition() -> str | None:
    """How the index stands in the catalogue; None where there is none or it is not valid."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index "
            "WHERE indexrelid = to_regclass(%s) AND indisvalid",
            [NAME],
        )
        row = cursor.fetchone()
    return None if row is None else row[0]


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def without_the_index():
    MigrationExecutor(connection).migrate(BEFORE)
    assert definition() is None
    yield
    call_command("migrate", verbosity=0)
    assert definition() == DECLARED


def migrate() -> None:
    call_command("migrate", "viewingtime", verbosity=0)


def test_the_index_stands_as_the_model_declares_it() -> None:
    assert definition() == DECLARED
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


@pytest.mark.usefixtures("without_the_index")
def test_the_migration_can_be_taken_back_and_run_again() -> None:
    migrate()
    assert definition() == DECLARED


@pytest.mark.usefixtures("without_the_index")
def test_an_index_that_stands_already_is_left_alone() -> None:
    run(f"CREATE INDEX {NAME} ON viewing_sessions (profile_id, started_at DESC)")
    number = "SELECT to_regclass(%s)::oid::bigint"
    with connection.cursor() as cursor:
        cursor.execute(number, [NAME])
        before = cursor.fetchone()
        migrate()
        cursor.execute(number, [NAME])
        assert cursor.fetchone() == before


@pytest.mark.usefixtures("without_the_index")
def test_an_index_that_ends_elsewhere_is_replaced() -> None:
    run(f"CREATE INDEX {NAME} ON viewing_sessions (profile_id, started_at DESC) WHERE is_kids")
    migrate()
    assert definition() == DECLARED


@pytest.mark.usefixtures("without_the_index")
def test_an_ascending_index_of_an_older_installation_is_replaced() -> None:
    run(f"CREATE INDEX {NAME} ON viewing_sessions (profile_id, started_at)")
    migrate()
    assert definition() == DECLARED


@pytest.mark.usefixtures("without_the_index")
def test_an_invalid_index_that_an_interrupted_build_left_is_replaced() -> None:
    # A unique index cannot be built over duplicates, and its invalid remains stay.
    run("CREATE TABLE copies AS SELECT 1 AS n FROM generate_series(1, 2)")
    with pytest.raises(IntegrityError):
        run(f"CREATE UNIQUE INDEX CONCURRENTLY {NAME} ON copies (n)")
    assert definition() is None
    migrate()
    assert definition() == DECLARED
    run("DROP TABLE copies")
