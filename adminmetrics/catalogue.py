"""The indexes and constraints of tables as the database's catalogue has them; changes nothing.

Works on PostgreSQL 15 to 18, for any role that may connect: the catalogue is open to all. Asking
what an expression means (`means_the_same`) takes the right to read its table.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

from django.db import ProgrammingError, connection, transaction
from psycopg import errors, sql

#: The tables that are there, those of the search path: their pages, their rows by the planner's
#: statistics, and whether this role may read them.
TABLES = """
SELECT
    name,
    pg_relation_size(to_regclass(quote_ident(name)))
        / current_setting('block_size')::bigint AS pages,
    (SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(quote_ident(name))) AS rows,
    has_table_privilege(to_regclass(quote_ident(name)), 'SELECT') AS is_readable
FROM unnest(%(tables)s::text[]) AS name
WHERE to_regclass(quote_ident(name)) IS NOT NULL
"""

#: One row per index of the tables, the keys as JSON. An expression is given as PostgreSQL prints
#: it; an order, operator class or collation is looked up, not parsed.
INDEXES = """
SELECT
    named.name AS "table", c.relname AS name, am.amname AS method, i.indisunique AS is_unique,
    NOT i.indnullsnotdistinct AS is_nulls_distinct,
    pg_get_expr(i.indpred, i.indrelid) AS predicate,
    i.indisvalid AND i.indisready AND i.indislive AS is_valid,
    coalesce(stats.idx_scan, 0) AS scans,
    CASE held.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique constraint'
        WHEN 'x' THEN 'exclusion constraint' END AS "constraint",
    coalesce(held.condeferrable, false) AS is_deferrable,
    coalesce(held.condeferred, false) AS is_deferred,
    (SELECT json_agg(json_build_object(
        'column', a.attname,
        'expression', CASE WHEN a.attname IS NULL
            THEN pg_get_indexdef(i.indexrelid, k, false) END,
        'is_descending', i.indoption[k - 1] & 1 = 1,
        'is_nulls_first', i.indoption[k - 1] & 2 = 2,
        'operator_class', o.opcname,
        'is_usual_operator_class', o.opcdefault,
        'collation', CASE WHEN l.oid IS DISTINCT FROM a.attcollation
            AND l.collname <> 'default' THEN l.collname END
    ) ORDER BY k)::text
    FROM generate_series(1, i.indnkeyatts) AS k
    LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k - 1]
    LEFT JOIN pg_opclass AS o ON o.oid = i.indclass[k - 1]
    LEFT JOIN pg_collation AS l ON l.oid = i.indcollation[k - 1]) AS keys,
    (SELECT coalesce(json_agg(a.attname ORDER BY k), '[]')::text
    FROM generate_series(i.indnkeyatts + 1, i.indnatts) AS k
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k - 1]) AS included
FROM unnest(%(tables)s::text[]) AS named (name)
JOIN pg_index AS i ON i.indrelid = to_regclass(quote_ident(named.name))
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_am AS am ON am.oid = c.relam
LEFT JOIN pg_constraint AS held
    ON held.conindid = i.indexrelid AND held.conrelid = i.indrelid
    AND held.contype IN ('p', 'u', 'x')
LEFT JOIN pg_stat_all_indexes AS stats ON stats.indexrelid = i.indexrelid
ORDER BY named.name, c.relname
"""

#: One row per CHECK constraint and foreign key of the tables.
CONSTRAINTS = """
SELECT
    named.name AS "table", c.conname AS name, c.convalidated AS is_valid,
    pg_get_expr(c.conbin, c.conrelid) AS expression,
    (SELECT coalesce(json_agg(a.attname ORDER BY k.place), '[]')::text
    FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.number) AS columns,
    CASE WHEN c.confrelid <> 0 THEN c.confrelid::regclass::text END AS target,
    (SELECT coalesce(json_agg(a.attname ORDER BY k.place), '[]')::text
    FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.number) AS target_columns,
    c.condeferrable AS is_deferrable, c.condeferred AS is_deferred,
    c.confdeltype::text || c.confupdtype::text AS actions
FROM unnest(%(tables)s::text[]) AS named (name)
JOIN pg_constraint AS c ON c.conrelid = to_regclass(quote_ident(named.name))
WHERE c.contype IN ('c', 'f')
ORDER BY named.name, c.conname
"""

#: The table that an index of this name in the schema of a table belongs to.
INDEX_OWNER = """
SELECT owner.relname
FROM pg_class AS t
JOIN pg_class AS c ON c.relnamespace = t.relnamespace AND c.relname = %(index)s
JOIN pg_index AS i ON i.indexrelid = c.oid
JOIN pg_class AS owner ON owner.oid = i.indrelid
WHERE t.oid = to_regclass(quote_ident(%(table)s))
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is there; pages of 8 kB, rows by the statistics, -1 where there are none."""

    name: str
    pages: int
    rows: int
    is_readable: bool


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an index: a column, or an expression as SQL."""

    column: str | None = None
    expression: str | None = None
    is_descending: bool = False
    is_nulls_first: bool = False
    #: None, or any name with `is_usual_operator_class`: what the type takes by itself.
    operator_class: str | None = None
    is_usual_operator_class: bool = False
    #: None: the column's own.
    collation: str | None = None

    def __str__(self) -> str:
        return self.column or f"({self.expression})"


@dataclass(frozen=True, slots=True)
class Index:
    """An index, or the constraint that it is for."""

    name: str
    table: str
    keys: tuple[Key, ...]
    is_unique: bool = False
    method: str = "btree"
    predicate: str | None = None
    included: tuple[str, ...] = ()
    is_nulls_distinct: bool = True
    constraint: Literal["primary key", "unique constraint", "exclusion constraint"] | None = None
    is_deferrable: bool = False
    is_deferred: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """A CHECK constraint; `expression` is SQL without the word and its parentheses."""

    name: str
    table: str
    expression: str


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key; `target` is the table that it points to, `actions` what the catalogue calls
    the actions on DELETE and UPDATE ("aa": none)."""

    name: str
    table: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    is_deferrable: bool
    is_deferred: bool
    actions: str = "aa"


@dataclass(frozen=True, slots=True)
class Found:
    """Something of the catalogue. `scans` of an index since the statistics began, else 0."""

    what: Index | Check | ForeignKey
    is_valid: bool
    scans: int = 0


def tables_of(names: Iterable[str]) -> dict[str, Table]:
    """Those of the tables that are there, by name."""
    return {row["name"]: Table(**row) for row in _rows(TABLES, names)}


def indexes_of(tables: Iterable[str]) -> list[Found]:
    """All indexes of some tables, by table and name."""
    found = []
    for row in _rows(INDEXES, tables):
        is_valid, scans = row.pop("is_valid"), row.pop("scans")
        keys = tuple(Key(**key) for key in json.loads(row.pop("keys")))
        included = tuple(json.loads(row.pop("included")))
        found.append(Found(Index(keys=keys, included=included, **row), is_valid, scans))
    return found


def constraints_of(tables: Iterable[str]) -> list[Found]:
    """The CHECK constraints and foreign keys of some tables, by table and name."""
    found = []
    for row in _rows(CONSTRAINTS, tables):
        is_valid, expression = row.pop("is_valid"), row.pop("expression")
        columns = tuple(json.loads(row.pop("columns")))
        target_columns = tuple(json.loads(row.pop("target_columns")))
        what: Check | ForeignKey
        if row["target"] is None:
            what = Check(row["name"], row["table"], expression)
        else:
            what = ForeignKey(columns=columns, target_columns=target_columns, **row)
        found.append(Found(what, is_valid))
    return found


def _rows(statement: str, tables: Iterable[str]) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, {"tables": list(tables)})
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def owner_of_index(name: str, *, beside: str) -> str | None:
    """The table of the index of that name in the schema of the table `beside`; None: no such."""
    with connection.cursor() as cursor:
        cursor.execute(INDEX_OWNER, {"index": name, "table": beside})
        row = cursor.fetchone()
    return row[0] if row else None


def means_the_same(table: str, one: str, other: str) -> bool | None:
    """Whether two SQL expressions over a table are one and the same to PostgreSQL.

    It is asked to plan them, not to run them, and to print what it has understood: casts that it
    adds, parentheses, `IN` and `= ANY` and names with quotes are the same then. Operands in
    another order are not. None where the role may not read the table.
    """
    if one == other:
        return True
    try:
        return _understood(table, one) == _understood(table, other)
    except ProgrammingError as error:
        if isinstance(error.__cause__, errors.InsufficientPrivilege):
            return None
        # One of them speaks of a column that is not there.
        return False


def _understood(table: str, expression: str) -> list[str]:
    # An expression cannot be bound; these come from the models and the catalogue alone.
    statement = sql.SQL(
        "EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) SELECT ({}) FROM ONLY {}"
    ).format(sql.SQL(expression), sql.Identifier(table))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
        (plan,) = cursor.fetchone()
        return cast(list[str], plan[0]["Plan"]["Output"])
