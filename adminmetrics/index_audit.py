"""Whether the database has the indexes and constraints that the models declare, and uses them.

`audit` reads the catalogue, plans the service's queries (`adminmetrics.plans`) and tells what it
found; it changes nothing. `manage.py verify_indexes` prints it.

Not looked at: tables of others, Django's own included; columns, defaults, NOT NULL and triggers;
storage parameters and tablespaces.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from time import monotonic
from uuid import UUID

from django.db import ProgrammingError, connection, transaction
from psycopg import errors

from adminmetrics import catalogue, mending, plans
from adminmetrics.catalogue import Check, ForeignKey, Found, Index, Table
from adminmetrics.comparison import differences
from adminmetrics.declarations import Declared, declared_by, declared_models
from adminmetrics.plans import JudgedQuery, Verdict

#: Aspects in which two indexes may differ and one still be superfluous beside the other.
_ENFORCING = {"uniqueness", "kind", "deferral"}


class Kind(StrEnum):
    """What can be wrong."""

    TABLE_MISSING = "table_missing"
    MISSING = "missing"
    INVALID = "invalid"
    DIFFERENT = "different"
    UNDECLARED = "undeclared"
    DUPLICATE = "duplicate"
    PLAN = "plan"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. `aspects` say in what way; `fix` mends it, run in this order.

    The name of a plan is that of its query, and its table is empty.
    """

    kind: Kind
    table: str
    name: str
    aspects: tuple[str, ...]
    detail: str
    fix: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found; `notes` are no findings. The counts are of what is declared."""

    server_version: str
    tables: int
    indexes: int
    constraints: int
    profile_id: UUID | None
    findings: tuple[Finding, ...]
    queries: tuple[JudgedQuery, ...]
    notes: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def audit(*, profile_id: UUID | None = None, seconds: float | None = None) -> Report:
    """Compares the catalogue with the models and judges the plans of the service's queries.

    The queries are asked for `profile_id`, or for a profile that has many rows. All in one
    transaction that may only read and is rolled back. Raises `plans.UnknownProfile`, and database
    errors as they are. No statement takes longer than `seconds`; queries that are not run by then
    are planned alone.
    """
    until = None if seconds is None else monotonic() + seconds
    with transaction.atomic():
        if seconds is not None:
            plans.limit_statements(seconds)
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            cursor.execute("SHOW server_version")
            (version,) = cursor.fetchone()
        declared = {model._meta.db_table: declared_by(model) for model in declared_models()}
        tables = catalogue.tables_of(declared)
        found = [*catalogue.indexes_of(tables), *catalogue.constraints_of(tables)]
        findings = list(_of_catalogue(declared, tables, found))
        notes = [
            f"This role may not read {name}: its expressions were not compared."
            for name, table in tables.items()
            if not table.is_readable
        ]
        queries: list[JudgedQuery] = []
        if len(tables) == len(declared):
            try:
                queries, asked = _judged(profile_id, tables, found, until)
                profile_id = profile_id or asked
            except ProgrammingError as error:
                cause = f"Queries were not planned: {str(error).splitlines()[0]}."
                if isinstance(error.__cause__, errors.InsufficientPrivilege):
                    notes.append(cause)
                else:  # A column is missing, for instance.
                    findings.append(Finding(Kind.PLAN, "", "all queries", (), cause))
        else:
            notes.append("Queries were not planned: tables are missing.")
        notes += _never_scanned(found, tables)
        findings += [_of_plan(query) for query in queries if query.verdict is Verdict.NOT_SERVED]
        transaction.set_rollback(True)
    every = [one.what for of_table in declared.values() for one in of_table]
    return Report(
        server_version=version,
        tables=len(declared),
        indexes=sum(isinstance(what, Index) for what in every),
        constraints=sum(not isinstance(what, Index) or bool(what.constraint) for what in every),
        profile_id=profile_id,
        findings=tuple(sorted(findings, key=_in_order_of_mending)),
        queries=tuple(queries),
        notes=tuple(notes),
    )


def _judged(
    profile_id: UUID | None,
    tables: Mapping[str, Table],
    found: Iterable[Found],
    until: float | None,
) -> tuple[list[JudgedQuery], UUID | None]:
    """The judgement of each query, and for which profile they were asked."""
    standing = {one.what.name for one in found if isinstance(one.what, Index) and one.is_valid}
    with transaction.atomic():
        queries = plans.audited_queries(profile_id)
        asked = next((query.profile_id for query in queries if query.profile_id), None)
        return [plans.judge(query, tables, standing, until=until) for query in queries], asked


def _of_catalogue(
    declared: Mapping[str, Sequence[Declared]],
    tables: Mapping[str, Table],
    found: Iterable[Found],
) -> Iterator[Finding]:
    """What is wrong with the indexes and constraints of the tables."""
    found_in: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        found_in[one.what.table].append(one)
    for table, of_table in declared.items():
        if table not in tables:
            detail = "The table is not there: run `manage.py migrate`."
            yield Finding(Kind.TABLE_MISSING, table, table, (), detail)
            continue
        yield from _of_table(of_table, found_in[table])


def _of_table(declared: Sequence[Declared], found: Sequence[Found]) -> Iterator[Finding]:
    """Finds each declaration its counterpart; what is left over nobody declared."""
    left = list(found)
    sound: list[Found] = []
    # Names first, so that what has none does not take the place of what has one.
    for wanted in sorted(declared, key=lambda wanted: not wanted.is_named):
        counterpart = _counterpart(wanted, left)
        if counterpart is not None:
            left.remove(counterpart)
        finding = _judgement(wanted.what, counterpart)
        if finding is not None:
            yield finding
        elif counterpart is not None:
            sound.append(counterpart)
    for extra in left:
        yield _of_extra(extra, sound)
    for one in sound:
        twin = _makes_superfluous(one, [other for other in sound if other is not one])
        if twin is not None:
            detail = (
                f"The models declare it, although {twin} serves whatever it serves; "
                f"scanned {one.scans:,} times. A migration has to drop it."
            )
            yield Finding(Kind.DUPLICATE, one.what.table, one.what.name, (), detail)


def _counterpart(declared: Declared, found: Sequence[Found]) -> Found | None:
    """What stands in the catalogue for a declaration: by its name, or by what it is."""
    what = declared.what
    alike = [one for one in found if type(one.what) is type(what)]
    named = next((one for one in alike if one.what.name == what.name), None)
    if declared.is_named:
        return named
    if isinstance(what, Index) and what.constraint == "primary key":
        return next((one for one in alike if _is_primary_key(one)), None)
    same = [one for one in alike if not differences(what, one.what)]
    return min(same, key=lambda one: (not one.is_valid, one is not named), default=named)


def _is_primary_key(found: Found) -> bool:
    return isinstance(found.what, Index) and found.what.constraint == "primary key"


def _judgement(what: Index | Check | ForeignKey, found: Found | None) -> Finding | None:
    if found is None:
        detail = f"The {_noun(what)} is missing: {mending.shown(what)}."
        return Finding(Kind.MISSING, what.table, what.name, (), detail, (*mending.making(what),))
    told = differences(what, found.what)
    if told:
        details = "; ".join(difference.detail for difference in told)
        invalid = "" if found.is_valid else ", and it is invalid"
        return Finding(
            Kind.DIFFERENT,
            what.table,
            found.what.name,
            tuple(dict.fromkeys(difference.aspect for difference in told)),
            f"The {_noun(what)} {details}{invalid}.",
            (*mending.dropping(found.what), *mending.making(what)),
        )
    if found.is_valid:
        return None
    fix: list[str]
    if isinstance(found.what, Index):
        detail = "The index is invalid: it is being built, or its build was interrupted."
        fix = [*mending.dropping(found.what), *mending.making(found.what)]
    else:
        detail = f"The {_noun(what)} is not validated: rows from before it may break it."
        fix = mending.validating(found.what)
    return Finding(Kind.INVALID, what.table, found.what.name, (), detail, tuple(fix))


def _of_extra(extra: Found, sound: Sequence[Found]) -> Finding:
    """Something that is there and that nobody declared."""
    what = extra.what
    kind, detail = Kind.UNDECLARED, f"No model declares this {_noun(what)}: {mending.shown(what)}"
    if isinstance(what, Index):
        twin = _makes_superfluous(extra, sound)
        if twin is not None:
            kind, detail = Kind.DUPLICATE, f"{detail}; {twin} serves whatever it serves"
        detail += f"; scanned {extra.scans:,} times"
        if not extra.is_valid:
            detail += "; it is invalid, as an interrupted build leaves it"
    return Finding(kind, what.table, what.name, (), f"{detail}.", (*mending.dropping(what),))


def _makes_superfluous(one: Found, others: Iterable[Found]) -> str | None:
    """The name of another index that serves every query which an index serves.

    It is the same but for what it enforces, or goes on where the one ends. A shorter index beside
    a longer unique one stays: Django makes such pairs itself.
    """
    index = one.what
    if not isinstance(index, Index):
        return None
    for other in (found.what for found in others):
        if not isinstance(other, Index):
            continue
        is_longer = len(other.keys) > len(index.keys)
        if index.is_unique and (is_longer or not other.is_unique):
            continue
        if is_longer and (other.is_unique or other.method != "btree"):
            continue
        start = replace(other, keys=other.keys[: len(index.keys)])
        # Both are the catalogue's own words, which this role may not be able to have explained.
        if _expressions(start) != _expressions(index):
            continue
        if {told.aspect for told in differences(index, start)} <= _ENFORCING:
            return other.name
    return None


def _expressions(index: Index) -> list[str | None]:
    return [index.predicate, *(key.expression for key in index.keys)]


def _of_plan(query: JudgedQuery) -> Finding:
    return Finding(Kind.PLAN, "", query.name, (), f"The query {query.reason}.")


def _never_scanned(found: Iterable[Found], tables: Mapping[str, Table]) -> Iterator[str]:
    """A note of indexes that are not small, enforce nothing and were not asked for."""
    names = [
        one.what.name
        for one in found
        if isinstance(one.what, Index)
        and not one.what.is_unique
        and not one.scans
        and not plans.is_small(tables[one.what.table])
    ]
    if names:
        yield f"Never scanned since the statistics began: {', '.join(names)}."


def _noun(what: Index | Check | ForeignKey) -> str:
    if isinstance(what, Index):
        return what.constraint or ("unique index" if what.is_unique else "index")
    return "CHECK constraint" if isinstance(what, Check) else "foreign key"


def _in_order_of_mending(finding: Finding) -> tuple[bool, int, str]:
    """Foreign keys need the keys that they point to, and are asked for last."""
    is_foreign_key = any("FOREIGN KEY" in statement for statement in finding.fix)
    order = list(Kind).index(finding.kind)
    return (is_foreign_key, order, finding.table + finding.name)
