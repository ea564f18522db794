"""Whether the service's queries are served by the indexes that are meant for them.

Which queries those are is told by the callable that `settings.AUDITED_QUERIES` names, because they
belong to packages that this one does not know. What only reads is run; what writes or locks is
planned and never run.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Any, Final, cast
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, ProgrammingError, connection, transaction
from django.utils.module_loading import import_string
from psycopg import errors

from adminmetrics.catalogue import Table

#: Up to so many pages (8 MB), or so many rows where deleted ones left their room, an index saves
#: little, and the planner is right to take any way. Where it reads the whole table it is asked
#: again with that way taken from it; where it takes another index, that is as good.
SMALL_TABLE_PAGES: Final = 1024
SMALL_TABLE_ROWS: Final = 10_000
#: A query that is run gets no more time; then its plan alone is told.
RUN_SECONDS: Final = 15

_BY_INDEX = {"Index Scan", "Index Only Scan"}
_EXPLAIN = "EXPLAIN (FORMAT JSON) "
_EXPLAIN_ANALYZE = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "


class UnknownProfile(LookupError):
    """There is no profile with the id that was asked for."""


@dataclass(frozen=True, slots=True)
class AuditedQuery:
    """A statement that the service sends, and the indexes that it has to be served by.

    `served_by`: for a table, the indexes of which each access to it has to use one. `writes`:
    it writes or locks. `reading`: the same without that, for roles that may not write.
    `profile_id`: whose rows it asks for.
    """

    name: str
    statement: str
    parameters: Mapping[str, Any] | Sequence[Any]
    served_by: Mapping[str, Sequence[str]]
    profile_id: UUID | None = None
    writes: bool = False
    reading: str | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """How a plan gets at rows of a table; `index` None: it reads the whole table."""

    table: str
    index: str | None
    #: The index is read from end to end, or the table is.
    is_whole: bool = False

    def __str__(self) -> str:
        if self.index is None:
            return f"all of {self.table}"
        return f"all of {self.index}" if self.is_whole else self.index


class Verdict(StrEnum):
    """What became of a query."""

    SERVED = "served"
    NOT_SERVED = "not_served"
    NOT_JUDGED = "not_judged"


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A query's plan. Rows, pages and milliseconds are None where it was not run.

    `without_sequential_scans`: the planner read small tables whole, and was asked again with that
    way taken from it. `plan` is PostgreSQL's JSON.
    """

    name: str
    verdict: Verdict
    reason: str
    accesses: tuple[Access, ...] = ()
    without_sequential_scans: bool = False
    rows: int | None = None
    pages: int | None = None
    milliseconds: float | None = None
    plan: Mapping[str, Any] | None = None


def audited_queries(profile_id: UUID | None) -> list[AuditedQuery]:
    """The queries that the settings name; raises `UnknownProfile`."""
    audited: Callable[[UUID | None], list[AuditedQuery]] = import_string(settings.AUDITED_QUERIES)
    return audited(profile_id)


def is_small(table: Table) -> bool:
    """Whether an index of the table saves little."""
    return table.pages <= SMALL_TABLE_PAGES or 0 <= table.rows <= SMALL_TABLE_ROWS


def judge(
    query: AuditedQuery,
    tables: Mapping[str, Table],
    standing: Collection[str],
    *,
    until: float | None = None,
) -> JudgedQuery:
    """Plans a query, runs it if it only reads, and says whether its indexes serve it.

    `standing` are the names of all valid indexes. Nothing is run on beyond `until`, an instant of
    the monotonic clock. Inside a transaction; what it sets there it takes back. A role that may not
    write gets the plan of the query's reading form, one that may not read no judgement.
    """
    try:
        return _judged(query, tables, standing, until)
    except ProgrammingError as error:
        # Without the unique index that it counts on, an upsert cannot even be planned.
        reason = f"cannot be planned: {str(error).splitlines()[0]}"
        return JudgedQuery(query.name, Verdict.NOT_SERVED, reason)


def _judged(
    query: AuditedQuery,
    tables: Mapping[str, Table],
    standing: Collection[str],
    until: float | None,
) -> JudgedQuery:
    statement, runs, remarks = query.statement, not query.writes, []
    plan = _explained(statement, query.parameters, run=runs, until=until)
    if plan is None and query.reading is not None:
        statement, remarks = query.reading, ["planned without its locks: this role may not write"]
        plan = _explained(statement, query.parameters, run=False)
    if plan is None:
        reason = f"not judged: this role may not {'write' if query.writes else 'read'}"
        return JudgedQuery(query.name, Verdict.NOT_JUDGED, reason)
    small = {name for name, table in tables.items() if is_small(table)}
    wrong = _wrong(query, plan, small, standing)
    is_forced = any(access.index is None for access in wrong) and all(
        access.table in small for access in wrong
    )
    if is_forced:
        forced = _explained(statement, query.parameters, run=runs, until=until, is_forced=True)
        plan = forced or plan
        wrong = _wrong(query, plan, small, standing)
    accesses = tuple(dict.fromkeys(_accesses(plan["Plan"])))
    root = plan["Plan"]
    is_run = "Actual Rows" in root
    if runs and not is_run:
        is_late = until is not None and monotonic() >= until
        remarks.append("stopped: the time was up" if is_late else f"stopped after {RUN_SECONDS} s")
    reasons = [
        f"reads {access} instead of {' or '.join(query.served_by[access.table])}"
        for access in wrong
    ]
    untouched = set(query.served_by) - {access.table for access in accesses}
    reasons += [f"does not read {table} at all" for table in sorted(untouched)]
    other = {
        access.table
        for access in accesses
        if access.table in query.served_by and not _is_meant(query, access) and access not in wrong
    }
    if other:
        remarks.append(f"too small to need the indexes, which stand: {', '.join(sorted(other))}")
    return JudgedQuery(
        name=query.name,
        verdict=Verdict.NOT_SERVED if reasons else Verdict.SERVED,
        reason="; ".join(reasons + remarks),
        accesses=accesses,
        without_sequential_scans=is_forced,
        rows=round(root["Actual Rows"] * root["Actual Loops"]) if is_run else None,
        pages=root["Shared Hit Blocks"] + root["Shared Read Blocks"] if is_run else None,
        milliseconds=plan["Execution Time"] if is_run else None,
        plan=plan,
    )


def _explained(
    statement: str,
    parameters: Mapping[str, Any] | Sequence[Any],
    *,
    run: bool,
    until: float | None = None,
    is_forced: bool = False,
) -> dict[str, Any] | None:
    """PostgreSQL's plan, without figures if the run takes too long; None: the role may not."""
    seconds = RUN_SECONDS if until is None else min(RUN_SECONDS, until - monotonic())
    try:
        if run and seconds > 0:
            try:
                return _plan(
                    _EXPLAIN_ANALYZE + statement,
                    parameters,
                    seconds=seconds,
                    is_forced=is_forced,
                )
            except OperationalError as error:
                if not isinstance(error.__cause__, errors.QueryCanceled):
                    raise
        return _plan(_EXPLAIN + statement, parameters, is_forced=is_forced)
    except ProgrammingError as error:
        if isinstance(error.__cause__, errors.InsufficientPrivilege):
            return None
        raise


def limit_statements(seconds: float) -> None:
    """Lets no statement of the running transaction take longer."""
    with connection.cursor() as cursor:
        # 0 would be no limit at all.
        timeout = ["statement_timeout", f"{max(1, round(seconds * 1000))}ms"]
        cursor.execute("SELECT set_config(%s, %s, true)", timeout)


def _plan(
    statement: str,
    parameters: Mapping[str, Any] | Sequence[Any],
    *,
    seconds: float | None = None,
    is_forced: bool,
) -> dict[str, Any]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            if seconds is not None:
                limit_statements(seconds)
            if is_forced:
                cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(statement, cast(Any, parameters))
            (found,) = cursor.fetchone()
        # The settings go with the savepoint.
        transaction.set_rollback(True)
    return cast(dict[str, Any], found[0])


def _wrong(
    query: AuditedQuery, plan: Mapping[str, Any], small: set[str], standing: Collection[str]
) -> list[Access]:
    """The accesses to the query's tables by something else than the indexes meant for them.

    A small table may be read by any index, if those that are meant for it stand.
    """
    return [
        access
        for access in dict.fromkeys(_accesses(plan["Plan"]))
        if access.table in query.served_by
        and not _is_meant(query, access)
        and not (
            access.index is not None
            and access.table in small
            and all(name in standing for name in query.served_by[access.table])
        )
    ]


def _is_meant(query: AuditedQuery, access: Access) -> bool:
    return access.index in query.served_by[access.table] and not access.is_whole


def _accesses(node: Mapping[str, Any]) -> Iterator[Access]:
    """Every way of a plan to the rows of tables, the look-up of conflicts included."""
    table = node.get("Relation Name")
    if node["Node Type"] in _BY_INDEX:
        yield Access(node["Relation Name"], node["Index Name"], is_whole="Index Cond" not in node)
    elif node["Node Type"] == "Bitmap Heap Scan":
        for scan in _bitmaps(node):
            yield Access(node["Relation Name"], scan["Index Name"], "Index Cond" not in scan)
        return
    elif node["Node Type"].endswith("Scan") and table:
        yield Access(table, None, is_whole=True)
    for index in node.get("Conflict Arbiter Indexes", ()):
        yield Access(node["Relation Name"], index)
    for part in node.get("Plans", ()):
        yield from _accesses(part)


def _bitmaps(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for part in node.get("Plans", ()):
        if part["Node Type"] == "Bitmap Index Scan":
            yield part
        yield from _bitmaps(part)
