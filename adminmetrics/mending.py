"""The SQL that mends an index or a constraint beside the running service; runs nothing.

Indexes are built and dropped concurrently, which no transaction may hold, and constraints are
added without a check of the rows and checked afterwards, which locks nobody out.
"""

from adminmetrics.catalogue import Check, ForeignKey, Index, Key


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def making(what: Index | Check | ForeignKey) -> list[str]:
    """The statements that make something that is not there."""
    if isinstance(what, Index):
        return _making_index(what)
    if isinstance(what, Check):
        definition = f"CHECK ({what.expression})"
    else:
        definition = (
            f"FOREIGN KEY ({_names(what.columns)}) "
            f"REFERENCES {quoted(what.target)} ({_names(what.target_columns)})"
            f"{_deferral(what.is_deferrable, what.is_deferred)}"
        )
    return [
        f"ALTER TABLE {quoted(what.table)} ADD CONSTRAINT {quoted(what.name)} "
        f"{definition} NOT VALID;",
        *validating(what),
    ]


def validating(what: Check | ForeignKey) -> list[str]:
    """The statement that checks the rows which were there before the constraint."""
    return [f"ALTER TABLE {quoted(what.table)} VALIDATE CONSTRAINT {quoted(what.name)};"]


def dropping(what: Index | Check | ForeignKey) -> list[str]:
    """The statement that removes something."""
    if isinstance(what, Index) and what.constraint is None:
        return [f"DROP INDEX CONCURRENTLY {quoted(what.name)};"]
    return [f"ALTER TABLE {quoted(what.table)} DROP CONSTRAINT {quoted(what.name)};"]


def shown(what: Index | Check | ForeignKey) -> str:
    """For people: what it is, in short."""
    if isinstance(what, Check):
        return f"CHECK ({what.expression})"
    if isinstance(what, ForeignKey):
        return f"({', '.join(what.columns)}) to {what.target} ({', '.join(what.target_columns)})"
    unique = "unique, " if what.is_unique else ""
    where = f" where {what.predicate}" if what.predicate else ""
    included = f" including ({', '.join(what.included)})" if what.included else ""
    return f"{unique}{what.method} ({', '.join(map(_key, what.keys))}){included}{where}"


def _making_index(what: Index) -> list[str]:
    keys = ", ".join(_key(key, is_sql=True) for key in what.keys)
    included = f" INCLUDE ({_names(what.included)})" if what.included else ""
    nulls = "" if what.is_nulls_distinct else " NULLS NOT DISTINCT"
    where = f" WHERE {what.predicate}" if what.predicate else ""
    statements = [
        f"CREATE {'UNIQUE ' if what.is_unique else ''}INDEX CONCURRENTLY {quoted(what.name)} "
        f"ON {quoted(what.table)} USING {what.method} ({keys}){included}{nulls}{where};"
    ]
    if what.constraint is not None:
        word = "PRIMARY KEY" if what.constraint == "primary key" else "UNIQUE"
        statements.append(
            f"ALTER TABLE {quoted(what.table)} ADD CONSTRAINT {quoted(what.name)} "
            f"{word} USING INDEX {quoted(what.name)}"
            f"{_deferral(what.is_deferrable, what.is_deferred)};"
        )
    return statements


def _key(key: Key, *, is_sql: bool = False) -> str:
    text = quoted(key.column) if is_sql and key.column else str(key)
    if key.collation:
        text += f" COLLATE {quoted(key.collation)}"
    if key.operator_class and not key.is_usual_operator_class:
        text += f" {key.operator_class}"
    if key.is_descending:
        text += " DESC"
    if key.is_nulls_first != key.is_descending:
        text += f" NULLS {'FIRST' if key.is_nulls_first else 'LAST'}"
    return text


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(map(quoted, names))


def _deferral(is_deferrable: bool, is_deferred: bool) -> str:
    if not is_deferrable:
        return ""
    return f" DEFERRABLE INITIALLY {'DEFERRED' if is_deferred else 'IMMEDIATE'}"
