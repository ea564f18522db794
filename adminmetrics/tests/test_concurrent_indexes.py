"""A migration's index is built once, whatever stands in its place, and taken back."""

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.contrib.postgres.indexes import HashIndex, OpClass
from django.db import NotSupportedError, connection, models
from django.db.migrations.state import ProjectState
from django.db.models.functions import Lower

from adminmetrics.concurrent_indexes import BuildIndexConcurrently
from adminmetrics.tests.catalogues import interrupted, rows, run

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "ix_tried"
INDEXES = {
    "plain": (models.Index(fields=["genre"], name=NAME), "btree (genre)"),
    "descending": (
        models.Index(fields=["-release_year", "id"], name=NAME),
        "btree (release_year DESC, id)",
    ),
    "partial": (
        models.Index(fields=["genre"], name=NAME, condition=models.Q(withdrawn_at=None)),
        "btree (genre) WHERE (withdrawn_at IS NULL)",
    ),
    "values": (
        models.Index(
            fields=["id"],
            name=NAME,
            condition=models.Q(genre__in=["it's", "50%"]) & ~models.Q(release_year__gte=1990),
        ),
        "btree (id) WHERE (((genre)::text = ANY ((ARRAY['it''s'::character varying, "
        "'50%'::character varying])::text[])) AND (NOT ((release_year >= 1990) AND "
        "(release_year IS NOT NULL))))",
    ),
    "expression": (
        models.Index(Lower("director").desc(nulls_last=True), "id", name=NAME),
        "btree (lower((director)::text) DESC NULLS LAST, id)",
    ),
    "operator class": (
        models.Index(OpClass(Lower("title"), name="text_pattern_ops"), name=NAME),
        "btree (lower((title)::text) text_pattern_ops)",
    ),
    "included": (
        models.Index(fields=["genre"], include=["title", "id"], name=NAME),
        "btree (genre) INCLUDE (title, id)",
    ),
    "hash": (HashIndex(fields=["genre"], name=NAME), "hash (genre)"),
}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    run(f"DROP INDEX IF EXISTS {NAME}", "DROP TABLE IF EXISTS copies")


def migrate(index: models.Index, *, back: bool = False) -> None:
    """Runs the operation as a migration of `parentalcontrols` would."""
    operation = BuildIndexConcurrently("title", index)
    before = ProjectState.from_apps(apps)
    after = before.clone()
    operation.state_forwards("parentalcontrols", after)
    with connection.schema_editor(atomic=False) as editor:
        if back:
            operation.database_backwards("parentalcontrols", editor, after, before)
        else:
            operation.database_forwards("parentalcontrols", editor, before, after)


def built() -> tuple[int, str] | None:
    """The number of the index in the catalogue and its definition, where it is valid."""
    found = rows(
        "SELECT indexrelid::bigint, split_part(pg_get_indexdef(indexrelid), ' USING ', 2) "
        f"FROM pg_index WHERE indexrelid = to_regclass('{NAME}') AND indisvalid "
        "AND indrelid = 'titles'::regclass"
    )
    return found[0] if found else None


@pytest.mark.parametrize("kind", INDEXES)
def test_it_is_built_once_and_taken_back(kind: str) -> None:
    index, definition = INDEXES[kind]
    migrate(index)
    first = built()
    assert first is not None
    assert first[1] == definition
    migrate(index)
    assert built() == first
    migrate(index, back=True)
    assert built() is None
    migrate(index, back=True)
    migrate(index)
    assert built()[1] == definition


@pytest.mark.parametrize("kind", INDEXES)
def test_another_index_of_that_name_is_replaced(kind: str) -> None:
    run(f"CREATE INDEX {NAME} ON titles (artwork_url)")
    index, definition = INDEXES[kind]
    migrate(index)
    assert built()[1] == definition


def test_what_an_interrupted_build_left_is_replaced() -> None:
    index, definition = INDEXES["partial"]
    interrupted(
        f"CREATE INDEX CONCURRENTLY {NAME} ON titles (genre) WHERE withdrawn_at IS NULL",
        table="titles",
    )
    assert built() is None
    migrate(index)
    assert built()[1] == definition
    assert rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


def test_an_index_of_that_name_on_another_table_is_replaced() -> None:
    run("CREATE TABLE copies (n integer)", f"CREATE INDEX {NAME} ON copies (n)")
    index, definition = INDEXES["plain"]
    migrate(index)
    assert built()[1] == definition


def test_in_a_transaction_it_refuses() -> None:
    operation = BuildIndexConcurrently("title", INDEXES["plain"][0])
    state = ProjectState.from_apps(apps)
    with (
        pytest.raises(NotSupportedError, match="atomic = False"),
        connection.schema_editor(atomic=True) as editor,
    ):
        operation.database_forwards("parentalcontrols", editor, state, state)


def test_where_the_sql_is_only_shown_nothing_is_asked_or_built() -> None:
    operation = BuildIndexConcurrently("title", INDEXES["plain"][0])
    before = ProjectState.from_apps(apps)
    after = before.clone()
    operation.state_forwards("parentalcontrols", after)
    with connection.schema_editor(collect_sql=True, atomic=False) as editor:
        operation.database_forwards("parentalcontrols", editor, before, after)
    assert editor.collected_sql == [f'CREATE INDEX CONCURRENTLY "{NAME}" ON "titles" ("genre");']
    assert built() is None


def test_it_is_written_into_a_migration_by_its_own_name() -> None:
    name, arguments, keywords = BuildIndexConcurrently("title", INDEXES["plain"][0]).deconstruct()
    assert name == "BuildIndexConcurrently"
    assert BuildIndexConcurrently(*arguments, **keywords).index == INDEXES["plain"][0]
