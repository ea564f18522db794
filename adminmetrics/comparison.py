"""What tells two definitions of an index or a constraint apart, in words."""

from dataclasses import dataclass

from adminmetrics.catalogue import Check, ForeignKey, Index, Key, means_the_same


@dataclass(frozen=True, slots=True)
class Difference:
    """In one aspect ("order"); `detail` ends the sentence "The index ..."."""

    aspect: str
    detail: str


def differences(
    declared: Index | Check | ForeignKey, found: Index | Check | ForeignKey
) -> list[Difference]:
    """How something that was found is not as it is declared; empty where it is.

    Names are not compared. Where this role may not read the table, neither are expressions.
    """
    if isinstance(declared, Index) and isinstance(found, Index):
        return _of_indexes(declared, found)
    if isinstance(declared, Check) and isinstance(found, Check):
        if _is_same(declared.table, declared.expression, found.expression):
            return []
        detail = f"checks ({found.expression}), declared ({declared.expression})"
        return [Difference("condition", detail)]
    if isinstance(declared, ForeignKey) and isinstance(found, ForeignKey):
        return _of_foreign_keys(declared, found)
    return [Difference("kind", "is something else than what is declared")]


def _of_indexes(declared: Index, found: Index) -> list[Difference]:
    if declared.table != found.table:
        return [Difference("table", f"is on {found.table}, declared on {declared.table}")]
    told = []
    if declared.method != found.method:
        detail = f"is {found.method}, declared {declared.method}"
        told.append(Difference("access method", detail))
    if declared.is_unique != found.is_unique:
        detail = "is not unique, declared unique"
        if found.is_unique:
            detail = "is unique, declared not to be"
        told.append(Difference("uniqueness", detail))
    elif declared.constraint != found.constraint:
        detail = f"is {_article(found.constraint)}, declared {_article(declared.constraint)}"
        told.append(Difference("kind", detail))
    if declared.is_nulls_distinct != found.is_nulls_distinct:
        detail = "treats nulls as equal" if declared.is_nulls_distinct else "lets nulls differ"
        told.append(Difference("uniqueness", f"{detail}, not declared so"))
    if (declared.is_deferrable, declared.is_deferred) != (found.is_deferrable, found.is_deferred):
        told.append(Difference("deferral", "is not deferred as declared"))
    told += _of_keys(declared, found)
    if declared.included != found.included:
        detail = f"includes {', '.join(found.included) or 'no column'}"
        detail += f", declared {', '.join(declared.included) or 'without'}"
        told.append(Difference("included columns", detail))
    if not _is_same(declared.table, declared.predicate, found.predicate):
        detail = f"holds {_rows(found.predicate)}, declared {_rows(declared.predicate)}"
        told.append(Difference("predicate", detail))
    return told


def _of_keys(declared: Index, found: Index) -> list[Difference]:
    pairs = list(zip(declared.keys, found.keys, strict=False))
    if len(declared.keys) != len(found.keys) or not all(
        _is_same_subject(declared.table, one, other) for one, other in pairs
    ):
        detail = f"is on ({_list(found)}), declared on ({_list(declared)})"
        return [Difference("columns", detail)]
    told = []
    for want, have in pairs:
        if (want.is_descending, want.is_nulls_first) != (have.is_descending, have.is_nulls_first):
            detail = f"has {want} {_order(have)}, declared {_order(want)}"
            told.append(Difference("order", detail))
        if not _is_same_operator_class(want, have):
            detail = (
                f"has {want} by {have.operator_class}, "
                f"declared {want.operator_class or 'as its type has it'}"
            )
            told.append(Difference("operator class", detail))
        if want.collation != have.collation:
            detail = f"has {want} {_collation(have)}, declared {_collation(want)}"
            told.append(Difference("collation", detail))
    return told


def _of_foreign_keys(declared: ForeignKey, found: ForeignKey) -> list[Difference]:
    told = []
    if (declared.columns, declared.target, declared.target_columns) != (
        found.columns,
        found.target,
        found.target_columns,
    ):
        told.append(Difference("columns", "does not connect the columns that are declared"))
    if (declared.is_deferrable, declared.is_deferred) != (found.is_deferrable, found.is_deferred):
        told.append(Difference("deferral", "is not deferred as declared"))
    if declared.actions != found.actions:
        told.append(Difference("actions", "acts on DELETE or UPDATE in a way that is not declared"))
    return told


def _is_same(table: str, one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return one is other
    return means_the_same(table, one, other) is not False


def _is_same_subject(table: str, one: Key, other: Key) -> bool:
    return one.column == other.column and _is_same(table, one.expression, other.expression)


def _is_same_operator_class(declared: Key, found: Key) -> bool:
    if declared.operator_class is None:
        return found.is_usual_operator_class
    if found.operator_class is None:
        return declared.is_usual_operator_class
    return declared.operator_class == found.operator_class


def _list(index: Index) -> str:
    return ", ".join(map(str, index.keys))


def _order(key: Key) -> str:
    nulls = (
        ""
        if key.is_nulls_first == key.is_descending
        else (" with nulls first" if key.is_nulls_first else " with nulls last")
    )
    return f"{'descending' if key.is_descending else 'ascending'}{nulls}"


def _collation(key: Key) -> str:
    return f"collated by {key.collation}" if key.collation else "collated as the column"


def _article(constraint: str | None) -> str:
    return f"a {constraint}" if constraint else "an index alone"


def _rows(predicate: str | None) -> str:
    return f"the rows where {predicate}" if predicate else "all rows"
