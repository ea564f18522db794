"""The indexes and constraints that models declare, as the catalogue would have them.

What Django names by itself (a primary key, a foreign key and its index, the check of a positive
number) is known by what it is, not by that name.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib.postgres.indexes import OpClass
from django.db import connection, models
from django.db.models.expressions import Col, OrderBy
from django.db.models.functions import Collate
from django.db.models.sql import Query

from adminmetrics.catalogue import Check, ForeignKey, Index, Key

#: The packages whose tables are the service's own.
APPS = ("parentalcontrols", "viewingtime", "pins", "adminmetrics")

#: What says something of a key of an index besides its expression.
_WRAPPERS = {OrderBy, OpClass, Collate}


@dataclass(frozen=True, slots=True)
class Declared:
    """Something that a model declares; `is_named`: and gives a name to."""

    what: Index | Check | ForeignKey
    is_named: bool


def declared_models() -> list[type[models.Model]]:
    """The models that have a table, those between two others included."""
    found = {
        model
        for label in APPS
        for model in apps.get_app_config(label).get_models(include_auto_created=True)
        if model._meta.managed and not model._meta.proxy and not model._meta.swapped
    }
    return sorted(found, key=lambda model: model._meta.db_table)


def declared_by(model: type[models.Model]) -> list[Declared]:
    """All that a model declares; needs a connection, for Django asks it how to render."""
    connection.ensure_connection()
    return [
        *(Declared(_index(model, index), is_named=True) for index in model._meta.indexes),
        *(Declared(_constraint(model, it), is_named=True) for it in model._meta.constraints),
        *(Declared(it, is_named=False) for it in _unnamed(model)),
    ]


def declared_index(model: type[models.Model], index: models.Index) -> Index:
    """An index of a model, be it in its `Meta` or in a migration."""
    connection.ensure_connection()
    return _index(model, index)


def _index(model: type[models.Model], index: models.Index) -> Index:
    if index.expressions:
        keys = tuple(_key_of(expression, model) for expression in index.expressions)
    else:
        keys = _keys(
            [model._meta.get_field(name) for name, _ in index.fields_orders],
            descending=[order == "DESC" for _, order in index.fields_orders],
            operator_classes=index.opclasses,
        )
    return Index(
        name=index.name,
        table=model._meta.db_table,
        keys=keys,
        # The classes of django.contrib.postgres are named after their access method.
        method="btree" if type(index) is models.Index else index.suffix,
        predicate=None if index.condition is None else _sql(index.condition, model),
        included=_columns(model, index.include),
    )


def _constraint(model: type[models.Model], constraint: models.BaseConstraint) -> Index | Check:
    table = model._meta.db_table
    if isinstance(constraint, models.CheckConstraint):
        return Check(constraint.name, table, _sql(constraint.condition, model))
    if not isinstance(constraint, models.UniqueConstraint):
        raise TypeError(f"{constraint.name} is of a kind that is not audited")
    unique: Any = constraint  # Django's types know half of its members.
    if unique.expressions:
        keys = tuple(_key_of(expression, model) for expression in unique.expressions)
    else:
        fields = [model._meta.get_field(name) for name in unique.fields]
        keys = _keys(fields, operator_classes=unique.opclasses)
    # Of these Django makes an index, because PostgreSQL knows no such constraints.
    is_index_alone = (
        unique.condition is not None or unique.expressions or unique.include or unique.opclasses
    )
    return Index(
        name=constraint.name,
        table=table,
        keys=keys,
        is_unique=True,
        predicate=None if unique.condition is None else _sql(unique.condition, model),
        included=_columns(model, unique.include),
        is_nulls_distinct=unique.nulls_distinct is not False,
        constraint=None if is_index_alone else "unique constraint",
        is_deferrable=unique.deferrable is not None,
        is_deferred=unique.deferrable is models.Deferrable.DEFERRED,
    )


def _unnamed(model: type[models.Model]) -> Iterator[Index | Check | ForeignKey]:
    """What fields and `unique_together` declare; the names are those that a migration gives."""
    table = model._meta.db_table
    editor: Any = connection.schema_editor(collect_sql=True)
    for names in model._meta.unique_together:
        fields = [model._meta.get_field(name) for name in names]
        yield Index(
            name=editor._create_index_name(table, _columns(model, names), suffix="_uniq"),
            table=table,
            keys=_keys(fields),
            is_unique=True,
            constraint="unique constraint",
        )
    for column in model._meta.local_fields:
        # Any, because Django's types know neither rendering nor what a relation points to.
        it: Any = column
        if it.unique:
            yield Index(
                name=f"{table}_pkey" if it.primary_key else f"{table}_{it.column}_key",
                table=table,
                keys=_keys([it]),
                is_unique=True,
                constraint="primary key" if it.primary_key else "unique constraint",
            )
        elif it.db_index:
            name = editor._create_index_name(table, [it.column])
            yield Index(name=name, table=table, keys=_keys([it]))
        like = editor._create_like_index_sql(model, it)
        if like is not None:
            classes = like.parts["columns"].opclasses
            name = editor._create_index_name(table, [it.column], suffix="_like")
            yield Index(name=name, table=table, keys=_keys([it], operator_classes=classes))
        check = it.db_parameters(connection=connection)["check"]
        if check:
            yield Check(f"{table}_{it.column}_check", table, check)
        if it.remote_field and it.db_constraint:
            target = it.target_field
            name = editor._fk_constraint_name(model, it, "_fk_%(to_table)s_%(to_column)s")
            yield ForeignKey(
                name=str(name).strip('"'),
                table=table,
                columns=(it.column,),
                target=target.model._meta.db_table,
                target_columns=(target.column,),
                is_deferrable=True,
                is_deferred=True,
            )


def _columns(model: Any, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(model._meta.get_field(name).column for name in names)


def _keys(
    fields: Sequence[Any],
    *,
    descending: Sequence[bool] = (),
    operator_classes: Sequence[str] = (),
) -> tuple[Key, ...]:
    keys = []
    for place, column in enumerate(fields):
        is_descending = bool(descending) and descending[place]
        keys.append(
            Key(
                column=column.column,
                is_descending=is_descending,
                is_nulls_first=is_descending,
                operator_class=operator_classes[place] if operator_classes else None,
            )
        )
    return tuple(keys)


def _key_of(expression: Any, model: type[models.Model]) -> Key:
    """A key that is given by an expression, with whatever Django wraps it in."""
    if isinstance(expression, str):
        expression = models.F(expression)
    resolved: Any = expression.resolve_expression(Query(model, alias_cols=False))
    is_descending, nulls_first, operator_class, collation = False, None, None, None
    while (wrapper := type(resolved)) in _WRAPPERS:
        if wrapper is OrderBy:
            is_descending = resolved.descending
            if resolved.nulls_first or resolved.nulls_last:
                nulls_first = bool(resolved.nulls_first)
        elif wrapper is OpClass:
            operator_class = resolved.extra["name"]
        else:
            collation = resolved.collation
        (resolved,) = resolved.get_source_expressions()
    if collation is None and not isinstance(resolved, Col):
        # An expression takes the collation of the column in it.
        collation = next(
            (
                found
                for part in resolved.flatten()
                if isinstance(part, Col) and (found := getattr(part.target, "db_collation", None))
            ),
            None,
        )
    is_column = isinstance(resolved, Col)
    return Key(
        column=resolved.target.column if is_column else None,
        expression=None if is_column else _rendered(resolved, model),
        is_descending=is_descending,
        is_nulls_first=is_descending if nulls_first is None else nulls_first,
        operator_class=operator_class,
        collation=collation,
    )


def _sql(condition: Any, model: type[models.Model]) -> str:
    """A condition over a model's columns as SQL."""
    return _rendered(Query(model, alias_cols=False).build_where(condition), model)


def _rendered(expression: Any, model: type[models.Model]) -> str:
    """An expression as SQL with its values in it, quoted by Django, as in a migration."""
    compiler = Query(model, alias_cols=False).get_compiler(connection=connection)
    statement, parameters = compiler.compile(expression)
    editor: Any = connection.schema_editor(collect_sql=True)
    return str(statement % tuple(editor.quote_value(value) for value in parameters))
